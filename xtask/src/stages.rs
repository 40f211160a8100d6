//! The stages of `cargo xtask test`, cheapest first.

use crate::{
    cluster::Cluster,
    process::{command, exists, reading, succeeds},
    rig,
    server::Server,
    tally::Tally,
    tidy, tools,
};
use anyhow::{Context as _, Result};
use std::{fs, path::Path, process::Command};

/// One part of the tests.
pub(crate) struct Stage {
    /// Short, for `--only`.
    pub(crate) name: String,
    /// What it does, said before it starts.
    pub(crate) what: &'static str,
    /// Runs it.
    pub(crate) run: Box<Run>,
}

/// Runs in the root of the workspace.
type Run = dyn Fn(&Path) -> Result<Tally>;

/// All of them.
pub(crate) fn all(root: &Path) -> Vec<Stage> {
    let mut stages = vec![
        stage("format", "cargo fmt --check", format),
        stage("clippy", "cargo clippy on everything, warnings are errors", clippy),
        stage("tidy", "documents, crate edges, file heads, generated references, licences", |root| {
            tidy::run(root).map(Tally::one)
        }),
        stage("deny", "cargo deny: bans, licences and sources of dependencies", |root| Ok(deny(root))),
        stage("workspace", "cargo test on the whole workspace", workspace),
        stage("postgres", "the product's tests once more, on PostgreSQL", postgres),
    ];
    for name in clients(root) {
        let suite = name.clone();
        stages.push(Stage {
            name: format!("clients/{name}"),
            what: "real clients, unmodified, against a running server",
            run: Box::new(move |root| client(root, &suite, None)),
        });
    }
    stages.push(stage("clients-postgres/python", "the Python clients once more, on PostgreSQL", |root| {
        tools::postgresql(root)?;
        let cluster = Cluster::start(root)?;
        client(root, "python", Some(&cluster.url))
    }));
    // Short forms; the full ones are in docs/reliability.md.
    stages.push(stage("kill", "kill -9 in the middle of load: nothing accepted is lost", |root| {
        rig::stage(root, &["kill", "--cycles", "5"])
    }));
    stages.push(stage("power", "power cuts on a simulated disk: nothing answered is lost", |root| {
        rig::stage(root, &["power", "--seeds", "100"])
    }));
    stages.push(stage(
        "full",
        "a small file system gets full under load: nothing is lost, and it recovers",
        |root| rig::stage(root, &["full", "--rounds", "1"]),
    ));
    stages.push(stage(
        "eio",
        "a sync fails under load: the server ends, and the next start has everything",
        |root| rig::stage(root, &["eio", "--rounds", "1"]),
    ));
    stages.push(stage(
        "ack",
        "system calls under load: no 202 leaves before the sync of its commit",
        |root| rig::stage(root, &["ack", "--messages", "100"]),
    ));
    stages.push(stage(
        "cluster",
        "nodes on one PostgreSQL database die, pause and lose their way: nothing is lost, no late result lands",
        |root| {
            tools::postgresql(root)?;
            let faults = ["kill", "pause", "hold-back", "restart", "failover"].map(|fault| ["--fault", fault]);
            rig::stage(root, &[&["cluster", "--rounds", "5"], faults.as_flattened()].concat())
        },
    ));
    stages
}

fn stage(name: &str, what: &'static str, run: impl Fn(&Path) -> Result<Tally> + 'static) -> Stage {
    Stage { name: name.to_owned(), what, run: Box::new(run) }
}

fn format(root: &Path) -> Result<Tally> {
    tools::component(root, "rustfmt", &["fmt", "--version"])?;
    Ok(Tally::one(succeeds(&mut command(root, "cargo", ["fmt", "--all", "--", "--check"]))))
}

fn clippy(root: &Path) -> Result<Tally> {
    tools::component(root, "clippy", &["clippy", "--version"])?;
    let arguments = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    Ok(Tally::one(succeeds(&mut command(root, "cargo", arguments))))
}

/// Only where it is installed already: building it takes longer than all other stages together.
fn deny(root: &Path) -> Tally {
    if !exists(&mut command(root, "cargo", ["deny", "--version"])) {
        println!("cargo-deny is not installed: skipped (`cargo install cargo-deny` brings it)");
        return Tally::default();
    }
    let arguments = ["deny", "--offline", "check", "bans", "licenses", "sources"];
    Tally::one(succeeds(&mut command(root, "cargo", arguments)))
}

fn workspace(root: &Path) -> Result<Tally> {
    tools::curl(root)?;
    tools::postgresql(root)?;
    tests(&mut command(root, "cargo", ["test", "--workspace", "--no-fail-fast"]))
}

/// Without what is about a file, and what runs on PostgreSQL always. The whole workspace is named so that nothing is
/// built with other features than in the stage before.
fn postgres(root: &Path) -> Result<Tally> {
    tools::curl(root)?;
    tools::postgresql(root)?;
    let arguments =
        ["test", "--workspace", "--test", "it", "--", "--skip", "embedded::", "--skip", "shared::"];
    tests(command(root, "cargo", arguments).env("POSTRIDER_TEST_STORE", "postgres"))
}

fn tests(cargo: &mut Command) -> Result<Tally> {
    let mut tally = Tally::default();
    let ok = reading(cargo, |line| tally += Tally::from_line(line))?;
    // What does not compile, or dies, has no result line.
    if !ok && tally.failed == 0 {
        tally += Tally::one(false);
    }
    Ok(tally)
}

/// The folders of `tests/clients`.
fn clients(root: &Path) -> Vec<String> {
    let folders = fs::read_dir(root.join("tests/clients")).into_iter().flatten().flatten();
    let with_entry = folders.filter(|folder| folder.path().join("run.sh").is_file());
    let mut names: Vec<_> = with_entry.filter_map(|folder| folder.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Runs `tests/clients/<name>/run.sh <cache>` against a server of its own, on the database of this URL or an embedded one;
/// it prints one `ok` or `not ok` line a test.
fn client(root: &Path, name: &str, database: Option<&str>) -> Result<Tally> {
    tools::language(root, name)?;
    let cache = root.join("target/xtask/clients");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let server = Server::start(root, &format!("clients-{name}"), database)?;
    let script = root.join("tests/clients").join(name).join("run.sh");
    let mut run = command(root, "bash", [script.as_os_str(), cache.as_os_str()]);
    run.env("POSTRIDER_URL", &server.url).env("POSTRIDER_TOKEN", &server.token);
    let mut tally = Tally::default();
    let ok = reading(&mut run, |line| tally += Tally::from_line(line))?;
    if tally == Tally::default() || (!ok && tally.failed == 0) {
        tally += Tally::one(false);
    }
    tally += Tally::one(server.stop()?);
    Ok(tally)
}
