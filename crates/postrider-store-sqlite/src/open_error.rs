//! Why a store cannot be opened, in words for the operator: what is wrong, and the way out.

use crate::failure;
use postrider_store::StoreError;
use rusqlite::ErrorCode;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a store cannot be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another server; stop that one first, or choose another directory",
        data_dir.display()
    )]
    Locked {
        /// The directory.
        data_dir: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "the database has schema version {found}, this release knows {known}: start the release that wrote it, or \
         restore the backup made before that upgrade"
    )]
    Newer {
        /// In the file.
        found: i64,
        /// Of this program.
        known: i64,
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
    /// The place or the file cannot be used.
    #[error("{0}")]
    Refused(String),
    /// The file is something else.
    #[error(
        "{} is no SQLite database, or its first page is damaged: restore the last backup, or move the file away to begin \
         with an empty database",
        path.display()
    )]
    NoDatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {what} at {}: {source}{}", path.display(), way_out(source.kind()))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite said no.
    #[error("cannot open the database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// Stored data said no.
    #[error(transparent)]
    Store(StoreError),
}

impl OpenError {
    /// May the same configuration work in a moment, without anybody putting something right? Another server may still be
    /// stopping, space may be freed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Io { source, .. } => way_out(source.kind()).is_empty(),
            Self::Sql(error) => matches!(
                failure::code(error),
                Some(
                    ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::DiskFull
                        | ErrorCode::OutOfMemory
                        | ErrorCode::SystemIoFailure
                )
            ),
            Self::Store(error) => matches!(error, StoreError::Unavailable { .. } | StoreError::Full { .. }),
            Self::Newer { .. } | Self::Keyring { .. } | Self::Refused(_) | Self::NoDatabase { .. } => false,
        }
    }

    /// The error with the file at `path`, and the way out where SQLite's own words show none.
    pub(crate) fn of_file(self, path: &Path) -> Self {
        let Self::Sql(error) = self else { return self };
        match failure::code(&error) {
            Some(ErrorCode::NotADatabase) => Self::NoDatabase { path: path.to_owned() },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Refused(format!(
                    "cannot write to the database {} or beside it: {error}{}",
                    path.display(),
                    way_out(io::ErrorKind::PermissionDenied)
                ))
            }
            _ => Self::Sql(error),
        }
    }
}

/// What to do about a place that cannot be used as it is; empty for what may pass.
fn way_out(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make the directory and its files writable for the user of the server, or set `server.data_dir` to a \
             directory where that user may write"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
            "; set `server.data_dir` to a directory of the server's own, or to a place for one"
        }
        _ => "",
    }
}

/// What a keyring lacks, in words.
fn unfit(missing: &[String], different: &[String]) -> String {
    let part =
        |words: &str, names: &[String]| (!names.is_empty()).then(|| format!("{words} {}", names.join(", ")));
    let parts = [part("it lacks", missing), part("other keys bear the names", different)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
