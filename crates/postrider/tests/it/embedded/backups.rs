//! Backups of the embedded database and what becomes of its deliveries once one is brought back (DUR-10, SQL-6, K12).

use crate::process::{Process, Said, run};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postrider_testing::{Client, Receiver, Reply};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;

const HELD: usize = 12;

/// A server with an endpoint that never answers, so that what goes there stays pending, and one that is well.
struct Place {
    folder: TempDir,
    process: Process,
    stuck: Receiver,
    fine: Receiver,
    app: String,
}

impl Place {
    async fn new() -> Self {
        super::on_sqlite();
        let folder = tempfile::tempdir().unwrap();
        let process = Process::dev(folder.path());
        let (stuck, fine) = (Receiver::start([Reply::Hang]).await, Receiver::start([200]).await);
        let client = process.client();
        let app = client.post("/api/v1/app", json!({ "name": "one", "uid": "one" })).await.expect(201);
        let app = format!("/api/v1/app/{}", app["id"].as_str().unwrap());
        for (uid, receiver) in [("stuck", &stuck), ("fine", &fine)] {
            client.post("/api/v1/event-type", json!({ "name": uid, "description": "" })).await.expect(201);
            let body = json!({ "uid": uid, "url": receiver.url(), "filterTypes": [uid] });
            client.post(&format!("{app}/endpoint"), body).await.expect(201);
        }
        for _ in 0..HELD {
            publish(&client, &app, "stuck").await;
        }
        publish(&client, &app, "fine").await;
        fine.wait_for(1).await;
        stuck.wait_for(1).await;
        Self { folder, process, stuck, fine, app }
    }

    fn run(&self, arguments: &[&str]) -> Said {
        run(self.folder.path(), &[arguments, &["--data-dir", "data"]].concat(), &[])
    }

    async fn secret(&self) -> Value {
        secret(&self.process.client(), &self.app).await
    }

    /// Restores the backup into a new folder with the same keyring.
    fn restore(&self, backup: &Path) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let keyring = "data/dev-keyring.toml";
        fs::copy(self.folder.path().join(keyring), folder.path().join(keyring)).unwrap();
        let said = restore(folder.path(), backup);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.output.contains("deliveries are on hold"), "{said:?}");
        folder
    }
}

fn restore(folder: &Path, backup: &Path) -> Said {
    let backup = backup.to_str().unwrap();
    run(folder, &["restore", "--from", backup, "--data-dir", "data"], &[])
}

async fn publish(client: &Client, app: &str, event_type: &str) {
    let body = json!({ "eventType": event_type, "payload": { "n": 1 } });
    client.post(&format!("{app}/msg"), body).await.expect(202);
}

async fn secret(client: &Client, app: &str) -> Value {
    client.get(&format!("{app}/endpoint/stuck/secret")).await.expect(200)
}

fn status(folder: &Path) -> Value {
    let said = run(folder, &["deliveries", "status", "--json", "--data-dir", "data"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str::<Value>(&said.output).unwrap()["hold"].take()
}

/// How many deliveries are in this state.
fn count(folder: &Path, state: u8) -> usize {
    let connection = Connection::open(folder.join("data/postrider.db")).unwrap();
    let text = "SELECT count(*) FROM delivery WHERE state = ?1";
    let count: i64 = connection.query_row(text, [state], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

/// SQL-6, DUR-10: nothing stands still while it is made, it is of one moment, and what is brought back from it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_restored_and_sends_nothing_old_until_it_is_released() {
    let place = Place::new().await;
    let backup = place.folder.path().join("copy.db");
    let load = tokio::spawn({
        let (client, app) = (place.process.client(), place.app.clone());
        async move {
            loop {
                publish(&client, &app, "fine").await;
            }
        }
    });
    let before = place.fine.requests().len();
    let said = place.run(&["backup", "--to", backup.to_str().unwrap(), "--mib-per-second", "1", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    place.fine.wait_for(before + 3).await;
    load.abort();
    let manifest: Value = serde_json::from_str(&said.output).unwrap();
    assert_eq!(manifest["keyringKeys"].as_array().unwrap().len(), 1, "{manifest}");
    let copy = Connection::open(&backup).unwrap();
    assert_eq!(copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    drop(copy);
    let described = fs::read_to_string(place.folder.path().join("copy.db.json")).unwrap();
    assert!(described.contains("cannot be used without it"), "{described}");
    let again = place.run(&["backup", "--to", backup.to_str().unwrap()]);
    assert!(again.code == Some(1) && again.errors.contains("replaces nothing"), "{again:?}");
    let known = place.secret().await;
    let bytes = fs::read(&backup).unwrap();
    let key = known["key"].as_str().unwrap().trim_start_matches("whsec_");
    for canary in [key.as_bytes(), &BASE64_STANDARD.decode(key).unwrap(), place.process.token.as_bytes()] {
        assert!(
            !bytes.windows(canary.len()).any(|window| window == canary),
            "K06: a credential is in the backup"
        );
    }

    let folder = place.restore(&backup);
    let Place { folder: _old, mut process, stuck, fine, app } = place;
    process.signal("KILL");
    process.wait();
    let hold = status(folder.path());
    assert!(hold["deliveries"].as_u64().unwrap() >= HELD as u64, "{hold}");
    assert!(hold["reason"].as_str().unwrap().starts_with("restored from the backup of"), "{hold}");
    let restored = Process::dev(folder.path());
    let (client, sent) = (restored.client(), stuck.requests().len());
    assert!(restored.log().contains("deliveries are on hold"), "{}", restored.log());
    assert_eq!(secret(&client, &app).await, known, "credentials are the same");
    let (seen, live) = (fine.requests().len(), status(folder.path()));
    assert_eq!(live["deliveries"], hold["deliveries"], "asked of the running server");
    publish(&client, &app, "fine").await;
    fine.wait_for(seen + 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stuck.requests().len(), sent, "what is old waits");
    let health = client.get("/api/v1/health").await.expect(200);
    assert_eq!((&health["status"], &health["onHoldSince"]), (&json!("ok"), &hold["since"]));
    let said = run(folder.path(), &["health", "--data-dir", "data"], &[]);
    assert!(said.code == Some(0) && said.output.contains("are on hold; decide with"), "{said:?}");
    let page = String::from_utf8(client.get("/metrics").await.bytes.to_vec()).unwrap();
    assert!(page.contains(&format!("postrider_deliveries_on_hold {}", hold["deliveries"])), "{page}");
    assert!(page.contains("\npostrider_hold_began_timestamp_seconds 1"), "{page}");

    let said = run(folder.path(), &["deliveries", "release", "--data-dir", "data"], &[]);
    assert!(said.code == Some(0) && said.output.contains("The hold is over"), "{said:?}");
    assert_eq!(status(folder.path()), Value::Null);
    stuck.wait_for(sent + 1).await;
}

/// DUR-10: the operator who wants nothing twice cancels what was due; made without a server, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_after_a_restore_is_cancelled_and_never_sent() {
    let mut place = Place::new().await;
    place.process.signal("KILL");
    place.process.wait();
    let said = place.run(&["backup", "--to", "."]);
    assert!(said.code == Some(0) && said.output.contains("keep a copy of the keyring"), "{said:?}");
    let backup = said.output.lines().next().unwrap().to_owned();
    let folder = place.restore(Path::new(&backup));
    let pending = count(folder.path(), 0);
    assert!(pending >= HELD);
    let said = run(folder.path(), &["deliveries", "drop", "--data-dir", "data"], &[]);
    assert!(said.output.contains(&format!("{pending} deliveries were cancelled")), "{said:?}");
    let sent = place.stuck.requests().len();
    let mut restored = Process::dev(folder.path());
    publish(&restored.client(), &place.app, "fine").await;
    place.fine.wait_for(2).await;
    restored.signal("TERM");
    restored.wait();
    assert_eq!(place.stuck.requests().len(), sent);
    assert_eq!((count(folder.path(), 0), count(folder.path(), 3)), (0, pending));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retimed_is_due_over_the_time_asked_for() {
    let mut place = Place::new().await;
    place.process.signal("KILL");
    place.process.wait();
    let backup = place.folder.path().join("copy.db");
    let said = place.run(&["backup", "--to", "copy.db"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let folder = place.restore(&backup);
    let said =
        run(folder.path(), &["deliveries", "retime", "--over-minutes", "120", "--data-dir", "data"], &[]);
    assert!(said.code == Some(0) && said.output.contains("are due between now and"), "{said:?}");
    let connection = Connection::open(folder.path().join("data/postrider.db")).unwrap();
    let text =
        "SELECT max(next_attempt_at) - min(next_attempt_at) FROM delivery WHERE state = 0 AND attempts = 0";
    let span: i64 = connection.query_row(text, [], |row| row.get(0)).unwrap();
    assert!((3_600_000_000..7_200_000_000).contains(&span), "{span}");
}

/// K12, MIG-1: what cannot be used is refused with the reason, and nothing is changed or lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_refuses_what_it_cannot_use() {
    let place = Place::new().await;
    let backup = place.folder.path().join("copy.db");
    let said = place.run(&["backup", "--to", "copy.db"]);
    assert_eq!(said.code, Some(0), "{said:?}");

    let in_use = restore(place.folder.path(), &backup);
    assert!(in_use.code != Some(0) && in_use.errors.contains("in use by another server"), "{in_use:?}");

    let folder = tempfile::tempdir().unwrap();
    let other = Process::dev(folder.path());
    drop(other);
    let there = restore(folder.path(), &backup);
    assert!(there.code == Some(78) && there.errors.contains("--replace"), "{there:?}");
    let arguments = ["restore", "--replace", "--from", backup.to_str().unwrap(), "--data-dir", "data"];
    let stranger = run(folder.path(), &arguments, &[]);
    assert!(
        stranger.code == Some(78) && stranger.errors.contains("the keyring does not fit"),
        "{stranger:?}"
    );

    let torn = place.folder.path().join("torn.db");
    let mut bytes = fs::read(&backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa7);
    fs::write(&torn, bytes).unwrap();
    let note = place.folder.path().join("note.db");
    fs::write(&note, "a note").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let keyring = "data/dev-keyring.toml";
    fs::copy(place.folder.path().join(keyring), folder.path().join(keyring)).unwrap();
    for (file, reason) in [(&torn, "damaged"), (&note, "SQLite database")] {
        let said = restore(folder.path(), file);
        assert!(said.code == Some(78) && said.errors.contains(reason), "{said:?}");
        assert!(!folder.path().join("data/postrider.db").exists());
    }
    let replaced = restore(folder.path(), &backup);
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    let arguments = ["restore", "--replace", "--from", backup.to_str().unwrap(), "--data-dir", "data"];
    let replaced = run(folder.path(), &arguments, &[]);
    assert!(replaced.code == Some(0) && replaced.output.contains("that was there lies at"), "{replaced:?}");
}
