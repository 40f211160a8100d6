//! What a start finds: attempts during which the process died, deliveries of endpoints that were being deleted, and
//! the work that waits.

use crate::{
    OpenError, attempt_rows,
    failure::Failure,
    in_flight::Begun,
    progress::{self, code},
    values::{count, id_at, instant_at, key},
};
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{State, Trigger},
    id::EndpointId,
    limits,
    outcome::Outcome,
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    Ids, StoreError,
    agenda::{Agenda, OnDisk, Part},
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::time::Duration;

/// Deliveries cancelled in one transaction.
const CANCEL_BATCH: i64 = 5000;

/// What waits, of first attempts and of retries: one walk along an index.
pub(crate) const WAITING: &str =
    "SELECT waiting.endpoint, endpoint.application, waiting.retries, endpoint.disabled_at IS NOT NULL,
            waiting.first_due, waiting.deliveries
     FROM (SELECT endpoint, attempts > 0 AS retries, MIN(next_attempt_at) AS first_due, COUNT(*) AS deliveries
           FROM delivery INDEXED BY delivery_due WHERE state = 0 GROUP BY endpoint, attempts > 0) AS waiting
     JOIN endpoint ON endpoint.id = waiting.endpoint";

/// Books the attempts that had begun when the process died: each as an attempt with the outcome `interrupted`, its
/// delivery due now with one more death. The delivery that was there at too many deaths is set aside. Returns how many
/// there were.
pub(crate) fn book_interrupted(
    connection: &mut Connection,
    ids: &Ids,
    mut left: Vec<Begun>,
    now: Timestamp,
) -> Result<usize, OpenError> {
    // Ids grow with the time they are made for.
    left.sort_by_key(|begun| begun.started_at);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut interrupted = 0;
    for begun in &left {
        let booked =
            book(&transaction, ids, begun, now).map_err(|failure| OpenError::Store(failure.into()))?;
        interrupted += usize::from(booked);
    }
    transaction.commit()?;
    Ok(interrupted)
}

/// `false` when the attempt had ended.
fn book(connection: &Connection, ids: &Ids, begun: &Begun, now: Timestamp) -> Result<bool, Failure> {
    let delivery = begun.delivery;
    let (message, endpoint) = (key(&delivery.message), key(&delivery.endpoint));
    let found: Option<(u8, u32, u32, u8)> = connection
        .prepare_cached(
            "SELECT state, attempts, deaths, cause FROM delivery
             WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
        )?
        .query_row(params![message, endpoint, delivery.generation], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((state, attempts, deaths, cause)) = found else { return Ok(false) };
    // Its result was stored; the slot was free.
    if attempts >= begun.number {
        return Ok(false);
    }
    attempt_rows::insert(
        connection,
        &Attempt {
            id: ids.next(begun.started_at),
            delivery,
            number: begun.number,
            trigger: Trigger::from_code(cause).unwrap_or(Trigger::Scheduled),
            url: begun.url.clone(),
            started_at: begun.started_at,
            duration: Duration::ZERO,
            outcome: Outcome::Interrupted,
            detail: "the server stopped during this attempt; whether the endpoint got it is unknown"
                .to_owned(),
            status: None,
            response: Response::default(),
            phases: Phases::default(),
        },
    )?;
    let deaths = deaths.saturating_add(1);
    let state = match state {
        code::PENDING if deaths >= limits::POISON_DEATHS => Some(State::Failed(GiveUp::Quarantined)),
        code::PENDING => Some(State::Pending { next_attempt_at: now }),
        _ => None,
    };
    let (code, reason) = state.map_or((None, None), |state| {
        let (code, reason) = progress::columns(state);
        (Some(code), reason)
    });
    connection
        .prepare_cached(
            "UPDATE delivery SET attempts = ?4, deaths = ?5, state = COALESCE(?6, state),
                 reason = COALESCE(?7, reason), next_attempt_at = MIN(next_attempt_at, ?8)
             WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
        )?
        .execute(params![
            message,
            endpoint,
            delivery.generation,
            begun.number,
            deaths,
            code,
            reason,
            now.as_micros()
        ])?;
    Ok(true)
}

/// Cancels what a stop left pending of deleted endpoints.
pub(crate) fn cancel_deleted(connection: &Connection) -> Result<(), OpenError> {
    let endpoints = connection
        .prepare(
            "SELECT id FROM endpoint WHERE deleted_at IS NOT NULL
               AND EXISTS (SELECT 1 FROM delivery WHERE delivery.endpoint = endpoint.id AND state = 0)",
        )?
        .query_map([], |row| id_at(row, 0))?
        .collect::<Result<Vec<EndpointId>, _>>()?;
    for endpoint in endpoints {
        loop {
            let changed = connection.execute(
                "UPDATE delivery SET state = 3 WHERE (message, endpoint, generation) IN
                 (SELECT message, endpoint, generation FROM delivery INDEXED BY delivery_due
                  WHERE endpoint = ?1 AND state = 0 LIMIT ?2)",
                params![key(&endpoint), CANCEL_BATCH],
            )?;
            if changed == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Fills the agenda: one walk over the index of what is pending, on a connection of its own, whose memory is given back.
pub(crate) fn fill(agenda: &mut Agenda, connection: &Connection, now: Timestamp) -> Result<(), OpenError> {
    let mut statement = connection.prepare(WAITING)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let found = OnDisk {
            endpoint: id_at(row, 0)?,
            application: id_at(row, 1)?,
            part: if row.get(2)? { Part::Retries } else { Part::First },
            held: row.get(3)?,
            due: instant_at(row, 4)?,
            count: count(row.get(5)?),
        };
        agenda.add(found, now);
    }
    Ok(())
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
