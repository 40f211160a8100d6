//! Both directions: who may call the API, and how deliveries authenticate with OAuth2.

use postrider_testing::{Endpoint, Receiver, Reply, TestServer, minutes};
use serde_json::json;
use std::time::Duration;

async fn with_oauth(server: &TestServer, receiver: &Receiver, tokens: &Receiver) -> Endpoint {
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let oauth = json!({
        "grantType": "clientCredentials",
        "authMethod": "clientSecretBasic",
        "clientId": "postrider",
        "clientSecret": "s3cret-canary-value",
        "tokenUrl": tokens.url_with("/token"),
    });
    server.client().put(&format!("{}/oauth", endpoint.path()), oauth).await.expect(204);
    endpoint
}

fn token(value: &str) -> Reply {
    Reply::json(200, &json!({ "access_token": value, "token_type": "Bearer", "expires_in": 3600 }))
}

#[tokio::test]
async fn deliveries_carry_an_access_token_that_is_fetched_once() {
    let server = TestServer::start().await;
    let (receiver, tokens) = (Receiver::start([200]).await, Receiver::start([token("t-one")]).await);
    with_oauth(&server, &receiver, &tokens).await;
    for number in 0..5 {
        server.send("document.processed", json!({ "number": number })).await;
    }
    for request in receiver.wait_for(5).await {
        assert_eq!(request.header("authorization"), Some("Bearer t-one"));
    }
    assert_eq!(tokens.requests().len(), 1);
    assert!(String::from_utf8_lossy(&tokens.requests()[0].body).contains("grant_type=client_credentials"));
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_attempt_says_why() {
    let server = TestServer::start().await;
    // The pause after a failure goes by real time: without one asked for, the next attempt would not ask again yet.
    let away = Reply::with_header(503, "Retry-After", "0");
    let (receiver, tokens) = (Receiver::start([200]).await, Receiver::start([away, token("t-two")]).await);
    with_oauth(&server, &receiver, &tokens).await;
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert_eq!(attempts.outcomes(), ["token_unavailable"]);
    assert!(receiver.requests().is_empty());
    server.clock.advance(minutes(10)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [0, 200]);
}

/// LIFE-2: a second request after a 401 begins as late as any other, so it is not sent to a disabled endpoint.
#[tokio::test]
async fn a_401_is_not_followed_by_a_second_request_once_the_endpoint_is_disabled() {
    let server = TestServer::start().await;
    let receiver =
        Receiver::start([Reply::Status(200), Reply::Slow(Duration::from_secs(1), 401), Reply::Status(200)])
            .await;
    let tokens = Receiver::start([token("t-one"), token("t-two")]).await;
    let endpoint = with_oauth(&server, &receiver, &tokens).await;
    let first = server.send("document.processed", json!({})).await;
    server.wait_for_attempts(&first, 1).await;
    // Younger tokens are not replaced, and their age is real time, which the test's clock does not move.
    tokio::time::sleep(Duration::from_millis(5200)).await;
    let second = server.send("document.processed", json!({})).await;
    receiver.wait_for(2).await;
    server.client().patch(&endpoint.path(), json!({ "disabled": true })).await.expect(200);
    assert_eq!(server.wait_for_attempts(&second, 1).await.statuses(), [401]);
    assert_eq!((receiver.requests().len(), tokens.requests().len()), (2, 2));
}

#[tokio::test]
async fn a_caller_without_a_valid_token_gets_401_and_nothing_else() {
    let server = TestServer::start().await;
    let client = server.client();
    let wrong = client.with_token("prk_000000000000000000000000000_nothing");
    for (client, what) in [(client.without_token(), "none"), (wrong, "wrong")] {
        let answer = client.get("/api/v1/app").await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.body["code"], "authentication_failed", "{what}");
    }
}

/// Ruling: `--dev` replaces its key at each start.
#[tokio::test]
async fn the_development_key_of_an_earlier_start_is_not_valid_any_more() {
    let server = TestServer::start().await;
    let earlier = server.token().to_owned();
    let server = server.restart().await;
    assert_eq!(server.client().with_token(&earlier).get("/api/v1/app").await.status, 401);
    assert_eq!(server.client().get("/api/v1/app").await.status, 200);
}
