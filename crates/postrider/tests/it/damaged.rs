//! Rows that do not read as what they must be, and panics: what depends on them fails
//! visibly and alone, everything else goes on.

use async_trait::async_trait;
use postrider_outbound::resolver::{Resolve, ResolveFailure};
use postrider_testing::{App, MessageRef, Receiver, TestServer, hours, minutes};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{net::IpAddr, path::Path, sync::Arc};

/// A server whose database is changed while it is closed; each store has its own words for it.
async fn damage(server: TestServer, sqlite: &str, postgres: &str) -> TestServer {
    let place = server.place().map(|place| place.url().to_owned());
    let change = |folder: &Path| {
        let changed = match &place {
            None => {
                Connection::open(folder.join("postrider.db")).unwrap().execute(sqlite, []).unwrap() as u64
            }
            Some(url) => postrider_testing::execute(url, postgres),
        };
        assert!(changed > 0, "{sqlite}");
    };
    server.restart_with(|config| change(&config.server.data_dir)).await
}

/// Two endpoints of one application, the first of which will be damaged.
async fn two(server: &TestServer) -> (App, Receiver, Receiver) {
    let app = server.default_app().await;
    let (damaged, sound) = (Receiver::start([200]).await, Receiver::start([200]).await);
    server.endpoint_with(&app, &damaged.url(), json!({ "uid": "damaged" })).await;
    let headers = json!({ "headers": { "X-Api-Key": "sealed", "X-Plain": "clear" } });
    let path = format!("{}/endpoint/damaged/headers", app.path());
    server.client().put(&path, headers).await.expect(204);
    server.endpoint_with(&app, &sound.url(), json!({ "uid": "sound" })).await;
    (app, damaged, sound)
}

/// The attempts of the damaged endpoint.
async fn attempts(server: &TestServer, app: &App) -> Vec<Value> {
    let path = format!("/api/v1/app/{}/attempt/endpoint/damaged", app.id);
    server.client().get(&path).await.items()
}

/// DUR-4, DUR-5, K03: what cannot be opened is never sent without; its owner sees why, and others get theirs.
#[tokio::test]
async fn a_secret_that_cannot_be_opened_fails_its_own_deliveries_visibly() {
    for kind in ["signing%", "%header%"] {
        let server = TestServer::start().await;
        let (app, damaged, sound) = two(&server).await;
        let statement = |zeros: &str| {
            format!(
                "UPDATE secret SET sealed = {zeros} WHERE kind LIKE '{kind}'
                 AND owner = (SELECT id FROM endpoint WHERE uid = 'damaged')"
            )
        };
        let (sqlite, postgres) = ("zeroblob(length(sealed))", "decode(repeat('00', length(sealed)), 'hex')");
        let server = damage(server, &statement(sqlite), &statement(postgres)).await;
        let message = server.send("invoice.paid", json!({})).await;
        sound.wait_for(1).await;
        server.wait_for_attempts(&message, 2).await;
        let seen = attempts(&server, &app).await;
        assert_eq!(seen[0]["outcome"], "credential_unavailable", "{seen:?}");
        assert!(!seen[0]["detail"].as_str().unwrap().is_empty());
        server.clock.advance(minutes(1)).await;
        assert_eq!(attempts(&server, &app).await.len(), 2, "it is retried by the schedule, not in a loop");
        assert!(damaged.requests().is_empty(), "nothing was sent without its credential");

        // The owner's way out: new ones.
        let path = format!("{}/endpoint/damaged", app.path());
        let headers = json!({ "headers": { "X-Api-Key": "new" } });
        server.client().put(&format!("{path}/headers"), headers).await.expect(204);
        let rotated = json!({ "gracePeriodSeconds": 0 });
        server.client().post(&format!("{path}/secret/rotate"), rotated).await.expect(200);
        server.clock.advance(hours(1)).await;
        assert_eq!(damaged.requests().len(), 1);
    }
}

/// DUR-4, ING-9: one row that cannot be read stops neither publishing nor the other endpoints of its application.
#[tokio::test]
async fn an_endpoint_that_cannot_be_read_stops_nothing_else() {
    for assignment in ["headers = 'no JSON'", "url = 'no URL'", "oauth = '{}'", "retry = '[]'"] {
        let server = TestServer::start().await;
        let (_, damaged, sound) = two(&server).await;
        let statement = format!("UPDATE endpoint SET {assignment} WHERE uid = 'damaged'");
        let server = damage(server, &statement, &statement).await;
        let app = server.default_app().await;
        let body = json!({ "eventType": "invoice.paid", "payload": {} });
        let answer = server.client().post(&format!("{}/msg", app.path()), body).await;
        assert_eq!(answer.status, 202, "{assignment}: {answer:?}");
        sound.wait_for(1).await;
        let message =
            MessageRef { app: app.id.clone(), id: answer.expect(202)["id"].as_str().unwrap().to_owned() };
        let seen = server.wait_for_attempts(&message, 2).await;
        let failed = seen.0.iter().find(|attempt| attempt["statusText"] == "fail");
        let detail = failed.unwrap_or_else(|| panic!("{assignment}: {seen:?}"))["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && !detail.contains("no URL"), "{assignment}: {detail}");
        assert!(damaged.requests().is_empty(), "{assignment}");
        server.client().get(&format!("{}/endpoint/sound", app.path())).await.expect(200);
    }
}

/// DUR-4: a delivery whose payload is gone ends, and does not come back for ever.
#[tokio::test]
async fn a_delivery_without_its_payload_ends() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 200]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let server = damage(server, "DELETE FROM payload", "UPDATE message SET payload = NULL").await;
    server.clock.advance(hours(1)).await;
    assert_eq!(receiver.requests().len(), 1);
    let path = format!("/api/v1/app/{}/msg/{}/endpoint?expanded_statuses=true", message.app, message.id);
    assert_eq!(server.client().get(&path).await.items()[0]["statusText"], "canceled");
    let later = server.send("invoice.paid", json!({})).await;
    assert_eq!(server.wait_for_attempts(&later, 1).await.statuses(), [200]);
}

/// A resolver with a defect.
#[derive(Debug)]
struct Panics;

#[async_trait]
impl Resolve for Panics {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFailure> {
        panic!("the resolver's defect at {name}")
    }
}

/// DUR-9: a panic ends its own attempt, which its owner sees, and is counted.
#[tokio::test]
async fn a_panic_in_an_attempt_is_a_failed_attempt_and_nothing_else() {
    let server = TestServer::with_resolver(Arc::new(Panics)).await;
    let app = server.default_app().await;
    let panicking = server.endpoint(&app, "https://panics.example.com/").await;
    let sound = server.receiver([200]).await;
    for number in 0..5 {
        server.send("invoice.paid", json!({ "number": number })).await;
    }
    sound.wait_for(5).await;
    server.clock.advance(minutes(1)).await;
    let path = format!("/api/v1/app/{}/attempt/endpoint/{}", app.id, panicking.id);
    let seen = server.client().get(&path).await.items();
    assert_eq!(seen.len(), 10, "five deliveries, each tried twice");
    assert!(seen.iter().all(|attempt| attempt["outcome"] == "internal"), "{seen:?}");
    let metrics = server.client().get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.bytes).into_owned();
    assert!(metrics.lines().any(|line| line == "postrider_engine_panics_total 10"), "{metrics}");
    assert!(!format!("{seen:?}").contains("the resolver's defect"), "{seen:?}");
    server.client().get("/api/v1/health").await.expect(200);
}
