//! Accepting messages: one durable transaction with messages, their idempotency records and all their deliveries.
//!
//! Endpoints are matched against a snapshot of the configuration before; the transaction shares the lock of each
//! application's configuration with others that accept, and commits only what was matched with the version in force.
//! The rest is matched again. A batch takes two round trips whatever its size: one to lock and to look, one to write
//! and commit. What two batches write at the same time (one key, one event id) fails the later one, which looks again.

mod look;
pub(crate) mod routing;
mod write;

#[cfg(test)]
pub(crate) use look::{EVENT_IDS, KEYS, VERSIONS};
pub(crate) use write::{PENDING, PendingColumns};

use crate::{
    Shared,
    coming::Committing,
    connection::{Connection, Own, Use},
    failure::{Failure, Refusal, unavailable},
    health::Commits,
    idempotency::Kind,
    message_rows,
    queue::answered,
    snapshots,
    values::id_of,
};
use futures_util::FutureExt as _;
use postrider_model::{
    application::Uid,
    delivery::Trigger,
    id::{ApplicationId, EndpointId, MessageId},
    message::Message,
    time::Timestamp,
};
use postrider_store::{
    StoreError, WriteError,
    agenda::Handed,
    messages::{Accepted, Audience, NewMessage},
    snapshot::{Snapshot, first_delivery},
};
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// How often a message is matched anew while somebody changes its application's configuration.
const ROUNDS: usize = 30;
/// How often a commit whose answer was lost is looked for, and how long after each time: its session may still be at it.
const LOST_LOOKS: usize = 3;
const LOST_PAUSE: Duration = Duration::from_millis(50);
/// How often a batch is written again when another one wrote the same at the same time.
const TRIES: usize = 4;
/// Payload bytes of one commit, about.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// A message to accept, matched.
pub(crate) struct Matched {
    message: Arc<NewMessage>,
    /// The configuration it was matched with.
    version: u64,
    matches: Vec<Match>,
}

/// A delivery to make.
struct Match {
    endpoint: EndpointId,
    /// Age at which it expires.
    age: Duration,
    trigger: Trigger,
    held: bool,
}

/// What became of an item of a batch.
#[derive(Clone)]
pub(crate) enum Answer {
    /// It is durable.
    Accepted(Box<Accepted>),
    /// The configuration changed since it was matched.
    MatchAgain,
    Refused(WriteError),
}

/// Accepts messages, each with its own result. Those of one call stay together and in their order.
pub(crate) async fn all(
    shared: &Arc<Shared>,
    messages: Vec<NewMessage>,
) -> Vec<Result<Accepted, WriteError>> {
    let messages: Vec<Arc<NewMessage>> = messages.into_iter().map(Arc::new).collect();
    let mut results: Vec<Option<Result<Accepted, WriteError>>> = messages.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        let open: Vec<usize> = (0..results.len()).filter(|place| results[*place].is_none()).collect();
        if open.is_empty() {
            break;
        }
        round(shared, &messages, &open, &mut results).await;
    }
    let busy = || {
        let detail = "the application's configuration changes without pause".to_owned();
        Err(WriteError::Store(unavailable(detail)))
    };
    results.into_iter().map(|result| result.unwrap_or_else(busy)).collect()
}

/// Matches and commits those at these places; what is to be matched again has no result.
async fn round(
    shared: &Shared,
    messages: &[Arc<NewMessage>],
    open: &[usize],
    results: &mut [Option<Result<Accepted, WriteError>>],
) {
    let (mut places, mut group) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
    for place in open {
        match matched(shared, &messages[*place]).await {
            Ok(matched) => {
                places.push(*place);
                group.push(matched);
            }
            Err(failure) => results[*place] = Some(Err(failure.into())),
        }
    }
    if group.is_empty() {
        return;
    }
    let answers = match shared.accepting.submit(group).await {
        Ok(waiting) => answered(waiting).await,
        Err(error) => Err(error),
    };
    match answers {
        Ok(answers) => {
            for (place, answer) in places.into_iter().zip(answers) {
                results[place] = match answer {
                    Answer::Accepted(accepted) => Some(Ok(*accepted)),
                    Answer::Refused(error) => Some(Err(error)),
                    Answer::MatchAgain => None,
                };
            }
        }
        Err(error) => {
            for place in places {
                results[place] = Some(Err(WriteError::Store(error.clone())));
            }
        }
    }
}

async fn matched(shared: &Shared, message: &Arc<NewMessage>) -> Result<Matched, Failure> {
    if shared.is_closed() {
        return Err(crate::failure::closing().into());
    }
    let snapshot = snapshots::current(shared, &message.scope).await?.ok_or(Refusal::Missing)?;
    let matches = matching(&snapshot, message, shared.config.delivery_deadline_seconds)?;
    Ok(Matched { message: Arc::clone(message), version: snapshot.version, matches })
}

fn matching(snapshot: &Snapshot, message: &NewMessage, server_age: u64) -> Result<Vec<Match>, Failure> {
    let age = |endpoint| crate::endpoint_rows::delivery_age(endpoint, server_age);
    match message.audience {
        Audience::Matching => Ok(snapshot
            .matching(&message.event_type, &message.channels)
            .map(|settings| Match {
                endpoint: settings.endpoint.id,
                age: age(&settings.endpoint),
                trigger: Trigger::Scheduled,
                held: false,
            })
            .collect()),
        Audience::Only(id) => {
            let endpoint = &snapshot.endpoint(id).ok_or(Refusal::Missing)?.endpoint;
            let held = endpoint.disabled.is_some();
            Ok(vec![Match { endpoint: id, age: age(endpoint), trigger: Trigger::Manual, held }])
        }
    }
}

/// Commits batch after batch until the store closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Commits);
    while let Some(batch) = shared.accepting.next().await {
        let items: Vec<&Matched> = batch.items.iter().flat_map(|(group, _)| group).collect();
        let mut answers = Vec::with_capacity(items.len());
        for some in cut(&items, shared.config.batch) {
            let work = AssertUnwindSafe(commit(&shared, &mut own, some)).catch_unwind();
            answers.extend(work.await.unwrap_or_else(|_| {
                own.give_up();
                let error = StoreError::Internal { detail: "a batch of messages panicked".to_owned() };
                vec![Answer::Refused(error.into()); some.len()]
            }));
        }
        let mut answers = answers.into_iter();
        for (group, reply) in batch.ended() {
            // The caller may have gone; what is committed stays committed.
            drop(reply.send(answers.by_ref().take(group.len()).collect()));
        }
    }
}

/// Pieces that one commit takes each.
fn cut<'a>(items: &'a [&'a Matched], batch: usize) -> Vec<&'a [&'a Matched]> {
    let mut pieces = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |item: &&&Matched| {
            let first = bytes == 0;
            bytes += item.message.payload.len() + 1;
            first || bytes <= COMMIT_BYTES
        };
        let (piece, others) = rest.split_at(rest.iter().take_while(fits).count().min(batch.max(1)));
        pieces.push(piece);
        rest = others;
    }
    pieces
}

async fn commit(shared: &Shared, own: &mut Own, items: &[&Matched]) -> Vec<Answer> {
    let mut failure = None;
    for _ in 0..TRIES {
        match try_commit(shared, own, items).await {
            Ok(answers) => return answers,
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
    let error = match error {
        StoreError::Unavailable { .. } | StoreError::Full { .. } => error,
        other => {
            tracing::error!(error = %other, "a batch of messages failed");
            other
        }
    };
    vec![Answer::Refused(WriteError::Store(error)); items.len()]
}

/// What is to be done with an item.
enum Plan {
    Write(Message),
    /// A request with the same key made this message before.
    Replay(MessageId),
    /// An item of the same batch, at this place, has the same key.
    Same(usize),
    MatchAgain,
    Refused(WriteError),
}

fn plan(shared: &Shared, items: &[&Matched], known: &mut look::Known, now: Timestamp) -> Vec<Plan> {
    let retention = Duration::from_secs(shared.config.payload_retention_seconds);
    let mut plans = Vec::with_capacity(items.len());
    let mut keys: HashMap<(&str, [u8; 32]), usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        let new = &item.message;
        let key = new.idempotency.as_ref().map(|key| (new.scope.environment.as_str(), key.digest));
        // A repeated key is looked at before anything else, so that a replay is no conflict.
        if let Some(key) = key {
            let stored = known.keys.get(&(key.0.to_owned(), key.1.to_vec()));
            let made = stored.filter(|made| made.kind == Kind::Message as i16 && !made.expired);
            if let Some(Ok(id)) = made.map(|made| id_of(&made.created)) {
                plans.push(Plan::Replay(id));
                continue;
            }
            if let Some(same) = keys.get(&key) {
                plans.push(Plan::Same(*same));
                continue;
            }
        }
        let application = new.scope.application;
        let plan = match known.versions.get(&application).copied() {
            None => Plan::Refused(WriteError::Missing),
            Some(version) if version != item.version => Plan::MatchAgain,
            Some(_) if is_undecided(known, application, new.event_id.as_ref()) => Plan::Refused(
                unavailable("a transaction that published this event id is about to commit".to_owned())
                    .into(),
            ),
            Some(_) if !takes_name(known, application, new.event_id.as_ref()) => {
                Plan::Refused(WriteError::Taken)
            }
            Some(_) => Plan::Write(Message {
                id: shared.ids.next(now),
                application,
                event_id: new.event_id.clone(),
                event_type: new.event_type.clone(),
                channels: new.channels.clone(),
                tags: new.tags.clone(),
                content_type: new.content_type.clone(),
                deliver_at: new.deliver_at,
                payload_expires_at: now.plus(new.payload_lifetime.unwrap_or(retention)),
                created_at: now,
            }),
        };
        if let (Some(key), Plan::Write(_)) = (key, &plan) {
            keys.insert(key, place);
        }
        plans.push(plan);
    }
    plans
}

/// Nobody can tell yet whose the event id will be.
fn is_undecided(known: &look::Known, application: ApplicationId, event_id: Option<&Uid>) -> bool {
    !known.undecided.is_empty()
        && event_id
            .is_some_and(|event_id| known.undecided.contains(&(application, event_id.as_str().to_owned())))
}

/// Is the event id free? Then it is not any more.
fn takes_name(known: &mut look::Known, application: ApplicationId, event_id: Option<&Uid>) -> bool {
    event_id.is_none_or(|event_id| known.event_ids.insert((application, event_id.as_str().to_owned())))
}

async fn try_commit(shared: &Shared, own: &mut Own, items: &[&Matched]) -> Result<Vec<Answer>, Failure> {
    let mut connection = own.get().await?;
    let now = shared.clock.now();
    let mut known = look::look(connection, items, now, shared.routing.beside()).await?;
    let plans = plan(shared, items, &mut known, now);
    let deliveries = deliveries(items, &plans, now);
    let begun = Commits::timer();
    let committing = Committing::begin(shared, deliveries.iter().map(|(handed, _)| handed.delivery));
    let written = plans.iter().filter(|plan| matches!(plan, Plan::Write(_))).count();
    if written == 0 {
        connection.run("ROLLBACK").await?;
    } else {
        if let Err(failure) = write::all(connection, items, &plans, &deliveries, &known, now).await {
            if !failure.is_lost() {
                return Err(failure);
            }
            // The answer may be all that was lost: then its callers need not ask again.
            own.give_up();
            connection = own.get().await?;
            if !was_committed(connection, &plans).await? {
                return Err(failure);
            }
        }
        shared.commits.record(begun, written);
    }
    for (delivery, held) in deliveries {
        committing.hand_over(delivery, held, now);
    }
    committing.handed_over();
    if written > 0 {
        shared.claimable.notify_one();
    }
    answers(shared, connection, items, plans).await
}

/// Is there what a commit wrote whose answer was lost? One message tells of all: they share the transaction.
async fn was_committed(connection: &Connection, plans: &[Plan]) -> Result<bool, Failure> {
    let id = plans.iter().find_map(|plan| match plan {
        Plan::Write(message) => Some(message.id),
        _ => None,
    });
    let Some(id) = id else { return Ok(false) };
    for _ in 0..LOST_LOOKS {
        let text = "SELECT 1 FROM message WHERE id = $1";
        if connection.first_row(text, &[&crate::values::key(&id)]).await?.is_some() {
            return Ok(true);
        }
        tokio::time::sleep(LOST_PAUSE).await;
    }
    Ok(false)
}

async fn answers(
    shared: &Shared,
    connection: &Connection,
    items: &[&Matched],
    plans: Vec<Plan>,
) -> Result<Vec<Answer>, Failure> {
    let mut answers: Vec<Answer> = Vec::with_capacity(plans.len());
    for (item, plan) in items.iter().zip(plans) {
        let application = item.message.scope.application;
        let answer = match plan {
            Plan::Write(message) => Answer::Accepted(Box::new(Accepted { message, replayed: false })),
            Plan::MatchAgain => {
                shared.memory.changed(application);
                Answer::MatchAgain
            }
            Plan::Refused(error) => Answer::Refused(error),
            Plan::Same(place) => match answers.get(place) {
                Some(Answer::Accepted(accepted)) => {
                    Answer::Accepted(Box::new(Accepted { replayed: true, ..Accepted::clone(accepted) }))
                }
                _ => Answer::MatchAgain,
            },
            // What was made is gone with its retention: the record should be gone too. It goes by itself.
            Plan::Replay(id) => match message_rows::of_id(connection, application, id, false).await? {
                Some(found) => {
                    Answer::Accepted(Box::new(Accepted { message: found.message, replayed: true }))
                }
                None => Answer::Refused(WriteError::Missing),
            },
        };
        answers.push(answer);
    }
    Ok(answers)
}

/// All deliveries of what is written, and whether they are held.
fn deliveries(items: &[&Matched], plans: &[Plan], now: Timestamp) -> Vec<(Handed, bool)> {
    let mut all = Vec::new();
    for (item, plan) in items.iter().zip(plans) {
        let Plan::Write(message) = plan else { continue };
        let new = &item.message;
        let due_at = new.deliver_at.map_or(now, |at| at.max(now));
        all.extend(item.matches.iter().map(|found| {
            let handed = Handed {
                delivery: first_delivery(message.id, found.endpoint),
                scope: new.scope.clone(),
                attempts: 0,
                trigger: found.trigger,
                payload: Some(new.payload.clone()),
                content_type: new.content_type.clone(),
                accepted_at: now,
                due_at,
                deadline_at: due_at.plus(found.age),
                deaths: 0,
            };
            (handed, found.held)
        }));
    }
    all
}
