//! Where deliveries may not go.

use postrider_testing::{Receiver, Reply, StubDns, TestServer};
use serde_json::json;

#[tokio::test]
async fn without_dev_only_https_to_public_names_can_be_configured() {
    let server = TestServer::strict(|_| {}).await;
    let app = server.default_app().await;
    for url in [
        "http://example.com/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://10.0.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/hook",
        "https://intranet/hook",
    ] {
        let answer = server.client().post(&format!("{}/endpoint", app.path()), json!({ "url": url })).await;
        assert_eq!(answer.status, 422, "{url}");
        assert_eq!(answer.body["detail"][0]["loc"], json!(["body", "url"]), "{url}: {}", answer.body);
    }
    let fine = json!({ "url": "https://example.com/hook" });
    server.client().post(&format!("{}/endpoint", app.path()), fine).await.expect(201);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = TestServer::start().await;
    let elsewhere = Receiver::start([200]).await;
    let receiver = server.receiver([Reply::redirect(307, &elsewhere.url())]).await;
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert_eq!(attempts.statuses(), [307]);
    assert_eq!(attempts.outcomes(), ["redirect_not_followed"]);
    assert_eq!((receiver.requests().len(), elsewhere.requests().len()), (1, 0));
}

#[tokio::test]
async fn deliveries_never_go_to_the_server_itself() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    server.endpoint(&app, &format!("{}/api/v1/health", server.url())).await;
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert_eq!(attempts.outcomes(), ["blocked"]);
    assert_eq!(attempts.statuses(), [0]);
}

/// SSRF-1: the name was public when it was configured, and leads inside when it is delivered to.
#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_blocked_when_it_is_dialled() {
    let dns = StubDns::default()
        .with("inside.example.com", &[&["10.0.0.1"]])
        .with("mixed.example.com", &[&["93.184.215.14", "127.0.0.1"]])
        .with("metadata.example.com", &[&["169.254.169.254"]]);
    let server = TestServer::strict_with(dns, |_| {}).await;
    let app = server.default_app().await;
    for name in ["inside", "mixed", "metadata"] {
        server.endpoint(&app, &format!("https://{name}.example.com/hook")).await;
    }
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 3).await;
    assert_eq!(attempts.outcomes(), ["blocked", "blocked", "blocked"]);
}
