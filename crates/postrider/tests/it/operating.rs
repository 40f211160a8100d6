//! Running the server: start, stop, keys, health, metrics, the tour.

use crate::process::{Process, run};
use postrider_testing::{Client, Receiver, Reply, TestServer};
use serde_json::{Value, json};
use std::time::Duration;

/// OPS-5: what a newcomer pastes works, and works again.
#[tokio::test]
async fn the_lines_that_dev_prints_work_when_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let text = process.log();
    assert!(text.contains(&format!("export POSTRIDER_TOKEN={}", process.token)), "{text}");
    let receiver = text.split("\"url\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    for _ in 0..2 {
        for step in postrider::dev::steps(receiver) {
            let answer = process.client().call(step.method, step.path, step.body).await;
            assert!((200..300).contains(&answer.status), "{answer:?}");
        }
    }
    let path = "/api/v1/app/acme/attempt/endpoint/acme-main";
    for _ in 0..100 {
        let attempts = process.client().get(path).await.items();
        if attempts.len() == 2 && attempts.iter().all(|attempt| attempt["statusText"] == "success") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not delivered: {:?}", process.client().get(path).await);
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::dev(folder.path());
    let receiver = Receiver::start([Reply::Slow(Duration::from_secs(1), 200)]).await;
    let client = process.client();
    client.post("/api/v1/app", json!({ "name": "a", "uid": "a" })).await.expect(201);
    client.post("/api/v1/app/a/endpoint", json!({ "url": receiver.url() })).await.expect(201);
    client.post("/api/v1/app/a/msg", json!({ "eventType": "x", "payload": {} })).await.expect(202);
    receiver.wait_for(1).await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    // The attempt was recorded before the end: nothing is sent again.
    let process = Process::dev(folder.path());
    let page = process.client().get("/api/v1/app/a/msg").await.items();
    let path = format!("/api/v1/app/a/attempt/msg/{}", page[0]["id"].as_str().unwrap());
    assert_eq!(process.client().get(&path).await.items().len(), 1);
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::dev(folder.path());
    let receiver = Receiver::start([Reply::Hang]).await;
    let client = process.client();
    client.post("/api/v1/app", json!({ "name": "a", "uid": "a" })).await.expect(201);
    client.post("/api/v1/app/a/endpoint", json!({ "url": receiver.url() })).await.expect(201);
    client.post("/api/v1/app/a/msg", json!({ "eventType": "x", "payload": {} })).await.expect(202);
    receiver.wait_for(1).await;
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = std::time::Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(1), "{}", process.log());
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}

/// CLM-9.
#[tokio::test]
async fn a_second_server_on_the_same_data_directory_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let said = run(folder.path(), &["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", "data"], &[]);
    assert_eq!(said.code, Some(1), "it may work in a moment: {said:?}");
    assert!(said.errors.contains("in use by another server"), "{said:?}");
    process.client().get("/api/v1/app").await.expect(200);
}

#[tokio::test]
async fn api_keys_are_made_and_revoked_while_the_server_runs_and_when_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let key = |arguments: &[&str]| {
        let mut all = vec!["api-key"];
        all.extend(arguments);
        all.extend(["--data-dir", "data"]);
        run(folder.path(), &all, &[])
    };
    let process = Process::dev(folder.path());
    let said = key(&["create", "--name", "ci"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let token = said.output.lines().next().unwrap().to_owned();
    let client = process.client().with_token(&token);
    client.get("/api/v1/app").await.expect(200);
    let id = said.output.split_whitespace().find(|word| word.starts_with("key_")).unwrap().to_owned();
    assert!(key(&["list"]).output.contains(&id));
    assert_eq!(key(&["revoke", &id]).code, Some(0));
    assert_eq!(client.get("/api/v1/app").await.status, 401);

    drop(process);
    let said = key(&["create", "--name", "offline"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let process = Process::dev(folder.path());
    let offline = process.client().with_token(said.output.lines().next().unwrap());
    offline.get("/api/v1/app").await.expect(200);
}

/// One rule with and without `--dev`: what is not clear is asked, never guessed.
#[test]
fn an_environment_is_named_unless_there_is_only_one() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["keyring", "create", "keyring.toml"], &[]).code, Some(0));
    let key = |arguments: &[&str]| {
        let mut all = vec!["api-key"];
        all.extend(arguments);
        all.extend(["--data-dir", "data", "--keyring", "keyring.toml"]);
        run(folder.path(), &all, &[])
    };
    let none = key(&["create"]);
    assert!(none.code == Some(1) && none.errors.contains("no environment yet"), "{none:?}");
    assert!(key(&["create", "--environment", "org_first"]).output.contains("org_first"));
    assert!(key(&["create", "--name", "second"]).output.contains("org_first"));
    assert!(key(&["list"]).output.contains("second"));
    assert_eq!(key(&["create", "--environment", "org_other"]).code, Some(0));
    let several = key(&["list"]);
    assert!(several.code == Some(1) && several.errors.contains("org_first, org_other"), "{several:?}");
    assert!(!key(&["list", "--environment", "org_other"]).output.contains("second"));
}

#[tokio::test]
async fn health_is_asked_through_the_admin_socket() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let health = || run(folder.path(), &["health", "--data-dir", "data"], &[]);
    assert_eq!(health().code, Some(0));
    drop(process);
    let said = health();
    assert!(said.code == Some(1) && said.errors.contains("no server answers"), "{said:?}");
}

/// OPS-2.
#[tokio::test]
async fn metrics_show_what_was_accepted_attempted_and_committed() {
    let server = TestServer::start().await;
    let receiver = server.receiver([500, 200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = json!({ "eventType": "document.processed", "payload": {} });
    for _ in 0..3 {
        // A request that is repeated is answered again, but nothing new is accepted.
        let client = server.client().with_header("idempotency-key", "the-first");
        client.post(&path, body.clone()).await.expect(202);
    }
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let page = server.client().get("/metrics").await;
    let text = String::from_utf8(page.bytes.to_vec()).unwrap();
    for line in [
        "postrider_messages_accepted_total 1",
        "postrider_attempts_total{outcome=\"http_error\"} 1",
        "postrider_deliveries_pending 1",
        "postrider_oldest_due_seconds 0.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains("postrider_store_commit_duration_seconds_count"), "{text}");
}

#[tokio::test]
async fn the_api_is_served_by_tls_when_a_certificate_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let server = TestServer::with(|config| {
        config.server.tls_certificate = Some(cert.clone());
        config.server.tls_key = Some(key.clone());
    })
    .await;
    let plain = Client::new(server.address(), None).try_raw("GET", "/api/v1/health", None).await;
    assert!(plain.is_err(), "plain HTTP is answered: {plain:?}");
    let answer = over_tls(&server, own.cert.der().clone()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

async fn over_tls(server: &TestServer, certificate: rustls_pki_types::CertificateDer<'static>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    #[expect(clippy::disallowed_methods, reason = "the server under test")]
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let request = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_tour_ends_well_and_explains_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), &["demo"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for phrase in ["503", "webhook-signature", "standardwebhooks", "attempt 2"] {
        assert!(said.output.contains(phrase), "{phrase} is missing: {}", said.output);
    }
    assert!(!said.output.contains('\u{1b}'), "colours on something that is no terminal");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_and_one_that_is_too_long_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = TestServer::with(|config| config.server.header_seconds = 1).await;
    let connect = || async {
        #[expect(clippy::disallowed_methods, reason = "the server under test")]
        tokio::net::TcpStream::connect(server.address()).await.unwrap()
    };
    let mut slow = connect().await;
    slow.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection is still open");

    let mut long = connect().await;
    let head = format!("GET /api/v1/health HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(40_000));
    let _ = long.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = long.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

/// Shown so that a reader of the log finds the same names everywhere.
#[test]
fn the_log_is_json_when_nobody_watches() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let log = process.log();
    let line = log.lines().find(|line| line.contains("listening")).unwrap_or_else(|| panic!("{log}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "INFO");
}

/// K01, K12: a database without its keyring is of no use, and the refusal names the missing key.
#[test]
fn a_database_with_another_keyring_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::dev(folder.path());
    process.signal("TERM");
    process.wait();
    assert_eq!(run(folder.path(), &["keyring", "create", "other.toml"], &[]).code, Some(0));
    let said = run(
        folder.path(),
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--keyring", "other.toml"],
        &[],
    );
    assert_eq!(said.code, Some(78), "{said:?}");
    let own = std::fs::read_to_string(folder.path().join("data/dev-keyring.toml")).unwrap();
    let name = own.split("primary = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(said.errors.contains(name), "{name}: {said:?}");
}

/// OPS-1: red when work that could be claimed has waited for 30 s, here behind all the places that there are; green
/// before and after.
#[tokio::test]
async fn health_is_red_while_work_waits_that_nobody_claims() {
    let server = TestServer::with(|config| {
        config.delivery.in_flight_total = 1;
        config.delivery.in_flight_per_endpoint = 1;
        config.delivery.in_flight_per_slow_endpoint = 1;
    })
    .await;
    let (hanging, waiting) = (Receiver::start([Reply::Hang]).await, Receiver::start([200]).await);
    let busy = server.app("busy").await;
    server.endpoint(&busy, &hanging.url()).await;
    server.endpoint(&server.default_app().await, &waiting.url()).await;
    server.send_to(&busy, "document.processed", json!({})).await;
    hanging.wait_for(1).await;
    server.send("document.processed", json!({})).await;
    server.client().get("/api/v1/health").await.expect(200);
    server.store.clock().advance(Duration::from_secs(31));
    let red = server.client().get("/api/v1/health").await.expect(503);
    assert!(red["reasons"][0].as_str().unwrap().contains("have waited for"), "{red}");
    let metrics = server.client().get("/metrics").await;
    let age = value(&metrics.bytes, "postrider_oldest_due_seconds");
    assert!(age > 30.0, "{age}");
    waiting.wait_for(1).await;
    hanging.replies([200]);
    server.clock.quiet().await;
    server.client().get("/api/v1/health").await.expect(200);
}

/// The value of a metric without labels.
fn value(page: &[u8], name: &str) -> f64 {
    let page = String::from_utf8_lossy(page);
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1))
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{page}"))
}

/// OPS-2: what the documents promise is there, and no label has a value that users choose.
#[tokio::test]
async fn metrics_have_the_promised_names_and_no_labels_of_users() {
    let server = TestServer::start().await;
    let receiver = server.receiver([500, 200]).await;
    server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let page = server.client().get("/metrics").await;
    let page = String::from_utf8_lossy(&page.bytes).into_owned();
    for name in [
        "postrider_messages_accepted_total",
        "postrider_attempts_total",
        "postrider_attempt_duration_seconds_bucket",
        "postrider_deliveries_in_flight",
        "postrider_delivery_lag_seconds_bucket",
        "postrider_deliveries_pending",
        "postrider_oldest_due_seconds",
        "postrider_publishes_running",
        "postrider_publishes_waiting",
        "postrider_publish_body_bytes",
        "postrider_requests_refused_total",
        "postrider_store_commit_duration_seconds_bucket",
        "postrider_breakers",
        "postrider_throttled_total",
        "postrider_engine_panics_total",
        "postrider_retention_last_success_timestamp_seconds",
    ] {
        let found = page.lines().any(|line| line.split(['{', ' ']).next() == Some(name));
        assert!(found, "{name} is missing in\n{page}");
    }
    for label in page.lines().filter_map(|line| line.split_once('{')).flat_map(|(_, rest)| rest.split(',')) {
        let name = label.split('=').next().unwrap();
        assert!(["le", "outcome", "kind", "reason", "state", "trouble", "result"].contains(&name), "{label}");
    }
}
