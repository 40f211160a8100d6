//! What can go wrong inside this crate, and what the contract's callers are told of it.

use postrider_store::{StoreError, WriteError, deliveries::ResendError};
use rusqlite::ErrorCode;
use std::{fmt::Display, time::Duration};

/// How soon asking again makes sense when the store is busy or away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SQLite said no.
    Sql(rusqlite::Error),
    /// The store's own reasons.
    Store(StoreError),
    /// The caller's reasons.
    Refused(Refusal),
}

/// Why a caller cannot have what was asked.
#[derive(Debug)]
pub(crate) enum Refusal {
    Taken,
    Stale,
    Missing,
    Limit(String),
    PayloadGone,
    /// The configuration changed since the message was matched with it.
    MatchAgain,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sql(error) => of_sql(&error),
            Failure::Store(error) => error,
            Failure::Refused(refusal) => {
                Self::Internal { detail: format!("unexpected refusal: {refusal:?}") }
            }
        }
    }
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Refusal::Taken) => Self::Taken,
            Failure::Refused(Refusal::Stale | Refusal::MatchAgain) => Self::Stale,
            Failure::Refused(Refusal::Missing) => Self::Missing,
            Failure::Refused(Refusal::Limit(text)) => Self::Limit(text),
            other => Self::Store(other.into()),
        }
    }
}

impl From<Failure> for ResendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Refusal::Missing) => Self::Missing,
            Failure::Refused(Refusal::PayloadGone) => Self::PayloadGone,
            other => Self::Store(other.into()),
        }
    }
}

impl Failure {
    /// A uid, event id or name that another row has becomes [`Refusal::Taken`].
    pub(crate) fn taken_on_conflict(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
            return Self::Refused(Refusal::Taken);
        }
        Self::Sql(error)
    }
}

/// A stored value does not read as what it must be.
pub(crate) fn inconsistent<R: Display>(table: &'static str, column: &'static str, row: R) -> Failure {
    Failure::Store(StoreError::Inconsistent { table, column, row: format!("{row}") })
}

/// The class of an SQLite error. No room for the log's index is a full disk too.
pub(crate) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error.sqlite_error() {
        Some(error) if error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => {
            Some(ErrorCode::DiskFull)
        }
        Some(error) => Some(error.code),
        None => None,
    }
}

/// Whose fault an SQLite error is: space, time, or ours.
pub(crate) fn of_sql(error: &rusqlite::Error) -> StoreError {
    match code(error) {
        Some(ErrorCode::DiskFull) => {
            StoreError::Full { detail: "no space is left for the database".to_owned() }
        }
        Some(ErrorCode::OperationInterrupted) => {
            unavailable("a query took longer than it may; restrict it to a shorter time".to_owned())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable("the database is busy".to_owned())
        }
        Some(ErrorCode::SystemIoFailure) => unavailable(format!("the disk failed: {error}")),
        _ => StoreError::Internal { detail: error.to_string() },
    }
}

/// Busy, closing or broken.
pub(crate) fn unavailable(detail: String) -> StoreError {
    StoreError::Unavailable { detail, retry_after: RETRY_AFTER }
}
