//! Claiming: what is due is leased in memory; the database is read only where memory has nothing.
//!
//! No claim is written: the shard of the endpoint is this node's under a lease, so that a lease of a delivery need not
//! outlive the process. What cannot be made any more (past its deadline, without a payload) is settled here without an
//! attempt.

use crate::{
    Shared,
    connection::Connection,
    failure::Failure,
    settled::{self, End},
    shards,
    values::{at, code_at, id_at, instant_at, key, number_at, rows},
};
use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    environment::EnvironmentId,
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::{Found, Handed, Part, Taken, Wanted},
    deliveries::{Claimed, ClaimedDelivery, Lease, Room},
    endpoints::AppScope,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio_postgres::Row;

/// Payload bytes that one reading brings at most, but for one delivery of each lane.
const READ_BYTES: i64 = 8 * 1024 * 1024;
/// How often a claim that waits for a reading looks whether something else can be started.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What lanes have due, each so many at most, complete with payloads as far as those fit. One round trip for all.
pub(crate) const DUE: &str = "WITH wanted AS (SELECT * FROM unnest($1::smallint[], $2::bytea[], $3::bool[], $4::bigint[])
            WITH ORDINALITY AS wanted (shard, endpoint, retry, most, place)),
     due AS (SELECT wanted.place, wanted.endpoint, due.*
        FROM wanted CROSS JOIN LATERAL (
            SELECT message, generation, application, attempts, cause, deaths, due_at, deadline_at FROM pending
            WHERE pending.shard = wanted.shard AND pending.endpoint = wanted.endpoint
              AND pending.retry = wanted.retry AND pending.due_at <= $5
            ORDER BY pending.due_at LIMIT wanted.most) AS due),
     sized AS (SELECT due.*, message.content_type, message.created_at, message.id AS found,
            row_number() OVER (PARTITION BY place ORDER BY due_at, message) AS within,
            sum(octet_length(message.payload)) OVER (ORDER BY place, due_at, message) AS bytes
        FROM due LEFT JOIN LATERAL (SELECT id, content_type, created_at, payload FROM message
            WHERE message.id = due.message LIMIT 1) AS message ON true)
     SELECT sized.place, sized.message, sized.generation, sized.attempts, sized.cause, sized.deaths, sized.due_at,
        sized.deadline_at, sized.content_type, COALESCE(sized.created_at, 0), application.id, application.environment,
        sized.bytes <= $6 OR sized.within = 1 OR sized.bytes IS NULL,
        (SELECT payload FROM message WHERE message.id = sized.found AND (sized.bytes <= $6 OR sized.within = 1))
     FROM sized CROSS JOIN LATERAL (SELECT id, environment FROM application
        WHERE application.id = sized.application LIMIT 1) AS application
     ORDER BY sized.place, sized.due_at, sized.message";
/// When lanes have something due next.
pub(crate) const NEXT_DUE: &str = "SELECT wanted.place, (SELECT min(due_at) FROM pending
        WHERE pending.shard = wanted.shard AND pending.endpoint = wanted.endpoint AND pending.retry = wanted.retry
          AND pending.due_at > $4)
     FROM unnest($1::smallint[], $2::bytea[], $3::bool[])
        WITH ORDINALITY AS wanted (shard, endpoint, retry, place)";

/// See [`Deliveries::claim`](postrider_store::deliveries::Deliveries::claim).
pub(crate) async fn claim(shared: &Arc<Shared>, room: &Room) -> Result<Claimed, StoreError> {
    if shared.is_closed() {
        return Err(crate::failure::closing());
    }
    if room.total == 0 {
        return Ok(Claimed::default());
    }
    let mut reading = None;
    loop {
        let taken = Taking::take(shared, room, &mut reading);
        // Whoever is read from the database keeps nobody waiting who has something in memory.
        if !taken.claimed.deliveries.is_empty() || !(taken.reads || taken.cut) {
            return Ok(taken.answer());
        }
        if taken.cut {
            drop(taken);
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
                return last_look(shared, room, error);
            }
        }
    }
}

/// A reading failed: what others have in memory is claimed all the same.
fn last_look(shared: &Arc<Shared>, room: &Room, error: StoreError) -> Result<Claimed, StoreError> {
    let taken = Taking::take(shared, room, &mut None);
    if taken.claimed.deliveries.is_empty() { Err(error) } else { Ok(taken.answer()) }
}

type Reading = tokio::task::JoinHandle<Result<(), StoreError>>;

/// What a claim has taken: given back when its caller goes away before it is answered.
struct Taking<'a> {
    shared: &'a Shared,
    claimed: Claimed,
    /// Something is being read.
    reads: bool,
    /// There is more to look at.
    cut: bool,
}

impl<'a> Taking<'a> {
    /// Takes what memory has. Begins to read what it has not.
    fn take(shared: &'a Arc<Shared>, room: &Room, reading: &mut Option<Reading>) -> Self {
        let now = shared.clock.now();
        let Taken { deliveries, dead, wanted, reads, cut, next_due } = shared.agenda().take(room, now);
        let mut taking = Self { shared, claimed: Claimed { deliveries: Vec::new(), next_due }, reads, cut };
        if !dead.is_empty() {
            bury(shared, dead);
        }
        if !wanted.is_empty() {
            *reading = Some(tokio::spawn(read_ahead(Arc::clone(shared), wanted, now)));
        }
        if reads {
            taking.claimed.next_due = Some(now);
        }
        taking.claimed.deliveries =
            deliveries.into_iter().filter_map(|(lease, handed)| of(lease, handed)).collect();
        taking
    }

    fn answer(mut self) -> Claimed {
        std::mem::take(&mut self.claimed)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if self.claimed.deliveries.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let mut agenda = self.shared.agenda();
        for claimed in &self.claimed.deliveries {
            agenda.released(&claimed.lease, now);
        }
    }
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
    let (node, losses) = (shared.node(), shared.keeper.losses());
    let result = read_lanes(&shared, &wanted, now).await;
    let now = shared.clock.now();
    let mut agenda = shared.agenda();
    // What an earlier node of this process read, others may have delivered since.
    if shared.node() != node {
        return Ok(());
    }
    let result = match result {
        // A shard that was given away meanwhile may be back: what was read of it, another node may have delivered.
        Ok(_) if shared.keeper.losses() != losses => {
            for wanted in wanted {
                agenda.not_found(wanted.endpoint, wanted.part, now);
            }
            Ok(())
        }
        Ok(found) => {
            for mut found in found {
                let coming = shared.coming.deliveries();
                found.deliveries.retain(|handed| !coming.contains(&handed.delivery));
                drop(coming);
                agenda.found(found, now);
            }
            Ok(())
        }
        Err(failure) => {
            for wanted in wanted {
                agenda.not_found(wanted.endpoint, wanted.part, now);
            }
            Err(failure)
        }
    };
    drop(agenda);
    shared.claimable.notify_one();
    Ok(result?)
}

/// Reads lanes; what does not fit into memory is told by when it is due.
async fn read_lanes(shared: &Shared, wanted: &[Wanted], now: Timestamp) -> Result<Vec<Found>, Failure> {
    let connection = shared.hot_pool.get().await?;
    let shards: Vec<i16> = wanted.iter().map(|wanted| shards::of(wanted.endpoint)).collect();
    let endpoints: Vec<&[u8]> = wanted.iter().map(|wanted| key(&wanted.endpoint)).collect();
    let retries: Vec<bool> = wanted.iter().map(|wanted| wanted.part == Part::Retries).collect();
    // One more than is of use: it tells when the lane is due again. Leased ones are still pending in the table.
    let most: Vec<i64> = wanted.iter().map(|wanted| rows(wanted.most + wanted.leased.len() + 1)).collect();
    let time = now.as_micros();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&shards, &endpoints, &retries, &most, &time, &READ_BYTES];
    let due = connection.query(DUE, &values).await?;
    let mut lanes: HashMap<i64, Vec<Row>> = HashMap::new();
    for row in due {
        lanes.entry(at(&row, 0)?).or_default().push(row);
    }
    let mut found = Vec::with_capacity(wanted.len());
    let mut empty = Vec::new();
    for (place, wanted) in (1..).zip(wanted) {
        let lane = lanes.remove(&place).unwrap_or_default();
        let lane = read_lane(wanted, &lane)?;
        if lane.next.is_none() {
            empty.push(found.len());
        }
        found.push(lane);
    }
    next_due(&connection, &mut found, &empty, now).await?;
    Ok(found)
}

/// Adds when those lanes are due again of which all that is due was read.
async fn next_due(
    connection: &Connection,
    found: &mut [Found],
    which: &[usize],
    now: Timestamp,
) -> Result<(), Failure> {
    if which.is_empty() {
        return Ok(());
    }
    let of: Vec<&Found> = which.iter().filter_map(|at| found.get(*at)).collect();
    let shards: Vec<i16> = of.iter().map(|found| shards::of(found.endpoint)).collect();
    let endpoints: Vec<&[u8]> = of.iter().map(|found| key(&found.endpoint)).collect();
    let retries: Vec<bool> = of.iter().map(|found| found.part == Part::Retries).collect();
    let rows = connection.query(NEXT_DUE, &[&shards, &endpoints, &retries, &now.as_micros()]).await?;
    for row in &rows {
        let place = usize::try_from(at::<i64>(row, 0)?).unwrap_or(0).wrapping_sub(1);
        let next = at::<Option<i64>>(row, 1)?.map(Timestamp::from_micros);
        if let Some(found) = which.get(place).and_then(|place| found.get_mut(*place)) {
            found.next = next;
        }
    }
    Ok(())
}

fn read_lane(wanted: &Wanted, lane: &[Row]) -> Result<Found, Failure> {
    let Wanted { endpoint, part, .. } = *wanted;
    let mut deliveries = Vec::new();
    let mut next = None;
    for row in lane {
        let delivery = DeliveryId { message: id_at(row, 1)?, endpoint, generation: number_at(row, 2)? };
        if wanted.leased.contains(&delivery) {
            continue;
        }
        let (due_at, fits) = (instant_at(row, 6)?, at::<bool>(row, 12)?);
        if deliveries.len() == wanted.most || !fits {
            next = Some(due_at);
            break;
        }
        deliveries.push(complete(row, delivery, due_at)?);
    }
    // What was passed over may have hidden others.
    if next.is_none()
        && lane.len() > wanted.most + wanted.leased.len()
        && let Some(last) = lane.last()
    {
        next = Some(instant_at(last, 6)?);
    }
    Ok(Found { endpoint, part, deliveries, next })
}

fn complete(row: &Row, delivery: DeliveryId, due_at: Timestamp) -> Result<Handed, Failure> {
    let environment: &str = at(row, 11)?;
    let environment = EnvironmentId::parse(environment)
        .ok_or_else(|| crate::failure::inconsistent("application", "environment", environment))?;
    Ok(Handed {
        delivery,
        scope: AppScope { environment, application: id_at(row, 10)? },
        attempts: number_at(row, 3)?,
        trigger: Trigger::from_code(code_at(row, 4)?).unwrap_or(Trigger::Scheduled),
        payload: at::<Option<&[u8]>>(row, 13)?.map(Bytes::copy_from_slice),
        content_type: at(row, 8)?,
        accepted_at: instant_at(row, 9)?,
        due_at,
        deadline_at: instant_at(row, 7)?,
        deaths: number_at(row, 5)?,
    })
}

/// Settles what cannot be attempted any more: past the deadline it has expired, without a payload it is cancelled.
fn bury(shared: &Arc<Shared>, dead: Vec<(Lease, Handed)>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let leases: Vec<Lease> = dead.iter().map(|(lease, _)| *lease).collect();
        let settle = shared.change(None, move |work| {
            Box::pin(async move {
                let state = |handed: &Handed| {
                    if handed.payload.is_none() { State::Cancelled } else { State::Failed(GiveUp::Expired) }
                };
                let ends: Vec<End> = dead
                    .iter()
                    .map(|(lease, handed)| End {
                        delivery: lease.delivery,
                        state: state(handed),
                        attempts: 0,
                        deaths: 0,
                    })
                    .collect();
                let ended = settled::end(&work.connection, &ends).await?;
                let now = work.now;
                work.after_commit(move |shared| {
                    let mut agenda = shared.agenda();
                    for (lease, _) in dead {
                        if ended.contains(&lease.delivery) {
                            agenda.recorded(&lease, None, now);
                        } else {
                            agenda.recorded_late(&lease, now);
                        }
                    }
                    drop(agenda);
                    // More of the lane may be due: without a hint it would wait for the next round.
                    shared.claimable.notify_one();
                });
                Ok::<_, Failure>(())
            })
        });
        if let Err(failure) = settle.await {
            let error = StoreError::from(failure);
            tracing::warn!(%error, "deliveries past their deadline could not be settled; they stay due");
            let now = shared.clock.now();
            let mut agenda = shared.agenda();
            for lease in leases {
                agenda.released(&lease, now);
            }
        }
    });
}
