//! Nodes that do one thing only, as the built binary runs them.

use crate::process;
use postrider_store_postgres::testing::Place;
use postrider_testing::{Client, Receiver};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process with a role, on a database.
struct Node {
    _process: Process,
    client: Client,
}

/// Killed when dropped.
struct Process(Child);

impl Node {
    async fn start(place: &Place, roles: &str) -> Self {
        let data: PathBuf = place.folder.path().join(roles);
        let log = fs::File::create(place.folder.path().join(format!("{roles}.log"))).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--roles", roles])
            .arg("--data-dir")
            .arg(&data)
            .arg("--keyring")
            .arg(place.folder.path().join("keyring.toml"))
            .current_dir(place.folder.path())
            .env_clear()
            .env("POSTRIDER_DATABASE_URL", place.node_url())
            .env("POSTRIDER_DATABASE__DANGEROUS_ACCEPT_DATA_LOSS", "true")
            .env("POSTRIDER_API__METRICS_TOKEN", "for-prometheus-alone")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process(process);
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(data.join("dev.json")).unwrap_or_default();
            let ready: Value = serde_json::from_str(&text).unwrap_or_default();
            if let (Some(url), Some(token)) = (ready["url"].as_str(), ready["token"].as_str()) {
                let address = url.trim_start_matches("http://").parse().unwrap();
                return Self { _process: process, client: Client::new(address, Some(token)) };
            }
            let log =
                || fs::read_to_string(place.folder.path().join(format!("{roles}.log"))).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "no start: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_accepts_and_another_one_delivers() {
    let place = Place::new().await.unwrap();
    let engine = Node::start(&place, "engine").await;
    let api = Node::start(&place, "api").await;
    let receiver = Receiver::start([200]).await;
    let app = api.client.post("/api/v1/app", json!({ "name": "one", "uid": "one" })).await.expect(201);
    let app = app["id"].as_str().unwrap();
    let endpoint = json!({ "url": receiver.url_with("/hook") });
    let endpoint = api.client.post(&format!("/api/v1/app/{app}/endpoint"), endpoint).await.expect(201);
    let message = json!({ "eventType": "invoice.paid", "payload": { "id": 1 } });
    let path = format!("/api/v1/app/{app}/msg");
    let begun = Instant::now();
    api.client.post(&path, message.clone()).await.expect(202);
    receiver.wait_for(1).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let database = place.client().await.unwrap();
    let owners = "SELECT count(DISTINCT owner), count(owner) FROM shard";
    let row = database.query_one(owners, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 64), "one of them serves all");

    // The one that delivers nothing asks the one that does, and is well.
    let endpoint = endpoint["id"].as_str().unwrap();
    let breaker = api.client.get(&format!("/api/v1/app/{app}/endpoint/{endpoint}/breaker")).await.expect(200);
    assert_eq!(breaker["state"], "closed", "{breaker}");
    api.client.get("/api/v1/health").await.expect(200);

    // The one that serves no API answers health and metrics, and says what it is.
    let client = &engine.client;
    client.get("/api/v1/health").await.expect(200);
    client.get("/api/v1/health/ping").await.expect(204);
    client.with_token("for-prometheus-alone").get("/metrics").await.expect(200);
    for answer in
        [client.post(&path, message).await, client.get("/api/v1/app").await, client.get("/docs").await]
    {
        let said = answer.expect(404);
        assert!(said["detail"].as_str().unwrap().contains("server.roles"), "{said}");
    }
}

/// What is changed through one node that only accepts holds on another such node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_deliver_nothing_follow_what_others_change() {
    let place = Place::new().await.unwrap();
    let one = Node::start(&place, "api").await;
    let two = Node::start(&place, "api,api").await;
    // The second start made a new development key: the first one's is revoked, also there.
    let begun = Instant::now();
    while one.client.get("/api/v1/app").await.status != 401 {
        assert!(begun.elapsed() < Duration::from_secs(3), "it is revoked on the other node");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    two.client.get("/api/v1/app").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_cannot_be_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let start = ["keyring", "check", "--data-dir", "data"];
    let database = ("POSTRIDER_DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    for (environment, expected) in [
        (vec![("POSTRIDER_ROLES", "engine")], "the embedded store serves one process"),
        (vec![("POSTRIDER_ROLES", "api")], "`database.url`"),
        (vec![("POSTRIDER_ROLES", ""), database], "`server.roles` is empty"),
        (vec![("POSTRIDER_ROLES", "api,portal"), database], "`server.roles` (POSTRIDER_SERVER__ROLES)"),
    ] {
        let said = process::run(folder.path(), &start, &environment);
        assert_eq!(said.code, Some(78), "{environment:?}: {}", said.errors);
        assert!(said.errors.contains(expected), "{environment:?}: {}", said.errors);
    }
}
