//! The attempt table: writing and reading its rows. Response bodies lie apart, most are empty.

use crate::{
    failure::{Failure, inconsistent},
    values::{duration, duration_or_null, id_at, instant_at, key, micros},
};
use bytes::Bytes;
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{DeliveryId, Trigger},
    id::AttemptId,
    outcome::Outcome,
};
use rusqlite::{Connection, Row, params};
use std::time::Duration;

/// The columns that [`read`] expects, from 0.
pub(crate) const COLUMNS: &str = "attempt.id, attempt.message, attempt.endpoint, attempt.generation, attempt.number, \
     attempt.cause, attempt.url, attempt.started_at, attempt.duration, attempt.outcome, attempt.detail, \
     attempt.status, attempt.truncated, attempt.expunged, attempt.token, attempt.dns, attempt.connect, attempt.tls, \
     attempt.first_byte, response.body";
/// The join that [`COLUMNS`] needs.
pub(crate) const JOIN: &str = "LEFT JOIN response ON response.attempt = attempt.id";

/// Writes an attempt.
pub(crate) fn insert(connection: &Connection, attempt: &Attempt) -> Result<(), Failure> {
    let phase = |phase: Option<Duration>| phase.map(micros);
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO attempt (message, endpoint, id, generation, number, cause, url, started_at, duration,
                 outcome, detail, status, truncated, expunged, token, dns, connect, tls, first_byte)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?
        .execute(params![
            key(&attempt.delivery.message),
            key(&attempt.delivery.endpoint),
            key(&attempt.id),
            attempt.delivery.generation,
            attempt.number,
            attempt.trigger.code(),
            attempt.url,
            attempt.started_at.as_micros(),
            micros(attempt.duration),
            attempt.outcome.code(),
            attempt.detail,
            attempt.status,
            attempt.response.truncated,
            attempt.response.expunged,
            phase(attempt.phases.token),
            phase(attempt.phases.dns),
            phase(attempt.phases.connect),
            phase(attempt.phases.tls),
            phase(attempt.phases.first_byte),
        ])?;
    if !attempt.response.body.is_empty() {
        connection
            .prepare_cached("INSERT OR REPLACE INTO response (attempt, body) VALUES (?1, ?2)")?
            .execute(params![key(&attempt.id), &attempt.response.body[..]])?;
    }
    Ok(())
}

/// An attempt of a row of [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>) -> Result<Attempt, Failure> {
    let id: AttemptId = id_at(row, 0)?;
    let bad = |column| inconsistent("attempt", column, id);
    Ok(Attempt {
        id,
        delivery: DeliveryId { message: id_at(row, 1)?, endpoint: id_at(row, 2)?, generation: row.get(3)? },
        number: row.get(4)?,
        trigger: Trigger::from_code(row.get(5)?).ok_or_else(|| bad("cause"))?,
        url: row.get(6)?,
        started_at: instant_at(row, 7)?,
        duration: duration(row.get(8)?),
        outcome: Outcome::from_code(row.get(9)?).ok_or_else(|| bad("outcome"))?,
        detail: row.get(10)?,
        status: row.get(11)?,
        response: Response {
            body: row.get::<_, Option<Vec<u8>>>(19)?.map(Bytes::from).unwrap_or_default(),
            truncated: row.get(12)?,
            expunged: row.get(13)?,
        },
        phases: Phases {
            token: duration_or_null(row, 14)?,
            dns: duration_or_null(row, 15)?,
            connect: duration_or_null(row, 16)?,
            tls: duration_or_null(row, 17)?,
            first_byte: duration_or_null(row, 18)?,
        },
    })
}
