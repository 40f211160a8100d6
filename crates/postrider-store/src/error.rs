//! Errors of the contract. Absence is `Option`, never an error.

use std::time::Duration;

/// Why a store could not do what it was asked; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database is away, closing or too busy: ask again.
    #[error("the store is not available: {detail}")]
    Unavailable {
        /// For the operator.
        detail: String,
        /// When asking again makes sense.
        retry_after: Duration,
    },
    /// No space left; reading still works.
    #[error("the store is full: {detail}")]
    Full {
        /// For the operator: which file system or limit.
        detail: String,
    },
    /// A stored value does not read as what it must be.
    #[error("inconsistent value in {table}.{column} of row {row}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// The row's key, printable.
        row: String,
    },
    /// A secret cannot be opened: its key is missing or the row was tampered with.
    #[error("a stored credential cannot be opened: {detail}")]
    Sealed {
        /// Which one and why; never the secret.
        detail: String,
    },
    /// Anything else, a defect.
    #[error("store failure: {detail}")]
    Internal {
        /// For the operator.
        detail: String,
    },
}

/// Why a write of configuration was refused; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The uid, event id or name is in use.
    #[error("the name is taken")]
    Taken,
    /// What was to be changed has been changed by someone else since it was read.
    #[error("changed by someone else meanwhile")]
    Stale,
    /// What was to be changed does not exist (any more).
    #[error("not found")]
    Missing,
    /// A bound would be exceeded; the text names it.
    #[error("{0}")]
    Limit(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
