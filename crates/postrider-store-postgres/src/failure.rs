//! What can go wrong inside this crate, and what the contract's callers are told of it.

use postrider_store::{StoreError, WriteError, deliveries::ResendError};
use std::{fmt::Display, time::Duration};
use tokio_postgres::error::SqlState;

/// How soon asking again makes sense when the store is busy or away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why an operation did not happen.
#[derive(Debug)]
pub(crate) enum Failure {
    /// PostgreSQL said no, or could not be asked.
    Sql(tokio_postgres::Error),
    /// The store's own reasons.
    Store(StoreError),
    /// The caller's reasons.
    Refused(Refusal),
}

/// Why a caller cannot have what was asked.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    Taken,
    Stale,
    Missing,
    Limit(String),
    PayloadGone,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
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
            Failure::Refused(Refusal::Stale) => Self::Stale,
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
    pub(crate) fn taken_on_conflict(self) -> Self {
        if self.code() == Some(&SqlState::UNIQUE_VIOLATION) { Self::Refused(Refusal::Taken) } else { self }
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            _ => None,
        }
    }

    /// A lock was not to be had in the time that was set for it.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// The connection ended before the answer: what was asked may have happened.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Sql(error) => {
                error.as_db_error().is_none() || self.code() == Some(&SqlState::ADMIN_SHUTDOWN)
            }
            Self::Store(StoreError::Unavailable { .. }) => true,
            _ => false,
        }
    }

    /// Somebody else wrote the same key at the same time, or two transactions waited for each other: once more.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code().is_some_and(|code| {
            [SqlState::UNIQUE_VIOLATION, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED]
                .contains(code)
        })
    }
}

/// A stored value does not read as what it must be.
pub(crate) fn inconsistent<R: Display>(table: &'static str, column: &'static str, row: R) -> Failure {
    Failure::Store(StoreError::Inconsistent { table, column, row: format!("{row}") })
}

/// Whose fault an error is: space, time, the way there, or ours. Never names values: those may be a user's data.
pub(crate) fn of_sql(error: &tokio_postgres::Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        return if error.is_closed()
            || std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
        {
            unavailable("the connection to the database ended".to_owned())
        } else {
            StoreError::Internal { detail: error.to_string() }
        };
    };
    let code = database.code();
    let text = format!("{} ({})", database.message(), code.code());
    if *code == SqlState::DISK_FULL {
        return StoreError::Full { detail: format!("the database has no space left: {text}") };
    }
    if *code == SqlState::QUERY_CANCELED {
        return unavailable("a query took longer than it may; restrict it to a shorter time".to_owned());
    }
    // Connection, resources, operator intervention, read-only (a standby), locks: all may pass.
    let passing = ["08", "53", "57", "25", "40", "55"].iter().any(|class| code.code().starts_with(class));
    if passing { unavailable(text) } else { StoreError::Internal { detail: text } }
}

/// Busy, closing or away.
pub(crate) fn unavailable(detail: String) -> StoreError {
    StoreError::Unavailable { detail, retry_after: RETRY_AFTER }
}

/// The store is closing.
pub(crate) fn closing() -> StoreError {
    unavailable("the store is closing".to_owned())
}
