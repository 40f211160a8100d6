//! Endpoints that get nothing for a while.

use postrider_testing::{Receiver, TestServer, minutes};
use serde_json::{Value, json};

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

/// E13, LIFE-2: 410 ends its own delivery; what else was waiting goes on when the endpoint is enabled again.
#[tokio::test]
async fn after_a_410_other_deliveries_are_held_and_the_refused_one_is_not_repeated() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503, 410]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let waiting = server.send("document.processed", json!({ "number": 1 })).await;
    assert_eq!(server.wait_for_attempts(&waiting, 1).await.statuses(), [503]);
    let refused = server.send("document.processed", json!({ "number": 2 })).await;
    assert_eq!(server.wait_for_attempts(&refused, 1).await.statuses(), [410]);
    server.clock.advance(minutes(30)).await;
    assert_eq!(receiver.requests().len(), 2);
    receiver.replies([200]);
    let enabled = server.client().patch(&endpoint.path(), json!({ "disabled": false })).await.expect(200);
    assert_eq!((&enabled["disabledReason"], &enabled["disabledAt"]), (&Value::Null, &Value::Null));
    server.clock.advance(minutes(30)).await;
    assert_eq!(server.attempts(&waiting).await.statuses(), [503, 200]);
    assert_eq!(server.attempts(&refused).await.statuses(), [410]);
}

/// LIFE-2 for what is asked for by hand: it waits too, and goes once when the endpoint is enabled.
#[tokio::test]
async fn a_resend_to_a_disabled_endpoint_waits_until_it_is_enabled() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    server.client().patch(&endpoint.path(), json!({ "disabled": true })).await.expect(200);
    let path = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", message.app, message.id, endpoint.id);
    server.client().post_empty(&path).await.expect(202);
    let body = json!({ "eventType": "document.processed", "payload": {} });
    let refused =
        server.client().post(&format!("{}/msg/test-attempt", endpoint.path()), body).await.expect(400);
    assert_eq!(refused["code"], "endpoint_disabled");
    server.clock.advance(minutes(10)).await;
    assert_eq!(receiver.requests().len(), 1);
    server.client().patch(&endpoint.path(), json!({ "disabled": false })).await.expect(200);
    server.clock.advance(minutes(1)).await;
    assert_eq!(receiver.requests().len(), 2);
}
