//! A backup or a restore that is killed: the database that was there is unharmed, nothing half is taken for whole, and the
//! same command works when it is given again (DUR-10, SQL-6).

use crate::process::{Process, Said, run};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Messages, of so many bytes each: at the pace of [`begin_backup`], a backup takes two seconds.
const MESSAGES: usize = 40;
const BYTES: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with some messages that wait at an endpoint which nobody answers at.
async fn filled() -> (TempDir, Process, String) {
    super::on_sqlite();
    let folder = tempfile::tempdir().unwrap();
    let process = Process::dev(folder.path());
    let client = process.client();
    let app = client.post("/api/v1/app", json!({ "name": "one" })).await.expect(201);
    let app = format!("/api/v1/app/{}", app["id"].as_str().unwrap());
    let endpoint = json!({ "url": "http://127.0.0.1:9/closed", "uid": "closed" });
    client.post(&format!("{app}/endpoint"), endpoint).await.expect(201);
    for _ in 0..MESSAGES {
        publish(&process, &app).await;
    }
    (folder, process, app)
}

async fn publish(process: &Process, app: &str) {
    let body = json!({ "eventType": "a", "payload": { "filler": "x".repeat(BYTES) } });
    process.client().post(&format!("{app}/msg"), body).await.expect(202);
}

/// Begins a command without waiting for its end.
fn begin(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn back_up(folder: &Path) -> Said {
    run(folder, &["backup", "--to", "copy.db", "--data-dir", "data"], &[])
}

/// Begins a slow backup and waits until some of it is written.
async fn begin_backup(folder: &Path) -> Child {
    let child = begin(folder, &["backup", "--to", "copy.db", "--mib-per-second", "4", "--data-dir", "data"]);
    let begun = Instant::now();
    while fs::metadata(folder.join("copy.db.partial")).map_or(0, |found| found.len()) < 300_000 {
        assert!(begun.elapsed() < PATIENCE, "no backup begins");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child
}

fn restore(folder: &Path, from: &str) -> Said {
    run(folder, &["restore", "--replace", "--from", from, "--data-dir", "data"], &[])
}

/// Messages of a database that no server has open, which is whole.
fn messages(database: &Path) -> usize {
    let connection = Connection::open(database).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let count: i64 = connection.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

/// What is left of a backup that was cut off is neither a backup nor in the way of the next one.
fn is_half(folder: &Path, before: usize) {
    assert!(!folder.join("copy.db").exists() && folder.join("copy.db.partial").exists());
    let half = restore(folder, "copy.db.partial");
    assert!(half.code == Some(78) && half.errors.contains("was cut off"), "{half:?}");
    // Under another name its content tells.
    fs::copy(folder.join("copy.db.partial"), folder.join("renamed.db")).unwrap();
    let renamed = restore(folder, "renamed.db");
    assert!(renamed.code == Some(78), "{renamed:?}");
    assert_eq!(messages(&folder.join("data/postrider.db")), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_during_a_backup_leaves_none_and_makes_the_next_one() {
    let (folder, mut process, app) = filled().await;
    let folder = folder.path();
    let mut command = begin_backup(folder).await;
    process.signal("KILL");
    process.wait();
    assert!(!command.wait().unwrap().success(), "the command says that there is no backup");
    is_half(folder, MESSAGES);
    let mut process = Process::dev(folder);
    publish(&process, &app).await;
    let made = back_up(folder);
    assert_eq!(made.code, Some(0), "{made:?}");
    process.signal("KILL");
    process.wait();
    assert_eq!(messages(&folder.join("copy.db")), MESSAGES + 1);
    assert!(!folder.join("copy.db.partial").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_killed_during_its_backup_leaves_none_and_works_again() {
    let (folder, mut process, _) = filled().await;
    let folder = folder.path();
    // While a server makes it, the command only looks on.
    begin_backup(folder).await.kill().unwrap();
    let busy = back_up(folder);
    assert!(busy.code == Some(1) && busy.errors.contains("is being made already"), "{busy:?}");
    let begun = Instant::now();
    while !folder.join("copy.db").exists() {
        assert!(begun.elapsed() < PATIENCE, "the server goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(folder.join("copy.db")).unwrap();
    process.signal("KILL");
    process.wait();

    let mut command = begin_backup(folder).await;
    let other = back_up(folder);
    assert!(other.code != Some(0) && !folder.join("copy.db").exists(), "one at a time: {other:?}");
    command.kill().unwrap();
    command.wait().unwrap();
    is_half(folder, MESSAGES);
    let made = back_up(folder);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(messages(&folder.join("copy.db")), MESSAGES);
    let restored = restore(folder, "copy.db");
    assert_eq!(restored.code, Some(0), "{restored:?}");
}

/// The copy of a folder as it stands, with what a killed server left.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_anywhere_leaves_the_one_database_or_the_other() {
    let (folder, mut process, app) = filled().await;
    let made = back_up(folder.path());
    assert_eq!(made.code, Some(0), "{made:?}");
    publish(&process, &app).await;
    process.signal("KILL");
    process.wait();
    assert!(
        fs::metadata(folder.path().join("data/postrider.db-wal")).unwrap().len() > 0,
        "the last is in the log"
    );

    let backup = folder.path().join("copy.db");
    let arguments = ["restore", "--replace", "--from", backup.to_str().unwrap(), "--data-dir", "data"];
    let begun = Instant::now();
    let whole = tempfile::tempdir().unwrap();
    copy(&folder.path().join("data"), &whole.path().join("data"));
    assert_eq!(run(whole.path(), &arguments, &[]).code, Some(0));
    let takes = begun.elapsed();
    let (mut old, mut new) = (0, 0);
    for moment in 0..16 {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        copy(&folder.path().join("data"), &data);
        let mut child = begin(place.path(), &arguments);
        tokio::time::sleep(takes * moment / 14).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // Whoever comes next opens the one or the other, with all that it had.
        let said = run(place.path(), &["deliveries", "status", "--json", "--data-dir", "data"], &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let held = !serde_json::from_str::<Value>(&said.output).unwrap()["hold"].is_null();
        let found = messages(&data.join("postrider.db"));
        assert_eq!(found, if held { MESSAGES } else { MESSAGES + 1 }, "killed at {moment}");
        if held {
            new += 1;
        } else {
            old += 1;
        }
        let again = run(place.path(), &arguments, &[]);
        assert_eq!(again.code, Some(0), "{again:?}");
        assert_eq!(messages(&data.join("postrider.db")), MESSAGES);
        let aside: usize = fs::read_dir(&data)
            .unwrap()
            .flatten()
            .filter(|entry| {
                let name = entry.file_name().into_string().unwrap();
                name.contains(".before-restore-") && !name.ends_with("-wal") && !name.ends_with("-shm")
            })
            .filter(|entry| messages(&entry.path()) == MESSAGES + 1)
            .count();
        assert_eq!(aside, 1, "what was replaced is kept, with its log");
    }
    println!(
        "killed during a restore of {takes:?}: {old} times the old database, {new} times the restored one"
    );
}
