//! Endpoints that get nothing for a while.

use postrider_testing::{Receiver, TestServer, minutes};
use serde_json::json;

/// E13.
#[tokio::test]
async fn an_endpoint_that_answers_410_is_disabled_with_the_reason_shown() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([410]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let shown = server.client().get(&endpoint.path()).await.expect(200);
    assert_eq!(shown["disabled"], true, "{shown}");
    assert!(shown.to_string().contains("410"), "{shown}");
    server.send("document.processed", json!({})).await;
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn retries_of_a_disabled_endpoint_are_held_until_it_is_enabled_again() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503, 200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    server.client().patch(&endpoint.path(), json!({ "disabled": true })).await.expect(200);
    server.clock.advance(minutes(30)).await;
    assert_eq!(receiver.requests().len(), 1);
    server.client().patch(&endpoint.path(), json!({ "disabled": false })).await.expect(200);
    server.clock.advance(minutes(1)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [503, 200]);
}
