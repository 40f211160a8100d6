//! One endpoint's trouble stays its own: hanging, failing and backlogged endpoints beside healthy ones.

use postrider_testing::{App, Receiver, Reply, TestServer};
use serde_json::json;
use std::time::{Duration, Instant};

/// What a healthy endpoint may wait on a busy machine; a hanging one holds its places for two seconds.
const AT_ONCE: Duration = Duration::from_millis(1500);

async fn send(server: &TestServer, app: &App, count: usize) {
    for number in 0..count {
        server.send_to(app, "invoice.paid", json!({ "number": number })).await;
    }
}

/// ISO-2, ISO-8: attempts that wait hold nothing that the API or other endpoints need.
#[tokio::test]
async fn many_hanging_endpoints_hold_up_neither_the_api_nor_a_healthy_endpoint() {
    let server = TestServer::with(|config| config.delivery.in_flight_total = 400).await;
    let hanging = Receiver::start([Reply::Hang]).await;
    let bad = server.app("bad").await;
    for _ in 0..30 {
        server.endpoint(&bad, &hanging.url()).await;
    }
    send(&server, &bad, 5).await;
    hanging.wait_for(100).await;
    let healthy = server.receiver([200]).await;
    let begun = Instant::now();
    server.send("invoice.paid", json!({})).await;
    healthy.wait_for(1).await;
    server.client().get("/api/v1/app").await.expect(200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// ISO-3, ISO-5: a backlog does not stand in the way of what comes later for others.
#[tokio::test]
async fn a_backlog_of_one_endpoint_does_not_delay_the_first_delivery_of_another() {
    let server = TestServer::start().await;
    let slow = Receiver::start([Reply::Slow(Duration::from_millis(200), 200)]).await;
    let backlogged = server.app("backlogged").await;
    server.endpoint(&backlogged, &slow.url()).await;
    let quick = server.receiver([200]).await;
    send(&server, &backlogged, 300).await;
    let begun = Instant::now();
    server.send("invoice.paid", json!({})).await;
    quick.wait_for(1).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    slow.wait_for(300).await;
}

/// ISO-6.
#[tokio::test]
async fn a_failed_delivery_does_not_hold_up_later_ones_of_its_endpoint() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 200]).await;
    let failed = server.send("invoice.paid", json!({ "number": 1 })).await;
    assert_eq!(server.wait_for_attempts(&failed, 1).await.statuses(), [503]);
    let later = server.send("invoice.paid", json!({ "number": 2 })).await;
    assert_eq!(server.wait_for_attempts(&later, 1).await.statuses(), [200]);
    assert_eq!(receiver.requests().len(), 2, "the failed one waits for its retry");
}

/// ISO-1: one hangs, nine do not notice.
#[tokio::test]
async fn one_hanging_endpoint_delays_none_of_the_healthy_ones() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let hanging = Receiver::start([Reply::Hang]).await;
    server.endpoint(&app, &hanging.url()).await;
    let mut healthy = Vec::new();
    for _ in 0..9 {
        healthy.push(Receiver::start([200]).await);
        server.endpoint(&app, &healthy.last().unwrap().url()).await;
    }
    let begun = Instant::now();
    send(&server, &app, 20).await;
    for receiver in &healthy {
        receiver.wait_for(20).await;
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert!(!hanging.requests().is_empty());
}

/// ISO-3: hundreds of retries become due at once. (Of an endpoint that refuses each message for itself: one that says that
/// it fails would be left alone.)
#[tokio::test]
async fn due_retries_of_one_endpoint_do_not_delay_another() {
    let server = TestServer::start().await;
    let failing = Receiver::start([422]).await;
    let backlogged = server.app("backlogged").await;
    server.endpoint(&backlogged, &failing.url()).await;
    send(&server, &backlogged, 300).await;
    server.clock.quiet().await;
    let quick = server.receiver([200]).await;
    failing.replies([Reply::Slow(Duration::from_millis(100), 422)]);
    server.store.clock().advance(Duration::from_secs(10));
    failing.wait_for(305).await;
    let begun = Instant::now();
    server.send("invoice.paid", json!({})).await;
    quick.wait_for(1).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(failing.requests().len() < 600, "the retries still run");
}

/// SQL-1, ISO-12: publishers, readers and deliveries at once; nobody is told that the database is busy.
#[tokio::test]
async fn publishers_and_readers_at_once_are_all_served() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let app = server.default_app().await;
    let client = server.client();
    let body = json!({ "eventType": "invoice.paid", "payload": {} });
    let (publish, read) = (format!("{}/msg", app.path()), format!("{}/msg?limit=50", app.path()));
    let calls = (0..300).map(|number| {
        let (client, body, publish, read) = (&client, body.clone(), &publish, &read);
        async move {
            if number % 3 == 0 {
                client.get(read).await.status
            } else {
                client.post(publish, body).await.status
            }
        }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| [200, 202].contains(status)), "{statuses:?}");
    receiver.wait_for(200).await;
}

/// LIFE-9: of changes that meet, each succeeds or is told so.
#[tokio::test]
async fn changes_that_meet_are_conflicts_and_not_failures() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let endpoint = server.endpoint_with(&app, "https://example.com/", json!({ "uid": "one" })).await;
    server.endpoint_with(&app, "https://example.com/", json!({ "uid": "two" })).await;
    let client = server.client();
    let calls = (0..60).map(|number| {
        let (client, endpoint, app) = (&client, &endpoint, &app);
        async move {
            let url = "https://example.com/";
            match number % 4 {
                0 => client.patch(&endpoint.path(), json!({ "uid": "two" })).await.status,
                1 => {
                    client.patch(&endpoint.path(), json!({ "description": number.to_string() })).await.status
                }
                2 => {
                    client
                        .put(&format!("{}/endpoint/one", app.path()), json!({ "url": url, "uid": "one" }))
                        .await
                        .status
                }
                _ => {
                    let headers = json!({ "headers": { "X-Number": number.to_string() } });
                    client.put(&format!("{}/headers", endpoint.path()), headers).await.status
                }
            }
        }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| [200, 204, 409].contains(status)), "{statuses:?}");
    assert!(statuses.iter().step_by(4).all(|status| *status == 409), "the name of another: {statuses:?}");
}
