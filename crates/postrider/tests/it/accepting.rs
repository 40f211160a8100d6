//! Publishing: what is accepted, once, and what is refused.

use postrider_testing::TestServer;
use serde_json::json;

/// ING-3.
#[tokio::test]
async fn a_published_payload_arrives_byte_for_byte() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let payload = r#"{ "b":1,"a" : [1.10, 1e3, 12345678901234567890], "\u00e9": "é\/" }"#;
    let body = format!(r#"{{"eventType":"document.processed","payload":{payload}}}"#);
    let app = server.default_app().await;
    let answer = server.client().raw("POST", &format!("{}/msg", app.path()), Some(body.into_bytes())).await;
    let message = answer.expect(202);
    let received = receiver.wait_for(1).await;
    assert_eq!(String::from_utf8_lossy(&received[0].body), payload);
    assert_eq!(received[0].header("webhook-id"), message["id"].as_str());
    assert_eq!(received[0].header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_repeated_request_with_the_same_idempotency_key_is_one_message() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let app = server.default_app().await;
    let client = server.client().with_header("idempotency-key", "order-4711");
    let path = format!("{}/msg", app.path());
    let body = json!({ "eventType": "order.paid", "payload": { "order": 4711 } });
    let first = client.post(&path, body.clone()).await.expect(202);
    let second = client.post(&path, body).await.expect(202);
    assert_eq!(first["id"], second["id"]);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_message_to_an_unknown_application_is_not_accepted() {
    let server = TestServer::start().await;
    let body = json!({ "eventType": "x", "payload": {} });
    let refused = server.client().post("/api/v1/app/nobody/msg", body).await.expect(404);
    assert_eq!(refused["code"], "not_found");
}

#[tokio::test]
async fn an_accepted_message_survives_a_crash_before_its_delivery() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503]).await;
    let message = server.send("document.processed", json!({ "document": 42 })).await;
    receiver.wait_for(1).await;
    let server = server.crash().await;
    receiver.replies([200]);
    // Long enough for the second retry: the first one may have met the old script.
    server.clock.advance(postrider_testing::minutes(30)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.statuses().last(), Some(&200), "{attempts:?}");
}
