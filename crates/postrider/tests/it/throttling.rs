//! Rate limits: `throttleRate` of endpoints and of applications, over first attempts and retries.

use postrider_model::time::Timestamp;
use postrider_testing::{Endpoint, MessageRef, Received, Receiver, TestServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

async fn send(server: &TestServer, count: usize) -> Vec<MessageRef> {
    let sends = (0..count).map(|number| server.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sends).await
}

async fn limited(server: &TestServer, receiver: &Receiver, members: Value) -> Endpoint {
    server.endpoint_with(&server.default_app().await, &receiver.url(), members).await
}

/// The most of these within any window of this length.
fn most_within(window: Duration, at: &[Timestamp]) -> usize {
    let within = |first: &Timestamp| at.iter().filter(|at| *at >= first && at.since(*first) < window).count();
    at.iter().map(within).max().unwrap_or(0)
}

/// From the first to the last.
fn spread(at: &[Timestamp]) -> Duration {
    at.iter().max().unwrap().since(*at.iter().min().unwrap())
}

fn arrivals(requests: &[Received]) -> Vec<Duration> {
    let first = requests.iter().map(|request| request.at).min().unwrap();
    requests.iter().map(|request| request.at - first).collect()
}

/// When the attempts of an endpoint began, by the server's clock.
async fn attempts_at(server: &TestServer, endpoint: &Endpoint) -> Vec<Timestamp> {
    let path = format!("/api/v1/app/{}/attempt/endpoint/{}?limit=250", endpoint.app, endpoint.id);
    let items = server.client().get(&path).await.items();
    items.iter().map(|item| Timestamp::parse(item["timestamp"].as_str().unwrap()).unwrap()).collect()
}

async fn status(server: &TestServer, endpoint: &Endpoint) -> Value {
    server.client().get(&format!("{}/rate-limit-status", endpoint.path())).await.expect(200)
}

/// ISO-7, RET-12: what is too much waits, and no attempt is counted for it.
#[tokio::test]
async fn an_endpoint_gets_no_more_than_its_rate_and_everything_arrives() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = limited(&server, &receiver, json!({ "throttleRate": 20 })).await;
    let messages = send(&server, 50).await;
    let arrived = arrivals(&receiver.wait_for(50).await);
    assert!(*arrived.iter().max().unwrap() <= Duration::from_secs(4), "not much slower: {arrived:?}");
    server.clock.quiet().await;
    let at = attempts_at(&server, &endpoint).await;
    assert!(spread(&at) >= Duration::from_millis(2_300), "fifty at twenty a second: {at:?}");
    // Twenty and one; an attempt begins up to a tenth of a second before its request is sent.
    assert!(most_within(Duration::from_millis(900), &at) <= 21, "{at:?}");
    for message in messages {
        assert_eq!(server.attempts(&message).await.statuses(), [200]);
    }
    assert_eq!(receiver.requests().len(), 50);
}

/// A limit is no brake: what it allows is sent.
#[tokio::test]
async fn a_high_rate_is_reached() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = limited(&server, &receiver, json!({ "throttleRate": 200 })).await;
    for _ in 0..10 {
        send(&server, 40).await;
    }
    receiver.wait_for(400).await;
    server.clock.quiet().await;
    let at = attempts_at(&server, &endpoint).await;
    // The last 250 of them.
    assert!(spread(&at) >= Duration::from_millis(1_100) && spread(&at) <= 3 * SECOND, "{:?}", spread(&at));
}

/// ISO-7: retries and first attempts together.
#[tokio::test]
async fn retries_and_first_attempts_share_the_rate() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503, 503, 503, 503, 503, 503, 200]).await;
    let members = json!({ "throttleRate": 2, "retrySchedule": [5, 5] });
    let endpoint = limited(&server, &receiver, members).await;
    let mut messages = send(&server, 6).await;
    server.clock.advance(Duration::from_secs(5)).await;
    messages.extend(send(&server, 6).await);
    server.clock.advance(Duration::from_secs(30)).await;
    let at = attempts_at(&server, &endpoint).await;
    assert_eq!(at.len(), 18, "six failed once");
    // An attempt begins up to a tenth of a second before its request is sent.
    assert!(most_within(Duration::from_millis(900), &at) <= 3, "{at:?}");
    assert!(most_within(Duration::from_secs(5), &at) <= 12);
    for message in &messages[..6] {
        assert_eq!(server.attempts(message).await.statuses(), [503, 200]);
    }
}

#[tokio::test]
async fn the_rate_of_an_application_holds_for_each_endpoint_that_has_none_of_its_own() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    server.client().patch(&app.path(), json!({ "throttleRate": 10 })).await.expect(200);
    let (slow, quick) = (Receiver::start([200]).await, Receiver::start([200]).await);
    let endpoint = limited(&server, &slow, json!({})).await;
    limited(&server, &quick, json!({ "throttleRate": 1000 })).await;
    let begun = Instant::now();
    send(&server, 16).await;
    quick.wait_for(16).await;
    assert!(begun.elapsed() < SECOND, "it has a rate of its own");
    slow.wait_for(16).await;
    server.clock.quiet().await;
    let at = attempts_at(&server, &endpoint).await;
    assert!(spread(&at) >= Duration::from_millis(1_300), "{at:?}");
    assert!(most_within(Duration::from_millis(900), &at) <= 11, "{at:?}");
}

#[tokio::test]
async fn a_new_rate_holds_at_once_and_so_does_none() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = limited(&server, &receiver, json!({ "throttleRate": 1 })).await;
    send(&server, 60).await;
    receiver.wait_for(1).await;
    let begun = Instant::now();
    server.client().patch(&endpoint.path(), json!({ "throttleRate": 50 })).await.expect(200);
    receiver.wait_for(20).await;
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    server.client().patch(&endpoint.path(), json!({ "throttleRate": null })).await.expect(200);
    let freed = Instant::now();
    receiver.wait_for(60).await;
    assert!(freed.elapsed() < SECOND, "{:?}", freed.elapsed());
}

#[tokio::test]
async fn the_rate_limit_says_whether_it_holds_anything_back() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = limited(&server, &receiver, json!({ "throttleRate": 1 })).await;
    assert_eq!(status(&server, &endpoint).await, json!({ "status": "Ok" }));
    send(&server, 4).await;
    receiver.wait_for(2).await;
    let limited = status(&server, &endpoint).await;
    assert_eq!(limited["status"], "RateLimited");
    assert!(Timestamp::parse(limited["throttledSince"].as_str().unwrap()).unwrap() <= server.clock.now());
    server.clock.advance(Duration::from_mins(1)).await;
    assert_eq!(receiver.requests().len(), 4);
    assert_eq!(status(&server, &endpoint).await, json!({ "status": "Ok" }));
    let path = format!("{}x/rate-limit-status", endpoint.path());
    server.client().get(&path).await.expect(404);
}

/// A rate limit is nobody else's: not of the other endpoints, not of the next process.
#[tokio::test]
async fn a_throttled_endpoint_holds_up_no_other_and_survives_a_restart() {
    let server = TestServer::start().await;
    let (throttled, free) = (Receiver::start([200]).await, Receiver::start([200]).await);
    limited(&server, &throttled, json!({ "throttleRate": 1 })).await;
    limited(&server, &free, json!({})).await;
    let begun = Instant::now();
    send(&server, 30).await;
    free.wait_for(30).await;
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    let server = server.restart().await;
    server.clock.advance(Duration::from_mins(1)).await;
    assert_eq!((throttled.requests().len(), free.requests().len()), (30, 30));
}
