//! The server that is measured: a process of our own on a temporary database, or one that somebody else runs.

use crate::{
    api::Api,
    usage::{self, Usage},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    net::{SocketAddr, ToSocketAddrs},
    os::unix::fs::MetadataExt,
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

/// How to talk to a server.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    /// Host and port, as the `host` header has them.
    pub(crate) authority: String,
    pub(crate) token: String,
}

impl Access {
    /// From an `http://` URL, or host and port.
    pub(crate) fn of(url: &str, token: &str) -> Result<Self> {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        let with_port = if authority.contains(':') { authority.clone() } else { format!("{authority}:80") };
        let mut addresses = with_port
            .to_socket_addrs()
            .with_context(|| format!("`{url}` must be http://host:port, without a path"))?;
        let address = addresses.next().with_context(|| format!("`{url}` has no address"))?;
        Ok(Self { address, authority, token: token.to_owned() })
    }
}

/// How servers are started.
#[derive(Debug, Clone)]
pub(crate) enum Launch {
    /// A program, on a new directory in `scratch`, measured together with other processes that run already.
    Program { program: Program, scratch: Option<PathBuf>, pids: Vec<u32> },
    /// It runs already. Its processes are measured when they are known.
    Running { access: Access, pids: Vec<u32> },
}

/// What is started.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// `postrider serve --dev` with further arguments.
    Postrider { binary: PathBuf, arguments: Vec<String> },
    /// A line for the shell, which starts a server and what belongs to it; where it will listen, unless it writes that to
    /// `dev.json` in its directory, as `--dev` does.
    Command { line: String, access: Option<Access> },
}

/// A server; the process is killed, and its directory removed, when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) access: Access,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Own(Box<Own>),
    Running { pids: Vec<u32> },
}

#[derive(Debug)]
struct Own {
    program: Program,
    process: Process,
    /// Measured too.
    beside: Vec<u32>,
    data: TempDir,
}

/// What of a server can be measured: nothing where neither is known.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pids: Vec<u32>,
    data: Option<PathBuf>,
}

/// A child in a process group of its own, so that its children end with it.
#[derive(Debug)]
struct Process(Child);

impl Launch {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Server> {
        match self {
            Self::Running { access, pids } => {
                Ok(Server { access: access.clone(), kind: Kind::Running { pids: pids.clone() } })
            }
            Self::Program { program, scratch, pids } => {
                let mut folder = tempfile::Builder::new();
                let folder = folder.prefix("postrider-bench-");
                let data = match scratch {
                    Some(parent) => folder.tempdir_in(parent),
                    None => folder.tempdir(),
                };
                let data = data.context("a directory for the database (`--scratch` names another place)")?;
                let process = Process::start(program, data.path(), false)?;
                let mut own = Own { program: program.clone(), process, beside: pids.clone(), data };
                let access = own.listening().await?;
                Ok(Server { access, kind: Kind::Own(Box::new(own)) })
            }
        }
    }

    /// Can it be started anew, with an empty database?
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Program { .. })
    }
}

impl Server {
    /// What can be measured of it.
    pub(crate) fn measured(&self) -> Measured {
        match &self.kind {
            Kind::Own(own) => Measured {
                pids: own.process.0.id().into_iter().chain(own.beside.iter().copied()).collect(),
                data: Some(own.data.path().to_owned()),
            },
            Kind::Running { pids } => Measured { pids: pids.clone(), data: None },
        }
    }

    /// `kill -9`; its database stays.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let own = self.own()?;
        own.process.kill_group();
        own.process.0.wait().await?;
        let ready = ready_file(own.data.path());
        if ready.exists() {
            fs::remove_file(ready)?;
        }
        Ok(())
    }

    /// A new start on the same database after a kill; says how long it took until it listened.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let own = self.own()?;
        own.process = Process::start(&own.program, own.data.path(), true)?;
        self.access = own.listening().await?;
        Ok(started.elapsed())
    }

    fn own(&mut self) -> Result<&mut Own> {
        match &mut self.kind {
            Kind::Own(own) => Ok(own),
            Kind::Running { .. } => bail!("only a server of our own can be killed and started"),
        }
    }

    /// Why it died, when it did: any error while it is used is better explained by that.
    pub(crate) fn death(&self) -> Option<anyhow::Error> {
        let Kind::Own(own) = &self.kind else { return None };
        let pid = own.process.0.id()?;
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = state.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let dead = state.is_empty() || state.starts_with('Z');
        dead.then(|| anyhow::anyhow!("the server died; the end of its log:\n{}", last_lines(own.data.path())))
    }

    /// Ends the process; one of somebody else goes on.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.kind {
            Kind::Own(mut own) => {
                own.process.kill_group();
                timeout(STOP, own.process.0.wait()).await.context("the server does not end")??;
                Ok(())
            }
            Kind::Running { .. } => Ok(()),
        }
    }
}

impl Measured {
    /// What it has used so far, with its children, by the name of the program.
    pub(crate) fn usage(&self) -> Result<BTreeMap<String, Usage>> {
        let mut all: BTreeMap<String, Usage> = BTreeMap::new();
        for pid in &self.pids {
            for (name, usage) in usage::of_tree(*pid)? {
                let sum = all.remove(&name).map_or(usage, |sum| sum + usage);
                all.insert(name, sum);
            }
        }
        Ok(all)
    }

    /// How often each of its threads went to sleep so far.
    pub(crate) fn waits(&self) -> HashMap<String, u64> {
        self.pids.iter().flat_map(|pid| usage::waits(*pid)).collect()
    }

    /// Resident memory of all its processes in MiB; `NaN` when they are not known.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rss_mib(&self) -> f64 {
        match self.usage() {
            Ok(usage) if !usage.is_empty() => {
                usage.values().map(|one| one.rss_bytes).sum::<u64>() as f64 / 1024.0 / 1024.0
            }
            _ => f64::NAN,
        }
    }

    /// Bytes of its database; `NaN` when it is not ours.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn disk_bytes(&self) -> f64 {
        let Some(data) = &self.data else { return f64::NAN };
        let files = fs::read_dir(data).into_iter().flatten().flatten();
        // Allocated ones: a log that is kept for reuse counts with what it holds on the disk.
        let blocks = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks());
        blocks.sum::<u64>() as f64 * 512.0
    }
}

impl Own {
    /// Waits until it listens.
    async fn listening(&mut self) -> Result<Access> {
        let started = Instant::now();
        while started.elapsed() < START {
            let access = match &self.program {
                Program::Command { access: Some(access), .. } if is_healthy(access).await => {
                    Some(access.clone())
                }
                Program::Command { access: Some(_), .. } => None,
                _ => read_access(&ready_file(self.data.path()))?,
            };
            if let Some(access) = access {
                return Ok(access);
            }
            if let Some(status) = self.process.0.try_wait()? {
                bail!(
                    "the server ended with {status}; the end of its log:\n{}",
                    last_lines(self.data.path())
                );
            }
            sleep(POLL).await;
        }
        bail!(
            "the server did not listen within {START:?}; the end of its log:\n{}",
            last_lines(self.data.path())
        )
    }
}

impl Process {
    fn start(program: &Program, data: &Path, again: bool) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log_of(data))?;
        let mut command = match program {
            Program::Postrider { binary, arguments } => {
                let mut command = Command::new(binary);
                command
                    .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
                    .arg(data)
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

impl std::fmt::Display for Program {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Postrider { binary, .. } => {
                write!(to, "{}; `cargo build --release -p postrider` makes it", binary.display())
            }
            Self::Command { line, .. } => write!(to, "`{line}`"),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_its_url() {
        let access = Access::of("http://127.0.0.1:8071/", "key").unwrap();
        assert_eq!((access.address.port(), access.authority.as_str()), (8071, "127.0.0.1:8071"));
        assert!(Access::of("http://127.0.0.1:8071/api", "key").is_err());
    }

    #[tokio::test]
    async fn a_server_that_dies_at_once_is_told_with_its_last_words() {
        let arguments = vec!["no such file".to_owned()];
        let program = Program::Postrider { binary: PathBuf::from("/bin/ls"), arguments };
        let launch = Launch::Program { program, scratch: None, pids: vec![] };
        let error = launch.start().await.unwrap_err().to_string();
        assert!(error.contains("ended with") && error.contains("ls:"), "{error}");
    }
}
