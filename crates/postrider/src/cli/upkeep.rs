//! What can be typed about a database as a whole: copies of it, what is not sent after one was brought back, and the way
//! to PostgreSQL.

use super::Settings;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub settings: Settings,
    /// A file that does not exist yet, or a directory, in which the file is named by the time
    #[arg(long, value_name = "FILE|DIRECTORY")]
    pub to: PathBuf,
    /// Copy at most so much each second, so that deliveries have the disk to themselves
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub mib_per_second: u64,
    /// Print the manifest, and nothing else, as JSON
    #[arg(long)]
    pub json: bool,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub settings: Settings,
    /// The backup's file
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Take the place of the database that is there; that one is moved aside, not deleted
    #[arg(long)]
    pub replace: bool,
}

/// `deliveries`.
#[derive(Debug, Subcommand)]
pub enum DeliveriesCommand {
    /// Show whether deliveries are on hold, since when, why, and how many
    Status {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Put everything that is pending on hold: nothing of it is sent until you decide
    #[command(after_help = "\
`postrider restore` does this by itself. It is for PostgreSQL, where a database that was set back
to an earlier time looks like any other: stop all nodes, restore, then

  postrider deliveries hold --reason 'restored to 14:30'

and only then start a node. See docs/backup-and-restore.md.")]
    Hold {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Shown by `status` and in the log
        #[arg(long, default_value = "the operator asked for it")]
        reason: String,
    },
    /// End the hold: all deliveries are due when they were, and what was due long ago is sent now
    #[command(after_help = "\
Choose this when receivers ignore a message that they have seen (by its `webhook-id`), or when
losing one is worse than sending one twice. Deliveries past their deadline expire instead.")]
    Release {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
    },
    /// End the hold: cancel what was due before it began, keep what is due later
    #[command(after_help = "\
Choose this when nothing may be sent twice. What was due before the hold began may have been sent
by the server that was there before; what was due later was not. Cancelled deliveries stay in the
history and can be resent one by one.

Example: postrider deliveries drop --due-before 2026-11-23T18:00:00Z")]
    Drop {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Cancel what was due before this instant [default: when the hold began]
        #[arg(long, value_name = "INSTANT")]
        due_before: Option<String>,
    },
    /// End the hold: spread what is due over the next hours, each endpoint's in order
    #[command(after_help = "\
Choose this to send all of it without a flood. Deadlines move along, so that nothing expires only
because it waited on hold.

Example: postrider deliveries retime --over-minutes 360")]
    Retime {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Spread over so many minutes from now
        #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=43_200))]
        over_minutes: u32,
    },
}

/// `migrate-store`.
#[derive(Debug, Clone, Args)]
pub struct MigrateStore {
    /// Where the configuration comes from; its data directory is what is moved.
    #[command(flatten)]
    pub settings: Settings,
    /// The same as `--data-dir`: the directory of the database that is moved
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "data_dir")]
    pub from_data_dir: Option<PathBuf>,
    /// The empty PostgreSQL database that it is moved to
    #[arg(long, value_name = "URL", required_unless_present = "undo")]
    pub to: Option<String>,
    /// Let the embedded database be served again, after a move or half of one; what was moved so far is of no use then
    #[arg(long, conflicts_with = "to")]
    pub undo: bool,
    /// Print progress as JSON, a line each, to standard output
    #[arg(long)]
    pub json: bool,
}
