//! A clock that was set back: what was scheduled while it showed a later time would wait for it to get there again.
//!
//! A batch of writes that was made at a later time tells that it happened; across a restart, a message from the future
//! does. Then every delivery that is due later is looked at once: what was due when it was made is due now, and a retry that was scheduled by the later
//! time has its wait over again from now. What an earlier schedule or a publisher's own date says stays.

use crate::{
    Shared,
    failure::Failure,
    values::{id_at, instant_at, instant_or_null, key},
    writer::{self, Isolation, Scope},
};
use postrider_model::{
    delivery::DeliveryId,
    id::{EndpointId, MessageId},
    time::Timestamp,
};
use postrider_store::{
    agenda::Part,
    hold,
    set_back::{Waiting, due_again},
};
use rusqlite::{Connection, OptionalExtension, params};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Steps smaller than this are not worth a look: the shortest wait is longer.
const TOLERANCE: Duration = Duration::from_secs(2);
/// Deliveries looked at in one operation.
const LOOK: i64 = 500;
/// How long the upkeep may be at it before it looks after other things.
const TURN: Duration = Duration::from_millis(500);

/// The latest time that anything was written by.
#[derive(Debug, Default)]
pub(crate) struct Latest(AtomicI64);

impl Latest {
    /// A batch is written by this time.
    pub(crate) fn saw(&self, now: Timestamp) {
        self.0.fetch_max(now.as_micros(), Ordering::Relaxed);
    }

    /// By how much that was later than now; from here on, now counts.
    fn ahead(&self, now: Timestamp) -> Option<Duration> {
        let by = Timestamp::from_micros(self.0.load(Ordering::Relaxed)).since(now);
        (by >= TOLERANCE).then(|| {
            self.0.store(now.as_micros(), Ordering::Relaxed);
            by
        })
    }
}

/// Compares the clock with what was written, and works off what follows.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Endpoints still to be looked at, and where to go on in the last of them.
    left: Vec<EndpointId>,
    from: Option<Place>,
}

/// A place in the order of what waits: first attempts or retries, when it is due, and which it is.
type Place = (Part, Option<(Timestamp, MessageId, u32)>);

/// What an endpoint has due later of first attempts or of retries, from a place on.
pub(crate) const LATER: &str =
    "SELECT delivery.next_attempt_at, delivery.message, delivery.generation, delivery.attempts > 0,
            message.deliver_at,
            (SELECT MAX(started_at) FROM attempt WHERE attempt.message = delivery.message
                AND attempt.endpoint = delivery.endpoint AND attempt.generation = delivery.generation)
     FROM delivery INDEXED BY delivery_due CROSS JOIN message ON message.id = delivery.message
     WHERE delivery.endpoint = ?1 AND delivery.state = 0 AND (delivery.attempts > 0) = ?6
       AND delivery.next_attempt_at >= ?2
       AND (delivery.next_attempt_at, delivery.message, delivery.generation) > (?2, ?3, ?4)
     ORDER BY delivery.next_attempt_at, delivery.message, delivery.generation LIMIT ?5";

impl Watch {
    /// Begins; `was_ahead` when the database knows a later time.
    pub(crate) fn new(shared: &Shared, was_ahead: bool) -> Self {
        let mut watch = Self::default();
        if was_ahead {
            watch.look_at_all(shared);
        }
        watch
    }

    /// Looks at the clock, and goes on with what is to be done.
    pub(crate) fn tick(&mut self, shared: &Shared) {
        if let Some(by) = shared.latest.ahead(shared.clock.now()) {
            tracing::warn!(?by, "the clock was set back; deliveries keep their waits");
            shared.agenda().forget_deferrals(shared.clock.now());
            shared.claimable.notify_one();
            self.look_at_all(shared);
        }
        let at = Instant::now();
        while let Some(endpoint) = self.left.last().copied()
            && at.elapsed() < TURN
        {
            let from = self.from;
            match writer::submit_blocking(shared, Isolation::Own, move |work| pull_in(work, endpoint, from)) {
                Ok(Some(next)) => self.from = Some(next),
                Ok(None) => {
                    self.from = None;
                    self.left.pop();
                }
                // The next tick tries again.
                Err(_) => return,
            }
        }
    }

    fn look_at_all(&mut self, shared: &Shared) {
        self.left = shared.agenda().endpoints();
        self.from = None;
    }
}

/// Does the database know a time later than `now`? Its youngest message tells.
pub(crate) fn was_ahead(connection: &Connection, now: Timestamp) -> Result<bool, rusqlite::Error> {
    let youngest: Option<i64> = connection
        .query_row("SELECT created_at FROM message ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(youngest.is_some_and(|at| Timestamp::from_micros(at).since(now) >= TOLERANCE))
}

/// Looks at some deliveries of an endpoint that are due later; tells where to go on.
fn pull_in(
    work: &mut Scope<'_>,
    endpoint: EndpointId,
    from: Option<Place>,
) -> Result<Option<Place>, Failure> {
    let now = work.now;
    let (part, after) = from.unwrap_or((Part::First, None));
    let waiting = waiting(work.connection, endpoint, (part, after), now)?;
    let next = match waiting.last() {
        Some(last) => Some((part, Some((last.due_at, last.delivery.message, last.delivery.generation)))),
        None => (part == Part::First).then_some((Part::Retries, None)),
    };
    let mut earliest: Option<Timestamp> = None;
    for one in waiting.iter().filter(|one| !hold::is_on(one.due_at)) {
        let Some(due) = due_again(one, now) else { continue };
        work.connection
            .prepare_cached(
                "UPDATE delivery SET next_attempt_at = ?4
                 WHERE message = ?1 AND endpoint = ?2 AND generation = ?3 AND state = 0",
            )?
            .execute(params![
                key(&one.delivery.message),
                key(&endpoint),
                one.delivery.generation,
                due.as_micros()
            ])?;
        earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
    }
    if let Some(due) = earliest {
        work.after_commit(move |shared| {
            shared.agenda().pulled_in(endpoint, due, now);
            shared.claimable.notify_one();
        });
    }
    Ok(next)
}

fn waiting(
    connection: &Connection,
    endpoint: EndpointId,
    from: Place,
    now: Timestamp,
) -> Result<Vec<Waiting>, Failure> {
    let mut statement = connection.prepare_cached(LATER)?;
    let (part, after) = from;
    let (after, message, generation) = match &after {
        Some((due, message, generation)) => (*due, key(message), i64::from(*generation)),
        None => (now, &[][..], -1),
    };
    let retries = part == Part::Retries;
    let mut rows =
        statement.query(params![key(&endpoint), after.as_micros(), message, generation, LOOK, retries])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Waiting {
            due_at: instant_at(row, 0)?,
            delivery: DeliveryId { message: id_at(row, 1)?, endpoint, generation: row.get(2)? },
            attempted: row.get(3)?,
            deliver_at: instant_or_null(row, 4)?,
            last_started: instant_or_null(row, 5)?,
        });
    }
    Ok(found)
}
