//! Requests byte for byte: what a receiver gets, and what the API does with what is not quite HTTP.

use crate::process::Process;
use postrider_testing::{Received, Receiver, TestServer};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Names in their order and spelling.
fn names(request: &Received) -> Vec<&str> {
    request.headers.iter().map(|(name, _)| name.as_str()).collect()
}

/// H12, H06, HTTP-8, HTTP-9: nothing that was not asked for, each field once, custom ones last and spelt as given.
#[tokio::test]
async fn a_delivery_has_these_header_fields_and_no_others() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url_with("/a/b?c=d&e=%7Ef")).await;
    let path = format!("{}/headers", endpoint.path());
    let own = json!({ "headers": { "x-LOUD-quiet": "1" } });
    server.client().put(&path, own).await.expect(204);
    // HTTP-8: nothing of ours can be given twice, so that no winner is needed.
    for name in ["User-Agent", "content-type", "HOST", "Webhook-Id", "svix-signature", "Content-Length"] {
        server.client().put(&path, json!({ "headers": { name: "x" } })).await.expect(422);
    }
    let message = server.send("document.processed", json!({ "document": 42 })).await;
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/a/b?c=d&e=%7Ef"));
    let lower: Vec<String> = names(&request).iter().map(|name| name.to_lowercase()).collect();
    for name in [
        "host",
        "user-agent",
        "content-type",
        "content-length",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "svix-id",
        "svix-timestamp",
        "svix-signature",
        "x-loud-quiet",
    ] {
        assert_eq!(lower.iter().filter(|own| *own == name).count(), 1, "{name} in {lower:?}");
    }
    for name in [
        "accept-encoding",
        "cookie",
        "transfer-encoding",
        "expect",
        "te",
        "via",
        "forwarded",
        "x-forwarded-for",
    ] {
        assert!(!lower.iter().any(|own| own == name), "{name} in {lower:?}");
    }
    assert!(names(&request).contains(&"x-LOUD-quiet"));
    assert_eq!(request.header("host"), Some(receiver.address().to_string().as_str()));
    assert_eq!(request.header("webhook-id"), Some(message.id.as_str()));
    assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
    assert!(request.header("user-agent").unwrap().starts_with("Postrider/"));
}

#[tokio::test]
async fn svix_headers_can_be_left_out() {
    let server = TestServer::with(|config| config.delivery.svix_headers = false).await;
    let receiver = server.receiver([200]).await;
    server.send("document.processed", json!({})).await;
    let request = receiver.wait_for(1).await.remove(0);
    assert!(!names(&request).iter().any(|name| name.to_lowercase().starts_with("svix-")), "{request:?}");
    assert!(request.header("webhook-signature").is_some());
}

/// HTTP-12: one connection serves many deliveries, and no endpoint opens more than it may have in flight.
#[tokio::test]
async fn deliveries_share_connections() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    for number in 0..30 {
        server.send("document.processed", json!({ "number": number })).await;
    }
    receiver.wait_for(30).await;
    assert!(
        receiver.connections() <= server.config.delivery.in_flight_per_endpoint,
        "{}",
        receiver.connections()
    );
}

async fn exchange(server: &TestServer, request: &[u8]) -> String {
    #[expect(clippy::disallowed_methods, reason = "the server under test")]
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // It may keep the connection open after a complete answer.
    let _ = tokio::time::timeout(Duration::from_millis(700), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// P09: what two parsers could read in two ways is refused, and the connection ends.
#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let receiver = server.receiver([200]).await;
    let body = r#"{"eventType":"a","payload":{}}"#;
    let length = body.len();
    let head = |fields: &str| {
        format!(
            "POST {}/msg HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n{fields}\r\n",
            app.path(),
            server.token()
        )
    };
    let cases = [
        format!("{}{body}", head(&format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length - 1))),
        format!("{}{body}", head(&format!("Content-Length: {length}\r\nTransfer-Encoding: xchunked\r\n"))),
        format!("{}{body}", head(&format!("Content-Length : {length}\r\n"))),
        format!("{}{body}", head(&format!("X-Folded: a\r\n b\r\nContent-Length: {length}\r\n"))),
        format!("{}{body}", head("Content-Length: -1\r\n")),
        format!("{}{body}", head("Content-Length: 1e3\r\n")),
        format!("{}zz\r\n{body}\r\n0\r\n\r\n", head("Transfer-Encoding: chunked\r\n")),
    ];
    let requests = cases.iter().map(|request| exchange(&server, request.as_bytes()));
    for (request, answer) in cases.iter().zip(futures_util::future::join_all(requests).await) {
        assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{request}\n{answer}");
        assert!(!answer.contains("msg_"), "{request}\n{answer}");
    }
    server.clock.quiet().await;
    assert!(receiver.requests().is_empty());
}

/// P12, P13: neither headers nor odd paths lead to another route.
#[tokio::test]
async fn odd_paths_and_overriding_headers_lead_nowhere_else() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let client = server.client();
    let overriding = client
        .with_header("x-http-method-override", "DELETE")
        .with_header("x-forwarded-host", "evil.example");
    overriding.get(&app.path()).await.expect(200);
    client.get(&app.path()).await.expect(200);
    for path in [
        "/api/v1/..%2fapp",
        "/api/v1/app/%00",
        "/api/v1/app/..;/app",
        "/api/v1/app/%2e%2e/app",
        "/api/v1//app%20",
    ] {
        let answer = client.get(path).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert!(answer.body.is_object(), "{path}: every refusal is JSON: {answer:?}");
    }
    let long = format!("/api/v1/app/{}", "a".repeat(8192));
    assert!((400..500).contains(&client.get(&long).await.status));
}

/// OPS-3, P17, HTTP-18: a line for each failed attempt with its ids and the origin; no path, and nothing that a name can
/// break out of.
#[tokio::test]
async fn a_failed_attempt_is_one_line_with_ids_and_without_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let receiver = Receiver::start([500]).await;
    let client = process.client();
    let name = "line\n{\"level\":\"ERROR\"}\u{1b}[31m${jndi:ldap://x}";
    client.post("/api/v1/app", json!({ "name": name, "uid": "a" })).await.expect(201);
    let endpoint = json!({ "url": receiver.url_with("/secret-path?token=hidden"), "description": name });
    let endpoint = client.post("/api/v1/app/a/endpoint", endpoint).await.expect(201);
    let body = json!({ "eventType": "x", "payload": {} });
    let message = client.post("/api/v1/app/a/msg", body).await.expect(202);
    receiver.wait_for(1).await;
    let mut lines = Vec::new();
    for _ in 0..100 {
        lines =
            process.log().lines().filter(|line| line.contains("attempt failed")).map(str::to_owned).collect();
        if !lines.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lines.len(), 1, "{}", process.log());
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["message.id"], &line["endpoint.id"]), (&message["id"], &endpoint["id"]), "{line}");
    assert_eq!(
        (&line["attempt.number"], &line["outcome"], &line["status"]),
        (&json!(1), &json!("http_error"), &json!(500))
    );
    let log = process.log();
    assert!(!log.contains("secret-path") && !log.contains("hidden"), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains("jndi"), "{log}");
}
