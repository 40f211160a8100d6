//! Storing what came of attempts: attempts and the deliveries' new states in one commit, which concurrent callers share.
//!
//! The transaction shares the lock of this node's right to write and looks whether it still has it: a node that others
//! have taken over from changes nothing any more. A batch takes two round trips whatever its size.

use crate::{
    Shared, attempt_rows,
    connection::{Connection, Own},
    endpoint_rows,
    failure::{Failure, unavailable},
    health::Commits,
    progress,
    queue::{Item, answered},
    schema::lock,
    settled::{self, End},
    values::{at, code_at, count, id_at, instant_at, key, number, number_at},
    work::config_lock,
};
use futures_util::{FutureExt as _, future};
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
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};
use tokio_postgres::types::ToSql;

/// How often a batch is tried again when it and another transaction waited for each other.
const TRIES: usize = 4;

/// What becomes of a record.
pub(crate) type Answer = Result<Recorded, StoreError>;

/// A delivery as it stands before its attempt is recorded.
#[derive(Debug, Clone, Copy)]
struct Before {
    state: State,
    attempts: u32,
    deadline_at: Timestamp,
    trigger: Trigger,
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
    let mut own = Own::new(shared.address.clone(), true);
    while let Some(items) = shared.recording.next().await {
        let work = AssertUnwindSafe(commit(&shared, &mut own, &items)).catch_unwind();
        let answers = work.await.unwrap_or_else(|_| {
            own.give_up();
            vec![Err(StoreError::Internal { detail: "a batch of results panicked".to_owned() }); items.len()]
        });
        for ((_, reply), answer) in items.into_iter().zip(answers) {
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
    let held = held(shared, records);
    if held.is_empty() {
        return Ok(answers);
    }
    let connection = own.get().await?;
    let gone = gone(connection, records, &held).await?;
    let now = shared.clock.now();
    let Some(mut before) = look(shared, connection, records, &held, &gone).await? else {
        connection.run("ROLLBACK").await?;
        shared.fenced();
        return Ok(answers);
    };
    late(connection, records, &held, &mut before).await?;
    let mut changes: Vec<Change<'_>> = held
        .iter()
        .filter_map(|place| {
            Change::of(*place, records.get(*place)?, before.get(&records[*place].lease.delivery)?, now)
        })
        .collect();
    let manual = manual_successes(&mut changes);
    let begun = Commits::timer();
    let beside = beside(connection, &changes, &manual, &gone, now).await?;
    write(connection, &changes).await?;
    shared.commits.record(begun, changes.len());
    for change in &changes {
        answers[change.place] = Recorded::Stored(change.state);
    }
    after_commit(shared, &changes, beside, now);
    Ok(answers)
}

/// Places of records whose leases are out, the first of each delivery.
fn held(shared: &Shared, records: &[&AttemptRecord]) -> Vec<usize> {
    let agenda = shared.agenda();
    let mut seen = HashSet::new();
    let out = |(_, record): &(usize, &&AttemptRecord)| {
        agenda.holds(&record.lease) && seen.insert(record.lease.delivery)
    };
    records.iter().enumerate().filter(out).map(|(place, _)| place).collect()
}

/// Endpoints that answered that they are gone for good, with their applications.
async fn gone(
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
) -> Result<BTreeMap<EndpointId, ApplicationId>, Failure> {
    let gone: BTreeSet<EndpointId> = held
        .iter()
        .filter(|place| records[**place].next == NextStep::GiveUp(GiveUp::Gone))
        .map(|place| records[*place].lease.delivery.endpoint)
        .collect();
    if gone.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<&[u8]> = gone.iter().map(key).collect();
    let rows = connection.query("SELECT id, application FROM endpoint WHERE id = ANY ($1)", &[&ids]).await?;
    rows.iter().map(|row| Ok((id_at(row, 0)?, id_at(row, 1)?))).collect()
}

const LOCK_CONFIG: &str = "SELECT pg_advisory_xact_lock($1, one) FROM unnest($2::int[]) AS one";
const LOCK_NODE: &str = "SELECT pg_advisory_xact_lock_shared($1, $2)";
const NODE: &str = "SELECT ended FROM node WHERE id = $1";
/// Deliveries as they stand, theirs alone until the commit.
pub(crate) const BEFORE: &str = "SELECT message, endpoint, generation, due_at, attempts, deadline_at, cause
     FROM unnest($1::bytea[], $2::bytea[], $3::int[]) AS item (message, endpoint, generation)
     JOIN pending USING (message, endpoint, generation) FOR UPDATE OF pending";

type Standing = HashMap<DeliveryId, Before>;

/// Begins the transaction, takes the locks and looks, in one round trip. `None` when others have taken over.
async fn look(
    shared: &Shared,
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
    gone: &BTreeMap<EndpointId, ApplicationId>,
) -> Result<Option<Standing>, Failure> {
    let (lock_config, lock_node) =
        (connection.prepare(LOCK_CONFIG).await?, connection.prepare(LOCK_NODE).await?);
    let (node, before) = (connection.prepare(NODE).await?, connection.prepare(BEFORE).await?);
    let locks: BTreeSet<i32> = gone.values().copied().map(config_lock).collect();
    let locks: Vec<i32> = locks.into_iter().collect();
    let me = shared.node();
    let columns = Keys::of(held.iter().map(|place| &records[*place].lease.delivery));
    let config_values: [&(dyn ToSql + Sync); 2] = [&lock::CONFIG, &locks];
    let node_lock = crate::keeper::lock_of(&me);
    let node_values: [&(dyn ToSql + Sync); 2] = [&lock::NODE, &node_lock];
    let me = &me[..];
    let me_values: [&(dyn ToSql + Sync); 1] = [&me];
    let before_values = columns.values();
    let client = connection.client();
    let asked = future::join5(
        client.batch_execute("BEGIN"),
        async {
            if locks.is_empty() { Ok(Vec::new()) } else { client.query(&lock_config, &config_values).await }
        },
        client.query(&lock_node, &node_values),
        client.query(&node, &me_values),
        client.query(&before, &before_values),
    );
    let (begun, config, node_locked, node, before) = connection.timed(asked.map(Ok)).await?;
    begun?;
    config?;
    node_locked?;
    let ended = node?.first().map(|row| at::<bool>(row, 0)).transpose()?;
    if ended != Some(false) {
        return Ok(None);
    }
    let mut standing = HashMap::new();
    for row in &before? {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? };
        let before = Before {
            state: State::Pending { next_attempt_at: instant_at(row, 3)? },
            attempts: number_at(row, 4)?,
            deadline_at: instant_at(row, 5)?,
            trigger: Trigger::from_code(code_at(row, 6)?).unwrap_or(Trigger::Scheduled),
        };
        standing.insert(delivery, before);
    }
    Ok(Some(standing))
}

/// Adds deliveries that ended meanwhile: their attempts are stored all the same.
async fn late(
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
    standing: &mut Standing,
) -> Result<(), Failure> {
    let missing: Vec<&DeliveryId> = held
        .iter()
        .map(|place| &records[*place].lease.delivery)
        .filter(|delivery| !standing.contains_key(delivery))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let columns = Keys::of(missing.into_iter());
    let rows = connection
        .query(
            "SELECT message, endpoint, generation, state, reason, attempts, cause
             FROM unnest($1::bytea[], $2::bytea[], $3::int[]) AS item (message, endpoint, generation)
             JOIN delivery USING (message, endpoint, generation)",
            &columns.values(),
        )
        .await?;
    for row in &rows {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? };
        let at_no_time = Timestamp::default();
        let before = Before {
            state: progress::state(code_at(row, 3)?, at(row, 4)?, at_no_time, delivery.message)?,
            attempts: number_at(row, 5)?,
            deadline_at: at_no_time,
            trigger: Trigger::from_code(code_at(row, 6)?).unwrap_or(Trigger::Scheduled),
        };
        standing.insert(delivery, before);
    }
    Ok(())
}

/// A record and what it changes.
struct Change<'a> {
    place: usize,
    record: &'a AttemptRecord,
    /// It was pending.
    pending: bool,
    state: State,
    attempts: u32,
    trigger: Trigger,
}

impl<'a> Change<'a> {
    fn of(place: usize, record: &'a AttemptRecord, before: &Before, now: Timestamp) -> Option<Self> {
        let pending = matches!(before.state, State::Pending { .. });
        let state = if pending { after(before, record.next, now) } else { before.state };
        let attempts = before.attempts.max(record.attempt.number);
        Some(Self { place, record, pending, state, attempts, trigger: before.trigger })
    }

    fn delivery(&self) -> DeliveryId {
        self.record.lease.delivery
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
        .filter(|change| change.record.next == NextStep::Delivered && change.trigger == Trigger::Manual)
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
    let late: Vec<&Change<'_>> = changes.iter().filter(|change| !change.pending).collect();
    if !late.is_empty() {
        let ids: Vec<DeliveryId> = late.iter().map(|change| change.delivery()).collect();
        let keys = Keys::of(ids.iter());
        let attempts: Vec<i32> = late.iter().map(|change| number(change.attempts)).collect();
        let text = "UPDATE delivery SET attempts = greatest(delivery.attempts, item.attempts)
             FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::int[]) AS item (message, endpoint, generation, attempts)
             WHERE delivery.message = item.message AND delivery.endpoint = item.endpoint
               AND delivery.generation = item.generation";
        let [messages, endpoints, generations] = keys.values();
        connection.execute(text, &[messages, endpoints, generations, &attempts]).await?;
    }
    for (endpoint, application) in gone {
        if let Some(version) = disable(connection, *endpoint, *application, now).await? {
            beside.disabled.push((*endpoint, *application, version));
        }
    }
    if !manual.is_empty() {
        let own: Vec<DeliveryId> = changes.iter().map(Change::delivery).collect();
        beside.settled = settled::deliver_all(connection, manual, &own).await?;
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

const RETRY: &str = "UPDATE pending SET due_at = item.due_at, attempts = item.attempts, retry = true
     FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::bigint[], $5::int[])
        AS item (message, endpoint, generation, due_at, attempts)
     WHERE pending.message = item.message AND pending.endpoint = item.endpoint
       AND pending.generation = item.generation";

/// Writes everything and commits.
async fn write(connection: &Connection, changes: &[Change<'_>]) -> Result<(), Failure> {
    let attempts: Vec<_> = changes.iter().map(|change| &change.record.attempt).collect();
    let statement = connection.prepare(attempt_rows::INSERT).await?;
    let retried: Vec<(DeliveryId, i64, i32)> = changes
        .iter()
        .filter_map(|change| match change.state {
            State::Pending { next_attempt_at } => {
                Some((change.delivery(), next_attempt_at.as_micros(), number(change.attempts)))
            }
            _ => None,
        })
        .collect();
    let ends: Vec<End> = changes
        .iter()
        .filter(|change| change.pending && !matches!(change.state, State::Pending { .. }))
        .map(|change| End {
            delivery: change.delivery(),
            state: change.state,
            attempts: change.attempts,
            deaths: 0,
        })
        .collect();
    connection.prepare(RETRY).await?;
    let retry = async {
        if retried.is_empty() {
            return Ok(0);
        }
        let keys = Keys::of(retried.iter().map(|(delivery, ..)| delivery));
        let due: Vec<i64> = retried.iter().map(|(_, due, _)| *due).collect();
        let counts: Vec<i32> = retried.iter().map(|(.., attempts)| *attempts).collect();
        let [messages, endpoints, generations] = keys.values();
        connection.execute(RETRY, &[messages, endpoints, generations, &due, &counts]).await
    };
    let (attempts, retried, ended) = future::join3(
        attempt_rows::insert(connection, &statement, &attempts),
        retry,
        settled::end(connection, &ends),
    )
    .await;
    attempts?;
    retried?;
    ended?;
    connection.run("COMMIT").await
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
    for (endpoint, ..) in &beside.disabled {
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
        shared.memory.changed(application);
        shared.hints.changed(application, version);
    }
    shared.claimable.notify_one();
}

/// Columns that name deliveries.
pub(crate) struct Keys<'a> {
    messages: Vec<&'a [u8]>,
    endpoints: Vec<&'a [u8]>,
    generations: Vec<i32>,
}

impl<'a> Keys<'a> {
    pub(crate) fn of(deliveries: impl Iterator<Item = &'a DeliveryId>) -> Self {
        let mut keys = Self { messages: Vec::new(), endpoints: Vec::new(), generations: Vec::new() };
        for delivery in deliveries {
            keys.messages.push(key(&delivery.message));
            keys.endpoints.push(key(&delivery.endpoint));
            keys.generations.push(number(delivery.generation));
        }
        keys
    }

    pub(crate) fn values(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.messages, &self.endpoints, &self.generations]
    }
}
