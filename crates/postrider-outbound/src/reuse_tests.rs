//! Connections that serve several requests: for whom, for how long, and when never again.

use super::*;
use crate::testing::{OK, Receiver, application, dev, outbound, read_request, request_to, reset, within};
use tokio::{io::AsyncWriteExt, time::sleep};

/// HTTP-12: one connection serves requests one after the other; the phases of a reused one are not made up.
#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::answering(OK).await;
    let outbound = outbound(dev());
    for number in 0..20 {
        let exchange = outbound.send(&request_to(&receiver.url()), within(5000)).await;
        assert_eq!(exchange.outcome, Outcome::Succeeded);
        assert_eq!(exchange.phases.connect.is_some(), number == 0);
    }
    assert_eq!(receiver.connections(), 1);
}

/// HTTP-12: more parallel requests leave no more idle connections than allowed.
#[tokio::test]
async fn idle_connections_are_bounded() {
    let receiver = Receiver::answering(OK).await;
    let config = Config { idle_connections_per_origin: 4, idle_connections_total: 6, ..dev() };
    let outbound = outbound(config);
    for number in 1..=3 {
        let mut sends = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let (outbound, mut request) = (outbound.clone(), request_to(&receiver.url()));
            request.application = application(number);
            sends.spawn(async move { outbound.send(&request, within(5000)).await.outcome });
        }
        assert!(sends.join_all().await.iter().all(|outcome| *outcome == Outcome::Succeeded));
    }
    assert!(outbound.shared.pool.len() <= 6, "{}", outbound.shared.pool.len());
}

/// Whoever fills the pool keeps nobody else out; the connection that waited longest makes room.
#[tokio::test]
async fn a_full_pool_makes_room_for_the_newest_connection() {
    let receiver = Receiver::answering(OK).await;
    let outbound = outbound(Config { idle_connections_total: 2, ..dev() });
    let send = async |number| {
        let mut request = request_to(&receiver.url());
        request.application = application(number);
        outbound.send(&request, within(5000)).await.phases.connect.is_some()
    };
    for number in 1..=3 {
        assert!(send(number).await, "{number} connects");
    }
    assert_eq!(outbound.shared.pool.len(), 2);
    assert!(!send(3).await && !send(2).await, "the newest two are kept");
    assert!(send(1).await, "the oldest is gone");
}

/// Connections belong to one application of one environment.
#[tokio::test]
async fn two_applications_never_share_a_connection() {
    let receiver = Receiver::answering(OK).await;
    let outbound = outbound(dev());
    let mut other_application = request_to(&receiver.url());
    other_application.application = application(2);
    let mut other_environment = request_to(&receiver.url());
    other_environment.environment = EnvironmentId::parse("org_2").unwrap();
    for request in [request_to(&receiver.url()), other_application, other_environment] {
        assert_eq!(outbound.send(&request, within(5000)).await.outcome, Outcome::Succeeded);
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let receiver = Receiver::answering(OK).await;
    let outbound = outbound(Config { idle_connection_secs: 0, ..dev() });
    for _ in 0..2 {
        assert_eq!(
            outbound.send(&request_to(&receiver.url()), within(5000)).await.outcome,
            Outcome::Succeeded
        );
    }
    assert_eq!((receiver.connections(), outbound.shared.pool.len()), (2, 0));
}

/// HTTP-10: a receiver that closes idle connections causes no failed attempt.
#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let outbound = outbound(dev());
    for _ in 0..5 {
        assert_eq!(
            outbound.send(&request_to(&receiver.url()), within(5000)).await.outcome,
            Outcome::Succeeded
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(receiver.connections(), 5);
}

/// HTTP-10: the same when the close crosses the next request on its way.
#[tokio::test]
async fn a_close_that_crosses_the_request_is_repeated_once_on_a_new_connection() {
    for with_reset in [false, true] {
        let receiver = Receiver::scripted(move |mut stream, number| async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            read_request(&mut stream).await;
            if number == 0 && with_reset {
                reset(stream);
            }
        })
        .await;
        let outbound = outbound(dev());
        for _ in 0..2 {
            let exchange = outbound.send(&request_to(&receiver.url()), within(5000)).await;
            assert_eq!(exchange.outcome, Outcome::Succeeded, "{}", exchange.detail);
        }
        assert_eq!(receiver.connections(), 2);
    }
}

/// E18: bytes that nobody asked for end the connection; the next request gets its own answer.
#[tokio::test]
async fn an_unsolicited_second_answer_is_not_taken_for_the_next_one() {
    for pause in [0, 50] {
        let receiver = Receiver::scripted(move |mut stream, number| async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            if number == 0 {
                sleep(Duration::from_millis(pause)).await;
                stream.write_all(b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
            read_request(&mut stream).await;
        })
        .await;
        let outbound = outbound(dev());
        outbound.send(&request_to(&receiver.url()), within(5000)).await;
        sleep(Duration::from_millis(100)).await;
        let exchange = outbound.send(&request_to(&receiver.url()), within(5000)).await;
        assert_eq!(exchange.status, Some(200));
        assert_eq!(receiver.connections(), 2);
    }
}

/// E18: what can hide a second answer keeps its connection from being used again.
#[tokio::test]
async fn ambiguous_answers_end_their_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
    ] {
        let receiver = Receiver::answering_once(head).await;
        let outbound = outbound(dev());
        let exchange = outbound.send(&request_to(&receiver.url()), within(1000)).await;
        assert_eq!(exchange.outcome, Outcome::Succeeded, "{head}");
        assert_eq!(outbound.shared.pool.len(), 0, "{head}");
    }
}
