//! The command line: what can be typed and its help. What a command does stands in [`crate::commands`].

mod upkeep;

pub use upkeep::{Backup, DeliveriesCommand, MigrateStore, Restore};

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

/// A self-hosted webhook server: publish a message, and Postrider delivers it to every endpoint that wants it.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  postrider demo                    a guided tour on a temporary database
  postrider serve --dev             a server to try things on, with an API key and lines to paste
  postrider keyring create /etc/postrider/keyring.toml
  postrider serve --config /etc/postrider/postrider.toml"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    #[command(after_help = "\
Examples:
  postrider serve --dev
  postrider serve --config /etc/postrider/postrider.toml
  POSTRIDER_SERVER__LISTEN=0.0.0.0:8071 postrider serve --keyring /run/secrets/keyring.toml

The server stops on SIGTERM or Ctrl-C: it accepts nothing more, finishes what runs, and exits
with 0. A second signal ends it at once. Exit code 78 means that the configuration must be put
right first.")]
    Serve(Serve),
    /// Show in ten seconds what Postrider does, on a temporary database
    Demo,
    /// Print the effective configuration, secrets masked
    #[command(after_help = "\
Examples:
  postrider config --config /etc/postrider/postrider.toml
  postrider config --reference > docs/reference/configuration.md")]
    Config {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Print the reference page of all settings instead
        #[arg(long)]
        reference: bool,
    },
    /// Create, list and revoke API keys, also while the server runs
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Make a token that is signed with `api.jwt_secret`, as svix-server makes them
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// Create and check the file that holds the keys of all stored credentials
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Copy the embedded database while it is in use
    #[command(after_help = "\
Examples:
  postrider backup --to /backups/
  postrider backup --config /etc/postrider/postrider.toml --to /backups/before-upgrade.db

The server that runs makes the copy, of one moment, while it goes on; without one this command
makes it. Beside the file lies its manifest (.json). The keyring is NOT in it, and the backup
cannot be used without it: keep a copy of the keyring elsewhere. Never copy the database with
`cp` while a server runs: what you get may be torn.")]
    Backup(Backup),
    /// Make a backup the database of a data directory, with all deliveries on hold
    #[command(after_help = "\
Examples:
  postrider restore --from /backups/postrider-20261123T180000Z.db
  postrider restore --from before-upgrade.db --data-dir /var/lib/postrider --replace

The backup is checked first: whole, of a release that this one knows, sealed with your keyring.
Then, because much of what the backup takes for pending was sent after it was made, nothing of it
is sent until you decide: `postrider deliveries status`, then release, drop or retime. What is
published from now on is delivered as usual.")]
    Restore(Restore),
    /// Decide about deliveries that are on hold, after a restore
    #[command(subcommand)]
    Deliveries(DeliveriesCommand),
    /// Move the embedded database to PostgreSQL, one way
    #[command(after_help = "\
Example:
  postrider migrate-store --from-data-dir /var/lib/postrider --to postgres://postrider@db/postrider

Stop the server first. Everything goes: ids, credentials, schedules, history. Interrupted, it goes
on where it was when it is started again. At the end both databases are compared row by row. From
its start on, the embedded database cannot be served any more; `--undo` allows it again.")]
    MigrateStore(MigrateStore),
    /// Print the OpenAPI document of the API
    Openapi,
    /// Ask the running server whether it is well: exit code 0 says yes
    #[command(
        after_help = "Made for the health check of a container: HEALTHCHECK CMD [\"postrider\", \"health\"]"
    )]
    Health(Settings),
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Default, Clone, Args)]
pub struct Settings {
    /// Configuration file in TOML [default: ./postrider.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the database [default: ./postrider-data]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Keyring file: the keys of all stored credentials
    #[arg(long, value_name = "FILE")]
    pub keyring: Option<PathBuf>,
}

/// `serve`.
#[derive(Debug, Default, Clone, Args)]
pub struct Serve {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub settings: Settings,
    /// For trying things: creates what is missing, prints an API key, and also delivers to this machine over plain HTTP
    #[arg(long)]
    pub dev: bool,
    /// Address and port of the API [default: 127.0.0.1:8071]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// PostgreSQL database that several nodes share, in place of the file [default: `POSTRIDER_DATABASE_URL`]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// What this node does of `api,engine` [default: both, or `POSTRIDER_ROLES`]
    #[arg(long, value_name = "ROLES")]
    pub roles: Option<String>,
}

/// `api-key`.
#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Create a key and print its token, once
    #[command(after_help = "\
Examples:
  postrider api-key create --environment org_production --name billing
  postrider api-key create --environment org_production --name document-service --publish --days 90
  postrider api-key create --name acme --application app_2abc…

An environment is a space of its own: its keys see nothing of another's. While there is
exactly one, --environment can be left out.")]
    Create {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Environment of the key, `org_…`; created when it does not exist [default: the only one]
        #[arg(long, value_name = "ORG")]
        environment: Option<String>,
        /// Shown in lists
        #[arg(long, default_value = "")]
        name: String,
        /// Valid for this application only
        #[arg(long, value_name = "APP")]
        application: Option<String>,
        /// Valid for publishing messages only
        #[arg(long)]
        publish: bool,
        /// Ends by itself after so many days
        #[arg(long)]
        days: Option<u32>,
    },
    /// List the keys of an environment; never their tokens
    List {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Environment of the keys [default: the only one]
        #[arg(long, value_name = "ORG")]
        environment: Option<String>,
    },
    /// Revoke a key at once
    #[command(after_help = "Example: postrider api-key revoke key_2abc…")]
    Revoke {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// Environment of the key [default: the only one]
        #[arg(long, value_name = "ORG")]
        environment: Option<String>,
        /// The key, as `api-key list` shows it
        id: String,
    },
}

/// `jwt`.
#[derive(Debug, Subcommand)]
pub enum JwtCommand {
    /// Make an HS256 token for an environment, signed with `api.jwt_secret`
    #[command(after_help = "\
Example: POSTRIDER_API__JWT_SECRET_FILE=/run/secrets/jwt postrider jwt generate org_production")]
    Generate {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// The environment, `org_…`; made when the token is used first
        environment: String,
    },
}

/// `keyring`.
#[derive(Debug, Subcommand)]
pub enum KeyringCommand {
    /// Create a keyring with one random key; never overwrites
    #[command(after_help = "\
Example: postrider keyring create /etc/postrider/keyring.toml

A backup of the database is useless without the keyring, and keeping both in one place defeats it.")]
    Create {
        /// The file to create; keep it outside of the data directory
        file: PathBuf,
    },
    /// Check that a keyring can be used, and print the names of its keys with their check values
    Check {
        /// Where the configuration comes from
        #[command(flatten)]
        settings: Settings,
        /// The file to check [default: the configured one]
        file: Option<PathBuf>,
    },
}
