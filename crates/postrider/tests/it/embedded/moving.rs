//! `migrate-store`: the embedded database moves to PostgreSQL with everything, once, however often it is interrupted.

use crate::process::{Process, run};
use postrider_store_postgres::testing;
use postrider_testing::{Client, Receiver, Reply, execute};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

const UNSAFE: (&str, &str) = ("POSTRIDER_DATABASE__DANGEROUS_ACCEPT_DATA_LOSS", "true");

/// What a caller sees: to be the same before and after.
async fn seen(client: &Client, app: &str) -> Value {
    let get = async |path: &str| client.get(&format!("{app}{path}")).await.expect(200);
    json!({
        "app": client.get(app).await.expect(200),
        "endpoints": get("/endpoint").await["data"],
        "headers": get("/endpoint/fine/headers").await,
        "secret": get("/endpoint/fine/secret").await,
        "messages": get("/msg?limit=100&with_content=true").await["data"],
        "attempts": get("/attempt/endpoint/fine?limit=100").await["data"],
        "types": client.get("/api/v1/event-type").await.expect(200)["data"],
    })
}

async fn publish(client: &Client, app: &str, event_type: &str, number: usize) -> Value {
    let body = json!({ "eventType": event_type, "payload": { "n": number }, "eventId": format!("{event_type}-{number}") });
    client.post(&format!("{app}/msg"), body).await.expect(202)
}

/// Fills a server: applications, endpoints with credentials, history, and deliveries that wait.
async fn fill(client: &Client, fine: &Receiver, stuck: &Receiver) -> String {
    let app = client.post("/api/v1/app", json!({ "name": "one", "uid": "one" })).await.expect(201);
    let app = format!("/api/v1/app/{}", app["id"].as_str().unwrap());
    for (uid, receiver) in [("fine", fine), ("stuck", stuck)] {
        client.post("/api/v1/event-type", json!({ "name": uid, "description": "é" })).await.expect(201);
        let body = json!({ "uid": uid, "url": receiver.url(), "filterTypes": [uid] });
        client.post(&format!("{app}/endpoint"), body).await.expect(201);
    }
    let headers = json!({ "headers": { "Authorization": "Bearer sealed", "X-Plain": "clear" } });
    client.put(&format!("{app}/endpoint/fine/headers"), headers).await.expect(204);
    for number in 0..20 {
        publish(client, &app, "fine", number).await;
        publish(client, &app, "stuck", number).await;
    }
    fine.wait_for(20).await;
    stuck.wait_for(1).await;
    // Until the last result is stored.
    while client.get(&format!("{app}/attempt/endpoint/fine?limit=100")).await.items().len() < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    app
}

/// Starts the move and kills it as soon as it has said something.
fn begin_and_kill(folder: &Path, arguments: &[&str]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env(UNSAFE.0, UNSAFE.1)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("environment"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn last(output: &str) -> Value {
    serde_json::from_str(output.lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_postgresql_although_the_move_was_killed() {
    super::on_sqlite();
    let folder = tempfile::tempdir().unwrap();
    let target = testing::Place::new().await.unwrap();
    let (fine, stuck) = (Receiver::start([200]).await, Receiver::start([Reply::Hang]).await);
    let mut process = Process::dev(folder.path());
    let app = fill(&process.client(), &fine, &stuck).await;
    let created = run(folder.path(), &["api-key", "create", "--name", "kept", "--data-dir", "data"], &[]);
    let token = created.output.lines().next().unwrap().to_owned();
    let client = process.client().with_token(&token);
    let once = client.with_header("idempotency-key", "once");
    let remembered = publish(&once, &app, "other", 1).await;
    let before = seen(&client, &app).await;
    process.signal("KILL");
    process.wait();

    let arguments = ["migrate-store", "--from-data-dir", "data", "--to", target.node_url(), "--json"];
    begin_and_kill(folder.path(), &arguments);
    let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", "data"];
    let served = run(folder.path(), &serve, &[]);
    assert!(served.code == Some(78) && served.errors.contains("was moved to postgres://"), "{served:?}");
    let said = run(folder.path(), &arguments, &[UNSAFE]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let moved = last(&said.output);
    let rows = |name: &str| {
        let all = moved["moved"].as_array().unwrap();
        all.iter().find(|one| one["thing"] == name).unwrap()["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("message"), rows("application"), rows("endpoint")), (41, 1, 2), "{moved}");
    assert!(rows("pending") >= 20 && rows("attempt") >= 20 && rows("secret") >= 3, "{moved}");

    let settings =
        format!("[database]\nurl = \"{}\"\ndangerous_accept_data_loss = true\n", target.node_url());
    fs::write(folder.path().join("postrider.toml"), settings).unwrap();
    execute(target.url(), "UPDATE import SET done = false WHERE item = 'compared'");
    let half = run(folder.path(), &serve, &[]);
    assert!(half.code == Some(78) && half.errors.contains("is not complete"), "{half:?}");
    execute(target.url(), "UPDATE import SET done = true WHERE item = 'compared'");

    let waiting = stuck.requests().len();
    let process = Process::dev(folder.path());
    let client = process.client().with_token(&token);
    assert_eq!(seen(&client, &app).await, before, "a caller sees no difference");
    let once = client.with_header("idempotency-key", "once");
    assert_eq!(publish(&once, &app, "other", 1).await["id"], remembered["id"], "idempotency keys are known");
    let taken = json!({ "eventType": "fine", "payload": {}, "eventId": "fine-7" });
    client.post(&format!("{app}/msg"), taken).await.expect(409);
    stuck.wait_for(waiting + 1).await;
    let known: Vec<_> = fine.requests();
    publish(&client, &app, "fine", 99).await;
    let sent = fine.wait_for(known.len() + 1).await;
    assert_eq!(sent.last().unwrap().header("authorization"), Some("Bearer sealed"));
}

/// A target that holds something else is left alone, and the source can be served again by an explicit word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_in_use_is_refused_and_the_move_can_be_undone() {
    super::on_sqlite();
    let folder = tempfile::tempdir().unwrap();
    let target = testing::Place::new().await.unwrap();
    execute(target.url(), "INSERT INTO environment (id, created_at) VALUES ('org_theirs', 1)");
    let mut process = Process::dev(folder.path());
    process.signal("TERM");
    process.wait();
    let arguments = ["migrate-store", "--from-data-dir", "data", "--to", target.node_url()];
    let said = run(folder.path(), &arguments, &[UNSAFE]);
    assert!(said.code == Some(1) && said.errors.contains("not empty"), "{said:?}");
    let undone = run(folder.path(), &["migrate-store", "--from-data-dir", "data", "--undo"], &[]);
    assert!(undone.code == Some(0) && undone.output.contains("can be served again"), "{undone:?}");
    Process::dev(folder.path());
}
