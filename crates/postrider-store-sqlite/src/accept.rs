//! Accepting messages: one durable transaction with the message, its idempotency record and all its deliveries.
//!
//! Endpoints are matched outside the writer against a snapshot of the configuration; the writer commits only while
//! that is still the version in force, else the message is matched again. After a few rounds (somebody changes
//! endpoints without pause) it is matched inside the writer.

use crate::{
    Shared, endpoint_rows,
    failure::{Failure, Refusal},
    idempotency::{self, Kind},
    message_rows, payload_rows, snapshots,
    values::{join, key},
    writer::{self, Isolation, Scope},
};
use postrider_model::{
    delivery::Trigger,
    event_type::EventTypeName,
    id::{EndpointId, Ksuid, MessageId},
    message::{Channel, Message, Tag},
};
use postrider_store::{
    WriteError,
    agenda::Handed,
    messages::{Accepted, Audience, NewMessage},
    snapshot::{Snapshot, first_delivery},
};
use rusqlite::{Connection, params};
use std::{sync::Arc, time::Duration};

/// Rounds of matching outside the writer.
const ROUNDS: usize = 3;

/// A delivery to make.
struct Match {
    endpoint: EndpointId,
    /// Age at which it expires.
    age: Duration,
    trigger: Trigger,
    held: bool,
}

/// Accepts messages, each with its own result.
pub(crate) async fn all(
    shared: &Arc<Shared>,
    messages: Vec<NewMessage>,
) -> Vec<Result<Accepted, WriteError>> {
    // All are put into the queue before the first is waited for, so that they share a commit.
    let mut begun = Vec::with_capacity(messages.len());
    for message in messages {
        let message = Arc::new(message);
        begun.push((Arc::clone(&message), begin(shared, &message).await));
    }
    let mut results = Vec::with_capacity(begun.len());
    for (message, answer) in begun {
        let result = match answer {
            Ok(answer) => writer::answered(answer).await,
            Err(failure) => Err(failure),
        };
        let result = match result {
            Err(Failure::Refused(Refusal::MatchAgain)) => once_more(shared, &message).await,
            other => other,
        };
        results.push(result.map_err(WriteError::from));
    }
    results
}

type Answer = tokio::sync::oneshot::Receiver<Result<Accepted, Failure>>;

async fn begin(shared: &Arc<Shared>, message: &Arc<NewMessage>) -> Result<Answer, Failure> {
    shared.disk.check_publishing()?;
    let snapshot = snapshots::current(shared, &message.scope).await?.ok_or(Refusal::Missing)?;
    let matches = matching(&snapshot, message, shared.config.delivery_deadline_seconds)?;
    let (message, version) = (Arc::clone(message), snapshot.version);
    let run = move |work: &mut Scope<'_>| {
        if let Some(replayed) = replay(work, &message)? {
            return Ok(replayed);
        }
        if !work.is_current(message.scope.application, version) {
            return Err(Refusal::MatchAgain.into());
        }
        insert(work, &message, matches)
    };
    Ok(writer::submit(shared, Isolation::Shared, run).await?)
}

async fn once_more(shared: &Arc<Shared>, message: &Arc<NewMessage>) -> Result<Accepted, Failure> {
    for _ in 1..ROUNDS {
        let answer = begin(shared, message).await?;
        match writer::answered(answer).await {
            Err(Failure::Refused(Refusal::MatchAgain)) => {}
            other => return other,
        }
    }
    let message = Arc::clone(message);
    let inside = move |work: &mut Scope<'_>| {
        if let Some(replayed) = replay(work, &message)? {
            return Ok(replayed);
        }
        let snapshot = snapshots::load(work.connection, &message.scope, 0, work.now, Ok(None))?;
        let age = work.shared.config.delivery_deadline_seconds;
        let matches = matching(&snapshot.ok_or(Refusal::Missing)?, &message, age)?;
        insert(work, &message, matches)
    };
    shared.write(Isolation::Own, inside).await
}

fn matching(snapshot: &Snapshot, message: &NewMessage, server_age: u64) -> Result<Vec<Match>, Failure> {
    match message.audience {
        Audience::Matching => Ok(snapshot
            .matching(&message.event_type, &message.channels)
            .map(|settings| Match {
                endpoint: settings.endpoint.id,
                age: endpoint_rows::delivery_age(&settings.endpoint, server_age),
                trigger: Trigger::Scheduled,
                held: false,
            })
            .collect()),
        Audience::Only(id) => {
            let endpoint = &snapshot.endpoint(id).ok_or(Refusal::Missing)?.endpoint;
            Ok(vec![Match {
                endpoint: id,
                age: endpoint_rows::delivery_age(endpoint, server_age),
                trigger: Trigger::Manual,
                held: endpoint.disabled.is_some(),
            }])
        }
    }
}

/// What a request with the same idempotency key had made before.
fn replay(work: &Scope<'_>, message: &NewMessage) -> Result<Option<Accepted>, Failure> {
    let scope = &message.scope;
    let created = idempotency::recall(
        work.connection,
        &scope.environment,
        message.idempotency.as_ref(),
        Kind::Message,
        work.now,
    )?;
    let Some(Ok(bytes)) = created.map(<[u8; 20]>::try_from) else { return Ok(None) };
    let id = MessageId::new(Ksuid::from_bytes(bytes));
    let found = message_rows::of_id(work.connection, scope.application, id, false)?;
    Ok(found.map(|found| Accepted { message: found.message, replayed: true }))
}

/// Writes everything. All that can be refused is refused before the first write.
fn insert(work: &mut Scope<'_>, new: &NewMessage, matches: Vec<Match>) -> Result<Accepted, Failure> {
    let (connection, now) = (work.connection, work.now);
    if let Some(event_id) = &new.event_id {
        let taken: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM message WHERE application = ?1 AND event_id = ?2)")?
            .query_row(params![key(&new.scope.application), event_id.as_str()], |row| row.get(0))?;
        if taken {
            return Err(Refusal::Taken.into());
        }
    }
    let retention = Duration::from_secs(work.shared.config.payload_retention_seconds);
    let message = Message {
        id: work.shared.ids.next(now),
        application: new.scope.application,
        event_id: new.event_id.clone(),
        event_type: new.event_type.clone(),
        channels: new.channels.clone(),
        tags: new.tags.clone(),
        content_type: new.content_type.clone(),
        deliver_at: new.deliver_at,
        payload_expires_at: now.plus(new.payload_lifetime.unwrap_or(retention)),
        created_at: now,
    };
    insert_message(work, &message, &new.payload)?;
    let due_at = new.deliver_at.map_or(now, |at| at.max(now));
    let mut handed = Vec::with_capacity(matches.len());
    for found in matches {
        let delivery = Handed {
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
        insert_delivery(connection, &delivery)?;
        handed.push((delivery, found.held));
    }
    let environment = &new.scope.environment;
    idempotency::remember(
        connection,
        environment,
        new.idempotency.as_ref(),
        Kind::Message,
        key(&message.id),
        now,
    )?;
    if !handed.is_empty() {
        work.after_commit(move |shared| {
            let mut agenda = shared.agenda();
            for (delivery, held) in handed {
                agenda.hand_over(delivery, held, now);
            }
            drop(agenda);
            shared.claimable.notify_one();
        });
    }
    Ok(Accepted { message, replayed: false })
}

fn insert_message(work: &Scope<'_>, message: &Message, payload: &[u8]) -> Result<(), Failure> {
    let number =
        payload_rows::insert(work.connection, work.shared, message.id, message.payload_expires_at, payload)?;
    work.connection
        .prepare_cached(
            "INSERT INTO message (id, application, event_id, event_type, channels, tags, content_type, deliver_at,
                 payload, payload_expires_at, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            key(&message.id),
            key(&message.application),
            message.event_id.as_ref().map(postrider_model::application::Uid::as_str),
            EventTypeName::as_str(&message.event_type),
            join(message.channels.iter().map(Channel::as_str)),
            join(message.tags.iter().map(Tag::as_str)),
            message.content_type,
            message.deliver_at.map(postrider_model::time::Timestamp::as_micros),
            number,
            message.payload_expires_at.as_micros(),
            message.created_at.as_micros(),
        ])?;
    Ok(())
}

/// Writes a new pending delivery.
pub(crate) fn insert_delivery(connection: &Connection, new: &Handed) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "INSERT INTO delivery (message, endpoint, generation, state, attempts, next_attempt_at, deadline_at, cause,
                 deaths)
             VALUES (?1, ?2, ?3, 0, 0, ?4, ?5, ?6, 0)",
        )?
        .execute(params![
            key(&new.delivery.message),
            key(&new.delivery.endpoint),
            new.delivery.generation,
            new.due_at.as_micros(),
            new.deadline_at.as_micros(),
            new.trigger.code(),
        ])?;
    Ok(())
}
