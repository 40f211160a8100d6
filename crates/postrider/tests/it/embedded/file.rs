//! The database file itself: one of a later release, one that is none, one that somebody else holds.

use crate::process::{Process, run};
use postrider_testing::{TestServer, minutes};
use rusqlite::Connection;
use serde_json::json;
use std::time::{Duration, Instant};

/// MIG-1: an older release does not touch what a newer one has written, and says what to do.
#[test]
fn a_database_of_a_newer_release_is_refused_with_the_instruction() {
    super::on_sqlite();
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::dev(folder.path());
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    let file = folder.path().join("data/postrider.db");
    let version =
        Connection::open(&file).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let set = |version: i64| {
        Connection::open(&file).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    set(99);
    let said = run(folder.path(), &["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", "data"], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.errors.contains("start the release that wrote it"), "{said:?}");
    set(version);
    Process::dev(folder.path());
}

/// Starting again does not help: somebody has to put it right.
#[test]
fn a_file_that_is_no_database_is_refused_with_the_way_out() {
    super::on_sqlite();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let file = folder.path().join("data/postrider.db");
    std::fs::write(&file, "a note, not a database").unwrap();
    let said = run(folder.path(), &["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", "data"], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(
        said.errors.contains("postrider.db") && said.errors.contains("restore the last backup"),
        "{said:?}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a note, not a database");
}

/// DUR-3: whoever locks the database for a while (a backup, a curious operator) costs time, and nothing else.
#[tokio::test]
async fn a_database_that_is_locked_for_a_while_is_waited_for() {
    let server = TestServer::embedded(|_| {}).await;
    let receiver = server.receiver([503, 200]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let app = server.default_app().await;
    let file = server.data_dir().join("postrider.db");
    let locked = tokio::task::spawn_blocking(move || {
        let connection = Connection::open(file).unwrap();
        let locked = connection.execute_batch("BEGIN IMMEDIATE");
        if locked.is_ok() {
            std::thread::sleep(Duration::from_millis(1500));
            connection.execute_batch("ROLLBACK").unwrap();
        }
        locked.is_ok()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let body = json!({ "eventType": "invoice.paid", "payload": {} });
    let path = format!("{}/msg", app.path());
    let mut answer = server.client().post(&path, body.clone()).await;
    while answer.status != 202 {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = server.client().post(&path, body.clone()).await;
    }
    // Or nobody else can lock it: then there is nothing to wait for.
    let held = locked.await.unwrap();
    assert!(!held || begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    server.clock.advance(minutes(1)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [503, 200]);
}
