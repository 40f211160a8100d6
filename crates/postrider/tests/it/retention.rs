//! Old records go, and nothing that is pending.

use postrider_testing::{TestServer, days, hours};
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
