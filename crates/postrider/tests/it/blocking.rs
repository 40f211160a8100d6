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

/// U01, U03, U04, U05, U14, U17 to U24, SSRF-4, SSRF-11: wherever a URL can be given, the same is refused, by the member
/// that holds it.
#[tokio::test]
async fn urls_that_may_not_be_called_are_refused_wherever_they_can_be_given() {
    let server = TestServer::strict(|_| {}).await;
    let app = server.default_app().await;
    let endpoint = server.endpoint(&app, "https://example.com/hook").await;
    let long = format!("https://example.com/{}", "a".repeat(2100));
    let urls = [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "https://user:pw@example.com/",
        "https://example.com@evil.example/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://[::ffff:169.254.169.254]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://db.internal/",
        "https://x.local/",
        "https://metadata.google.internal/",
        "https://example.com:22/",
        "https://example.com:6379/",
        "https://127.1.1.1:80\\@example.com/",
        "https:example.com",
        "https:///example.com",
        "https://example.com%00.evil.example/",
        "https://exa\tmple.com/",
        "https://\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}/",
        "https://example.org.xn--/",
        "https://[fe80::1%25eth0]/",
        "https://example.com/#fragment",
        &long,
    ];
    for url in urls {
        let oauth = json!({
            "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "c", "clientSecret": "s",
            "tokenUrl": url,
        });
        let body = json!({ "url": url });
        let answers = [
            (server.client().post(&format!("{}/endpoint", app.path()), body.clone()).await, "url"),
            (server.client().put(&endpoint.path(), body.clone()).await, "url"),
            (server.client().patch(&endpoint.path(), body).await, "url"),
            (server.client().put(&format!("{}/oauth", endpoint.path()), oauth).await, "tokenUrl"),
        ];
        for (answer, member) in answers {
            assert_eq!(answer.status, 422, "{url:?}: {answer:?}");
            assert_eq!(answer.body["detail"][0]["loc"], json!(["body", member]), "{url:?}: {answer:?}");
        }
    }
    let shown = server.client().get(&endpoint.path()).await.expect(200);
    assert_eq!(shown["url"], "https://example.com/hook", "nothing was changed");
}

/// SSRF-6, O03: a test send and a token request go through the same policy; the client's secret is not sent.
#[tokio::test]
async fn test_sends_and_token_requests_are_blocked_like_deliveries() {
    let dns = StubDns::default()
        .with("inside.example.com", &[&["10.0.0.1"]])
        .with("fine.example.com", &[&["93.184.215.14"]]);
    let server = TestServer::strict_with(dns, |_| {}).await;
    let app = server.default_app().await;
    let inside = server.endpoint(&app, "https://inside.example.com/hook").await;
    let guarded = server.endpoint(&app, "https://fine.example.com/hook").await;
    let oauth = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "c", "clientSecret": "s",
        "tokenUrl": "https://inside.example.com/token",
    });
    server.client().put(&format!("{}/oauth", guarded.path()), oauth).await.expect(204);
    let body = json!({ "eventType": "document.processed", "payload": {} });
    for (endpoint, outcome) in [(inside, "blocked"), (guarded, "token_unavailable")] {
        let path = format!("{}/msg/test-attempt", endpoint.path());
        let attempt = server.client().post(&path, body.clone()).await.expect(201);
        assert_eq!(attempt["outcome"], outcome, "{attempt}");
        assert!(attempt["detail"].as_str().unwrap().contains("inside.example.com"), "{attempt}");
    }
}

/// O03, U27, SSRF-3: neither a token request nor what it carries follows a redirect.
#[tokio::test]
async fn a_token_endpoint_that_redirects_gets_no_second_request() {
    let server = TestServer::start().await;
    let (receiver, elsewhere) = (Receiver::start([200]).await, Receiver::start([200]).await);
    let tokens = Receiver::start([Reply::redirect(307, &elsewhere.url())]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let oauth = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretPost", "clientId": "c", "clientSecret": "s",
        "tokenUrl": tokens.url_with("/token"),
    });
    server.client().put(&format!("{}/oauth", endpoint.path()), oauth).await.expect(204);
    let message = server.send("document.processed", json!({})).await;
    assert_eq!(server.wait_for_attempts(&message, 1).await.outcomes(), ["token_invalid"]);
    assert_eq!((elsewhere.requests().len(), receiver.requests().len()), (0, 0));
}

/// SSRF-8: what is blocked is shown with its reason, and retried: names can lead elsewhere later.
#[tokio::test]
async fn a_blocked_delivery_says_why() {
    let dns = StubDns::default().with("inside.example.com", &[&["10.0.0.1"]]);
    let server = TestServer::strict_with(dns, |_| {}).await;
    server.endpoint(&server.default_app().await, "https://inside.example.com/hook").await;
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    let attempt = attempts.last();
    assert!(attempt["detail"].as_str().unwrap().contains("private"), "{attempt}");
    assert!(!attempt["nextAttempt"].is_null(), "{attempt}");
}
