//! The server that is measured: a process of our own on a temporary database, or one that somebody else runs.

use crate::usage::{self, Usage};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    net::{SocketAddr, ToSocketAddrs},
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
    /// `postrider serve --dev` with further arguments, on a new directory in `scratch`.
    Binary { path: PathBuf, arguments: Vec<String>, scratch: Option<PathBuf> },
    /// It runs already. Its processes are measured when they are known.
    Running { access: Access, pids: Vec<u32> },
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
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
    data: TempDir,
}

/// A child in a process group of its own, so that its children end with it.
#[derive(Debug)]
struct Process(Child);

impl Launch {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Server> {
        self.start_with(&[]).await
    }

    /// With settings of its own: `POSTRIDER_…` variables.
    pub(crate) async fn start_with(&self, environment: &[(&str, &str)]) -> Result<Server> {
        match self {
            Self::Running { access, pids } => {
                Ok(Server { access: access.clone(), kind: Kind::Running { pids: pids.clone() } })
            }
            Self::Binary { path, arguments, scratch } => {
                let mut folder = tempfile::Builder::new();
                let folder = folder.prefix("postrider-bench-");
                let data = match scratch {
                    Some(parent) => folder.tempdir_in(parent),
                    None => folder.tempdir(),
                };
                let data = data.context("a directory for the database (`--scratch` names another place)")?;
                let environment: Vec<_> = environment
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect();
                let process = Process::start(path, arguments, &environment, data.path())?;
                let mut own =
                    Own { binary: path.clone(), arguments: arguments.clone(), environment, process, data };
                let access = own.listening().await?;
                Ok(Server { access, kind: Kind::Own(Box::new(own)) })
            }
        }
    }

    /// Can it be started anew, with an empty database?
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Binary { .. })
    }
}

impl Server {
    /// What it has used so far, with its children; `None` when its processes are not known.
    pub(crate) fn usage(&self) -> Result<Option<Usage>> {
        let pids = match &self.kind {
            Kind::Own(own) => own.process.0.id().into_iter().collect(),
            Kind::Running { pids } => pids.clone(),
        };
        let each = pids.into_iter().map(usage::of_tree).collect::<Result<Vec<_>>>();
        let each = each.map_err(|error| self.death().unwrap_or(error))?;
        Ok(each.into_iter().reduce(|sum, one| sum + one))
    }

    /// Bytes of its database on disk; `None` when it is not ours.
    pub(crate) fn disk_bytes(&self) -> Result<Option<u64>> {
        let Kind::Own(own) = &self.kind else { return Ok(None) };
        let mut bytes = 0;
        for file in fs::read_dir(own.data.path())? {
            // The server may remove a file in between.
            bytes += file?.metadata().map_or(0, |metadata| metadata.len());
        }
        Ok(Some(bytes))
    }

    /// `kill -9`, and a new start on the same database; says how long it took until it listened.
    pub(crate) async fn kill_and_restart(&mut self) -> Result<Duration> {
        let Kind::Own(own) = &mut self.kind else { bail!("only a server of our own can be restarted") };
        own.process.0.kill().await?;
        fs::remove_file(own.data.path().join("dev.json"))?;
        let started = Instant::now();
        own.process = Process::start(&own.binary, &own.arguments, &own.environment, own.data.path())?;
        self.access = own.listening().await?;
        Ok(started.elapsed())
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

impl Own {
    /// Waits until it listens.
    async fn listening(&mut self) -> Result<Access> {
        let started = Instant::now();
        while started.elapsed() < START {
            if let Some(access) = read_access(&self.data.path().join("dev.json"))? {
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
    fn start(
        binary: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        data: &Path,
    ) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log_of(data))?;
        let process = Command::new(binary)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(arguments)
            .env("POSTRIDER_LOG__LEVEL", "warn")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("starting {}; `cargo build --release -p postrider` makes it", binary.display())
            })?;
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
        let launch = Launch::Binary {
            path: PathBuf::from("/bin/ls"),
            arguments: vec!["no such file".to_owned()],
            scratch: None,
        };
        let error = launch.start().await.unwrap_err().to_string();
        assert!(error.contains("ended with") && error.contains("ls:"), "{error}");
    }
}
