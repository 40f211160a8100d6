//! The hold: see [`postrider_store::hold`]. Carried out endpoint by endpoint along the index of what waits. And whether this
//! database is where it was: one that was brought back from a dump lies elsewhere, and what it takes for pending may have
//! been sent.

use crate::{
    PostgresStore,
    connection::Connection,
    failure::{Failure, unavailable},
    schema::lock,
    settled::{self, End},
    shards,
    values::{at, count, id_at, instant_at, key, number, number_at, rows},
    work::Work,
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
    hold::{Decision, Fate, Hold, Holding, LATER, Place, Step, is_on, put_on, taken_off},
};
use std::sync::atomic::Ordering;

/// Parts of endpoints that one transaction looks at, most deliveries that it changes.
const LOOKS: usize = 200;
const MOST: usize = 10_000;

const NEXT_ENDPOINT: &str = "SELECT endpoint FROM pending WHERE endpoint > $1 ORDER BY endpoint LIMIT 1";
/// What an endpoint has of first attempts or of retries with due times in a range, in their order.
const PART: &str = "SELECT message, generation, due_at, deadline_at, application FROM pending
     WHERE shard = $1 AND endpoint = $2 AND retry = $3 AND due_at >= $4 AND due_at < $5
     ORDER BY due_at, message, generation LIMIT $6 FOR UPDATE";
const COUNT_ON: &str =
    "SELECT count(*) FROM pending WHERE shard = $1 AND endpoint = $2 AND retry = $3 AND due_at >= $4";
const SET: &str = "UPDATE pending SET due_at = item.due_at, deadline_at = item.deadline_at
     FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::bigint[], $5::bigint[])
        AS item (message, endpoint, generation, due_at, deadline_at)
     WHERE pending.message = item.message AND pending.endpoint = item.endpoint
       AND pending.generation = item.generation";
/// Nodes that were at work when the database was copied are not at work on the copy.
const VOID: &str = "UPDATE node SET ended = true WHERE id <> $1 AND NOT ended";
const VOID_SHARDS: &str = "UPDATE shard SET owner = NULL WHERE owner <> $1";
const VOID_NOTES: &str = "DELETE FROM in_flight WHERE node <> $1";

/// What is written where the outbox keeps why a row is set aside.
pub(crate) const ON_HOLD: &str = "on hold";

/// What is done with what is found.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Put,
    Decide(Decision),
}

#[async_trait]
impl Holding for PostgresStore {
    async fn hold(&self) -> Result<Option<Hold>, StoreError> {
        let connection = self.shared.reader().await?;
        let known = row(&connection).await?;
        // Another process may have begun or ended it.
        let micros = known.as_ref().map_or(0, |(since, _)| since.as_micros());
        self.shared.held_since.store(micros, Ordering::Relaxed);
        let Some((since, reason)) = known else { return Ok(None) };
        let text = "SELECT count(*), count(*) FILTER (WHERE due_at < $2), min(due_at) FROM pending WHERE due_at >= $1";
        let found = connection.first_row(text, &[&LATER, &put_on(since).as_micros()]).await?;
        let Some(found) = found else { return Ok(None) };
        let oldest = at::<Option<i64>>(&found, 2).map_err(StoreError::from)?.map(Timestamp::from_micros);
        Ok(Some(Hold {
            since,
            reason,
            deliveries: count(at(&found, 0).map_err(StoreError::from)?),
            overdue: count(at(&found, 1).map_err(StoreError::from)?),
            oldest_due: oldest.map(taken_off),
        }))
    }

    fn held_since(&self) -> Option<Timestamp> {
        match self.shared.held_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Timestamp::from_micros(since)),
        }
    }

    async fn still_held_since(&self) -> Result<Option<Timestamp>, StoreError> {
        if self.held_since().is_none() {
            return Ok(None);
        }
        let held = since(&*self.shared.reader().await?).await?;
        self.shared.held_since.store(held.map_or(0, Timestamp::as_micros), Ordering::Relaxed);
        Ok(held)
    }

    async fn put_on_hold(
        &self,
        reason: &str,
        place: Option<Place>,
        batch: usize,
    ) -> Result<Step, StoreError> {
        let reason = reason.to_owned();
        let put = self.shared.change(None, move |work| {
            Box::pin(async move {
                if place.is_none() {
                    begin(work, &reason).await?;
                }
                walk(work, place, batch, Deed::Put).await
            })
        });
        Ok(put.await?)
    }

    async fn decide(
        &self,
        decision: Decision,
        place: Option<Place>,
        batch: usize,
    ) -> Result<Step, StoreError> {
        let decide = self.shared.change(None, move |work| {
            Box::pin(async move {
                let step = walk(work, place, batch, Deed::Decide(decision)).await?;
                if step.next.is_none() {
                    decide_outbox(&work.connection, decision).await?;
                    work.connection.execute("DELETE FROM hold", &[]).await?;
                    work.after_commit(|shared| shared.held_since.store(0, Ordering::Relaxed));
                }
                Ok::<_, Failure>(step)
            })
        });
        Ok(decide.await?)
    }
}

async fn row(connection: &Connection) -> Result<Option<(Timestamp, String)>, Failure> {
    let row = connection.first_row("SELECT since, reason FROM hold", &[]).await?;
    row.map(|row| Ok((instant_at(&row, 0)?, at(&row, 1)?))).transpose()
}

/// Since when a hold lasts.
pub(crate) async fn since(connection: &Connection) -> Result<Option<Timestamp>, Failure> {
    Ok(row(connection).await?.map(|(since, _)| since))
}

/// Nobody else may live: a node may have in memory what is to be held.
async fn begin(work: &mut Work, reason: &str) -> Result<(), Failure> {
    let node = work.shared.node();
    let text = "SELECT count(*) FROM node WHERE id <> $1 AND NOT ended
         AND lease_until > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = work.connection.first_row(text, &[&&node[..]]).await?;
    let living = row.map(|row| at::<i64>(&row, 0)).transpose()?.unwrap_or(0);
    if living > 0 {
        return Err(unavailable(format!(
            "{living} nodes are at work on this database, or were until a moment ago: stop them, and try again once their \
             leases have ended"
        ))
        .into());
    }
    for text in [VOID, VOID_SHARDS, VOID_NOTES] {
        work.connection.execute(text, &[&&node[..]]).await?;
    }
    hold_outbox(&work.connection).await?;
    insert(&work.connection, reason, work.now).await?;
    let since = since(&work.connection).await?.unwrap_or(work.now);
    work.after_commit(move |shared| shared.held_since.store(since.as_micros(), Ordering::Relaxed));
    Ok(())
}

/// What was published in a transaction and not routed yet may have been routed and sent too. Returns how much there was.
async fn hold_outbox(connection: &Connection) -> Result<u64, Failure> {
    let text = "UPDATE outbox SET set_aside = $1 WHERE set_aside IS NULL";
    connection.execute(text, &[&ON_HOLD]).await
}

async fn decide_outbox(connection: &Connection, decision: Decision) -> Result<(), Failure> {
    if let Decision::Drop { due_before } = decision {
        let text = "DELETE FROM outbox WHERE set_aside = $1 AND created_at < $2";
        connection.execute(text, &[&ON_HOLD, &due_before.as_micros()]).await?;
    }
    let text = "UPDATE outbox SET set_aside = NULL WHERE set_aside = $1";
    connection.execute(text, &[&ON_HOLD]).await?;
    Ok(())
}

async fn insert(connection: &Connection, reason: &str, now: Timestamp) -> Result<(), Failure> {
    let text = "INSERT INTO hold (one, since, reason) VALUES (true, $1, $2) ON CONFLICT DO NOTHING";
    connection.execute(text, &[&now.as_micros(), &reason]).await?;
    Ok(())
}

/// Goes along the parts of endpoints, does something with what it finds in each, and tells where to go on.
async fn walk(work: &mut Work, place: Option<Place>, batch: usize, deed: Deed) -> Result<Step, Failure> {
    let mut left = batch.clamp(1, MOST);
    let next = match place {
        Some(place) => Some(place),
        None => next_endpoint(&work.connection, &[]).await?,
    };
    let mut step = Step { next, ..Step::default() };
    for _ in 0..LOOKS {
        let Some(mut place) = step.next.filter(|_| left > 0) else { break };
        let found = part(&work.connection, deed, place, left).await?;
        let number = found.len();
        if number > 0 && place.of == 0 {
            place.of = count_on(&work.connection, place).await?;
        }
        let (moved, cancelled) = match deed {
            _ if found.is_empty() => (0, 0),
            Deed::Put => put_part(work, found).await?,
            Deed::Decide(decision) => decide_part(work, decision, place, found).await?,
        };
        step.moved += moved;
        step.cancelled += cancelled;
        step.next = if number == left {
            Some(Place { done: place.done + number as u64, ..place })
        } else if place.retries {
            next_endpoint(&work.connection, key(&place.endpoint)).await?
        } else {
            Some(Place::first(place.endpoint, true))
        };
        left -= number;
    }
    Ok(step)
}

async fn next_endpoint(connection: &Connection, after: &[u8]) -> Result<Option<Place>, Failure> {
    let row = connection.first_row(NEXT_ENDPOINT, &[&after]).await?;
    row.map(|row| Ok(Place::first(id_at(&row, 0)?, false))).transpose()
}

async fn count_on(connection: &Connection, place: Place) -> Result<u64, Failure> {
    let shard = shards::of(place.endpoint);
    let row =
        connection.first_row(COUNT_ON, &[&shard, &key(&place.endpoint), &place.retries, &LATER]).await?;
    Ok(row.map(|row| at::<i64>(&row, 0)).transpose()?.map_or(0, count))
}

/// A pending delivery as it is found.
struct Found {
    delivery: DeliveryId,
    due: Timestamp,
    deadline: Timestamp,
    application: ApplicationId,
}

async fn part(connection: &Connection, deed: Deed, place: Place, most: usize) -> Result<Vec<Found>, Failure> {
    let (from, to) = match deed {
        Deed::Put => (i64::MIN, LATER),
        Deed::Decide(_) => (LATER, i64::MAX),
    };
    let shard = shards::of(place.endpoint);
    let read = connection
        .query(PART, &[&shard, &key(&place.endpoint), &place.retries, &from, &to, &rows(most)])
        .await?;
    read.iter()
        .map(|row| {
            let (message, generation) = (id_at(row, 0)?, number_at(row, 1)?);
            let delivery = DeliveryId { message, endpoint: place.endpoint, generation };
            let (due, deadline) = (instant_at(row, 2)?, instant_at(row, 3)?);
            Ok(Found { delivery, due, deadline, application: id_at(row, 4)? })
        })
        .collect()
}

async fn set_times(
    connection: &Connection,
    times: &[(DeliveryId, Timestamp, Timestamp)],
) -> Result<(), Failure> {
    let messages: Vec<&[u8]> = times.iter().map(|(id, ..)| key(&id.message)).collect();
    let endpoints: Vec<&[u8]> = times.iter().map(|(id, ..)| key(&id.endpoint)).collect();
    let generations: Vec<i32> = times.iter().map(|(id, ..)| number(id.generation)).collect();
    let due: Vec<i64> = times.iter().map(|(_, due, _)| due.as_micros()).collect();
    let deadlines: Vec<i64> = times.iter().map(|(.., deadline)| deadline.as_micros()).collect();
    connection.execute(SET, &[&messages, &endpoints, &generations, &due, &deadlines]).await?;
    Ok(())
}

async fn put_part(work: &mut Work, found: Vec<Found>) -> Result<(u64, u64), Failure> {
    let (moved, now) = (found.len() as u64, work.now);
    let times: Vec<_> = found.iter().map(|one| (one.delivery, put_on(one.due), one.deadline)).collect();
    set_times(&work.connection, &times).await?;
    work.after_commit(move |shared| {
        let mut agenda = shared.agenda();
        for one in found.iter().filter(|one| !is_on(one.due)) {
            agenda.put_on_hold(one.delivery, now);
        }
    });
    Ok((moved, 0))
}

async fn decide_part(
    work: &mut Work,
    decision: Decision,
    place: Place,
    found: Vec<Found>,
) -> Result<(u64, u64), Failure> {
    let (mut ends, mut times) = (Vec::new(), Vec::new());
    let mut earliest: Option<(ApplicationId, Timestamp)> = None;
    for (number, one) in (place.done..).zip(found) {
        match decision.fate(taken_off(one.due), one.deadline, number, place.of) {
            Fate::Cancelled => {
                let state = State::Cancelled;
                ends.push(End { delivery: one.delivery, state, attempts: 0, deaths: 0 });
            }
            Fate::Due { at, deadline } => {
                times.push((one.delivery, at, deadline));
                let due = earliest.map_or(at, |(_, due)| due.min(at));
                earliest = Some((one.application, due));
            }
        }
    }
    if !times.is_empty() {
        set_times(&work.connection, &times).await?;
    }
    let ended = settled::end(&work.connection, &ends).await?;
    let (counts, now) = ((times.len() as u64, ended.len() as u64), work.now);
    work.after_commit(move |shared| {
        for delivery in ended {
            shared.ended(delivery, now);
        }
        if let Some((application, due)) = earliest {
            tell(shared, application, place, due, now);
        }
    });
    Ok(counts)
}

/// Whoever serves the endpoint has something to do again.
fn tell(shared: &crate::Shared, application: ApplicationId, place: Place, due: Timestamp, now: Timestamp) {
    let endpoint: EndpointId = place.endpoint;
    let mut agenda = shared.agenda();
    // Under its lock, under which an endpoint is forgotten that another node serves from then on.
    if shared.owns(endpoint) {
        let part = if place.retries { Part::Retries } else { Part::First };
        agenda.lies_in_database(application, endpoint, part, None, due, now);
        shared.claimable.notify_one();
    } else {
        shared.hints.work(application, endpoint, due);
    }
}

/// Where the database lies: the cluster and the database in it. A standby that takes over lies in the same place, and so does
/// one that was set back to an earlier time by its archived log: that cannot be told from here.
const HOME: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
        (SELECT oid::text FROM pg_database WHERE datname = current_database())";

/// Compares where the database lies with where it lay. What pends in one that was brought elsewhere is put on hold, and
/// leases of its nodes are void. Returns since when a hold lasts.
pub(crate) async fn look_where_it_lies(
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    // Several nodes may start at once.
    connection.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({}, 0)", lock::SCHEMA)).await?;
    let done = try_look(connection, now).await;
    connection.run(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    done?;
    since(connection).await
}

async fn try_look(connection: &Connection, now: Timestamp) -> Result<(), Failure> {
    let known = connection.first_row("SELECT home FROM instance", &[]).await?;
    let known: String = known.map(|row| at(&row, 0)).transpose()?.unwrap_or_default();
    let Some(home) = home(connection).await? else { return Ok(()) };
    if known == home {
        return Ok(());
    }
    connection.execute("UPDATE instance SET home = $1", &[&home]).await?;
    if known.is_empty() {
        return Ok(());
    }
    for text in [VOID, VOID_SHARDS, VOID_NOTES] {
        connection.execute(text, &[&&b""[..]]).await?;
    }
    // Without the usual limits of time: it may be millions of rows, and nobody waits.
    connection.run("SET LOCAL statement_timeout = 0").await?;
    let text = "UPDATE pending SET due_at = due_at + $1 WHERE due_at < $1";
    let statement = connection.prepare(text).await?;
    let held = connection.client().execute(&statement, &[&LATER]).await? + hold_outbox(connection).await?;
    if held > 0 {
        insert(connection, "the database was brought here from another place", now).await?;
    }
    Ok(())
}

/// `None` where this user may not ask.
async fn home(connection: &Connection) -> Result<Option<String>, Failure> {
    connection.run("SAVEPOINT home").await?;
    if let Ok(row) = connection.first_row(HOME, &[]).await {
        return row.map(|row| at(&row, 0)).transpose();
    }
    connection.run("ROLLBACK TO SAVEPOINT home").await?;
    Ok(None)
}
