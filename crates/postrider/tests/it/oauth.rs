//! OAuth2 from end to end: what the token endpoint and the receiver see, and what the history tells.

use postrider_testing::{Endpoint, Receiver, Reply, TestServer, hours, minutes, seconds};
use serde_json::{Value, json};
use std::time::Duration;

fn token(value: &str) -> Reply {
    Reply::json(200, &json!({ "access_token": value, "token_type": "Bearer", "expires_in": 3600 }))
}

fn settings(tokens: &Receiver) -> Value {
    json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "postrider",
        "clientSecret": "first-secret", "tokenUrl": tokens.url_with("/token"),
    })
}

async fn put(server: &TestServer, endpoint: &Endpoint, settings: Value) {
    server.client().put(&format!("{}/oauth", endpoint.path()), settings).await.expect(204);
}

async fn guarded(server: &TestServer, receiver: &Receiver, tokens: &Receiver) -> Endpoint {
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    put(server, &endpoint, settings(tokens)).await;
    endpoint
}

/// What the receiver got as authorization, in order.
fn authorizations(receiver: &Receiver) -> Vec<String> {
    let header =
        |request: &postrider_testing::Received| request.header("authorization").unwrap_or("-").to_owned();
    receiver.requests().iter().map(header).collect()
}

/// O05, SEC-8: a slow token endpoint is asked once for all that wait.
#[tokio::test]
async fn fifty_deliveries_at_once_share_one_token_request() {
    let server = TestServer::with(|config| config.delivery.in_flight_per_endpoint = 50).await;
    let receiver = Receiver::start([200]).await;
    // A second request would get another token.
    let tokens = Receiver::start([token("shared"), token("another")]).await;
    guarded(&server, &receiver, &tokens).await;
    let sends = (0..50).map(|number| server.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sends).await;
    receiver.wait_for(50).await;
    assert!(authorizations(&receiver).iter().all(|value| value == "Bearer shared"));
    assert_eq!(tokens.requests().len(), 1);
}

/// O01: both parts are form-encoded before base64 (RFC 6749, section 2.3.1), as the token endpoint sees it.
#[tokio::test]
async fn client_id_and_secret_are_form_encoded_before_base64() {
    let server = TestServer::start().await;
    let (receiver, tokens) = (Receiver::start([200]).await, Receiver::start([token("t")]).await);
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let mut odd = settings(&tokens);
    odd["clientId"] = "a:b c".into();
    odd["clientSecret"] = "p%+:ü".into();
    odd["scopes"] = json!(["read", "write:all"]);
    odd["extraParams"] = json!({ "audience": "https://example.com/?a=b&c" });
    odd["extraHeaders"] = json!({ "X-Tenant": "acme" });
    put(&server, &endpoint, odd).await;
    server.send("invoice.paid", json!({})).await;
    let asked = tokens.wait_for(1).await.remove(0);
    // a%3Ab+c:p%25%2B%3A%C3%BC
    assert_eq!(asked.header("authorization"), Some("Basic YSUzQWIrYzpwJTI1JTJCJTNBJUMzJUJD"));
    let body = String::from_utf8(asked.body.to_vec()).unwrap();
    for part in [
        "grant_type=client_credentials",
        "scope=read+write%3Aall",
        "audience=https%3A%2F%2Fexample.com%2F%3Fa%3Db%26c",
    ] {
        assert!(body.split('&').any(|own| own == part), "{part} is missing in {body}");
    }
    assert!(!body.contains("secret"), "{body}");
    assert_eq!((asked.method.as_str(), asked.header("x-tenant")), ("POST", Some("acme")));
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn with_client_secret_post_id_and_secret_stand_in_the_form() {
    let server = TestServer::start().await;
    let (receiver, tokens) = (Receiver::start([200]).await, Receiver::start([token("t")]).await);
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let mut posted = settings(&tokens);
    posted["authMethod"] = "clientSecretPost".into();
    posted["clientSecret"] = "p&q=r".into();
    put(&server, &endpoint, posted).await;
    server.send("invoice.paid", json!({})).await;
    let asked = tokens.wait_for(1).await.remove(0);
    let body = String::from_utf8(asked.body.to_vec()).unwrap();
    for part in ["client_id=postrider", "client_secret=p%26q%3Dr"] {
        assert!(body.split('&').any(|own| own == part), "{part} is missing in {body}");
    }
    assert_eq!(asked.header("authorization"), None);
}

/// O08, SEC-8: one refresh and one resend, within the same attempt.
#[tokio::test]
async fn a_401_fetches_a_new_token_once_and_sends_again_in_the_same_attempt() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200, 401, 200]).await;
    let tokens = Receiver::start([token("one"), token("two")]).await;
    guarded(&server, &receiver, &tokens).await;
    let first = server.send("invoice.paid", json!({ "number": 1 })).await;
    assert_eq!(server.wait_for_attempts(&first, 1).await.statuses(), [200]);
    // A younger token is not replaced, and its age is real time.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    let second = server.send("invoice.paid", json!({ "number": 2 })).await;
    let attempts = server.wait_for_attempts(&second, 1).await;
    assert_eq!(attempts.outcomes(), ["succeeded"], "{attempts:?}");
    assert_eq!(authorizations(&receiver), ["Bearer one", "Bearer one", "Bearer two"]);
    assert_eq!(tokens.requests().len(), 2);
}

/// O08: a receiver that always answers 401 cannot make us hammer the token endpoint.
#[tokio::test]
async fn an_endpoint_that_always_answers_401_costs_few_tokens_and_says_so() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([401]).await;
    let tokens = Receiver::start([Reply::by(|_| token("refused"))]).await;
    guarded(&server, &receiver, &tokens).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(minutes(40)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.statuses(), [401; 4]);
    assert_eq!(attempts.outcomes()[0], "unauthorized", "{attempts:?}");
    assert!(tokens.requests().len() <= 2, "{} token requests", tokens.requests().len());
}

/// SEC-8, O12: visible, retried, and never sent without a token; the token endpoint's words are not kept.
#[tokio::test]
async fn while_there_is_no_token_attempts_fail_visibly_and_nothing_is_sent() {
    let server = TestServer::start().await;
    let refusal = json!({ "error": "invalid_client", "error_description": "secret was hunter2" });
    let down = Reply::with_header(503, "Retry-After", "0");
    let (receiver, tokens) = (
        Receiver::start([200]).await,
        Receiver::start([down, Reply::json(401, &refusal), Reply::Status(500)]).await,
    );
    let endpoint = guarded(&server, &receiver, &tokens).await;
    let message = server.send("invoice.paid", json!({})).await;
    assert_eq!(server.wait_for_attempts(&message, 1).await.outcomes(), ["token_unavailable"]);
    server.clock.advance(seconds(6)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.outcomes(), ["token_unavailable", "token_rejected"]);
    assert!(attempts.last()["detail"].as_str().unwrap().contains("invalid_client"), "{attempts:?}");
    assert!(receiver.requests().is_empty());

    let metrics = server.client().get("/metrics").await;
    let shown = attempts.0.iter().map(Value::to_string).collect::<String>()
        + &String::from_utf8_lossy(&metrics.bytes);
    assert!(!shown.contains("hunter2"), "{shown}");

    // Corrected settings count at once, whatever pause the old ones had earned.
    tokens.replies([token("at-last")]);
    let mut right = settings(&tokens);
    right["clientSecret"] = "second-secret".into();
    put(&server, &endpoint, right).await;
    server.clock.advance(hours(1)).await;
    assert_eq!(server.attempts(&message).await.outcomes().last().unwrap(), "succeeded");
    assert_eq!(authorizations(&receiver), ["Bearer at-last"]);
}

/// O07, SEC-9: the old token and the old secret are of no use from the answer on.
#[tokio::test]
async fn a_changed_secret_counts_from_the_next_delivery_on() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let tokens = Receiver::start([token("old"), token("new")]).await;
    let endpoint = guarded(&server, &receiver, &tokens).await;
    server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    let mut changed = settings(&tokens);
    changed["clientSecret"] = "second-secret".into();
    put(&server, &endpoint, changed).await;
    server.send("invoice.paid", json!({})).await;
    receiver.wait_for(2).await;
    assert_eq!(authorizations(&receiver), ["Bearer old", "Bearer new"]);
    let basic: Vec<_> =
        tokens.requests().iter().map(|asked| asked.header("authorization").unwrap().to_owned()).collect();
    assert_ne!(basic[0], basic[1]);
}

/// SEC-9: a token endpoint that hangs is its own endpoints' trouble.
#[tokio::test]
async fn a_hanging_token_endpoint_holds_up_no_other_endpoint() {
    let server = TestServer::start().await;
    let (guarded_receiver, tokens) = (Receiver::start([200]).await, Receiver::start([Reply::Hang]).await);
    guarded(&server, &guarded_receiver, &tokens).await;
    let open = server.receiver([200]).await;
    for number in 0..10 {
        server.send("invoice.paid", json!({ "number": number })).await;
    }
    let begun = std::time::Instant::now();
    open.wait_for(10).await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(guarded_receiver.requests().is_empty());
}

/// I07, SEC-9: the same token endpoint and client id, other applications: no token is shared.
#[tokio::test]
async fn tokens_are_not_shared_between_applications() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let tokens = Receiver::start([token("of-the-first"), token("of-the-second")]).await;
    let mut seen = Vec::new();
    for uid in ["first", "second"] {
        let app = server.app(uid).await;
        let endpoint = server.endpoint(&app, &receiver.url()).await;
        put(&server, &endpoint, settings(&tokens)).await;
        server.send_to(&app, "invoice.paid", json!({})).await;
        seen = receiver.wait_for(seen.len() + 1).await;
    }
    assert_eq!(authorizations(&receiver), ["Bearer of-the-first", "Bearer of-the-second"]);
}
