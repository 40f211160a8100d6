//! The hold: see [`postrider_store::hold`]. Carried out endpoint by endpoint along the index of what waits, some
//! deliveries in each operation of the writer, so that others get their turns.

use crate::{
    SqliteStore,
    claim::end,
    failure::Failure,
    values::{count, id_at, instant_at, key},
    writer::{Isolation, Scope},
};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::Part,
    hold::{Decision, Fate, Hold, Holding, LATER, Place, Step, put_on, taken_off},
};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::atomic::Ordering;

/// Parts of endpoints that one operation looks at, most deliveries that it changes.
const LOOKS: usize = 500;
const MOST: usize = 10_000;

/// The endpoint after one that has something pending.
pub(crate) const NEXT_ENDPOINT: &str = "SELECT endpoint FROM delivery INDEXED BY delivery_due
     WHERE state = 0 AND endpoint > ?1 ORDER BY endpoint LIMIT 1";
/// What an endpoint has on hold of first attempts or of retries, in the order in which it was due.
pub(crate) const ON: &str =
    "SELECT message, generation, next_attempt_at, deadline_at FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?2 AND next_attempt_at >= ?3
     ORDER BY next_attempt_at, message, generation LIMIT ?4";
/// What it has that is not.
pub(crate) const OFF: &str =
    "SELECT message, generation, next_attempt_at, deadline_at FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?2 AND next_attempt_at < ?3
     ORDER BY next_attempt_at, message, generation LIMIT ?4";
const COUNT_ON: &str = "SELECT COUNT(*) FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?2 AND next_attempt_at >= ?3";

#[async_trait]
impl Holding for SqliteStore {
    async fn hold(&self) -> Result<Option<Hold>, StoreError> {
        Ok(self.shared.readers.read(read).await?)
    }

    fn held_since(&self) -> Option<Timestamp> {
        match self.shared.held_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Timestamp::from_micros(since)),
        }
    }

    async fn put_on_hold(
        &self,
        reason: &str,
        place: Option<Place>,
        batch: usize,
    ) -> Result<Step, StoreError> {
        let reason = reason.to_owned();
        let put = move |work: &mut Scope<'_>| {
            begin(work.connection, &reason, work.now)?;
            let since = since(work.connection)?.unwrap_or(work.now);
            work.after_commit(move |shared| {
                shared.held_since.store(since.as_micros(), Ordering::Relaxed);
            });
            walk(work, place, batch, OFF, put_part)
        };
        Ok(self.shared.write(Isolation::Own, put).await?)
    }

    async fn decide(
        &self,
        decision: Decision,
        place: Option<Place>,
        batch: usize,
    ) -> Result<Step, StoreError> {
        let decide = move |work: &mut Scope<'_>| {
            let step =
                walk(work, place, batch, ON, |work, place, rows| decide_part(work, decision, place, rows))?;
            if step.next.is_none() {
                work.connection.execute("DELETE FROM hold", [])?;
                work.after_commit(|shared| shared.held_since.store(0, Ordering::Relaxed));
            }
            Ok(step)
        };
        Ok(self.shared.write(Isolation::Own, decide).await?)
    }
}

/// Since when a hold lasts.
pub(crate) fn since(connection: &Connection) -> Result<Option<Timestamp>, rusqlite::Error> {
    connection.query_row("SELECT since FROM hold", [], |row| instant_at(row, 0)).optional()
}

/// A hold lasts from now on, unless one does already.
pub(crate) fn begin(connection: &Connection, reason: &str, now: Timestamp) -> Result<(), rusqlite::Error> {
    connection.execute(
        "INSERT OR IGNORE INTO hold (one, since, reason) VALUES (1, ?1, ?2)",
        params![now.as_micros(), reason],
    )?;
    Ok(())
}

/// Puts everything that is pending on hold: while nobody else has the database. Returns how much there was.
pub(crate) fn put_all(
    connection: &Connection,
    reason: &str,
    now: Timestamp,
) -> Result<usize, rusqlite::Error> {
    begin(connection, reason, now)?;
    connection.execute(
        "UPDATE delivery SET next_attempt_at = next_attempt_at + ?1 WHERE state = 0 AND next_attempt_at < ?1",
        [LATER],
    )
}

fn read(connection: &Connection) -> Result<Option<Hold>, Failure> {
    let found = connection
        .query_row("SELECT since, reason FROM hold", [], |row| Ok((instant_at(row, 0)?, row.get(1)?)))
        .optional()?;
    let Some((since, reason)) = found else { return Ok(None) };
    let (deliveries, overdue, oldest): (i64, i64, Option<i64>) = connection.query_row(
        "SELECT COUNT(*), COALESCE(SUM(next_attempt_at < ?2), 0), MIN(next_attempt_at)
         FROM delivery INDEXED BY delivery_due WHERE state = 0 AND next_attempt_at >= ?1",
        [LATER, put_on(since).as_micros()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let oldest_due = oldest.map(|due| taken_off(Timestamp::from_micros(due)));
    Ok(Some(Hold { since, reason, deliveries: count(deliveries), overdue: count(overdue), oldest_due }))
}

/// A pending delivery as it is found.
struct Found {
    delivery: DeliveryId,
    due: Timestamp,
    deadline: Timestamp,
}

/// Goes along the parts of endpoints, does something with what `query` finds in each, and tells where to go on.
fn walk(
    work: &mut Scope<'_>,
    place: Option<Place>,
    batch: usize,
    query: &str,
    mut act: impl FnMut(&mut Scope<'_>, Place, Vec<Found>) -> Result<(u64, u64), Failure>,
) -> Result<Step, Failure> {
    let mut left = batch.clamp(1, MOST);
    let next = match place {
        Some(place) => Some(place),
        None => next_endpoint(work.connection, &[])?,
    };
    let mut step = Step { next, ..Step::default() };
    for _ in 0..LOOKS {
        let Some(mut place) = step.next.filter(|_| left > 0) else { break };
        let found = part(work.connection, query, place, left)?;
        let number = found.len();
        if number > 0 && place.of == 0 {
            let values = params![key(&place.endpoint), place.retries, LATER];
            place.of = count(work.connection.prepare_cached(COUNT_ON)?.query_row(values, |row| row.get(0))?);
        }
        let (moved, cancelled) = if number > 0 { act(work, place, found)? } else { (0, 0) };
        step.moved += moved;
        step.cancelled += cancelled;
        step.next = if number == left {
            Some(Place { done: place.done + number as u64, ..place })
        } else if place.retries {
            next_endpoint(work.connection, key(&place.endpoint))?
        } else {
            Some(Place::first(place.endpoint, true))
        };
        left -= number;
    }
    Ok(step)
}

fn next_endpoint(connection: &Connection, after: &[u8]) -> Result<Option<Place>, Failure> {
    let mut statement = connection.prepare_cached(NEXT_ENDPOINT)?;
    let next: Option<EndpointId> = statement.query_row([after], |row| id_at(row, 0)).optional()?;
    Ok(next.map(|endpoint| Place::first(endpoint, false)))
}

fn part(connection: &Connection, query: &str, place: Place, most: usize) -> Result<Vec<Found>, Failure> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(params![key(&place.endpoint), place.retries, LATER, most], |row| {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: place.endpoint, generation: row.get(1)? };
        Ok(Found { delivery, due: instant_at(row, 2)?, deadline: instant_at(row, 3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn set_times(
    connection: &Connection,
    delivery: DeliveryId,
    due: Timestamp,
    deadline: Timestamp,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE delivery SET next_attempt_at = ?4, deadline_at = ?5
             WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
        )?
        .execute(params![
            key(&delivery.message),
            key(&delivery.endpoint),
            delivery.generation,
            due.as_micros(),
            deadline.as_micros()
        ])?;
    Ok(())
}

fn put_part(work: &mut Scope<'_>, _: Place, found: Vec<Found>) -> Result<(u64, u64), Failure> {
    let (moved, now) = (found.len() as u64, work.now);
    for one in &found {
        set_times(work.connection, one.delivery, put_on(one.due), one.deadline)?;
    }
    work.after_commit(move |shared| {
        let mut agenda = shared.agenda();
        for one in found {
            agenda.put_on_hold(one.delivery, now);
        }
    });
    Ok((moved, 0))
}

fn decide_part(
    work: &mut Scope<'_>,
    decision: Decision,
    place: Place,
    found: Vec<Found>,
) -> Result<(u64, u64), Failure> {
    let (mut ended, mut earliest, mut moved, now) = (Vec::new(), None::<Timestamp>, 0, work.now);
    for (number, one) in (place.done..).zip(found) {
        match decision.fate(taken_off(one.due), one.deadline, number, place.of) {
            Fate::Cancelled => {
                end(work, one.delivery, State::Cancelled)?;
                ended.push(one.delivery);
            }
            Fate::Due { at, deadline } => {
                set_times(work.connection, one.delivery, at, deadline)?;
                earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
                moved += 1;
            }
        }
    }
    let cancelled = ended.len() as u64;
    let lane = lane(work.connection, place.endpoint)?;
    let part = if place.retries { Part::Retries } else { Part::First };
    work.after_commit(move |shared| {
        let mut agenda = shared.agenda();
        for delivery in ended {
            agenda.settled(delivery, now);
        }
        if let (Some((application, held)), Some(due)) = (lane, earliest) {
            agenda.lies_in_database(application, place.endpoint, part, Some(held), due, now);
        }
        drop(agenda);
        shared.claimable.notify_one();
    });
    Ok((moved, cancelled))
}

/// Whose endpoint it is, and whether it is disabled; `None` when it was deleted.
fn lane(connection: &Connection, endpoint: EndpointId) -> Result<Option<(ApplicationId, bool)>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT application, disabled_at IS NOT NULL FROM endpoint WHERE id = ?1 AND deleted_at IS NULL",
    )?;
    Ok(statement.query_row([key(&endpoint)], |row| Ok((id_at(row, 0)?, row.get(1)?))).optional()?)
}
