//! What happened can be read.

use postrider_testing::{Receiver, Reply, TestServer};
use serde_json::json;

#[tokio::test]
async fn attempts_are_listed_by_message_and_by_endpoint_with_what_was_answered() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::Full(500, Vec::new(), "cannot now".into())]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({ "document": 42 })).await;
    let by_message = server.wait_for_attempts(&message, 1).await;
    let path = format!("/api/v1/app/{}/attempt/endpoint/{}", endpoint.app, endpoint.id);
    let by_endpoint = server.client().get(&path).await.items();
    assert_eq!(by_message.0, by_endpoint);
    let attempt = by_message.last();
    assert_eq!(attempt["url"], receiver.url());
    assert_eq!(attempt["response"], "cannot now");
    assert_eq!(attempt["responseStatusCode"], 500);
    assert_eq!(attempt["statusText"], "fail");
    assert_eq!(attempt["triggerType"], 0);
    assert_eq!(
        (attempt["msgId"].as_str(), attempt["endpointId"].as_str()),
        (Some(&*message.id), Some(&*endpoint.id))
    );
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_kept_without_it() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::Echo(500)]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let headers = json!({ "headers": { "X-Api-Key": "canary-0815-4711" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert!(receiver.requests()[0].header("x-api-key").is_some());
    let response = attempts.last()["response"].as_str().unwrap();
    assert!(response.contains("[redacted]") && !response.contains("canary-0815"), "{response}");
}

#[tokio::test]
async fn a_resend_is_one_manual_attempt_more() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let path = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", message.app, message.id, endpoint.id);
    server.client().post_empty(&path).await.expect(202);
    let requests = receiver.wait_for(2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    let attempts = server.wait_for_attempts(&message, 2).await;
    assert_eq!(attempts.last()["triggerType"], 1);
}
