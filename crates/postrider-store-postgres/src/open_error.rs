//! Why a store cannot be opened, in words for the operator: what is wrong, and the way out.

use crate::failure;
use postrider_store::StoreError;
use std::{error::Error as _, io, path::PathBuf};
use tokio_postgres::error::SqlState;

/// Why a store cannot be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A later release wrote it.
    #[error(
        "a later release has migrated the database to schema version {found}, and what this release (schema version \
         {known}) needs is gone: start the release that wrote it or a later one, or restore the backup made before that \
         upgrade"
    )]
    Newer {
        /// In the database.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// An earlier release still works on what this one would take away.
    #[error(
        "nodes of an earlier release (schema version {version}) still work on the database, and this release takes away \
         what they need: bring all nodes to a release of schema version {oldest} first, then start this one"
    )]
    OlderRuns {
        /// What the earlier release knows.
        version: i64,
        /// What the others must know.
        oldest: i64,
    },
    /// Another node does not come to an end with migrating.
    #[error(
        "another node has been bringing the database schema up to date for {minutes} minutes: look at its log, and at \
         pg_stat_activity for what it waits for; this node can be started again at any time"
    )]
    Migrating {
        /// Since when.
        minutes: u64,
    },
    /// The keyring lacks keys that the database was sealed with.
    #[error(
        "the keyring does not fit the database: {}; name the keyring file that this database was made with, or add \
         these keys to yours",
        unfit(missing, different)
    )]
    Keyring {
        /// Not in the keyring.
        missing: Vec<String>,
        /// In the keyring, but not the same key.
        different: Vec<String>,
    },
    /// The URL, the server or its settings cannot be used.
    #[error("{0}")]
    Refused(String),
    /// The database cannot be reached.
    #[error("cannot reach the database {place}: {why}")]
    Away {
        /// Host, port and database.
        place: String,
        /// Why.
        why: String,
    },
    /// Another process has the data directory; it may be about to end.
    #[error(
        "the data directory {} is in use by another server; stop that one first, or choose another directory",
        data_dir.display()
    )]
    InUse {
        /// The directory.
        data_dir: PathBuf,
    },
    /// The identity in the data directory cannot be used.
    #[error("cannot {what} at {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Stored data or the database said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// May the same configuration work in a moment, without anybody putting something right?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Away { .. } | Self::InUse { .. } | Self::Migrating { .. } | Self::OlderRuns { .. } => true,
            Self::Store(error) => matches!(error, StoreError::Unavailable { .. } | StoreError::Full { .. }),
            Self::Newer { .. } | Self::Keyring { .. } | Self::Refused(_) | Self::Io { .. } => false,
        }
    }

    /// Why a connection could not be opened.
    pub(crate) fn of_connecting(place: &str, error: &tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            return Self::Away { place: place.to_owned(), why };
        };
        let code = database.code();
        let refused = |way_out: &str| {
            Self::Refused(format!("the database {place} refused: {}; {way_out}", database.message()))
        };
        if [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(code) {
            return refused("check user and password of the database URL and the server's pg_hba.conf");
        }
        if *code == SqlState::INVALID_CATALOG_NAME {
            return refused("create it first: CREATE DATABASE … ENCODING 'UTF8'");
        }
        if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            return refused("grant the user what is missing");
        }
        Self::Away { place: place.to_owned(), why: database.message().to_owned() }
    }
}

impl From<failure::Failure> for OpenError {
    fn from(failure: failure::Failure) -> Self {
        Self::Store(failure.into())
    }
}

/// What a keyring lacks, in words.
fn unfit(missing: &[String], different: &[String]) -> String {
    let part =
        |words: &str, names: &[String]| (!names.is_empty()).then(|| format!("{words} {}", names.join(", ")));
    let parts = [part("it lacks", missing), part("other keys bear the names", different)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
