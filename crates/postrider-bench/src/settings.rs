//! The command line, and what it means for a run.

use crate::{
    limit::PAYLOAD_BYTES,
    postgres::{Postgres, Source},
    server::{Access, Launch, Program},
};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Measures Postrider, or any server with the same HTTP API, on this machine.
#[derive(Debug, Parser)]
#[command(name = "postrider-bench", version)]
pub(crate) struct Arguments {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Everything below but `load`; `soak` only with --full
    All,
    /// Signed 1 KiB deliveries without storage, hyper on both sides: the yardstick
    Limit,
    /// One endpoint, closed loop: messages accepted and delivered, processor time per delivery
    Steady,
    /// Ten endpoints per message in a closed loop; one message to 1,000 endpoints
    FanOut,
    /// One endpoint, open loop at a tenth and half of the maximum: latency end to end
    Latency,
    /// Healthy endpoints beside hanging, failing, recovering and dribbling ones
    Isolation,
    /// A million pending deliveries: memory, restart, draining, live traffic meanwhile
    Backlog,
    /// Throughput and lists with a long history, against none
    History,
    /// Ten thousand applications; one saturates the server while another publishes
    Tenants,
    /// Ten times the publishers of the peak: goodput, refusals, memory
    Overload,
    /// Nothing at all: memory and wake-ups
    Idle,
    /// On PostgreSQL: a transaction that somebody holds open, against the same load without it
    HeldTransaction,
    /// An hour of even load: memory and file sizes over time
    Soak,
    /// A load of your own, once
    Load(Load),
}

/// A load of your own.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Load {
    /// Messages per second; without it as many as are answered
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Connections that publish [default: --connections]
    #[arg(long)]
    pub(crate) publishers: Option<usize>,
    /// Endpoints that each message goes to
    #[arg(long, default_value_t = 1)]
    pub(crate) endpoints: usize,
    /// Applications that take turns
    #[arg(long, default_value_t = 1)]
    pub(crate) over: usize,
    /// Bytes of each payload
    #[arg(long, default_value_t = PAYLOAD_BYTES)]
    pub(crate) payload_bytes: usize,
}

/// Options of all scenarios.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Seconds that each measurement lasts [default: 10; for `all` 5; for `soak` 3600]
    #[arg(long, global = true)]
    seconds: Option<f64>,
    /// Interleaved repetitions of each measurement; medians are reported
    #[arg(long, default_value_t = 5, global = true)]
    pairs: usize,
    /// Concurrent connections of the publisher and of the limit
    #[arg(long, default_value_t = 64, global = true)]
    connections: usize,
    /// Adds what takes long: 20 million attempts of history, 100,000 applications, an hour of soak, a transaction held
    /// open for ten minutes
    #[arg(long, global = true)]
    full: bool,

    /// The server's binary [default: `postrider` beside this program]
    #[arg(long, global = true)]
    server: Option<PathBuf>,
    /// A further argument for the server; can be repeated
    #[arg(long = "server-arg", global = true, allow_hyphen_values = true, conflicts_with = "target")]
    server_arguments: Vec<String>,
    /// A line for the shell that starts the server instead, with what belongs to it; its children are measured too.
    /// `$BENCH_DATA_DIR` is an empty directory for its data, `$BENCH_RESTART` is 1 when it is started there again. With
    /// `serve --dev --data-dir $BENCH_DATA_DIR`, --target and --token are not needed
    #[arg(long, global = true, conflicts_with = "server")]
    server_command: Option<String>,
    /// Servers on PostgreSQL instead of a file: in a cluster of their own that goes with the run, durable as in production
    #[arg(long, global = true, conflicts_with_all = ["target", "server_command"])]
    postgres: bool,
    /// A further setting of that cluster, `name=value`; can be repeated
    #[arg(long = "postgres-setting", global = true, requires = "postgres")]
    postgres_settings: Vec<String>,
    /// Servers on this PostgreSQL; its user may create databases. Databases `postrider_bench_…` come and go there
    #[arg(long, global = true, conflicts_with_all = ["target", "server_command", "postgres"])]
    database_url: Option<String>,
    /// Nodes that share the work, on PostgreSQL; publishers are spread over them
    #[arg(long, global = true, default_value_t = 1)]
    nodes: usize,
    /// A running server to measure instead of a new one, `http://host:port`
    #[arg(long, global = true, requires = "token")]
    target: Option<String>,
    /// Its API key
    #[arg(long, global = true, requires = "target")]
    token: Option<String>,
    /// A further process to measure with its children, of a running server or of its database; can be repeated
    #[arg(long = "pid", global = true)]
    pids: Vec<u32>,
    /// Where the receiver of deliveries listens
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    receive: SocketAddr,
    /// The URL under which the server reaches the receiver [default: its address]
    #[arg(long, global = true)]
    receive_url: Option<String>,
    /// Where databases are put [default: the system's temporary directory]
    #[arg(long, global = true)]
    scratch: Option<PathBuf>,

    /// Pending deliveries of `backlog`
    #[arg(long, global = true, default_value_t = 1_000_000)]
    pending: u64,
    /// Attempts of `history` [default: 2000000; with --full 20000000]
    #[arg(long, global = true)]
    attempts: Option<u64>,
    /// Applications of `tenants` [default: 10000; with --full 100000]
    #[arg(long, global = true)]
    applications: Option<usize>,
    /// Retries that are due at one endpoint in `isolation`
    #[arg(long, global = true, default_value_t = 100_000)]
    retries: u64,
    /// Endpoints in `isolation` that dribble
    #[arg(long, global = true, default_value_t = 1_000)]
    tar_pits: usize,

    /// Endpoints of the widest message of `fan-out`
    #[arg(long, global = true, default_value_t = 1_000)]
    wide: usize,

    /// Writes the report as JSON to this file too
    #[arg(long, global = true)]
    pub(crate) json: Option<PathBuf>,
    /// Writes the report as Markdown to this file too
    #[arg(long, global = true)]
    pub(crate) report: Option<PathBuf>,
    /// Where report, figures and plots are put [default: target/bench/<time>]
    #[arg(long, global = true)]
    pub(crate) out: Option<PathBuf>,
}

/// What scenarios go by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long each measurement lasts.
    pub(crate) duration: Duration,
    pub(crate) soak: Duration,
    pub(crate) pairs: usize,
    pub(crate) connections: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) launch: Launch,
    /// How long `held-transaction` holds it.
    pub(crate) held: Duration,
    pub(crate) scratch: PathBuf,
    pub(crate) receive: SocketAddr,
    pub(crate) receive_url: Option<String>,
    pub(crate) full: bool,
    pub(crate) pending: u64,
    pub(crate) attempts: u64,
    pub(crate) applications: usize,
    pub(crate) retries: u64,
    pub(crate) tar_pits: usize,
    pub(crate) wide: usize,
}

const HOUR: f64 = 3600.0;
/// How long a transaction is held open with `--full`, and otherwise in units of a measurement.
const HELD: Duration = Duration::from_mins(10);
const HELD_TIMES: u32 = 6;

impl Settings {
    /// From the command line.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let options = &arguments.options;
        let usual = if matches!(arguments.command, Command::All) { 5.0 } else { 10.0 };
        let seconds = options.seconds.unwrap_or(usual);
        if !(0.05..=1e6).contains(&seconds) {
            bail!("--seconds must be at least 0.05");
        }
        let (attempts, applications) = if options.full { (20_000_000, 100_000) } else { (2_000_000, 10_000) };
        Ok(Self {
            duration: Duration::from_secs_f64(seconds),
            held: if options.full { HELD } else { Duration::from_secs_f64(seconds) * HELD_TIMES },
            soak: Duration::from_secs_f64(options.seconds.unwrap_or(HOUR)),
            pairs: options.pairs.max(1),
            connections: options.connections.max(1),
            payload_bytes: PAYLOAD_BYTES,
            launch: options.launch()?,
            scratch: options.scratch.clone().unwrap_or_else(std::env::temp_dir),
            receive: options.receive,
            receive_url: options.receive_url.clone(),
            full: options.full,
            pending: options.pending.max(1),
            attempts: options.attempts.unwrap_or(attempts).max(1),
            applications: options.applications.unwrap_or(applications).max(1),
            retries: options.retries.max(1),
            tar_pits: options.tar_pits.max(1),
            wide: options.wide.max(1),
        })
    }
}

impl Options {
    fn launch(&self) -> Result<Launch> {
        let access = match (&self.target, &self.token) {
            (Some(target), Some(token)) => Some(Access::of(target, token)?),
            _ => None,
        };
        let program = match (access, &self.server_command) {
            (access, Some(line)) => Program::Command { line: line.clone(), access },
            (Some(access), None) => return Ok(Launch::Running { access, pids: self.pids.clone() }),
            (None, None) => {
                let binary = match &self.server {
                    Some(path) => path.canonicalize().with_context(|| format!("no {}", path.display()))?,
                    None => std::env::current_exe()?.with_file_name("postrider"),
                };
                Program::Postrider { binary, arguments: self.server_arguments.clone() }
            }
        };
        let postgres = self.postgres();
        if postgres.is_none() && self.nodes > 1 {
            bail!("several nodes share a PostgreSQL: add --postgres or --database-url");
        }
        let (scratch, pids, nodes) = (self.scratch.clone(), self.pids.clone(), self.nodes.max(1));
        Ok(Launch::Program { program, scratch, pids, postgres, nodes })
    }

    fn postgres(&self) -> Option<Arc<Postgres>> {
        let source = match &self.database_url {
            Some(url) => Source::Named { url: url.clone() },
            None if self.postgres => Source::Own { settings: self.postgres_settings.clone() },
            None => return None,
        };
        let scratch = self.scratch.clone().unwrap_or_else(std::env::temp_dir);
        Some(Arc::new(Postgres::new(source, scratch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings> {
        Settings::new(&Arguments::try_parse_from(line.split(' '))?)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_together_takes_shorter_measurements() {
        assert_eq!(settings("bench all").unwrap().duration, Duration::from_secs(5));
        assert_eq!(settings("bench steady").unwrap().duration, Duration::from_secs(10));
        assert_eq!(settings("bench soak --seconds 60").unwrap().soak, Duration::from_mins(1));
        assert_eq!(settings("bench all --full").unwrap().soak, Duration::from_hours(1));
    }

    #[test]
    fn a_running_server_needs_a_key() {
        assert!(settings("bench steady --target http://127.0.0.1:1").is_err());
        let launch = settings("bench steady --target http://127.0.0.1:1 --token k --pid 1").unwrap().launch;
        assert!(!launch.is_own());
    }

    #[test]
    fn several_nodes_need_a_database_that_they_share() {
        assert!(settings("bench steady --nodes 2").is_err());
        let launch = settings("bench steady --nodes 2 --postgres").unwrap().launch;
        assert!(launch.postgres().is_some());
        assert!(settings("bench steady --postgres --target http://127.0.0.1:1 --token k").is_err());
    }

    #[test]
    fn a_command_may_say_where_it_listens() {
        assert!(settings("bench steady --server-command ./start").unwrap().launch.is_own());
        let line = "bench steady --server-command ./start --target http://127.0.0.1:1 --token k";
        assert!(settings(line).unwrap().launch.is_own());
    }
}
