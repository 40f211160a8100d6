//! The server under test: a real `postrider serve --dev` process that is started on one data directory again and again.

use crate::connection::Connection;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use postrider_model::id::{EndpointId, Ksuid, MessageId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(40);
/// Bytes of a slot in the store's file of attempts that have begun: a checksum, or zeros when it is free, then the ids of
/// message and endpoint, then what the rig does not need.
const SLOT: usize = 512;
/// Bytes up to the end of the ids.
const IDS: usize = 44;
const POLL: Duration = Duration::from_millis(2);

/// Where the server lives between its lives.
pub(crate) struct Home {
    binary: PathBuf,
    data: PathBuf,
    pub(crate) log: PathBuf,
    /// The program that runs it, with arguments; it must leave the server its own process id.
    wrapper: Vec<OsString>,
    /// Settings besides those of every rig.
    settings: Vec<(String, String)>,
}

/// One life of the server.
pub(crate) struct Node {
    process: Child,
    pub(crate) access: Access,
    /// When the process was started.
    pub(crate) spawned: Instant,
    /// How long it took until it listened.
    pub(crate) start_took: Duration,
}

/// How to talk to it: address and key are new in each life.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) address: SocketAddr,
    token: String,
}

impl Home {
    /// A server without data yet, at this directory, which must exist.
    pub(crate) fn new(binary: &Path, data: &Path) -> Result<Self> {
        let binary = std::path::absolute(binary)?;
        ensure!(binary.is_file(), "there is no server at {}", binary.display());
        let log = data.join("server.log");
        Ok(Self { binary, data: data.to_owned(), log, wrapper: Vec::new(), settings: Vec::new() })
    }

    /// The same with these settings, as environment variables.
    pub(crate) fn with_settings(self, settings: Vec<(String, String)>) -> Self {
        Self { settings, ..self }
    }

    /// The same with its log elsewhere.
    pub(crate) fn with_log(self, log: PathBuf) -> Self {
        Self { log, ..self }
    }

    /// The same, run by another program.
    pub(crate) fn under(self, wrapper: Vec<OsString>) -> Self {
        Self { wrapper, ..self }
    }

    /// Starts the server and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Node> {
        let ready = self.data.join("dev.json");
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let spawned = Instant::now();
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([self.binary.as_os_str()]);
        let program = words.next().unwrap_or(self.binary.as_os_str());
        let process = Command::new(program)
            .args(words)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.data)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.data)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let mut node = Node { process, access: Access::nowhere(), spawned, start_took: Duration::ZERO };
        while spawned.elapsed() < START {
            if let Some(access) = read_access(&ready) {
                node.access = access;
                node.start_took = spawned.elapsed();
                return Ok(node);
            }
            if let Some(status) = node.process.try_wait()? {
                bail!("the server ended with {status}; its log is {}", self.log.display());
            }
            sleep(POLL).await;
        }
        bail!("the server did not listen within {START:?}; its log is {}", self.log.display())
    }

    /// The attempts that had begun when the server died, as its store noted them: number of the endpoint in `endpoints`,
    /// and message.
    pub(crate) fn begun(&self, endpoints: &[String]) -> Result<Vec<(u8, String)>> {
        let bytes = fs::read(self.data.join("in_flight")).context("the file of attempts that have begun")?;
        let mut begun = Vec::new();
        // The last one may be short.
        let used = |slot: &&[u8]| slot.len() >= IDS && slot[..4] != [0; 4];
        for slot in bytes.chunks(SLOT).filter(used) {
            let id = |from| Ok::<_, anyhow::Error>(Ksuid::from_bytes(slot[from..from + 20].try_into()?));
            let (message, endpoint) = (MessageId::new(id(4)?), EndpointId::new(id(24)?).to_string());
            let number = endpoints.iter().position(|id| *id == endpoint);
            let number =
                number.context("the file of attempts that have begun has another form than the rig knows")?;
            begun.push((u8::try_from(number)?, message.to_string()));
        }
        Ok(begun)
    }
}

impl Node {
    /// `kill -9`; returns once the process is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }

    /// An error when the process ended by itself: whatever is missing then was not lost by a kill.
    pub(crate) fn is_running(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            Some(status) => bail!("the server ended with {status}, and not by this rig"),
            None => Ok(()),
        }
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(mut self, within: Duration) -> Result<ExitStatus> {
        timeout(within, self.process.wait()).await.context("the server did not end")?.map_err(Into::into)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Result<u32> {
        self.process.id().context("the server is gone")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.id()?)?).context("a process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Asks it to stop, as an operator would.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        timeout(STOP, self.process.wait())
            .await
            .context("the server did not stop in time")?
            .map_err(Into::into)
    }
}

impl Access {
    /// The same with another key.
    pub(crate) fn with_token(self, token: String) -> Self {
        Self { token, ..self }
    }

    fn nowhere() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), token: String::new() }
    }

    /// A POST with the key.
    pub(crate) fn post(&self, path: &str, body: String) -> Result<Request<Full<Bytes>>> {
        Ok(Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?)
    }

    /// What a GET answers, as JSON.
    pub(crate) async fn read(&self, connection: &mut Connection, path: &str) -> Result<(u16, Value)> {
        let request = Request::get(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::default())?;
        let (status, answer) = connection.send(request).await?;
        Ok((status, serde_json::from_slice(&answer).with_context(|| format!("the answer of {path}"))?))
    }

    /// Creates something; returns its id.
    pub(crate) async fn create(
        &self,
        connection: &mut Connection,
        path: &str,
        body: String,
    ) -> Result<String> {
        let (status, answer) = connection.send(self.post(path, body)?).await?;
        ensure!(status / 100 == 2, "{path} answered {status}: {}", String::from_utf8_lossy(&answer));
        id_of(&answer).context("an answer without an id")
    }
}

/// The `id` of an answer.
pub(crate) fn id_of(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer["id"].as_str()?.to_owned())
}

/// What a `--dev` server writes when it listens; `None` until it is complete.
fn read_access(file: &Path) -> Option<Access> {
    let ready: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let address = ready["url"].as_str()?.strip_prefix("http://")?.trim_end_matches('/').parse().ok()?;
    Some(Access { address, token: ready["token"].as_str()?.to_owned() })
}
