//! Old records go, and nothing that is pending.

use postrider_testing::{Receiver, TestServer, days, hours};
use serde_json::json;

#[tokio::test]
async fn a_finished_message_is_gone_after_its_days_and_not_before() {
    let server = TestServer::with(|config| config.delivery.retention.sweep_interval_secs = 1).await;
    let receiver = server.receiver([200]).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    let path = format!("/api/v1/app/{}/msg/{}", message.app, message.id);
    server.clock.advance(days(29)).await;
    server.client().get(&path).await.expect(200);
    server.clock.advance(days(2)).await;
    let mut status = 200;
    for _ in 0..200 {
        status = server.client().get(&path).await.status;
        if status == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_pending_delivery_keeps_its_message() {
    let server = TestServer::with(|config| {
        config.delivery.retention.sweep_interval_secs = 1;
        config.delivery.retention.messages_days = 1;
        config.delivery.retention.attempts_days = 1;
    })
    .await;
    let receiver = server.receiver([503]).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.advance(hours(50)).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let shown = server.client().get(&format!("/api/v1/app/{}/msg/{}", message.app, message.id)).await;
    assert_eq!(shown.status, 200);
    assert!(server.attempts(&message).await.len() > 5);
}

/// RTN-5, RTN-9: a payload that its publisher wanted gone is gone, the history stays, and sending it again says why not.
#[tokio::test]
async fn an_expired_payload_leaves_the_history_and_cannot_be_sent_again() {
    let server = TestServer::with(|config| config.delivery.retention.sweep_interval_secs = 1).await;
    let receiver = Receiver::start([200]).await;
    let app = server.default_app().await;
    let endpoint = server.endpoint(&app, &receiver.url()).await;
    let body =
        json!({ "eventType": "document.processed", "payload": { "private": 1 }, "payloadRetentionHours": 2 });
    let accepted = server.client().post(&format!("{}/msg", app.path()), body).await.expect(202);
    receiver.wait_for(1).await;
    let message = format!("{}/msg/{}", app.path(), accepted["id"].as_str().unwrap());
    let resend = format!("{message}/endpoint/{}/resend", endpoint.id);
    server.clock.advance(hours(1)).await;
    server.client().post_empty(&resend).await.expect(202);
    receiver.wait_for(2).await;
    server.clock.advance(hours(2)).await;
    // The sweep that is due comes in its own time.
    for _ in 0..1000 {
        if !server.client().get(&message).await.body.to_string().contains("private") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let refused = server.client().post_empty(&resend).await.expect(400);
    assert_eq!(refused["code"], "missing_payload");
    let shown = server.client().get(&message).await.expect(200);
    assert!(!shown.to_string().contains("private"), "{shown}");
    let path = format!("/api/v1/app/{}/attempt/endpoint/{}", endpoint.app, endpoint.id);
    assert_eq!(server.client().get(&path).await.items().len(), 2);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 2);
}

/// RTN-10: keys are forgotten too; then the same key makes another message.
#[tokio::test]
async fn an_idempotency_key_is_remembered_for_a_day() {
    let server = TestServer::start().await;
    let path = format!("{}/msg", server.default_app().await.path());
    let client = server.client().with_header("idempotency-key", "daily");
    let body = json!({ "eventType": "document.processed", "payload": {} });
    let first = client.post(&path, body.clone()).await.expect(202);
    server.clock.advance(hours(23)).await;
    assert_eq!(client.post(&path, body.clone()).await.expect(202)["id"], first["id"]);
    server.clock.advance(hours(2)).await;
    assert_ne!(client.post(&path, body).await.expect(202)["id"], first["id"]);
}

/// Everything that belonged to a message can be deleted at once, and what was to be delivered of it is cancelled.
#[tokio::test]
async fn an_expunged_message_is_not_delivered_any_more() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 200]).await;
    let message = server.send("document.processed", json!({ "private": 1 })).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let path = format!("/api/v1/app/{}/msg/{}", message.app, message.id);
    server.client().delete(&format!("{path}/content")).await.expect(204);
    server.clock.advance(hours(1)).await;
    assert_eq!(receiver.requests().len(), 1);
    assert!(!server.client().get(&path).await.expect(200).to_string().contains("private"));
}
