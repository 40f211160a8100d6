//! Retention: what is old goes, in small batches, and nothing that is pending is touched.
//!
//! What can go is looked for by readers, along indexes whose start is the oldest; the writer only deletes, and asks
//! once more whether it may. A look goes over a bounded number of rows and continues where the last one ended, so that
//! many old deliveries that still wait do not make each look longer.

use crate::{
    SqliteStore,
    failure::Failure,
    held, payload_rows, space,
    values::{id_at, key},
    writer::{Isolation, Scope},
};
use async_trait::async_trait;
use postrider_model::id::{AttemptId, EndpointId, Ksuid, MessageId};
use postrider_store::{
    StoreError,
    retention::{Cutoffs, Expired, Retention},
};
use rusqlite::{Connection, Row, params};
use std::{sync::PoisonError, time::Duration};
use tokio::time::Instant;

/// Rows that a look goes over, for each that it may find.
const ROWS_PER_FIND: usize = 20;
/// How long one operation may delete.
const OPERATION_TIME: Duration = Duration::from_millis(20);
/// A delivery of this message is pending.
const WAITS: &str =
    "EXISTS (SELECT 1 FROM delivery WHERE delivery.message = candidate.message AND state = 0)";

/// Idempotency records, overlapped secrets, deleted endpoints and applications without history: each until an instant,
/// so many at most.
pub(crate) const OLD_OTHERS: [&str; 4] = [
    "DELETE FROM idempotency WHERE (environment, digest) IN
     (SELECT environment, digest FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)",
    "DELETE FROM secret WHERE (owner, kind, id, version) IN
     (SELECT owner, kind, id, version FROM secret
      WHERE valid_until IS NOT NULL AND valid_until <= ?1 LIMIT ?2)",
    "DELETE FROM endpoint WHERE id IN
     (SELECT id FROM endpoint WHERE deleted_at IS NOT NULL AND deleted_at < ?1
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.endpoint = endpoint.id) LIMIT ?2)",
    "DELETE FROM application WHERE id IN
     (SELECT id FROM application WHERE deleted_at IS NOT NULL AND deleted_at < ?1
        AND NOT EXISTS (SELECT 1 FROM message WHERE message.application = application.id)
        AND NOT EXISTS (SELECT 1 FROM endpoint
                        WHERE endpoint.application = application.id AND endpoint.deleted_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM endpoint
                        WHERE endpoint.application = application.id AND endpoint.deleted_at IS NULL) LIMIT ?2)",
];

/// Where the next look begins; empty at the oldest.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    payloads: Option<i64>,
    attempts: Option<(Ksuid, Ksuid, Ksuid)>,
    messages: Option<Ksuid>,
    gone: Gone,
    pub(crate) held: held::Looks,
}

/// Which kinds this round has gone through to their ends.
#[derive(Debug, Default, Clone, Copy)]
struct Gone {
    payloads: bool,
    attempts: bool,
    messages: bool,
}

impl Gone {
    fn all(self) -> bool {
        self.payloads && self.attempts && self.messages
    }
}

/// An attempt's place in its table.
type Place = (MessageId, EndpointId, AttemptId);

/// What a look found.
struct Look<T, P> {
    found: Vec<T>,
    /// Where the next look goes on; `None` when this one came to the end.
    next: Option<P>,
}

#[async_trait]
impl Retention for SqliteStore {
    async fn expire(&self, cutoffs: Cutoffs, batch: usize) -> Result<Expired, StoreError> {
        let batch = batch.clamp(1, 10_000);
        let more_held = held::expire(&self.shared, batch).await?;
        // What this round has gone through is left alone until all else has been: kinds whose looks take turns at coming
        // to their ends would never let a round end.
        let Gone { payloads, attempts, messages } = self.position(|positions| positions.gone);
        let mut expired = Expired {
            payloads: if payloads { 0 } else { self.expire_payloads(batch).await? },
            attempts: if attempts { 0 } else { self.expire_attempts(cutoffs, batch).await? },
            messages: if messages { 0 } else { self.expire_messages(cutoffs, batch).await? },
            others: self
                .shared
                .write(Isolation::Own, move |work| expire_others(work, cutoffs, batch))
                .await?,
            more: false,
        };
        let more_space = space::give_back(&self.shared).await?;
        let round_ended = self.position(|positions| {
            let ended = positions.gone.all();
            if ended {
                positions.gone = Gone::default();
            }
            ended
        });
        expired.more = !round_ended || more_held || more_space || expired.others >= batch as u64;
        Ok(expired)
    }
}

impl SqliteStore {
    fn position<T>(&self, read: impl FnOnce(&mut Positions) -> T) -> T {
        read(&mut self.shared.positions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn expire_payloads(&self, batch: usize) -> Result<u64, StoreError> {
        let now = self.shared.clock.now();
        let from = self.position(|positions| positions.payloads).unwrap_or(-1);
        let look = self
            .shared
            .readers
            .read(move |connection| {
                let query = old_payloads();
                let from = params![from, payload_rows::first_after(now), rows(batch)];
                look(connection, &query, from, batch, |row| {
                    let (message, number): (MessageId, i64) = (id_at(row, 0)?, row.get(1)?);
                    Ok(((message, number), number, row.get(2)?))
                })
            })
            .await?;
        self.position(|positions| {
            positions.gone.payloads = look.next.is_none();
            positions.payloads = look.next;
        });
        self.delete(look.found, |connection, (message, number)| {
            Ok(!waits(connection, message)? && payload_rows::delete(connection, number)?)
        })
        .await
    }

    async fn expire_attempts(&self, cutoffs: Cutoffs, batch: usize) -> Result<u64, StoreError> {
        let cut = Ksuid::floor(cutoffs.attempts);
        let from = self.position(|positions| positions.attempts);
        let look = self
            .shared
            .readers
            .read(move |connection| {
                // An attempt is younger than its message: beyond the cut no message has an older attempt.
                let query = old_attempts();
                let bytes = |id: Option<&Ksuid>| id.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
                let values = params![
                    bytes(from.as_ref().map(|from| &from.0)),
                    bytes(from.as_ref().map(|from| &from.1)),
                    bytes(from.as_ref().map(|from| &from.2)),
                    cut.as_bytes(),
                    rows(batch)
                ];
                look(connection, &query, values, batch, |row| {
                    let place: Place = (id_at(row, 0)?, id_at(row, 1)?, id_at(row, 2)?);
                    Ok((place, (*place.0.ksuid(), *place.1.ksuid(), *place.2.ksuid()), row.get(3)?))
                })
            })
            .await?;
        self.position(|positions| {
            positions.gone.attempts = look.next.is_none();
            positions.attempts = look.next;
        });
        self.delete(look.found, |connection, place| {
            Ok(!waits(connection, place.0)? && delete_attempt(connection, place)?)
        })
        .await
    }

    async fn expire_messages(&self, cutoffs: Cutoffs, batch: usize) -> Result<u64, StoreError> {
        let cut = Ksuid::floor(cutoffs.messages);
        let from = self.position(|positions| positions.messages);
        let look = self
            .shared
            .readers
            .read(move |connection| {
                let query = old_messages();
                let from = from.map_or_else(Vec::new, |from| from.as_bytes().to_vec());
                look(connection, &query, params![from, cut.as_bytes(), rows(batch)], batch, |row| {
                    let id: MessageId = id_at(row, 0)?;
                    Ok((id, *id.ksuid(), row.get(1)?))
                })
            })
            .await?;
        self.position(|positions| {
            positions.gone.messages = look.next.is_none();
            positions.messages = look.next;
        });
        self.delete(look.found, |connection, message| {
            Ok(!waits(connection, message)? && delete_message(connection, message)?)
        })
        .await
    }

    /// Deletes what a look found, each for itself. An operation stops after a time: payloads of a mebibyte are a
    /// thousand times the work of small ones, and commits of others wait meanwhile.
    async fn delete<T: Send + 'static>(
        &self,
        found: Vec<T>,
        delete: fn(&Connection, T) -> Result<bool, Failure>,
    ) -> Result<u64, StoreError> {
        let mut left = found.into_iter();
        let mut deleted = 0;
        while left.len() > 0 {
            let mut found = left;
            let some = move |work: &mut Scope<'_>| {
                let begun = Instant::now();
                let mut deleted = 0;
                while begun.elapsed() < OPERATION_TIME
                    && let Some(next) = found.next()
                {
                    deleted += u64::from(delete(work.connection, next)?);
                }
                Ok((deleted, found))
            };
            let (some, rest) = self.shared.write(Isolation::Own, some).await?;
            deleted += some;
            left = rest;
        }
        Ok(deleted)
    }
}

pub(crate) fn rows(batch: usize) -> i64 {
    most(batch.saturating_mul(ROWS_PER_FIND))
}

fn most(batch: usize) -> i64 {
    i64::try_from(batch).unwrap_or(i64::MAX)
}

/// Goes over rows of (thing, place, must stay) until enough can go or the rows end.
fn look<T, P>(
    connection: &Connection,
    query: &str,
    values: &[&dyn rusqlite::ToSql],
    batch: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<(T, P, bool)>,
) -> Result<Look<T, P>, Failure> {
    let mut statement = connection.prepare_cached(query)?;
    let mut answer = statement.query(values)?;
    let (mut found, mut seen, mut last) = (Vec::new(), 0, None);
    while found.len() < batch
        && let Some(row) = answer.next()?
    {
        let (thing, place, stays) = read(row)?;
        seen += 1;
        last = Some(place);
        if !stays {
            found.push(thing);
        }
    }
    let ended = found.len() < batch && seen < batch.saturating_mul(ROWS_PER_FIND);
    Ok(Look { found, next: if ended { None } else { last } })
}

/// Payloads past their expiry from a place on, and which must stay.
pub(crate) fn old_payloads() -> String {
    format!(
        "SELECT candidate.message, candidate.id, {WAITS} FROM payload AS candidate
         WHERE candidate.id > ?1 AND candidate.id < ?2 ORDER BY candidate.id LIMIT ?3"
    )
}

/// Attempts of messages before a cut from a place on, and which must stay.
pub(crate) fn old_attempts() -> String {
    format!(
        "SELECT candidate.message, candidate.endpoint, candidate.id, candidate.id >= ?4 OR {WAITS}
         FROM attempt AS candidate
         WHERE (candidate.message, candidate.endpoint, candidate.id) > (?1, ?2, ?3)
           AND candidate.message < ?4
         ORDER BY candidate.message, candidate.endpoint, candidate.id LIMIT ?5"
    )
}

/// Messages before a cut from a place on, and which must stay.
pub(crate) fn old_messages() -> String {
    format!(
        "SELECT candidate.message, {WAITS} FROM (SELECT id AS message FROM message) AS candidate
         WHERE candidate.message > ?1 AND candidate.message < ?2 ORDER BY candidate.message LIMIT ?3"
    )
}

fn waits(connection: &Connection, message: MessageId) -> Result<bool, Failure> {
    Ok(connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND state = 0)")?
        .query_row([key(&message)], |row| row.get(0))?)
}

fn delete_attempt(connection: &Connection, (message, endpoint, id): Place) -> Result<bool, Failure> {
    connection.prepare_cached("DELETE FROM response WHERE attempt = ?1")?.execute([key(&id)])?;
    let deleted = connection
        .prepare_cached("DELETE FROM attempt WHERE message = ?1 AND endpoint = ?2 AND id = ?3")?
        .execute(params![key(&message), key(&endpoint), key(&id)])?;
    Ok(deleted > 0)
}

/// A message with everything that hangs on it.
fn delete_message(connection: &Connection, message: MessageId) -> Result<bool, Failure> {
    for statement in [
        "DELETE FROM response WHERE attempt IN (SELECT id FROM attempt WHERE message = ?1)",
        "DELETE FROM attempt WHERE message = ?1",
        "DELETE FROM delivery WHERE message = ?1",
        "DELETE FROM payload WHERE message = ?1 AND id = (SELECT payload FROM message WHERE id = ?1)",
        "DELETE FROM message WHERE id = ?1",
    ] {
        connection.prepare_cached(statement)?.execute([key(&message)])?;
    }
    Ok(true)
}

/// Idempotency records, overlapped signing secrets, and deleted endpoints and applications without history.
fn expire_others(work: &mut Scope<'_>, cutoffs: Cutoffs, batch: usize) -> Result<u64, Failure> {
    let (connection, now) = (work.connection, work.now.as_micros());
    let old = cutoffs.messages.as_micros();
    let delete = |query: &str, before: i64| -> Result<usize, Failure> {
        Ok(connection.prepare_cached(query)?.execute(params![before, most(batch)])?)
    };
    let [keys, secrets, endpoints, applications] = OLD_OTHERS;
    let deleted = delete(keys, now)? + delete(secrets, now)?;
    delete(endpoints, old)?;
    delete(applications, old)?;
    Ok(deleted as u64)
}
