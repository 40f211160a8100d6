//! Each scenario once at a tiny size, on a real server: a scenario that no longer runs is noticed here, not when figures are
//! wanted. The figures themselves mean nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

/// Sizes at which a scenario takes about a second.
const TINY: &[&str] = &[
    "--seconds=0.3",
    "--pairs=1",
    "--connections=4",
    "--pending=200",
    "--attempts=300",
    "--applications=12",
    "--retries=50",
    "--tar-pits=20",
    "--wide=20",
];

/// The server's binary, beside this test's folder. `cargo test --workspace` has built it; a test of this package alone
/// builds it when it is missing.
fn server() -> PathBuf {
    static BUILT: Once = Once::new();
    let bench = Path::new(env!("CARGO_BIN_EXE_postrider-bench"));
    let server = bench.with_file_name("postrider");
    BUILT.call_once(|| {
        if !server.exists() {
            let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "postrider"]).status();
            assert!(built.unwrap().success(), "the server does not build");
        }
    });
    server
}

fn bench(arguments: &[&str], out: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider-bench"));
    command.args(arguments).arg("--out").arg(out).current_dir(out).output().unwrap()
}

/// Runs a scenario; returns its report as JSON once files and figures are as they should be.
fn run(scenario: &[&str]) -> Value {
    let out = tempfile::tempdir().unwrap();
    let server = format!("--server={}", server().display());
    let scratch = format!("--scratch={}", out.path().display());
    let output = bench(&[scenario, TINY, &[&server, &scratch]].concat(), out.path());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(error.contains(" left] "), "no progress: {error}");
    let json = std::fs::read(out.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&json).unwrap();
    assert!(out.path().join("report.md").exists());
    for scenario in report["scenarios"].as_array().unwrap() {
        assert_eq!(scenario["error"], Value::Null);
        for plot in scenario["plots"].as_array().unwrap() {
            assert!(out.path().join(plot.as_str().unwrap()).exists(), "{plot}");
        }
        for figure in scenario["figures"].as_array().unwrap() {
            assert!(figure["median"].is_number(), "{}: {figure}", scenario["name"]);
        }
    }
    // Databases are gone: only what was written on purpose is left.
    let left = std::fs::read_dir(out.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(left, 0, "a database was left");
    report
}

/// The median of a figure whose name begins so.
fn figure(report: &Value, name: &str) -> f64 {
    let scenarios = report["scenarios"].as_array().unwrap().iter();
    let mut figures = scenarios.flat_map(|scenario| scenario["figures"].as_array().unwrap());
    let found = figures.find(|figure| figure["name"].as_str().unwrap().starts_with(name));
    found.unwrap_or_else(|| panic!("no figure `{name}`"))["median"].as_f64().unwrap()
}

#[test]
fn steady_load_is_measured_beside_the_limit() {
    let report = run(&["steady"]);
    assert!(figure(&report, "signed deliveries without storage") > 0.0);
    assert!(figure(&report, "messages delivered") > 0.0);
    assert!(figure(&report, "processor time per delivery, postrider") > 0.0);
}

#[test]
fn fan_out_counts_deliveries_not_messages() {
    let report = run(&["fan-out"]);
    assert!(figure(&report, "deliveries") > figure(&report, "messages accepted"));
}

#[test]
fn latency_is_measured_at_parts_of_the_maximum() {
    let report = run(&["latency"]);
    assert!(figure(&report, "at 50 %: messages") > figure(&report, "at 10 %: messages"));
    assert!(figure(&report, "at 50 %: end to end p99") > 0.0);
}

#[test]
fn isolation_has_every_kind_of_trouble() {
    let report = run(&["isolation"]);
    for trouble in
        ["1 % hanging", "10 % hanging", "10 % failing", "an endpoint back with 50 due retries", "20 tar pits"]
    {
        assert!(figure(&report, &format!("{trouble}: healthy p99")) > 0.0);
    }
}

#[test]
fn a_backlog_survives_its_kill_and_drains() {
    let report = run(&["backlog"]);
    assert!(figure(&report, "start after kill -9") > 0.0);
    assert!(figure(&report, "live traffic while draining, p99") > 0.0);
}

#[test]
fn a_history_is_made_and_read() {
    let report = run(&["history"]);
    assert!(figure(&report, "newest attempts of an endpoint") > 0.0);
}

#[test]
fn tenants_publish_beside_each_other() {
    let report = run(&["tenants"]);
    assert!(figure(&report, "the one that saturates") > 0.0);
    assert!(figure(&report, "all of them in turn") > 0.0);
}

#[test]
fn overload_loses_nothing_that_was_accepted() {
    let report = run(&["overload"]);
    assert!(figure(&report, "accepted and not delivered").abs() < f64::EPSILON);
}

#[test]
fn idle_and_soak_watch_the_process() {
    assert!(figure(&run(&["idle"]), "resident") > 1.0);
    assert!(figure(&run(&["soak"]), "resident at the end") > 1.0);
}

#[test]
fn a_load_of_ones_own_has_the_sizes_that_were_asked_for() {
    let report = run(&["load", "--rate=50", "--publishers=2", "--endpoints=3", "--payload-bytes=5000"]);
    assert!(
        report["scenarios"][0]["about"]
            .as_str()
            .unwrap()
            .contains("3 endpoints each, payloads of 5000 bytes")
    );
    assert!(figure(&report, "end to end p50") > 0.0);
}

/// A server that somebody else runs; what needs another start says so and fails.
#[test]
fn a_running_server_is_driven_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Command::new(server())
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .current_dir(folder.path())
        .spawn()
        .unwrap();
    let ready = loop {
        let text = std::fs::read_to_string(data.join("dev.json")).unwrap_or_default();
        if let Ok(ready) = serde_json::from_str::<Value>(&text) {
            break ready;
        }
        assert_eq!(server.try_wait().unwrap(), None, "the server ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let target = format!("--target={}", ready["url"].as_str().unwrap());
    let token = format!("--token={}", ready["token"].as_str().unwrap());
    let pid = format!("--pid={}", server.id());
    let steady = bench(&[&["steady", &target, &token, &pid], TINY].concat(), folder.path());
    let backlog = bench(&[&["backlog", &target, &token], TINY].concat(), folder.path());
    let alive = server.try_wait().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(steady.status.success(), "{}", String::from_utf8_lossy(&steady.stderr));
    assert!(!backlog.status.success());
    assert!(String::from_utf8_lossy(&backlog.stdout).contains("leave out --target"));
    assert_eq!(alive, None, "the bench ended a server that was not its own");
}

/// A line for the shell instead of the binary; what it starts is measured as one of its children.
#[test]
fn a_command_can_start_the_server() {
    let out = tempfile::tempdir().unwrap();
    let start = "serve --dev --listen 127.0.0.1:0 --data-dir";
    let line = format!("--server-command={} {start} \"$BENCH_DATA_DIR\"; exit", server().display());
    let output = bench(&[&["load", &line], TINY].concat(), out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("processor time per delivery, postrider"), "{report}");
}

/// Children and databases end with the bench, also on Ctrl-C.
#[test]
fn an_interrupted_run_leaves_no_server_and_no_database() {
    let out = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_postrider-bench"))
        .args(["idle", "--seconds=30"])
        .arg(format!("--server={}", server().display()))
        .arg(format!("--scratch={}", out.path().display()))
        .current_dir(out.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let databases = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(out.path()).unwrap().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let address = loop {
        let ready = databases().first().map(|database| std::fs::read_to_string(database.join("dev.json")));
        if let Some(Ok(ready)) = ready {
            let ready: Value = serde_json::from_str(&ready).unwrap();
            break ready["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        }
        assert_eq!(bench.try_wait().unwrap(), None, "the bench ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let listens = || std::net::TcpListener::bind(&address).is_err();
    assert!(listens());
    assert!(Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap().success());
    assert!(!bench.wait().unwrap().success());
    assert_eq!(databases(), [""; 0].map(PathBuf::from));
    for _ in 0..100 {
        if !listens() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the server goes on");
}
