//! Storing what came of attempts: attempts and the deliveries' new states in one commit, which concurrent callers share.
//!
//! The transaction shares the lock of this node's right to write and looks whether it still has it: a node that others
//! have taken over from changes nothing any more. A batch takes two round trips whatever its size.

mod look;
mod write;

#[cfg(test)]
pub(crate) use look::BEFORE;
pub(crate) use look::Keys;

use crate::{
    Shared,
    connection::{Connection, Own, Use},
    endpoint_rows,
    failure::{Failure, unavailable},
    health::Commits,
    queue::{Item, answered},
    settled,
    values::{at, count, key, number},
};
use futures_util::FutureExt as _;
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    endpoint::{Disabled, DisabledReason},
    id::{ApplicationId, EndpointId, MessageId},
    retry::{GiveUp, NextStep},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Recorded},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

/// How often a batch is tried again when it and another transaction waited for each other.
const TRIES: usize = 4;

/// What becomes of a record.
pub(crate) type Answer = Result<Recorded, StoreError>;

/// A delivery as it stands before its attempt is recorded.
#[derive(Debug, Clone)]
pub(super) struct Before {
    state: State,
    attempts: u32,
    deadline_at: Timestamp,
    trigger: Trigger,
    deaths: u32,
    /// `None` when it ended before.
    application: Option<ApplicationId>,
    /// Where its row lies, as long as this transaction holds it.
    place: String,
}

/// Stores results, each for itself; they share commits with whatever else waits.
pub(crate) async fn all(shared: &Shared, records: Vec<AttemptRecord>) -> Vec<Answer> {
    let mut begun = Vec::with_capacity(records.len());
    for record in records {
        begun.push(shared.recording.submit(record).await);
    }
    let mut results = Vec::with_capacity(begun.len());
    for answer in begun {
        results.push(match answer {
            Ok(answer) => answered(answer).await.and_then(|answer| answer),
            Err(error) => Err(error),
        });
    }
    results
}

/// Commits batch after batch until the store closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Commits);
    while let Some(batch) = shared.recording.next().await {
        let items = &batch.items;
        let work = AssertUnwindSafe(commit(&shared, &mut own, items)).catch_unwind();
        let answers = work.await.unwrap_or_else(|_| {
            own.give_up();
            vec![Err(StoreError::Internal { detail: "a batch of results panicked".to_owned() }); items.len()]
        });
        for ((_, reply), answer) in batch.ended().into_iter().zip(answers) {
            // The caller may have gone; what is committed stays committed.
            drop(reply.send(answer));
        }
    }
}

async fn commit(shared: &Arc<Shared>, own: &mut Own, items: &[Item<AttemptRecord, Answer>]) -> Vec<Answer> {
    let records: Vec<&AttemptRecord> = items.iter().map(|(record, _)| record).collect();
    let mut failure = None;
    for _ in 0..TRIES {
        match try_commit(shared, own, &records).await {
            Ok(answers) => return answers.into_iter().map(Ok).collect(),
            Err(error) => {
                own.give_up();
                let again = error.is_conflict();
                failure = Some(error);
                if !again {
                    break;
                }
            }
        }
    }
    let error = failure.map_or_else(|| unavailable("not tried".to_owned()), StoreError::from);
    vec![Err(error); items.len()]
}

async fn try_commit(
    shared: &Arc<Shared>,
    own: &mut Own,
    records: &[&AttemptRecord],
) -> Result<Vec<Recorded>, Failure> {
    let mut answers = vec![Recorded::Superseded; records.len()];
    // Before anything is waited for: under a later id of this node, what an earlier one began would pass for its own.
    let me = shared.node();
    let held = look::held(shared, records);
    if held.is_empty() {
        return Ok(answers);
    }
    let connection = own.get().await?;
    let gone = look::gone(connection, records, &held).await?;
    let now = shared.clock.now();
    let Some(mut before) = look::look(me, connection, records, &held, &gone).await? else {
        connection.run("ROLLBACK").await?;
        shared.fenced(me);
        return Ok(answers);
    };
    look::late(connection, records, &held, &mut before).await?;
    let mut changes: Vec<Change<'_>> = held
        .iter()
        .filter_map(|place| {
            let before = before.get(&records[*place].lease.delivery)?;
            Some(Change::of(*place, records[*place], before, now))
        })
        .collect();
    let manual = manual_successes(&mut changes);
    let begun = Commits::timer();
    let beside = beside(connection, &changes, &manual, &gone, now).await?;
    write::all(connection, &changes).await?;
    shared.commits.record(begun, changes.len());
    for change in &changes {
        answers[change.place] = Recorded::Stored(change.state);
    }
    after_commit(shared, &changes, beside, now);
    Ok(answers)
}

/// A record and what it changes.
struct Change<'a> {
    place: usize,
    record: &'a AttemptRecord,
    /// It was pending.
    pending: bool,
    state: State,
    attempts: u32,
    before: &'a Before,
}

impl<'a> Change<'a> {
    fn of(place: usize, record: &'a AttemptRecord, before: &'a Before, now: Timestamp) -> Self {
        let pending = matches!(before.state, State::Pending { .. });
        let state = if pending { after(before, record.next, now) } else { before.state };
        let attempts = before.attempts.max(record.attempt.number);
        Self { place, record, pending, state, attempts, before }
    }

    fn delivery(&self) -> DeliveryId {
        self.record.lease.delivery
    }

    /// Was its attempt never stored? A commit that stores one counts it.
    fn is_fresh(&self) -> bool {
        self.pending && self.before.attempts < self.record.attempt.number
    }
}

/// The state that follows: the decision, bounded by this store's clock and the delivery's deadline.
fn after(before: &Before, next: NextStep, now: Timestamp) -> State {
    match next {
        NextStep::Delivered => State::Delivered,
        NextStep::GiveUp(reason) => State::Failed(reason),
        // A manual delivery has one attempt.
        NextStep::RetryAfter(_) if before.trigger == Trigger::Manual => State::Failed(GiveUp::Exhausted),
        NextStep::RetryAfter(wait) => {
            let next_attempt_at = now.plus(wait);
            if next_attempt_at > before.deadline_at {
                State::Failed(GiveUp::Expired)
            } else {
                State::Pending { next_attempt_at }
            }
        }
    }
}

/// What a batch does besides its own deliveries.
#[derive(Default)]
struct Beside {
    settled: Vec<DeliveryId>,
    disabled: Vec<(EndpointId, ApplicationId, u64)>,
}

/// Between whom a manual delivery succeeded; what is pending there, also in this batch, is delivered with it.
fn manual_successes(changes: &mut [Change<'_>]) -> Vec<(MessageId, EndpointId)> {
    let pair = |change: &Change<'_>| (change.delivery().message, change.delivery().endpoint);
    let manual: BTreeSet<_> = changes
        .iter()
        .filter(|change| {
            change.record.next == NextStep::Delivered && change.before.trigger == Trigger::Manual
        })
        .map(pair)
        .collect();
    for change in changes.iter_mut() {
        if manual.contains(&pair(change)) && matches!(change.state, State::Pending { .. }) {
            change.state = State::Delivered;
        }
    }
    manual.into_iter().collect()
}

/// What only some results bring: a manual success settles what is pending beside it, an endpoint that is gone is disabled,
/// a delivery that ended before counts its attempt.
async fn beside(
    connection: &Connection,
    changes: &[Change<'_>],
    manual: &[(MessageId, EndpointId)],
    gone: &BTreeMap<EndpointId, ApplicationId>,
    now: Timestamp,
) -> Result<Beside, Failure> {
    let mut beside = Beside::default();
    for change in changes.iter().filter(|change| !change.pending) {
        let delivery = change.delivery();
        let text = "UPDATE delivery SET attempts = greatest(attempts, $4)
             WHERE message = $1 AND endpoint = $2 AND generation = $3";
        let values = (key(&delivery.message), key(&delivery.endpoint), number(delivery.generation));
        connection.execute(text, &[&values.0, &values.1, &values.2, &number(change.attempts)]).await?;
    }
    for (endpoint, application) in gone {
        if let Some(version) = disable(connection, *endpoint, *application, now).await? {
            beside.disabled.push((*endpoint, *application, version));
        }
    }
    for (message, endpoint) in manual {
        let between = |delivery: &DeliveryId| (delivery.message, delivery.endpoint) == (*message, *endpoint);
        let own: Vec<i32> = changes
            .iter()
            .map(Change::delivery)
            .filter(between)
            .map(|delivery| number(delivery.generation))
            .collect();
        beside.settled.extend(settled::deliver_others(connection, *message, *endpoint, &own).await?);
    }
    Ok(beside)
}

/// The endpoint answered that it is gone for good: nothing is sent there until somebody enables it. Returns the new
/// version of the configuration; `None` when it is disabled or deleted already.
async fn disable(
    connection: &Connection,
    endpoint: EndpointId,
    application: ApplicationId,
    now: Timestamp,
) -> Result<Option<u64>, Failure> {
    let stored = endpoint_rows::of_id(connection, application, endpoint).await?;
    let Some(mut stored) = stored.filter(|stored| stored.disabled.is_none()) else { return Ok(None) };
    stored.disabled = Some(Disabled { reason: DisabledReason::Gone, at: now });
    stored.version += 1;
    stored.updated_at = now;
    endpoint_rows::update(connection, &stored).await?;
    let text = "UPDATE application SET config_version = nextval('config_version') WHERE id = $1 RETURNING config_version";
    let row = connection.first_row(text, &[&key(&application)]).await?;
    Ok(Some(row.map(|row| at(&row, 0)).transpose()?.map_or(0, count)))
}

fn after_commit(shared: &Arc<Shared>, changes: &[Change<'_>], beside: Beside, now: Timestamp) {
    let mut slots = Vec::new();
    let mut agenda = shared.agenda();
    for change in changes {
        let next = match change.state {
            State::Pending { next_attempt_at } => Some(next_attempt_at),
            _ => None,
        };
        let lease = &change.record.lease;
        slots.extend(if change.pending {
            agenda.recorded(lease, next, now)
        } else {
            agenda.recorded_late(lease, now)
        });
    }
    for (endpoint, application, _) in &beside.disabled {
        // First: who has read the endpoint before must see that it is outdated.
        shared.memory.changed(*application);
        agenda.hold(*endpoint, true, now);
    }
    drop(agenda);
    for slot in slots {
        shared.in_flight.recorded(slot);
    }
    for delivery in beside.settled {
        shared.ended(delivery, now);
    }
    for (_, application, version) in beside.disabled {
        shared.hints.changed(application, version);
    }
    shared.claimable.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_deadline_and_the_trigger_bound_what_was_decided() {
        let at = Timestamp::from_micros;
        let before = |trigger| Before {
            state: State::Pending { next_attempt_at: at(0) },
            attempts: 1,
            deadline_at: at(10_000_000),
            trigger,
            deaths: 0,
            application: None,
            place: String::new(),
        };
        let retry = |seconds| NextStep::RetryAfter(Duration::from_secs(seconds));
        for (trigger, next, expected) in [
            (Trigger::Scheduled, NextStep::Delivered, State::Delivered),
            (Trigger::Scheduled, NextStep::GiveUp(GiveUp::Gone), State::Failed(GiveUp::Gone)),
            (Trigger::Scheduled, retry(9), State::Pending { next_attempt_at: at(10_000_000) }),
            (Trigger::Scheduled, retry(10), State::Failed(GiveUp::Expired)),
            (Trigger::Manual, retry(1), State::Failed(GiveUp::Exhausted)),
            (Trigger::Manual, NextStep::Delivered, State::Delivered),
        ] {
            assert_eq!(after(&before(trigger), next, at(1_000_000)), expected, "{trigger:?} {next:?}");
        }
    }
}
