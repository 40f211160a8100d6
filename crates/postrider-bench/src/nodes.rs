//! The processes of a server: one, or several nodes on one database, each with a directory of its own.

use crate::{
    api::Api,
    postgres::Database,
    server::{Access, Program},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(1);
/// Lines of its log that are shown when it dies.
const LAST_LINES: usize = 20;

/// All of them.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) program: Program,
    pub(crate) nodes: Vec<Node>,
    /// Measured too.
    pub(crate) beside: Vec<u32>,
    pub(crate) database: Option<Database>,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Node {
    process: Process,
    pub(crate) data: TempDir,
    access: Option<Access>,
}

/// A child in a process group of its own, so that its children end with it.
#[derive(Debug)]
struct Process(Child);

impl Own {
    /// One more node, on a directory of its own.
    pub(crate) async fn add(&mut self, scratch: Option<&Path>) -> Result<()> {
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("postrider-bench-");
        let data = match scratch {
            Some(parent) => folder.tempdir_in(parent),
            None => folder.tempdir(),
        };
        let data = data.context("a directory for the database (`--scratch` names another place)")?;
        let arguments = self.arguments();
        let process = Process::start(&self.program, &arguments, data.path(), false)?;
        self.nodes.push(Node { process, data, access: None });
        self.listening(self.nodes.len() - 1).await
    }

    /// What a further node is told: the database, and the keyring that the first one made.
    fn arguments(&self) -> Vec<String> {
        let database = self.database.iter().map(|database| format!("--database-url={}", database.url));
        let keyring = self.nodes.first().map(|first| first.data.path().join("dev-keyring.toml"));
        database.chain(keyring.map(|keyring| format!("--keyring={}", keyring.display()))).collect()
    }

    /// Starts one again.
    pub(crate) async fn restart(&mut self, number: usize) -> Result<()> {
        let arguments = self.arguments();
        let Some(node) = self.nodes.get_mut(number) else { bail!("there is no such node") };
        node.process = Process::start(&self.program, &arguments, node.data.path(), true)?;
        self.listening(number).await
    }

    async fn listening(&mut self, number: usize) -> Result<()> {
        let Some(node) = self.nodes.get_mut(number) else { bail!("there is no such node") };
        node.access = Some(node.listening(&self.program).await?);
        Ok(())
    }

    /// Waits until several share the work.
    pub(crate) async fn share(&self) -> Result<()> {
        match &self.database {
            Some(database) if self.nodes.len() > 1 => database.shared(self.nodes.len()).await,
            _ => Ok(()),
        }
    }

    /// Each start replaces the development key, so that of the last node is good for all; and where they listen.
    pub(crate) fn access(&self) -> Result<(Access, Vec<SocketAddr>)> {
        let all: Vec<&Access> = self.nodes.iter().filter_map(|node| node.access.as_ref()).collect();
        let last = all.last().context("no server listens")?;
        Ok(((*last).clone(), all.iter().map(|access| access.address).collect()))
    }
}

impl Node {
    /// Its process; `None` when it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.0.id()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process.kill_group();
        timeout(STOP, self.process.0.wait()).await.context("the server does not end")??;
        let ready = ready_file(self.data.path());
        if ready.exists() {
            fs::remove_file(ready)?;
        }
        Ok(())
    }

    /// Waits until it listens.
    async fn listening(&mut self, program: &Program) -> Result<Access> {
        let started = Instant::now();
        let data = self.data.path();
        while started.elapsed() < START {
            let access = match program {
                Program::Command { access: Some(access), .. } if is_healthy(access).await => {
                    Some(access.clone())
                }
                Program::Command { access: Some(_), .. } => None,
                _ => read_access(&ready_file(data))?,
            };
            if let Some(access) = access {
                return Ok(access);
            }
            if let Some(status) = self.process.0.try_wait()? {
                bail!("the server ended with {status}; the end of its log:\n{}", last_lines(data));
            }
            sleep(POLL).await;
        }
        bail!("the server did not listen within {START:?}; the end of its log:\n{}", last_lines(data))
    }

    /// Why it died, when it did.
    pub(crate) fn death(&self) -> Option<anyhow::Error> {
        let pid = self.process.0.id()?;
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = state.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let dead = state.is_empty() || state.starts_with('Z');
        dead.then(|| {
            anyhow::anyhow!("the server died; the end of its log:\n{}", last_lines(self.data.path()))
        })
    }
}

impl Process {
    fn start(program: &Program, further: &[String], data: &Path, again: bool) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log_of(data))?;
        let mut command = match program {
            Program::Postrider { binary, arguments } => {
                let mut command = Command::new(binary);
                command
                    .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
                    .arg(data)
                    .args(further)
                    .args(arguments);
                command.current_dir(data);
                command
            }
            Program::Command { line, .. } => {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(line)
                    .env("BENCH_DATA_DIR", data)
                    .env("BENCH_RESTART", if again { "1" } else { "" });
                command
            }
        };
        let process = command
            .env("POSTRIDER_LOG__LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self(process))
    }

    /// Kills it and its children.
    fn kill_group(&self) {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It fails only when all have ended already.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Does it answer that it can work?
async fn is_healthy(access: &Access) -> bool {
    match Api::open(access).await {
        Ok(mut api) => api.get("/api/v1/health").await.is_ok(),
        Err(_) => false,
    }
}

fn ready_file(data: &Path) -> PathBuf {
    data.join("dev.json")
}

/// What a `--dev` server writes when it listens; `None` until it is there.
fn read_access(file: &Path) -> Result<Option<Access>> {
    let Ok(text) = fs::read(file) else { return Ok(None) };
    let ready: serde_json::Value = serde_json::from_slice(&text)?;
    match (ready["url"].as_str(), ready["token"].as_str()) {
        (Some(url), Some(token)) => Access::of(url, token).map(Some),
        _ => Ok(None),
    }
}

/// Beside the database's files, which are then counted with it: it is short.
fn log_of(data: &Path) -> PathBuf {
    data.join("server.log")
}

fn last_lines(data: &Path) -> String {
    let log = fs::read_to_string(log_of(data)).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
