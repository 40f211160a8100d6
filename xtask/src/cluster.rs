//! A throw-away PostgreSQL cluster for the stages that need one; gone when dropped, and with this process however it ends.

use anyhow::{Context as _, Result};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running cluster.
pub(crate) struct Cluster {
    /// Of an empty database, as the ordinary role that owns it: the wall between environments stands for it.
    pub(crate) url: String,
    /// Its standard input is what keeps the cluster.
    keeper: Child,
}

impl Cluster {
    /// Starts one that does not sync.
    pub(crate) fn start(root: &Path) -> Result<Self> {
        let script = root.join("crates/postrider-store-postgres/cluster.sh");
        let mut keeper = Command::new("sh")
            .arg(&script)
            .env("POSTRIDER_CLUSTER_OWNER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", script.display()))?;
        let output = keeper.stdout.take().context("the cluster's output")?;
        let url = BufReader::new(output).lines().nth(2).transpose()?.unwrap_or_default();
        let cluster = Self { url, keeper };
        anyhow::ensure!(!cluster.url.is_empty(), "the PostgreSQL cluster did not start");
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is the end of the cluster.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
