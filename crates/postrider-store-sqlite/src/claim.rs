//! Claiming: what is due is leased in memory; the database is read only where memory has nothing.
//!
//! No claim is written: one process owns the file, so a lease need not outlive it. What cannot be made any more (past
//! its deadline, without a payload) is settled here without an attempt.

use crate::{
    Shared,
    failure::{Failure, unavailable},
    progress::{self, code},
    values::{id_at, instant_at, key},
    writer::{Isolation, Scope},
};
use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    environment::EnvironmentId,
    id::EndpointId,
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::{Found, Handed, Part, Taken, Wanted},
    deliveries::{Claimed, ClaimedDelivery, Lease, Room},
    endpoints::AppScope,
};
use rusqlite::{Connection, OptionalExtension, params};
use std::{sync::Arc, time::Duration};

/// Payload bytes that one reading brings into memory at most.
const READ_BYTES: usize = 8 * 1024 * 1024;
/// How often a claim that waits for a reading looks whether something else can be started.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What an endpoint has due: first attempts or retries.
pub(crate) const DUE: &str =
    "SELECT next_attempt_at, message, generation FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?4 AND next_attempt_at <= ?2
     ORDER BY next_attempt_at LIMIT ?3";
/// When it has something due next.
pub(crate) const NEXT_DUE: &str = "SELECT next_attempt_at FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?3 AND next_attempt_at > ?2
     ORDER BY next_attempt_at LIMIT 1";
/// A delivery with its message and payload.
pub(crate) const COMPLETE: &str =
    "SELECT delivery.attempts, delivery.cause, delivery.deadline_at, delivery.deaths, message.content_type,
            message.created_at, payload.body, application.id, application.environment
     FROM delivery
     JOIN message ON message.id = delivery.message
     JOIN application ON application.id = message.application
     LEFT JOIN payload ON payload.id = message.payload AND payload.message = message.id
     WHERE delivery.message = ?1 AND delivery.endpoint = ?2 AND delivery.generation = ?3";

/// See [`Deliveries::claim`](postrider_store::deliveries::Deliveries::claim).
pub(crate) async fn claim(shared: &Arc<Shared>, room: &Room) -> Result<Claimed, StoreError> {
    if shared.is_closed() {
        return Err(unavailable("the store is closing".to_owned()));
    }
    // What cannot be recorded must not be sent.
    if room.total == 0 || !shared.disk.can_record() {
        return Ok(Claimed::default());
    }
    let mut reading = None;
    loop {
        let look = look(shared, room, &mut reading);
        // Whoever is read from the database keeps nobody waiting who has something in memory.
        if !look.claimed.deliveries.is_empty() || !(look.reads || look.cut) {
            return Ok(look.claimed);
        }
        if look.cut {
            tokio::task::yield_now().await;
            continue;
        }
        let Some(running) = &mut reading else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        if let Ok(ended) = tokio::time::timeout(LOOK_AGAIN, running).await {
            reading = None;
            let done = ended.unwrap_or_else(|error| {
                Err(StoreError::Internal { detail: format!("reading ahead ended abnormally: {error}") })
            });
            if let Err(error) = done {
                // What others have in memory is claimed all the same.
                let claimed = self::look(shared, room, &mut None).claimed;
                return if claimed.deliveries.is_empty() { Err(error) } else { Ok(claimed) };
            }
        }
    }
}

type Reading = tokio::task::JoinHandle<Result<(), StoreError>>;

/// What memory has, leased.
struct Look {
    claimed: Claimed,
    /// Something is being read.
    reads: bool,
    /// There is more to look at.
    cut: bool,
}

/// Takes what memory has, and begins to read what it has not. Nothing is waited for between here and the caller, so that
/// no lease is lost when that goes away.
fn look(shared: &Arc<Shared>, room: &Room, reading: &mut Option<Reading>) -> Look {
    let now = shared.clock.now();
    let Taken { deliveries, dead, wanted, reads, cut, next_due } = shared.agenda().take(room, now);
    if !dead.is_empty() {
        bury(shared, dead);
    }
    if !wanted.is_empty() {
        *reading = Some(tokio::spawn(read_ahead(Arc::clone(shared), wanted, now)));
    }
    let deliveries = deliveries.into_iter().filter_map(|(lease, handed)| of(lease, handed)).collect();
    // What is being read may be due already.
    let next_due = if reads { Some(now) } else { next_due };
    Look { claimed: Claimed { deliveries, next_due }, reads, cut }
}

fn of(lease: Lease, handed: Handed) -> Option<ClaimedDelivery> {
    Some(ClaimedDelivery {
        lease,
        scope: handed.scope,
        number: handed.attempts.saturating_add(1),
        trigger: handed.trigger,
        payload: handed.payload?,
        content_type: handed.content_type,
        accepted_at: handed.accepted_at,
        due_at: handed.due_at,
        deaths: handed.deaths,
    })
}

/// Reads what lanes have due. Goes on when the claimer goes away: the lanes wait for it.
async fn read_ahead(shared: Arc<Shared>, wanted: Vec<Wanted>, now: Timestamp) -> Result<(), StoreError> {
    let mut unread: Vec<(EndpointId, Part)> =
        wanted.iter().map(|wanted| (wanted.endpoint, wanted.part)).collect();
    let read = move |connection: &Connection| read_lanes(connection, &wanted, now);
    let result = shared.hot_readers.read(read).await;
    // A reader sees a commit before it is synced; nothing is sent of what a power cut could still take back.
    shared.inbox.durable().await;
    let result = match shared.disk.broken() {
        None => result,
        Some(detail) => Err(unavailable(detail).into()),
    };
    let now = shared.clock.now();
    let mut agenda = shared.agenda();
    let result = result.map(|found| {
        for found in found {
            unread.retain(|unread| *unread != (found.endpoint, found.part));
            agenda.found(found, now);
        }
    });
    for (endpoint, part) in unread {
        agenda.not_found(endpoint, part, now);
    }
    drop(agenda);
    shared.claimable.notify_one();
    Ok(result?)
}

/// Reads lanes until all are read or the bytes of one claim are used up; each at least has a turn at the next claim.
fn read_lanes(connection: &Connection, wanted: &[Wanted], now: Timestamp) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::with_capacity(wanted.len());
    let mut bytes = 0;
    let mut failed = None;
    for wanted in wanted {
        if bytes >= READ_BYTES {
            break;
        }
        match read_lane(connection, wanted, now, &mut bytes) {
            Ok(lane) => found.push(lane),
            Err(failure) => {
                // A lane that does not read must not keep the others from their turn; it gets another one after them.
                let error = StoreError::from(failure);
                tracing::error!(endpoint.id = %wanted.endpoint, %error, "the deliveries of an endpoint cannot be read");
                let out_of_time = matches!(error, StoreError::Unavailable { .. });
                failed = Some(error);
                if out_of_time {
                    break;
                }
            }
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error.into()),
        _ => Ok(found),
    }
}

fn read_lane(
    connection: &Connection,
    wanted: &Wanted,
    now: Timestamp,
    bytes: &mut usize,
) -> Result<Found, Failure> {
    let Wanted { endpoint, part, .. } = *wanted;
    let retries = part == Part::Retries;
    // One more than is of use: it tells when the lane is due again. Leased ones are still pending in the table.
    let most = i64::try_from(wanted.most + wanted.leased.len() + 1).unwrap_or(i64::MAX);
    let mut due = connection.prepare_cached(DUE)?;
    let mut rows = due.query(params![key(&endpoint), now.as_micros(), most, retries])?;
    let mut deliveries = Vec::new();
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        seen += 1;
        let delivery = DeliveryId { message: id_at(row, 1)?, endpoint, generation: row.get(2)? };
        if wanted.leased.contains(&delivery) {
            continue;
        }
        let due_at = instant_at(row, 0)?;
        if deliveries.len() == wanted.most || (*bytes >= READ_BYTES && !deliveries.is_empty()) {
            return Ok(Found { endpoint, part, deliveries, next: Some(due_at) });
        }
        if let Some(handed) = complete(connection, delivery, due_at)? {
            *bytes += handed.payload.as_ref().map_or(0, Bytes::len);
            deliveries.push(handed);
        }
        // What was passed over may have hidden others.
        if seen == most {
            return Ok(Found { endpoint, part, deliveries, next: Some(due_at) });
        }
    }
    let next: Option<i64> = connection
        .prepare_cached(NEXT_DUE)?
        .query_row(params![key(&endpoint), now.as_micros(), retries], |row| row.get(0))
        .optional()?;
    Ok(Found { endpoint, part, deliveries, next: next.map(Timestamp::from_micros) })
}

/// Everything that an attempt of the delivery needs. `None` when its application is gone: it is being cancelled.
fn complete(
    connection: &Connection,
    delivery: DeliveryId,
    due_at: Timestamp,
) -> Result<Option<Handed>, Failure> {
    let mut statement = connection.prepare_cached(COMPLETE)?;
    let mut rows =
        statement.query(params![key(&delivery.message), key(&delivery.endpoint), delivery.generation])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let environment: String = row.get(8)?;
    let Some(environment) = EnvironmentId::parse(&environment) else { return Ok(None) };
    Ok(Some(Handed {
        delivery,
        scope: AppScope { environment, application: id_at(row, 7)? },
        attempts: row.get(0)?,
        trigger: Trigger::from_code(row.get(1)?).unwrap_or(Trigger::Scheduled),
        payload: row.get::<_, Option<Vec<u8>>>(6)?.map(Bytes::from),
        content_type: row.get(4)?,
        accepted_at: instant_at(row, 5)?,
        due_at,
        deadline_at: instant_at(row, 2)?,
        deaths: row.get(3)?,
    }))
}

/// Settles what cannot be attempted any more: past the deadline it has expired, without a payload it is cancelled.
fn bury(shared: &Arc<Shared>, dead: Vec<(Lease, Handed)>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let leases: Vec<Lease> = dead.iter().map(|(lease, _)| *lease).collect();
        let settle = move |work: &mut Scope<'_>| {
            for (lease, handed) in dead {
                let state =
                    if handed.payload.is_none() { State::Cancelled } else { State::Failed(GiveUp::Expired) };
                let ended = end(work, lease.delivery, state)?;
                let now = work.now;
                work.after_commit(move |shared| {
                    let mut agenda = shared.agenda();
                    if ended {
                        agenda.recorded(&lease, None, now);
                    } else {
                        agenda.recorded_late(&lease, now);
                    }
                });
            }
            // More of the lane may be due: without a hint it would wait for the next round.
            work.after_commit(|shared| shared.claimable.notify_one());
            Ok(())
        };
        if let Err(failure) = shared.write(Isolation::Own, settle).await {
            let error = StoreError::from(failure);
            tracing::warn!(%error, "deliveries past their deadline could not be settled; they stay due");
            let now = shared.clock.now();
            for lease in leases {
                shared.agenda().released(&lease, now);
            }
        }
    });
}

/// Ends a pending delivery without an attempt; `false` when it was not pending any more.
pub(crate) fn end(work: &Scope<'_>, delivery: DeliveryId, state: State) -> Result<bool, Failure> {
    let (state, reason) = progress::columns(state);
    let changed = work
        .connection
        .prepare_cached(
            "UPDATE delivery SET state = ?4, reason = ?5
             WHERE message = ?1 AND endpoint = ?2 AND generation = ?3 AND state = ?6",
        )?
        .execute(params![
            key(&delivery.message),
            key(&delivery.endpoint),
            delivery.generation,
            state,
            reason,
            code::PENDING
        ])?;
    Ok(changed > 0)
}
