//! Who sees what: environments, applications, keys that may only publish.

use postrider_model::{
    access::{Caller, Scope},
    environment::EnvironmentId,
    id::ApplicationId,
};
use postrider_store::access::NewApiKey;
use postrider_testing::{App, Client, Receiver, StubDns, TestServer};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A client with a key of this environment and scope.
async fn key(server: &TestServer, environment: &str, scope: Scope) -> Client {
    let environment = EnvironmentId::parse(environment).unwrap();
    server.store.ensure_environment(&environment).await.unwrap();
    let caller = Caller { environment, scope };
    let new = NewApiKey { caller, name: "test".to_owned(), expires_at: None };
    let (_, token) = server.store.create_api_key(new).await.unwrap();
    server.client().with_token(token.expose_secret())
}

async fn of_app(server: &TestServer, app: &App) -> Client {
    let id = ApplicationId::parse(&app.id).unwrap();
    key(server, postrider::dev::ENVIRONMENT, Scope::Application { id, feature_flags: BTreeSet::new() }).await
}

/// TEN-1, I04: a customer's own key opens that customer's application and no other.
#[tokio::test]
async fn a_key_of_one_application_sees_its_application_alone() {
    let server = TestServer::start().await;
    let (own, other) = (server.app("own").await, server.app("other").await);
    let receiver = Receiver::start([200]).await;
    let mut endpoints = Vec::new();
    let mut messages = Vec::new();
    for app in [&own, &other] {
        endpoints.push(server.endpoint(app, &receiver.url()).await);
        messages.push(server.send_to(app, "invoice.paid", json!({ "of": app.id })).await);
    }
    receiver.wait_for(2).await;
    server.clock.quiet().await;
    let client = of_app(&server, &own).await;
    let paths = |index: usize| {
        let (app, endpoint, message) = (&messages[index].app, &endpoints[index], &messages[index].id);
        [
            format!("/api/v1/app/{app}"),
            format!("/api/v1/app/{app}/endpoint"),
            endpoint.path(),
            format!("{}/secret", endpoint.path()),
            format!("/api/v1/app/{app}/msg/{message}"),
            format!("/api/v1/app/{app}/msg/{message}/raw"),
            format!("/api/v1/app/{app}/attempt/msg/{message}"),
            format!("/api/v1/app/{app}/attempt/endpoint/{}", endpoint.id),
        ]
    };
    for (mine, theirs) in paths(0).iter().zip(paths(1)) {
        client.get(mine).await.expect(200);
        client.get(&theirs).await.expect(404);
    }
    let crossed = format!("/api/v1/app/{}/msg/{}", own.id, messages[1].id);
    client.get(&crossed).await.expect(404);
    // By uid as by id.
    client.get("/api/v1/app/other").await.expect(404);
    // I06.
    let resend = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", own.id, messages[0].id, endpoints[1].id);
    client.post_empty(&resend).await.expect(404);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 2);
}

/// U13, SSRF-8: who configures endpoints cannot map the operator's network by what deliveries report.
#[tokio::test]
async fn a_customer_cannot_tell_a_private_host_from_one_that_does_not_exist() {
    let dns = StubDns::default().with("inside.example.com", &[&["10.0.0.1"]]);
    let server = TestServer::strict_with(dns, |_| {}).await;
    let app = server.default_app().await;
    let mut endpoints = Vec::new();
    for name in ["inside", "nowhere"] {
        endpoints.push(server.endpoint(&app, &format!("https://{name}.example.com/hook")).await);
    }
    let message = server.send("invoice.paid", json!({})).await;
    let mut seen = server.wait_for_attempts(&message, 2).await.outcomes();
    seen.sort();
    assert_eq!(seen, ["blocked", "dns"], "the operator sees which");
    let path = format!("/api/v1/app/{}/attempt/msg/{}", message.app, message.id);
    let customer = of_app(&server, &app).await;
    let mut veiled = customer.get(&path).await.items();
    // A test send answers with the attempt itself.
    for endpoint in &endpoints {
        let body = json!({ "eventType": "invoice.paid", "payload": {} });
        veiled.push(customer.post(&format!("{}/msg/test-attempt", endpoint.path()), body).await.expect(201));
    }
    let told = |attempt: &Value| {
        let timings = attempt["timings"].as_object().unwrap().iter().filter(|(name, _)| *name != "totalMs");
        let timings: Vec<_> = timings.map(|(_, value)| value.clone()).collect();
        (attempt["outcome"].clone(), attempt["detail"].clone(), attempt["response"].clone(), timings)
    };
    assert!(veiled.iter().all(|attempt| told(attempt) == told(&veiled[0])), "{veiled:?}");
    assert_eq!(veiled[0]["outcome"], "host_not_deliverable");
    assert!(!veiled.iter().any(|attempt| attempt.to_string().contains("10.0.0.1")), "{veiled:?}");
}

/// TEN-2: names and keys that people choose may be the same elsewhere.
#[tokio::test]
async fn environments_share_no_name_no_key_and_no_delivery() {
    let server = TestServer::start().await;
    let mut ids = BTreeSet::new();
    for environment in ["org_first", "org_second"] {
        let client = key(&server, environment, Scope::Environment).await;
        let receiver = Receiver::start([200]).await;
        client.post("/api/v1/app", json!({ "name": "a", "uid": "same" })).await.expect(201);
        let endpoint = json!({ "url": receiver.url(), "uid": "same" });
        client.post("/api/v1/app/same/endpoint", endpoint).await.expect(201);
        let body =
            json!({ "eventType": "invoice.paid", "eventId": "same", "payload": { "of": environment } });
        let publisher = client.with_header("idempotency-key", "same");
        let accepted = publisher.post("/api/v1/app/same/msg", body).await.expect(202);
        let request = receiver.wait_for(1).await.remove(0);
        assert_eq!(request.json(), json!({ "of": environment }));
        assert_eq!(request.header("webhook-id"), accepted["id"].as_str());
        ids.insert(accepted["id"].to_string());
        assert_eq!(client.get("/api/v1/app").await.items().len(), 1);
    }
    assert_eq!(ids.len(), 2);
}

/// I05: what a publisher's machine holds cannot read what consumers keep secret.
#[tokio::test]
async fn a_key_for_publishing_publishes_and_reads_nothing() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let app = server.default_app().await;
    let client = key(&server, postrider::dev::ENVIRONMENT, Scope::Publish { application: None }).await;
    let body = json!({ "eventType": "invoice.paid", "payload": {} });
    client.post(&format!("{}/msg", app.path()), body).await.expect(202);
    receiver.wait_for(1).await;
    for path in [app.path(), format!("{}/endpoint", app.path()), format!("{}/msg", app.path())] {
        client.get(&path).await.expect(403);
    }
}

/// TEN-7.
#[tokio::test]
async fn without_dev_metrics_want_their_token() {
    let server = TestServer::strict(|_| {}).await;
    assert!(server.client().get("/metrics").await.status >= 400, "no token is configured: nobody may");
    let token = "metrics-token".to_owned();
    let server = server.restart_with(|config| config.api.metrics_token = Some(token.clone().into())).await;
    let client = server.client();
    for refused in [client.without_token(), client.clone(), client.with_token("metrics-tokem")] {
        assert_eq!(refused.get("/metrics").await.status, 401);
    }
    let page = client.with_token(&token).get("/metrics").await;
    assert_eq!(page.status, 200);
    assert!(String::from_utf8_lossy(&page.bytes).contains("postrider_deliveries_pending"));
}

/// P07: an idempotency key belongs to the environment, so that a new API key changes nothing.
#[tokio::test]
async fn an_idempotency_key_outlives_the_api_key_it_came_with() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let body = json!({ "eventType": "invoice.paid", "payload": {} });
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let client = key(&server, postrider::dev::ENVIRONMENT, Scope::Environment).await;
        let client = client.with_header("idempotency-key", "rotated");
        ids.insert(
            client.post(&format!("{}/msg", app.path()), body.clone()).await.expect(202)["id"].to_string(),
        );
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
}
