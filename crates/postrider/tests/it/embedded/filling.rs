//! A disk without space: refused, paused, and on again without a restart.

use postrider_testing::{Receiver, Reply, TestServer, hours, seconds};
use serde_json::json;
use std::time::{Duration, Instant};

/// Pages of 8 KiB.
const PAGES: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(20);

async fn small() -> TestServer {
    TestServer::embedded(|config| {
        config.sqlite.max_pages = Some(PAGES);
        config.delivery.retention.messages_days = 1;
        config.delivery.retention.sweep_interval_secs = 1;
    })
    .await
}

/// Publishes to an application without endpoints until that is refused; most of it in a few large messages.
async fn fill(server: &TestServer) {
    let path = format!("{}/msg", server.app("nobody").await.path());
    for number in 0..500 {
        let length = if number < 6 { 500_000 } else { 50_000 };
        // Gone after an hour, and nothing else is.
        let payload = json!({ "filler": "x".repeat(length) });
        let body = json!({ "eventType": "invoice.paid", "payload": payload, "payloadRetentionHours": 1 });
        let answer = server.client().post(&path, body).await;
        if answer.status != 202 {
            assert!(number > 6, "there is less space than the test needs");
            assert_eq!(answer.expect(507)["code"], "storage_full");
            return;
        }
    }
    panic!("it never gets full");
}

/// DUR-7, R-FULL: nothing is accepted that cannot be kept, nothing sent that cannot be recorded, reading goes on; and
/// when space returns, so does the service.
#[tokio::test]
async fn a_full_disk_refuses_and_pauses_and_recovers_without_a_restart() {
    let server = small().await;
    let receiver = Receiver::start([503, 200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("invoice.paid", json!({ "id": 1 })).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    fill(&server).await;

    assert_eq!(server.attempts(&message).await.statuses(), [503], "reading works");
    let refused = server.client().patch(&endpoint.path(), json!({ "description": "x" })).await;
    assert_eq!(refused.status, 507, "{refused:?}");
    let health = server.client().get("/api/v1/health").await.expect(503);
    assert!(health.to_string().contains("cannot write"), "{health}");
    server.store.clock().advance(seconds(10));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.requests().len(), 1, "the retry is due, but could not be recorded");

    // Retention makes space.
    server.store.clock().advance(hours(25));
    let begun = Instant::now();
    while server.client().get("/api/v1/health").await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", server.client().get("/api/v1/health").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.wait_for_attempts(&message, 2).await.statuses(), [503, 200]);
    receiver.replies([200]);
    let later = server.send("invoice.paid", json!({ "id": 2 })).await;
    assert_eq!(server.wait_for_attempts(&later, 1).await.statuses(), [200]);
}

/// DUR-7: what was accepted before is intact after a restart with more space.
#[tokio::test]
async fn nothing_accepted_is_lost_by_a_full_disk() {
    let server = small().await;
    let receiver = Receiver::start([503]).await;
    server.endpoint(&server.default_app().await, &receiver.url()).await;
    let mut messages = Vec::new();
    for number in 0..10 {
        messages.push(server.send("invoice.paid", json!({ "number": number })).await);
    }
    server.clock.quiet().await;
    fill(&server).await;
    let server = server.restart_with(|config| config.sqlite.max_pages = None).await;
    receiver.replies([200]);
    server.clock.advance(seconds(10)).await;
    for message in &messages {
        assert_eq!(server.attempts(message).await.statuses(), [503, 200]);
    }
    server.client().get("/api/v1/health").await.expect(200);
}

/// RET-11: results that find no space wait for it; meanwhile nothing is sent again.
#[tokio::test]
async fn results_that_cannot_be_stored_yet_are_stored_later_and_nothing_is_sent_twice() {
    const IN_FLIGHT: usize = 10;
    let server = small().await;
    // Together more than what is left when a message of 50 kB does not fit any more.
    let answer = Reply::Full(200, Vec::new(), vec![b'r'; 20_000].into());
    let receiver = server.receiver([Reply::Later(Duration::from_millis(1500), Box::new(answer))]).await;
    let mut messages = Vec::new();
    for number in 0..IN_FLIGHT {
        messages.push(server.send("invoice.paid", json!({ "number": number })).await);
    }
    receiver.wait_for(IN_FLIGHT).await;
    fill(&server).await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    let mut stored = 0;
    for message in &messages {
        stored += server.attempts(message).await.len();
    }
    assert!(stored < IN_FLIGHT, "there was space for all of them");
    server.store.clock().advance(hours(2));
    for message in &messages {
        assert_eq!(server.wait_for_attempts(message, 1).await.statuses(), [200]);
    }
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), IN_FLIGHT);
}
