//! The server that is measured: a process of our own on a temporary database, or one that somebody else runs.

use crate::{
    nodes::{Node, Own},
    postgres::{Database, Postgres},
    usage::{self, Usage},
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{SocketAddr, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

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
    /// A program, on a new directory in `scratch`, measured together with other processes that run already. With
    /// `postgres` on a new database there, in so many nodes.
    Program {
        program: Program,
        scratch: Option<PathBuf>,
        pids: Vec<u32>,
        postgres: Option<Arc<Postgres>>,
        nodes: usize,
    },
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
    /// Of all nodes; the same key is good for each.
    pub(crate) addresses: Vec<SocketAddr>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Own(Box<Own>),
    Running { pids: Vec<u32> },
}

/// What of a server can be measured: nothing where neither is known.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pids: Vec<u32>,
    /// Folders of the database's files.
    data: Vec<PathBuf>,
}

impl Launch {
    /// Starts one and waits until it listens; several nodes, until they share the work.
    pub(crate) async fn start(&self) -> Result<Server> {
        let (program, scratch, pids, postgres, nodes) = match self {
            Self::Running { access, pids } => {
                let addresses = vec![access.address];
                let kind = Kind::Running { pids: pids.clone() };
                return Ok(Server { access: access.clone(), addresses, kind });
            }
            Self::Program { program, scratch, pids, postgres, nodes } => {
                (program, scratch, pids, postgres, *nodes)
            }
        };
        let database = match postgres {
            Some(postgres) => Some(postgres.database().await?),
            None => None,
        };
        let beside = pids.iter().copied().chain(database.as_ref().and_then(Database::pid)).collect();
        let mut own = Own { program: program.clone(), nodes: Vec::new(), beside, database };
        for _ in 0..nodes.max(1) {
            own.add(scratch.as_deref()).await?;
        }
        own.share().await?;
        let (access, addresses) = own.access()?;
        Ok(Server { access, addresses, kind: Kind::Own(Box::new(own)) })
    }

    /// The PostgreSQL that servers are started on.
    pub(crate) fn postgres(&self) -> Option<&Arc<Postgres>> {
        match self {
            Self::Program { postgres, .. } => postgres.as_ref(),
            Self::Running { .. } => None,
        }
    }

    /// Nodes that share the work.
    pub(crate) fn nodes(&self) -> usize {
        match self {
            Self::Program { nodes, .. } => *nodes,
            Self::Running { .. } => 1,
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
            Kind::Own(own) => {
                let processes = own.nodes.iter().filter_map(Node::pid);
                let data = match &own.database {
                    Some(database) => database.folder.iter().cloned().collect(),
                    None => own.nodes.iter().map(|node| node.data.path().to_owned()).collect(),
                };
                Measured { pids: processes.chain(own.beside.iter().copied()).collect(), data }
            }
            Kind::Running { pids } => Measured { pids: pids.clone(), data: vec![] },
        }
    }

    /// The database it is on, when that is PostgreSQL.
    pub(crate) fn database(&self) -> Option<&Database> {
        match &self.kind {
            Kind::Own(own) => own.database.as_ref(),
            Kind::Running { .. } => None,
        }
    }

    /// `kill -9`, of all nodes; the database stays.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        for node in &mut self.own()?.nodes {
            node.kill().await?;
        }
        Ok(())
    }

    /// A new start on the same database after a kill; says how long it took until it listened.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let own = self.own()?;
        for number in 0..own.nodes.len() {
            own.restart(number).await?;
        }
        let (access, addresses) = own.access()?;
        (self.access, self.addresses) = (access, addresses);
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
        own.nodes.iter().find_map(Node::death)
    }

    /// Ends the process; one of somebody else goes on.
    pub(crate) async fn stop(self) -> Result<()> {
        let Kind::Own(mut own) = self.kind else { return Ok(()) };
        for node in &mut own.nodes {
            node.kill().await?;
        }
        match &own.database {
            Some(database) => database.drop().await,
            None => Ok(()),
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
        if self.data.is_empty() {
            return f64::NAN;
        }
        let folders =
            self.data.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        // Allocated ones: a log that is kept for reuse counts with what it holds on the disk.
        let blocks = folders.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks());
        blocks.sum::<u64>() as f64 * 512.0
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
        let launch = Launch::Program { program, scratch: None, pids: vec![], postgres: None, nodes: 1 };
        let error = launch.start().await.unwrap_err().to_string();
        assert!(error.contains("ended with") && error.contains("ls:"), "{error}");
    }
}
