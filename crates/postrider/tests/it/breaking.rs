//! Circuit breakers: an endpoint in trouble is left alone, probed by one delivery, and served again with care.

use postrider_testing::{Endpoint, MessageRef, Receiver, Reply, TestServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a server does at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// Of a connection that broke, with jitter.
const FIRST_PAUSE: Duration = Duration::from_secs(11);

async fn send(server: &TestServer, count: usize) -> Vec<MessageRef> {
    let sends = (0..count).map(|number| server.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sends).await
}

async fn breaker(server: &TestServer, endpoint: &Endpoint) -> Value {
    server.client().get(&format!("{}/breaker", endpoint.path())).await.expect(200)
}

/// A server, an endpoint whose receiver breaks connections until its breaker is open, and the messages that wait.
async fn down(count: usize) -> (TestServer, Receiver, Endpoint, Vec<MessageRef>) {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::Drop]).await;
    // One attempt each: nothing but the breaker sends anything again.
    let members = json!({ "retrySchedule": [] });
    let endpoint = server.endpoint_with(&server.default_app().await, &receiver.url(), members).await;
    send(&server, 10).await;
    server.clock.quiet().await;
    assert_eq!(breaker(&server, &endpoint).await["state"], "open");
    let messages = send(&server, count).await;
    server.clock.quiet().await;
    (server, receiver, endpoint, messages)
}

/// E22, RET-12: what waits costs nothing, and one delivery asks whether the endpoint is well again.
#[tokio::test]
async fn an_endpoint_that_is_down_is_left_alone_and_probed_by_one_delivery_at_a_time() {
    let (server, receiver, endpoint, messages) = down(20).await;
    let tried = receiver.requests().len();
    assert!((5..=10).contains(&tried), "{tried}: five in a row open it, ten could be under way");
    let shown = breaker(&server, &endpoint).await;
    assert_eq!((&shown["trouble"], &shown["trips"]), (&json!("connect"), &json!(1)));
    assert!(shown["nextProbeAt"].as_str() > shown["openSince"].as_str(), "{shown}");

    for (probes, pause) in [(1, FIRST_PAUSE), (2, FIRST_PAUSE * 2), (3, FIRST_PAUSE * 4)] {
        server.clock.advance(pause).await;
        assert_eq!(receiver.requests().len(), tried + probes, "one each time, and twice as late");
        let shown = breaker(&server, &endpoint).await;
        assert_eq!((&shown["state"], &shown["trips"]), (&json!("open"), &json!(probes + 1)));
    }

    receiver.replies([200]);
    server.clock.advance(FIRST_PAUSE * 8).await;
    let last = receiver.requests().len();
    assert_eq!(last, 30, "everything arrives");
    let mut delivered = 0;
    for message in messages {
        let statuses = server.attempts(&message).await.statuses();
        assert_eq!(statuses.len(), 1, "no attempt was counted while it waited");
        delivered += usize::from(statuses == [200]);
    }
    assert!(delivered >= 17, "three were probes: {delivered}");
    let shown = breaker(&server, &endpoint).await;
    assert!(["recovering", "closed"].contains(&shown["state"].as_str().unwrap()), "{shown}");
    assert_eq!(shown["trouble"], Value::Null);
    let page = server.client().get("/metrics").await;
    let page = String::from_utf8_lossy(&page.bytes).into_owned();
    for line in [
        "postrider_breaker_trips_total{trouble=\"connect\"} 4",
        "postrider_breakers{state=\"open\"} 0",
        "postrider_breakers{state=\"half_open\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }
}

#[tokio::test]
async fn another_endpoint_of_the_same_application_does_not_notice() {
    let (server, _receiver, endpoint, _messages) = down(5).await;
    let healthy = server.receiver([200]).await;
    let begun = Instant::now();
    send(&server, 30).await;
    healthy.wait_for(30).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(breaker(&server, &endpoint).await["state"], "open");
}

#[tokio::test]
async fn a_resend_does_not_wait_for_the_pause_and_closes_the_breaker_when_it_goes_well() {
    let (server, receiver, endpoint, messages) = down(4).await;
    receiver.replies([200]);
    let tried = receiver.requests().len();
    let path = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", endpoint.app, messages[0].id, endpoint.id);
    let begun = Instant::now();
    server.client().post_empty(&path).await.expect(202);
    receiver.wait_for(tried + 4).await;
    server.clock.quiet().await;
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
    for message in messages {
        assert_eq!(server.attempts(&message).await.last()["responseStatusCode"], 200);
    }
    assert_eq!(breaker(&server, &endpoint).await["state"], "recovering");
}

#[tokio::test]
async fn a_test_send_does_not_wait_for_the_pause_either() {
    let (server, receiver, endpoint, _messages) = down(0).await;
    let path = format!("{}/msg/test-attempt", endpoint.path());
    let body = json!({ "eventType": "invoice.paid", "payload": {} });
    let failed = server.client().post(&path, body.clone()).await.expect(201);
    assert_eq!(failed["outcome"], "connect");
    assert_eq!(breaker(&server, &endpoint).await["trips"], 2, "it was the probe");
    receiver.replies([200]);
    let delivered = server.client().post(&path, body).await.expect(201);
    assert_eq!(delivered["outcome"], "succeeded");
    assert_eq!(breaker(&server, &endpoint).await["state"], "recovering");
}

#[tokio::test]
async fn a_change_of_the_endpoint_closes_its_breaker() {
    let (server, _receiver, endpoint, messages) = down(8).await;
    let elsewhere = Receiver::start([200]).await;
    let begun = Instant::now();
    server.client().patch(&endpoint.path(), json!({ "url": elsewhere.url() })).await.expect(200);
    elsewhere.wait_for(8).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    server.clock.quiet().await;
    assert_eq!(breaker(&server, &endpoint).await["state"], "closed");
    for message in messages {
        assert_eq!(server.attempts(&message).await.statuses(), [200]);
    }
}

/// ISO-10: many wait for an endpoint that is well again; it gets two at a time, then more.
#[tokio::test]
async fn an_endpoint_that_is_well_again_gets_a_few_deliveries_at_a_time() {
    let (server, receiver, _endpoint, _messages) = down(60).await;
    let tried = receiver.requests().len();
    let busy = Duration::from_millis(150);
    receiver.replies([Reply::Slow(busy, 200)]);
    server.store.clock().advance(FIRST_PAUSE);
    let requests = receiver.wait_for(tried + 20).await;
    let at: Vec<Instant> = requests[tried..].iter().map(|request| request.at).collect();
    assert!(at[1] - at[0] >= busy, "the probe goes alone");
    let together = |first: usize| {
        let (from, until) = (at[first], at[first] + busy * 2 / 3);
        at.iter().filter(|at| (from..until).contains(*at)).count()
    };
    assert!((1..=2).contains(&together(1)), "{}", together(1));
    assert!(together(3) <= 4, "{}", together(3));
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 70);
}

#[tokio::test]
async fn answers_that_fail_half_of_the_time_open_it_and_refused_messages_do_not() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let members = json!({ "retrySchedule": [] });
    let (failing, refusing) = (Receiver::start([500]).await, Receiver::start([422]).await);
    let fails = server.endpoint_with(&app, &failing.url(), members.clone()).await;
    let refuses = server.endpoint_with(&app, &refusing.url(), members).await;
    send(&server, 60).await;
    server.clock.quiet().await;
    assert_eq!(breaker(&server, &fails).await["trouble"], "failing");
    let tried = failing.requests().len();
    assert!((20..=30).contains(&tried), "{tried}");
    assert_eq!(refusing.requests().len(), 60);
    assert_eq!(breaker(&server, &refuses).await["state"], "closed");
}

/// A receiver that asks for a pause gets it.
#[tokio::test]
async fn retry_after_stretches_the_pause() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::with_header(429, "Retry-After", "120")]).await;
    let members = json!({ "retrySchedule": [] });
    let endpoint = server.endpoint_with(&server.default_app().await, &receiver.url(), members).await;
    send(&server, 40).await;
    server.clock.quiet().await;
    assert_eq!(breaker(&server, &endpoint).await["trouble"], "overloaded");
    let tried = receiver.requests().len();
    server.clock.advance(Duration::from_secs(115)).await;
    assert_eq!(receiver.requests().len(), tried);
    server.clock.advance(Duration::from_secs(20)).await;
    assert_eq!(receiver.requests().len(), tried + 1);
}

#[tokio::test]
async fn a_restart_forgets_the_breaker_and_loses_nothing() {
    let (server, receiver, endpoint, messages) = down(12).await;
    let tried = receiver.requests().len();
    receiver.replies([200]);
    let server = server.restart().await;
    receiver.wait_for(tried + 12).await;
    server.clock.quiet().await;
    assert_eq!(breaker(&server, &endpoint).await["state"], "closed");
    for message in messages {
        assert_eq!(server.attempts(&message).await.statuses(), [200]);
    }
}

#[tokio::test]
async fn a_message_that_fails_for_hours_opens_nothing() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Drop]).await;
    let message = server.send("invoice.paid", json!({})).await;
    let begun = server.clock.now();
    server.clock.advance(Duration::from_hours(48)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!((attempts.len(), receiver.requests().len()), (8, 8), "{begun:?}");
    let page = server.client().get("/metrics").await;
    assert!(!String::from_utf8_lossy(&page.bytes).contains("postrider_breaker_trips_total{"));
}
