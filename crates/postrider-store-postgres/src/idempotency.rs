//! Idempotency records: what a request with the same key had created. Written in the transaction that creates it.

use crate::{connection::Connection, failure::Failure, schema::lock, values::at};
use postrider_model::{environment::EnvironmentId, time::Timestamp};
use postrider_store::idempotency::IdempotencyKey;

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

/// What a request with this key created before, unless that is too long ago. Others with the same key wait until this
/// transaction ends: one of them creates, the others find it.
pub(crate) async fn recall(
    connection: &Connection,
    environment: &EnvironmentId,
    key: Option<&IdempotencyKey>,
    kind: Kind,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(key) = key else { return Ok(None) };
    let [a, b, c, d, ..] = key.digest;
    connection
        .query(
            "SELECT pg_advisory_xact_lock($1, $2)",
            &[&lock::IDEMPOTENCY, &i32::from_be_bytes([a, b, c, d])],
        )
        .await?;
    let row = connection
        .first_row(
            "SELECT created FROM idempotency
             WHERE environment = $1 AND digest = $2 AND kind = $3 AND expires_at > $4",
            &[&environment.as_str(), &&key.digest[..], &(kind as i16), &now.as_micros()],
        )
        .await?;
    row.map(|row| at(&row, 0)).transpose()
}

/// Remembers what a request with this key created; replaces what has expired.
pub(crate) async fn remember(
    connection: &Connection,
    environment: &EnvironmentId,
    key: Option<&IdempotencyKey>,
    kind: Kind,
    created: &[u8],
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(key) = key else { return Ok(()) };
    connection
        .execute(
            "INSERT INTO idempotency (environment, digest, kind, created, expires_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (environment, digest)
             DO UPDATE SET kind = excluded.kind, created = excluded.created, expires_at = excluded.expires_at",
            &[
                &environment.as_str(),
                &&key.digest[..],
                &(kind as i16),
                &created,
                &now.plus(key.lifetime).as_micros(),
            ],
        )
        .await?;
    Ok(())
}
