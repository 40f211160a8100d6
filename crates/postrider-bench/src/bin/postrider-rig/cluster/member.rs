//! A node of the cluster: a process that is started again and again in one data directory, with a way of its own to the
//! database.

use super::{
    ATTEMPT_MS, LEASE,
    book::{Notebook, Process, now},
    database::Database,
    proxy::Proxy,
    publishers,
    world::World,
};
use crate::node::{Access, Home, Node};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How soon every node must serve again once nothing is in its way any more.
pub(crate) const SERVICE: Duration = Duration::from_secs(15);
/// How long a start may be tried while the database is away, as a supervisor would.
const STARTS: Duration = Duration::from_mins(1);
const START_PAUSE: Duration = Duration::from_millis(300);
/// Keeps a node from outliving the rig.
const LEASH: &str = "/usr/bin/setpriv";

/// A node.
pub(crate) struct Member {
    pub(crate) index: usize,
    pub(crate) proxy: Proxy,
    home: Home,
    /// Where it keeps who it is.
    identity: std::path::PathBuf,
    process: tokio::sync::Mutex<Option<Node>>,
    /// How to talk to it, while somebody would.
    access: Mutex<Option<Access>>,
    token: Mutex<Option<String>>,
    notebook: Notebook,
}

impl Member {
    /// Starts it.
    pub(crate) async fn start(
        index: usize,
        server: &Path,
        folder: &Path,
        database: &Database,
        notebook: &Notebook,
    ) -> Result<Self> {
        let data = folder.join(format!("node-{index}"));
        std::fs::create_dir_all(&data)?;
        let proxy = Proxy::start(database.address()).await?;
        let keyring = folder.join("keyring.toml");
        if !keyring.exists() {
            let made = tokio::process::Command::new(server)
                .args(["keyring", "create"])
                .arg(&keyring)
                .output()
                .await?;
            ensure!(made.status.success(), "keyring create: {}", String::from_utf8_lossy(&made.stderr));
        }
        let mut home = Home::new(server, &data)?.with_settings(settings(
            index,
            &keyring,
            &database.url_through(proxy.port),
        ));
        if Path::new(LEASH).exists() {
            home = home.under([LEASH, "--pdeathsig", "KILL"].map(Into::into).to_vec());
        }
        let member = Self {
            index,
            proxy,
            home,
            identity: data.join("node"),
            process: None.into(),
            access: Mutex::default(),
            token: Mutex::default(),
            notebook: notebook.clone(),
        };
        member.launch().await?;
        Ok(member)
    }

    /// Starts the process, again and again while the database is away.
    pub(crate) async fn launch(&self) -> Result<()> {
        let begun = Instant::now();
        let node = loop {
            match self.home.start().await {
                Ok(node) => break node,
                Err(error) if begun.elapsed() > STARTS => return Err(error),
                Err(_) => sleep(START_PAUSE).await,
            }
        };
        let process = Process { node: self.index, pid: node.id()?, from: now() };
        self.notebook.book().processes.push(process);
        *self.process.lock().await = Some(node);
        self.show().await;
        Ok(())
    }

    /// Nobody talks to it any more.
    pub(crate) fn hide(&self) {
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It can be talked to.
    pub(crate) async fn show(&self) {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let access = self.process.lock().await.as_ref().map(|node| node.access.clone());
        let access = access.map(|access| match token {
            Some(token) => access.with_token(token),
            None => access,
        });
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// How to talk to it, if anybody would.
    pub(crate) fn access(&self) -> Option<Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on with this key, which no start replaces.
    pub(crate) async fn use_token(&self, token: &str) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.to_owned());
        self.show().await;
    }

    /// `kill -9`.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.hide();
        let node = self.process.lock().await.take().context("it does not run")?;
        node.kill().await
    }

    /// It forgets who it was, as with a new disk.
    pub(crate) fn lose_disk(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.identity)?)
    }

    /// SIGSTOP.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.hide();
        self.process.lock().await.as_ref().context("it does not run")?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) async fn resume(&self) -> Result<()> {
        self.process.lock().await.as_ref().context("it does not run")?.signal(Signal::CONT)?;
        self.show().await;
        Ok(())
    }

    /// SIGTERM; `true` when it ended with exit code 0.
    pub(crate) async fn stop(&self) -> Result<bool> {
        self.hide();
        let node = self.process.lock().await.take().context("it does not run")?;
        Ok(node.stop().await?.success())
    }

    /// An error when it ended by itself.
    pub(crate) async fn is_running(&self) -> Result<()> {
        match self.process.lock().await.as_mut() {
            Some(node) => node.is_running().with_context(|| format!("node {}", self.index)),
            None => bail!("node {} does not run", self.index),
        }
    }

    /// Publishes a message through it until it is acknowledged; when that was, `None` when not in time.
    pub(crate) async fn serves(&self, world: &World, notebook: &Notebook, until: Instant) -> Option<Instant> {
        let access = self.access()?;
        let published = publishers::probe(&access, world, notebook);
        tokio::time::timeout_at(until, published).await.ok().map(|()| Instant::now())
    }
}

fn settings(index: usize, keyring: &Path, url: &str) -> Vec<(String, String)> {
    let mut waits = vec![300, 500, 1000, 1000, 2000, 2000];
    waits.resize(40, 3000_u32);
    [
        ("POSTRIDER_DATABASE_URL", url.to_owned()),
        ("POSTRIDER_DATABASE__LEASE_SECONDS", LEASE.as_secs().to_string()),
        ("POSTRIDER_DELIVERY__TOTAL_DEADLINE_MS", ATTEMPT_MS.to_string()),
        ("POSTRIDER_DELIVERY__RETRY_WAITS_MS", format!("{waits:?}")),
        // By this the receivers know who sends.
        ("POSTRIDER_DELIVERY__USER_AGENT", format!("rig/{index}")),
        ("POSTRIDER_SERVER__KEYRING", keyring.display().to_string()),
        ("POSTRIDER_LOG__LEVEL", "info,postrider_store_postgres=debug".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
