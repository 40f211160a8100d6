//! Routing what applications published inside of transactions of their own: `postrider.publish` leaves it in the outbox,
//! and whichever node finds it makes the message and its deliveries of it, with the same matching as for a request.
//!
//! One transaction takes rows out of the outbox and writes what they become, so that a node that dies in between has
//! done nothing. Rows that another node is at are passed over. Nothing is remembered of how far anybody has read:
//! transactions commit in any order. A row that cannot be routed is set aside with the reason and keeps nobody waiting.

use super::{
    COMMIT_BYTES, Match, Matched, Plan, TRIES, deliveries, look, look::Beside, matching, takes_name, write,
};
use crate::{
    Shared,
    coming::Committing,
    connection::{Connection, Own, Use},
    failure::{Failure, inconsistent, unavailable},
    health::Commits,
    snapshots,
    values::{at, duration_or_null, id_at, instant_at, instant_or_null, key, rows, split},
};
use bytes::Bytes;
use postrider_model::{
    application::Uid,
    environment::EnvironmentId,
    event_type::EventTypeName,
    id::MessageId,
    message::{Channel, Message, Tag},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    endpoints::AppScope,
    messages::{Audience, NewMessage},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_postgres::Row;

/// How often a node looks where nobody published lately, but somebody may.
const QUIET: Duration = Duration::from_secs(2);
/// How often where no role may publish.
const UNUSED: Duration = Duration::from_secs(10);
/// How long after something was found the next is expected soon.
const LATELY: Duration = Duration::from_mins(1);
/// How soon after a failure the outbox is looked at again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often idempotency keys that have expired are deleted, and so many at once.
const FORGETTING: Duration = Duration::from_mins(10);
const FORGOTTEN: i64 = 10_000;
/// How often a batch is matched again that somebody's change of configuration overtook; the lock that it holds by then
/// lets nobody do so twice.
const ROUNDS: usize = 3;

const LOOK: &str =
    "SELECT EXISTS (SELECT 1 FROM outbox WHERE set_aside IS NULL), EXISTS (SELECT 1 FROM publisher)";
/// A node that stops in the middle keeps its rows for so long.
const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '15s'";
/// The oldest rows that nobody else is at, so many and payloads of so many bytes at most.
pub(crate) const TAKE: &str = "DELETE FROM outbox WHERE id = ANY (ARRAY(
        SELECT id FROM (
            SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
                SELECT id, octet_length(payload) AS bytes FROM outbox WHERE set_aside IS NULL
                ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
            ) AS locked
        ) AS summed WHERE before < $2))
     RETURNING id, environment, application, event_id, event_type, channels, tags, content_type, deliver_at,
        payload_lifetime, created_at, payload";
const SET_ASIDE: &str = "UPDATE outbox SET set_aside = $2 WHERE id = $1";
const FORGET: &str = "DELETE FROM publish_key WHERE (environment, digest) IN
        (SELECT environment, digest FROM publish_key WHERE expires_at <= $1 LIMIT $2)";

/// What wakes the task that routes.
#[derive(Default)]
pub(crate) struct Routing {
    wake: Notify,
    /// No role may publish, as of the last look; a node that does not look does not know.
    unused: AtomicBool,
    pub(crate) counts: Counts,
}

/// What this node has done with what it found, since its start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) routed: AtomicU64,
    pub(crate) without_event_id: AtomicU64,
    pub(crate) application_deleted: AtomicU64,
    pub(crate) set_aside: AtomicU64,
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

impl Routing {
    /// May transactions publish while a request does?
    pub(super) fn beside(&self) -> Beside {
        if self.unused.load(Ordering::Relaxed) { Beside::Nobody } else { Beside::Transactions }
    }

    /// Something may wait.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }
}

/// What was published in a transaction.
struct Published {
    id: MessageId,
    created_at: Timestamp,
    message: Arc<NewMessage>,
}

/// When this node looks.
#[derive(Default)]
struct Pace {
    found: Option<Instant>,
    forgot: Option<Instant>,
    /// So many more rows go one by one, because of one that could not be routed.
    alone: usize,
}

/// Routes until the store closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Commits);
    let mut pace = Pace::default();
    while !shared.is_closed() {
        let rest = match round(&shared, &mut own, &mut pace).await {
            Ok(rest) => rest,
            Err(failure) => {
                let error = StoreError::from(failure);
                tracing::debug!(%error, "what was published in transactions could not be routed yet");
                own.give_up();
                PAUSE
            }
        };
        tokio::select! {
            () = shared.routing.wake.notified() => {}
            () = tokio::time::sleep(rest) => {}
            () = shared.closing.notified() => {}
        }
    }
}

/// Looks, and routes all that waits. Returns how long nothing is to be done.
async fn round(shared: &Arc<Shared>, own: &mut Own, pace: &mut Pace) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let row = own.get().await?.first_row(LOOK, &[]).await?;
    let looked = begun.elapsed();
    let Some(row) = row else { return Ok(QUIET) };
    let (waits, used): (bool, bool) = (at(&row, 0)?, at(&row, 1)?);
    shared.routing.unused.store(!used, Ordering::Relaxed);
    if waits {
        pace.found = Some(Instant::now());
        while !shared.is_closed() && some(shared, own, pace).await? {}
    }
    if used && pace.forgot.is_none_or(|forgot| forgot.elapsed() >= FORGETTING) {
        pace.forgot = Some(Instant::now());
        let now = shared.clock.now().as_micros();
        own.get().await?.execute(FORGET, &[&now, &FORGOTTEN]).await?;
    }
    let poll = Duration::from_millis(shared.config.poll_milliseconds.max(50));
    let rest = match pace.found {
        Some(found) if found.elapsed() < LATELY => poll,
        _ if used => QUIET.max(poll),
        _ => UNUSED.max(poll),
    };
    // Looking must not become all that the database does.
    Ok(rest.max(looked * 10))
}

/// Routes a batch; `false` when nothing more waits.
async fn some(shared: &Arc<Shared>, own: &mut Own, pace: &mut Pace) -> Result<bool, Failure> {
    let most = if pace.alone > 0 { 1 } else { shared.config.batch.max(1) };
    let mut taken = Vec::new();
    for attempt in 1.. {
        taken.clear();
        let failure = match batch(shared, own.get().await?, most, &mut taken).await {
            Ok(()) => {
                pace.alone = pace.alone.saturating_sub(1);
                return Ok(!taken.is_empty());
            }
            Err(failure) => failure,
        };
        own.give_up();
        if failure.is_conflict() && attempt < TRIES {
            continue;
        }
        let error = StoreError::from(failure);
        if matches!(error, StoreError::Unavailable { .. } | StoreError::Full { .. }) || taken.is_empty() {
            return Err(error.into());
        }
        if let [id] = taken.as_slice() {
            let reason = error.to_string();
            own.get().await?.execute(SET_ASIDE, &[&key(id), &reason]).await?;
            add(&shared.routing.counts.set_aside, 1);
            tracing::error!(
                message.id = %id, %error,
                "a message that was published in a transaction cannot be routed and is set aside; see postrider.outbox"
            );
        } else {
            // One of them is to blame: the others need not wait for it.
            pace.alone = taken.len();
        }
        return Ok(true);
    }
    Ok(true)
}

/// Takes a batch out of the outbox and makes messages and deliveries of it, in one transaction. `taken` says what it
/// was about.
async fn batch(
    shared: &Arc<Shared>,
    connection: &Connection,
    most: usize,
    taken: &mut Vec<MessageId>,
) -> Result<(), Failure> {
    connection.run(BEGIN).await?;
    let mut found = connection.query(TAKE, &[&rows(most), &rows(COMMIT_BYTES)]).await?;
    found.sort_by(|one, other| one.get::<_, &[u8]>(0).cmp(other.get(0)));
    for row in &found {
        taken.push(id_at(row, 0)?);
    }
    if found.is_empty() {
        return connection.run("ROLLBACK").await;
    }
    let published = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (published, items, mut known) = matched(shared, connection, published).await?;
    let items: Vec<&Matched> = items.iter().collect();
    let now = shared.clock.now();
    let plans: Vec<Plan> =
        published.iter().map(|one| Plan::Write(message(shared, one, &mut known))).collect();
    let deliveries = deliveries(&items, &plans, now);
    let begun = Commits::timer();
    let committing = Committing::begin(&**shared, deliveries.iter().map(|(handed, _)| handed.delivery));
    write::all(connection, &items, &plans, &deliveries, &known, now).await?;
    shared.commits.record(begun, items.len());
    let counts = &shared.routing.counts;
    add(&counts.routed, items.len());
    add(&counts.application_deleted, found.len() - items.len());
    add(
        &counts.without_event_id,
        items.iter().zip(&plans).filter(|(item, plan)| lost_name(item, plan)).count(),
    );
    for (delivery, held) in deliveries {
        committing.hand_over(delivery, held, now);
    }
    committing.handed_over();
    shared.claimable.notify_one();
    Ok(())
}

/// Matches with the configuration in force, which from then on cannot change until the transaction ends. What was
/// published for an application that was deleted meanwhile is left out, as its deliveries would be cancelled.
async fn matched(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut published: Vec<Published>,
) -> Result<(Vec<Published>, Vec<Matched>, look::Known), Failure> {
    for _ in 0..ROUNDS {
        let mut items = Vec::with_capacity(published.len());
        let mut there = Vec::with_capacity(published.len());
        for one in published {
            // The configuration is read over another connection, without any lock.
            let Some(snapshot) = snapshots::current(shared, &one.message.scope).await? else {
                dropped(&one);
                continue;
            };
            let matches: Vec<Match> =
                matching(&snapshot, &one.message, shared.config.delivery_deadline_seconds)?;
            items.push(Matched { message: Arc::clone(&one.message), version: snapshot.version, matches });
            there.push(one);
        }
        published = there;
        let all: Vec<&Matched> = items.iter().collect();
        let known = look::look_after(connection, "", &all, shared.clock.now(), Beside::Nobody).await?;
        let mut current = true;
        for item in &items {
            let application = item.message.scope.application;
            if known.versions.get(&application) != Some(&item.version) {
                shared.memory.changed(application);
                current = false;
            }
        }
        if current {
            return Ok((published, items, known));
        }
    }
    Err(unavailable("the application's configuration changes without pause".to_owned()).into())
}

fn lost_name(item: &Matched, plan: &Plan) -> bool {
    item.message.event_id.is_some() && matches!(plan, Plan::Write(message) if message.event_id.is_none())
}

fn dropped(one: &Published) {
    tracing::warn!(
        message.id = %one.id, application.id = %one.message.scope.application,
        "a message that was published in a transaction is dropped: its application was deleted meanwhile"
    );
}

/// The message as it is kept. An event id that another message has all the same is left out: the transaction has committed,
/// and its message must not get lost over it. Nothing brings that about any more but a node from before schema version 6.
fn message(shared: &Shared, one: &Published, known: &mut look::Known) -> Message {
    let new = &one.message;
    let free = takes_name(known, new.scope.application, new.event_id.as_ref());
    if !free {
        tracing::warn!(
            message.id = %one.id,
            "another message got the event id while a transaction that published it was open; it has none now"
        );
    }
    let retention = Duration::from_secs(shared.config.payload_retention_seconds);
    Message {
        id: one.id,
        application: new.scope.application,
        event_id: new.event_id.clone().filter(|_| free),
        event_type: new.event_type.clone(),
        channels: new.channels.clone(),
        tags: new.tags.clone(),
        content_type: new.content_type.clone(),
        deliver_at: new.deliver_at,
        payload_expires_at: one.created_at.plus(new.payload_lifetime.unwrap_or(retention)),
        created_at: one.created_at,
    }
}

fn read(row: &Row) -> Result<Published, Failure> {
    let id: MessageId = id_at(row, 0)?;
    let bad = |column| inconsistent("outbox", column, id);
    let text = |column| at::<Option<&str>>(row, column);
    let environment = text(1)?.and_then(EnvironmentId::parse).ok_or_else(|| bad("environment"))?;
    let event_id = text(3)?.map(|uid| Uid::parse(uid, "msg_").ok_or_else(|| bad("event_id"))).transpose()?;
    let message = NewMessage {
        scope: AppScope { environment, application: id_at(row, 2)? },
        event_id,
        event_type: text(4)?.and_then(EventTypeName::parse).ok_or_else(|| bad("event_type"))?,
        channels: split(text(5)?, Channel::parse).ok_or_else(|| bad("channels"))?,
        tags: split(text(6)?, Tag::parse).ok_or_else(|| bad("tags"))?,
        content_type: at(row, 7)?,
        payload: Bytes::copy_from_slice(at(row, 11)?),
        payload_lifetime: duration_or_null(row, 9)?,
        deliver_at: instant_or_null(row, 8)?,
        audience: Audience::Matching,
        idempotency: None,
    };
    Ok(Published { id, created_at: instant_at(row, 10)?, message: Arc::new(message) })
}
