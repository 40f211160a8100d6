//! The client against hostile and ordinary receivers on loopback. The identifiers are those of the security reference.

use super::*;
use crate::testing::{OK, Receiver, dev, header, outbound, read_request, request_to, reset, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

async fn send_to(receiver: &Receiver) -> Exchange {
    send_over(&outbound(dev()), receiver).await
}

async fn send_over(outbound: &Outbound, receiver: &Receiver) -> Exchange {
    outbound.send(&request_to(&receiver.url()), within(5000)).await
}

async fn answer(bytes: impl Into<Vec<u8>>) -> Exchange {
    let receiver = Receiver::answering_once(bytes).await;
    outbound(dev()).send(&request_to(&receiver.url()), within(1000)).await
}

#[tokio::test]
async fn a_request_arrives_byte_for_byte_and_its_answer_comes_back() {
    let receiver = Receiver::answering(OK).await;
    let exchange = send_to(&receiver).await;
    assert_eq!((exchange.outcome, exchange.status), (Outcome::Succeeded, Some(200)), "{}", exchange.detail);
    assert_eq!((&exchange.body[..], exchange.truncated, exchange.sent), (&b"ok"[..], false, true));
    assert!(
        exchange.detail.is_empty()
            && exchange.phases.connect.is_some()
            && exchange.phases.first_byte.is_some()
    );
    let expected = format!(
        "POST /hook HTTP/1.1\r\nHost: {}\r\nwebhook-id: msg_1\r\nContent-Length: 7\r\n\r\n{{\"a\":1}}",
        receiver.address
    );
    assert_eq!(receiver.requests(), [expected]);
}

/// E01: a receiver that accepts and never reads.
#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let receiver = Receiver::scripted(|stream, _| async move {
        sleep(Duration::from_secs(20)).await;
        drop(stream);
    })
    .await;
    let started = Instant::now();
    let exchange = outbound(dev()).send(&request_to(&receiver.url()), within(300)).await;
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!((exchange.outcome, exchange.sent), (Outcome::Timeout, true));
    assert!(exchange.detail.contains("while waiting for the answer"), "{}", exchange.detail);
}

/// E02: every way to break a connection before the head is complete.
#[tokio::test]
async fn broken_connections_are_connection_failures() {
    for (case, part) in
        [("closed", ""), ("reset", ""), ("closed", "HTTP/1.1 200 OK\r\nCont"), ("reset", "HTTP/1.1 200")]
    {
        let receiver = Receiver::scripted(move |mut stream, _| async move {
            read_request(&mut stream).await;
            stream.write_all(part.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            if case == "reset" {
                reset(stream);
            }
        })
        .await;
        let exchange = send_to(&receiver).await;
        assert_eq!((exchange.outcome, exchange.status, exchange.sent), (Outcome::Connect, None, true));
        assert!(exchange.detail.contains(case) || !part.is_empty(), "{case}: {}", exchange.detail);
        assert_eq!(receiver.connections(), 1, "a first request is never repeated");
    }
    let at_once = Receiver::scripted(|stream, _| async move { reset(stream) }).await;
    assert_eq!(send_to(&at_once).await.outcome, Outcome::Connect);
}

#[tokio::test]
async fn a_refused_connection_says_so() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://127.0.0.1:{}/", receiver.address.port());
    drop(receiver);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exchange =
        outbound(dev()).send(&request_to(&format!("http://{free}/secret-path")), within(5000)).await;
    assert_eq!((exchange.outcome, exchange.sent), (Outcome::Connect, false));
    assert!(exchange.detail.contains("refused the connection"), "{}", exchange.detail);
    assert!(!exchange.detail.contains("secret-path"), "no paths in sentences: {}", exchange.detail);
    drop(url);
}

/// E03: a head that drips ends at the total deadline.
#[tokio::test]
async fn a_dripping_head_ends_at_the_deadline() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let exchange = outbound(dev()).send(&request_to(&receiver.url()), within(500)).await;
    assert_eq!(exchange.outcome, Outcome::Timeout);
    assert!(exchange.detail.contains("reading the head"), "{}", exchange.detail);
}

/// E04, E05, HTTP-2, HTTP-3: the status line decides; a dripping body costs 2 s and never the outcome.
#[tokio::test]
async fn a_dripping_body_ends_after_two_seconds_and_does_not_change_the_outcome() {
    let mut cases = tokio::task::JoinSet::new();
    for (status, outcome) in [(200, Outcome::Succeeded), (500, Outcome::HttpError)] {
        for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked", "X: y"] {
            cases.spawn(async move {
                let head = format!("HTTP/1.1 {status} X\r\n{framing}\r\n\r\n1\r\n");
                let receiver = Receiver::answering_once(head).await;
                let started = Instant::now();
                let exchange = send_to(&receiver).await;
                assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
                assert_eq!(
                    (exchange.outcome, exchange.status, exchange.truncated),
                    (outcome, Some(status), true)
                );
            });
        }
    }
    cases.join_all().await;
}

/// E04 with a deadline that ends during the body.
#[tokio::test]
async fn the_deadline_ends_a_body_too_and_the_success_stands() {
    let receiver = Receiver::answering_once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    let started = Instant::now();
    let exchange = outbound(dev()).send(&request_to(&receiver.url()), within(300)).await;
    assert!(started.elapsed() < Duration::from_millis(900));
    assert_eq!(
        (exchange.outcome, exchange.truncated, &exchange.body[..]),
        (Outcome::Succeeded, true, &b"abc"[..])
    );
}

/// E06, HTTP-1: endless bodies are read up to the cap and the connection is closed.
#[tokio::test]
async fn an_endless_body_is_cut_at_its_cap() {
    for (framing, piece) in [
        ("Content-Length: 10000000000", vec![b'a'; 4096]),
        ("Connection: close", vec![b'a'; 4096]),
        ("Transfer-Encoding: chunked", [b"1000\r\n".to_vec(), vec![b'a'; 4096], b"\r\n".to_vec()].concat()),
    ] {
        let receiver = Receiver::scripted(move |mut stream, _| {
            let piece = piece.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes()).await;
                while stream.write_all(&piece).await.is_ok() {}
            }
        })
        .await;
        let outbound = outbound(dev());
        let exchange = outbound.send(&request_to(&receiver.url()), within(5000)).await;
        assert_eq!((exchange.outcome, exchange.truncated), (Outcome::Succeeded, true));
        assert_eq!(exchange.body.len(), limits::RESPONSE_BODY_BYTES);
        assert!(exchange.body.iter().all(|byte| *byte == b'a'));
        assert_eq!(outbound.shared.pool.len(), 0);
    }
}

/// E06: lengths at the end of the number range and bad chunking do not undo a success.
#[tokio::test]
async fn impossible_lengths_and_bad_chunks_are_only_truncated() {
    let exchange = answer("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n").await;
    assert_eq!((exchange.outcome, exchange.truncated), (Outcome::Succeeded, true));
    for chunks in [
        "FFFFFFFFFFFFFFFF\r\nabc",
        "FFFFFFFFFFFFFFFFF\r\nabc",
        "xyz\r\n",
        "3\r\nabcd\r\n",
        "-1\r\n",
        "0x3\r\nabc\r\n",
    ] {
        let exchange = answer(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
        assert_eq!((exchange.outcome, exchange.truncated), (Outcome::Succeeded, true), "{chunks}");
    }
}

/// E08: interim answers end at eight.
#[tokio::test]
async fn endless_interim_answers_are_malformed_and_a_few_are_passed_over() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let ok = String::from_utf8_lossy(OK);
    assert_eq!(answer(format!("{}{ok}", interim.repeat(4))).await.outcome, Outcome::Succeeded);
    assert_eq!(answer(format!("{}{ok}", interim.repeat(5))).await.outcome, Outcome::ResponseMalformed);
}

/// E09, E15, HTTP-4, HTTP-6: a body is bytes; nothing decodes it.
#[tokio::test]
async fn a_compressed_or_binary_body_is_kept_as_it_is() {
    let body: Vec<u8> = [0x1f, 0x8b, 0x08, 0x00].into_iter().chain((0..=255).cycle().take(3000)).collect();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip, br\r\nContent-Length: {}\r\n\r\n", body.len());
    let exchange = answer([head.into_bytes(), body.clone()].concat()).await;
    assert_eq!((exchange.outcome, exchange.body), (Outcome::Succeeded, Bytes::from(body)));
}

/// E10: only a well-formed 200 to 299 succeeds.
#[tokio::test]
async fn only_a_well_formed_2xx_succeeds() {
    for (line, outcome) in [
        ("HTTP/1.1 200 OK", Outcome::Succeeded),
        ("HTTP/1.1 200", Outcome::Succeeded),
        ("HTTP/1.0 204 No Content", Outcome::Succeeded),
        ("HTTP/1.1 205 Reset", Outcome::Succeeded),
        ("HTTP/1.1 299 X", Outcome::Succeeded),
        ("HTTP/1.1 101 Switching Protocols", Outcome::ResponseMalformed),
        ("HTTP/1.1 304 Not Modified", Outcome::RedirectNotFollowed),
        ("HTTP/1.1 399 X", Outcome::RedirectNotFollowed),
        ("HTTP/1.1 400 X", Outcome::HttpError),
        ("HTTP/1.1 401 X", Outcome::HttpError),
        ("HTTP/1.1 599 X", Outcome::HttpError),
        ("HTTP/1.1 600 X", Outcome::ResponseMalformed),
        ("HTTP/1.1 099 X", Outcome::ResponseMalformed),
        ("HTTP/1.1 2000 X", Outcome::ResponseMalformed),
        ("HTTP/1.1 20 X", Outcome::ResponseMalformed),
        ("HTTP/1.1 -200 X", Outcome::ResponseMalformed),
        ("HTTP/0.9 200 OK", Outcome::ResponseMalformed),
        ("HTTP/1.2 200 OK", Outcome::ResponseMalformed),
        ("HTTP/2 200", Outcome::ResponseMalformed),
        ("ICY 200 OK", Outcome::ResponseMalformed),
        ("<html>hello</html>", Outcome::ResponseMalformed),
        ("PRI * HTTP/2.0", Outcome::ResponseMalformed),
        ("SSH-2.0-OpenSSH_9.6", Outcome::ResponseMalformed),
    ] {
        let exchange = answer(format!("{line}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(exchange.outcome, outcome, "{line}: {}", exchange.detail);
    }
}

/// E10: what is no HTTP is recognised at once, without waiting for the deadline.
#[tokio::test]
async fn another_protocol_is_recognised_by_its_first_bytes() {
    let started = Instant::now();
    assert_eq!(answer("220 mail.example.com ESMTP\r\n").await.outcome, Outcome::ResponseMalformed);
    assert!(started.elapsed() < Duration::from_millis(900));
}

/// E11, HTTP-5, RET-10: oversized and invalid heads are not read, and turn no success into a retry.
#[tokio::test]
async fn the_status_line_decides_also_before_a_head_that_cannot_be_read() {
    let long = format!("X: {}", "a".repeat(1024 * 1024));
    let many = "A: b\r\n".repeat(1000);
    for field in [
        many.as_str(),
        &long,
        "X\0Y: 1",
        "X: a\0b",
        "X Y: 1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Content-Length: +5",
        "Content-Length:",
        "no colon here",
    ] {
        let shown: String = field.chars().take(40).collect();
        let taken = answer(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nbody")).await;
        assert_eq!(taken.outcome, Outcome::Succeeded, "{shown}: {}", taken.detail);
        assert!(taken.truncated && taken.body.is_empty(), "{shown}: nothing more is read");
        let failed = answer(format!("HTTP/1.1 503 Busy\r\n{field}\r\n\r\n")).await;
        assert_eq!((failed.outcome, failed.status), (Outcome::HttpError, Some(503)), "{shown}");
    }
    let harmless = answer(b"HTTP/1.1 200 \xfc\r\nX: \xfc\xff\r\nContent-Length: 0, 0\r\n\r\n").await;
    assert_eq!(harmless.outcome, Outcome::Succeeded, "{}", harmless.detail);
}

/// E12: `Retry-After` is handed on as it came, and a long one not at all.
#[tokio::test]
async fn retry_after_is_handed_on_unread() {
    for value in ["inf", "-1", "99999999999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "1.5"] {
        let exchange =
            answer(format!("HTTP/1.1 503 X\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(
            (exchange.outcome, exchange.retry_after.as_deref()),
            (Outcome::HttpError, Some(value.as_bytes()))
        );
    }
    let long = format!("HTTP/1.1 503 X\r\nRetry-After: {}\r\nContent-Length: 0\r\n\r\n", "1".repeat(10_000));
    assert_eq!(answer(long).await.retry_after, None);
}

/// U27, E14, SSRF-3: a redirect is an outcome; nothing goes to its target.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Receiver::answering(OK).await;
    for status in [300, 301, 302, 303, 307, 308] {
        let location =
            format!("HTTP/1.1 {status} X\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", target.url());
        let exchange = answer(location).await;
        assert_eq!((exchange.outcome, exchange.status), (Outcome::RedirectNotFollowed, Some(status)));
        assert!(!exchange.detail.contains(&target.address.to_string()), "{}", exchange.detail);
    }
    assert_eq!(target.connections(), 0);
}

/// E19: a success after the deadline is a timeout.
#[tokio::test]
async fn a_late_success_is_a_timeout() {
    let receiver = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        sleep(Duration::from_millis(400)).await;
        let _ = stream.write_all(OK).await;
    })
    .await;
    let outbound = outbound(dev());
    assert_eq!(outbound.send(&request_to(&receiver.url()), within(200)).await.outcome, Outcome::Timeout);
    assert_eq!(outbound.send(&request_to(&receiver.url()), within(800)).await.outcome, Outcome::Succeeded);
}

/// E20: a receiver that does not take the body.
#[tokio::test]
async fn a_receiver_that_reads_nothing_of_a_large_body_is_a_timeout() {
    let receiver = Receiver::scripted(|stream, _| async move {
        sleep(Duration::from_secs(20)).await;
        drop(stream);
    })
    .await;
    let mut request = request_to(&receiver.url());
    request.body = vec![b'x'; 16 * 1024 * 1024].into();
    let exchange = outbound(dev()).send(&request, within(500)).await;
    assert_eq!((exchange.outcome, exchange.sent), (Outcome::Timeout, true));
    assert!(exchange.detail.contains("sending the request"), "{}", exchange.detail);
}

/// HTTP-5: an answer before the body was read, with and without a reset after it.
#[tokio::test]
async fn an_early_answer_is_heard_while_the_body_is_still_being_written() {
    for with_reset in [false, true] {
        let receiver = Receiver::scripted(move |mut stream, _| async move {
            let mut start = [0; 100];
            stream.read_exact(&mut start).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
            sleep(Duration::from_millis(200)).await;
            if with_reset {
                reset(stream);
            } else {
                sleep(Duration::from_secs(10)).await;
            }
        })
        .await;
        let mut request = request_to(&receiver.url());
        request.body = vec![b'x'; 16 * 1024 * 1024].into();
        let outbound = outbound(dev());
        let exchange = outbound.send(&request, within(5000)).await;
        assert_eq!((exchange.status, &exchange.body[..]), (Some(413), &b"big"[..]), "{}", exchange.detail);
        assert_eq!(outbound.shared.pool.len(), 0, "half a request was written");
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let receiver = Receiver::answering(OK).await;
    let mut request = request_to(&receiver.url());
    request.body = vec![b'x'; 4 * 1024 * 1024].into();
    let outbound = outbound(dev());
    assert_eq!(outbound.send(&request, within(10_000)).await.outcome, Outcome::Succeeded);
    assert!(receiver.requests()[0].ends_with(&"x".repeat(4 * 1024 * 1024)));
    assert_eq!(outbound.shared.pool.len(), 1);
}

/// HTTP-7: a stored header that must not be sent fails the attempt without a connection.
#[tokio::test]
async fn a_header_with_a_line_break_is_not_sent() {
    let receiver = Receiver::answering(OK).await;
    let mut request = request_to(&receiver.url());
    request.headers.push(header("X-A", "1\r\nX-B: 2"));
    let exchange = outbound(dev()).send(&request, within(1000)).await;
    assert_eq!((exchange.outcome, exchange.sent, receiver.connections()), (Outcome::ConfigInvalid, false, 0));
}

/// E07, in small: a crowd of receivers that drip for ever costs each its own time and no one else's.
#[tokio::test]
async fn a_crowd_of_dripping_receivers_holds_nobody_up() {
    let dripping =
        Receiver::answering_once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n").await;
    let silent = Receiver::scripted(|stream, _| async move {
        sleep(Duration::from_secs(20)).await;
        drop(stream);
    })
    .await;
    let healthy = Receiver::answering(OK).await;
    let outbound = outbound(dev());
    let started = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..600 {
        let outbound = outbound.clone();
        let request = request_to(&if number % 2 == 0 { dripping.url() } else { silent.url() });
        crowd.spawn(async move { outbound.send(&request, within(3000)).await.outcome });
    }
    while dripping.connections() + silent.connections() < 600 {
        sleep(Duration::from_millis(5)).await;
    }
    let asked = Instant::now();
    assert_eq!(send_over(&outbound, &healthy).await.outcome, Outcome::Succeeded);
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    let outcomes = crowd.join_all().await;
    assert!(started.elapsed() < Duration::from_millis(4500), "{:?}", started.elapsed());
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!((count(Outcome::Succeeded), count(Outcome::Timeout)), (300, 300));
    assert_eq!(outbound.shared.pool.len(), 1, "only the healthy connection is kept");
}
