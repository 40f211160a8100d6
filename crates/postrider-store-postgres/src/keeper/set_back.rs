//! A database clock that was set back: what was scheduled while it showed a later time would wait for it to get there
//! again. Each node looks at what its own endpoints have due later, once: what was due when it was made is due now, and a
//! retry that was scheduled by the later time has its wait over again from now. What an earlier schedule or a publisher's
//! own date says stays.

use crate::{
    Shared,
    connection::{Connection, Own},
    failure::Failure,
    record::Keys,
    shards,
    values::{at, id_at, instant_at, key, number, number_at},
};
use postrider_model::{
    delivery::DeliveryId,
    id::{EndpointId, MessageId},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::Part,
    hold,
    set_back::{Waiting, due_again},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Differences that are no step.
const TOLERANCE: Duration = Duration::from_secs(2);
/// Deliveries looked at in one statement.
const LOOK: i64 = 500;
/// How long the keeper may be at it before it looks after other things.
const TURN: Duration = Duration::from_millis(300);

/// What an endpoint has due later of first attempts or of retries, from a place on.
const LATER: &str = "SELECT pending.due_at, pending.message, pending.generation,
        (SELECT deliver_at FROM message WHERE message.id = pending.message LIMIT 1),
        (SELECT max(started_at) FROM attempt WHERE attempt.message = pending.message
            AND attempt.endpoint = pending.endpoint AND attempt.generation = pending.generation)
     FROM pending
     WHERE shard = $1 AND endpoint = $2 AND retry = $3 AND due_at >= $4 AND (due_at, message, generation) > ($4, $5, $6)
     ORDER BY due_at, message, generation LIMIT $7";

/// A place in the order of what waits.
type Place = (Part, Option<(Timestamp, MessageId, u32)>);

/// What is still to be looked at.
#[derive(Default)]
pub(super) struct Work {
    left: Vec<EndpointId>,
    /// Where to go on in the last of them.
    from: Option<Place>,
    /// Whether the database knows a later time was looked at when this node started.
    started: bool,
}

impl Work {
    /// The clock was set back by so much.
    pub(super) fn begin(&mut self, shared: &Shared, by: Duration) {
        tracing::warn!(?by, "the database's clock was set back; deliveries keep their waits");
        let now = shared.clock.now();
        shared.look_at_held(now);
        let mut agenda = shared.agenda();
        agenda.forget_deferrals(now);
        self.left = agenda.endpoints();
        drop(agenda);
        self.from = None;
        shared.claimable.notify_one();
    }

    /// Is nothing left?
    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Goes on for a while.
    pub(super) async fn go_on(&mut self, shared: &Arc<Shared>, own: &mut Own) {
        if let Err(failure) = self.try_go_on(shared, own).await {
            let error = StoreError::from(failure);
            tracing::debug!(%error, "looking at what is due later failed; it is tried again");
            own.give_up();
        }
    }

    async fn try_go_on(&mut self, shared: &Arc<Shared>, own: &mut Own) -> Result<(), Failure> {
        if !self.started {
            if let Some(by) = ahead(shared, own.get().await?).await? {
                self.begin(shared, by);
            }
            self.started = true;
        }
        let begun = Instant::now();
        while let Some(endpoint) = self.left.last().copied()
            && begun.elapsed() < TURN
        {
            let next = pull_in(shared, own.get().await?, endpoint, self.from).await?;
            self.from = next;
            if next.is_none() {
                self.left.pop();
            }
        }
        Ok(())
    }
}

/// By how much the database knows a later time than now: its youngest message tells.
async fn ahead(shared: &Shared, connection: &Connection) -> Result<Option<Duration>, Failure> {
    let text = "SELECT created_at FROM message ORDER BY id DESC LIMIT 1";
    let youngest = connection.first_row(text, &[]).await?.map(|row| instant_at(&row, 0)).transpose()?;
    let by = youngest.map(|at| at.since(shared.clock.now()));
    Ok(by.filter(|by| *by >= TOLERANCE))
}

/// Looks at some deliveries of an endpoint that are due later; tells where to go on.
async fn pull_in(
    shared: &Shared,
    connection: &Connection,
    endpoint: EndpointId,
    from: Option<Place>,
) -> Result<Option<Place>, Failure> {
    let now = shared.clock.now();
    let (part, after) = from.unwrap_or((Part::First, None));
    let waiting = waiting(connection, endpoint, (part, after), now).await?;
    let next = match waiting.last() {
        Some(last) => Some((part, Some((last.due_at, last.delivery.message, last.delivery.generation)))),
        None => (part == Part::First).then_some((Part::Retries, None)),
    };
    let earlier: Vec<(DeliveryId, Timestamp)> = waiting
        .iter()
        .filter(|one| !hold::is_on(one.due_at))
        .filter_map(|one| Some((one.delivery, due_again(one, now)?)))
        .collect();
    if let Some(earliest) = earlier.iter().map(|(_, due)| *due).min() {
        let keys = Keys::of(earlier.iter().map(|(delivery, _)| delivery));
        let [messages, endpoints, generations] = keys.values();
        let due: Vec<i64> = earlier.iter().map(|(_, due)| due.as_micros()).collect();
        let text = "UPDATE pending SET due_at = item.due_at
             FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::bigint[]) AS item (message, endpoint, generation, due_at)
             WHERE pending.message = item.message AND pending.endpoint = item.endpoint
               AND pending.generation = item.generation AND pending.due_at > item.due_at";
        connection.execute(text, &[messages, endpoints, generations, &due]).await?;
        shared.agenda().pulled_in(endpoint, earliest, now);
        shared.claimable.notify_one();
    }
    Ok(next)
}

async fn waiting(
    connection: &Connection,
    endpoint: EndpointId,
    from: Place,
    now: Timestamp,
) -> Result<Vec<Waiting>, Failure> {
    let (part, after) = from;
    let (after, message, generation) = match &after {
        Some((due, message, generation)) => (*due, key(message), number(*generation)),
        None => (now, &[][..], -1),
    };
    let retries = part == Part::Retries;
    let rows = connection
        .query(
            LATER,
            &[
                &shards::of(endpoint),
                &key(&endpoint),
                &retries,
                &after.as_micros(),
                &message,
                &generation,
                &LOOK,
            ],
        )
        .await?;
    let instant = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    rows.iter()
        .map(|row| {
            Ok(Waiting {
                due_at: instant_at(row, 0)?,
                delivery: DeliveryId { message: id_at(row, 1)?, endpoint, generation: number_at(row, 2)? },
                attempted: retries,
                deliver_at: instant(at(row, 3)?),
                last_started: instant(at(row, 4)?),
            })
        })
        .collect()
}
