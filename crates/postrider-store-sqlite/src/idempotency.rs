//! Idempotency records: what a request with the same key had created. Written in the transaction that creates it.

use crate::failure::Failure;
use postrider_model::{environment::EnvironmentId, time::Timestamp};
use postrider_store::idempotency::IdempotencyKey;
use rusqlite::{Connection, OptionalExtension, params};

/// What a record names. Kept in the database; never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Application = 1,
    Endpoint = 2,
    EventType = 3,
    Message = 4,
    Resend = 5,
    Rotation = 6,
}

/// What a request with this key created before, unless that is too long ago.
pub(crate) fn recall(
    connection: &Connection,
    environment: &EnvironmentId,
    key: Option<&IdempotencyKey>,
    kind: Kind,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(key) = key else { return Ok(None) };
    let created = connection
        .prepare_cached(
            "SELECT created FROM idempotency
             WHERE environment = ?1 AND digest = ?2 AND kind = ?3 AND expires_at > ?4",
        )?
        .query_row(params![environment.as_str(), key.digest, kind as u8, now.as_micros()], |row| row.get(0))
        .optional()?;
    Ok(created)
}

/// Remembers what a request with this key created; replaces what has expired.
pub(crate) fn remember(
    connection: &Connection,
    environment: &EnvironmentId,
    key: Option<&IdempotencyKey>,
    kind: Kind,
    created: &[u8],
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(key) = key else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO idempotency (environment, digest, kind, created, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            environment.as_str(),
            key.digest,
            kind as u8,
            created,
            now.plus(key.lifetime).as_micros()
        ])?;
    Ok(())
}
