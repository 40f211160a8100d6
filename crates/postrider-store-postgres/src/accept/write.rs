//! Writing accepted messages: what all have in one round trip with the commit, what only some have before it.

use super::{Matched, Plan, look::Known};
use crate::{
    connection::Connection,
    failure::Failure,
    idempotency::Kind,
    shards,
    values::{join, key, micros, number},
};
use futures_util::{FutureExt as _, future};
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    message::{Channel, Message, Tag},
    time::Timestamp,
};
use postrider_store::{agenda::Handed, messages::NewMessage};
use tokio_postgres::types::ToSql;

/// Lists side by side in a `SELECT`: see `attempt_rows`.
const MESSAGES: &str = "INSERT INTO message (id, application, event_id, event_type, channels, tags, content_type,
        deliver_at, payload_expires_at, created_at, payload)
     SELECT unnest($1::bytea[]), unnest($2::bytea[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]),
        unnest($6::text[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::bigint[]),
        unnest($11::bytea[])";
/// Also for whoever resends.
pub(crate) const PENDING: &str = "INSERT INTO pending (message, endpoint, generation, application, shard, cause, due_at, deadline_at, retry,
        attempts, deaths)
     SELECT unnest($1::bytea[]), unnest($2::bytea[]), unnest($3::int[]), unnest($4::bytea[]), unnest($5::smallint[]),
        unnest($6::smallint[]), unnest($7::bigint[]), unnest($8::bigint[]), false, 0, 0";
/// A key whose record has expired is a new one.
const REMEMBER: &str = "INSERT INTO idempotency (environment, digest, kind, created, expires_at)
     SELECT environment, digest, $5, created, expires_at
     FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[]) AS new (environment, digest, created, expires_at)";
/// Whatever lies there by now: only what has expired goes.
const FORGET: &str = "DELETE FROM idempotency WHERE ctid = ANY ($1::text[]::tid[]) AND expires_at <= $2";
const NAME: &str = "INSERT INTO event_id (application, event_id, message)
     SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[])";
const EXPIRE: &str =
    "INSERT INTO payload_expiry (expires_at, message) SELECT * FROM unnest($1::bigint[], $2::bytea[])";

/// Writes everything and commits, in one round trip.
pub(super) async fn all(
    connection: &Connection,
    items: &[&Matched],
    plans: &[Plan],
    deliveries: &[(Handed, bool)],
    known: &Known,
    now: Timestamp,
) -> Result<(), Failure> {
    let new: Vec<(&NewMessage, &Message)> = items
        .iter()
        .zip(plans)
        .filter_map(|(item, plan)| match plan {
            Plan::Write(message) => Some((&*item.message, message)),
            _ => None,
        })
        .collect();
    beside(connection, &new, known, now).await?;
    let (messages, pending) = (connection.prepare(MESSAGES).await?, connection.prepare(PENDING).await?);
    let labels = |value: fn(&Message) -> Option<String>| {
        new.iter().map(|(_, message)| value(message)).collect::<Vec<_>>()
    };
    let ids: Vec<&[u8]> = new.iter().map(|(_, message)| key(&message.id)).collect();
    let applications: Vec<&[u8]> = new.iter().map(|(_, message)| key(&message.application)).collect();
    let event_ids: Vec<_> =
        new.iter().map(|(_, message)| message.event_id.as_ref().map(Uid::as_str)).collect();
    let types: Vec<_> = new.iter().map(|(_, message)| EventTypeName::as_str(&message.event_type)).collect();
    let channels = labels(|message| join(message.channels.iter().map(Channel::as_str)));
    let tags = labels(|message| join(message.tags.iter().map(Tag::as_str)));
    let content_types: Vec<_> = new.iter().map(|(_, message)| message.content_type.as_deref()).collect();
    let deliver_at: Vec<_> =
        new.iter().map(|(_, message)| message.deliver_at.map(Timestamp::as_micros)).collect();
    let expires_at: Vec<_> = new.iter().map(|(_, message)| message.payload_expires_at.as_micros()).collect();
    let created_at: Vec<_> = new.iter().map(|(_, message)| message.created_at.as_micros()).collect();
    let payloads: Vec<&[u8]> = new.iter().map(|(new, _)| &new.payload[..]).collect();
    let columns = PendingColumns::of(deliveries.iter().map(|(handed, _)| handed));
    let client = connection.client();
    let message_values: [&(dyn ToSql + Sync); 11] = [
        &ids,
        &applications,
        &event_ids,
        &types,
        &channels,
        &tags,
        &content_types,
        &deliver_at,
        &expires_at,
        &created_at,
        &payloads,
    ];
    let pending_values = columns.values();
    let asked = future::join3(
        client.execute(&messages, &message_values),
        async { if deliveries.is_empty() { Ok(0) } else { client.execute(&pending, &pending_values).await } },
        client.batch_execute("COMMIT"),
    );
    let (messages, pending, committed) = connection.timed(asked.map(Ok)).await?;
    messages?;
    pending?;
    Ok(committed?)
}

/// What only some messages have: keys, event ids, payloads that go early. An error of these aborts the transaction,
/// whose `COMMIT` then undoes it.
async fn beside(
    connection: &Connection,
    new: &[(&NewMessage, &Message)],
    known: &Known,
    now: Timestamp,
) -> Result<(), Failure> {
    let keyed: Vec<_> =
        new.iter().filter_map(|(new, message)| Some((new, message, new.idempotency?))).collect();
    if !keyed.is_empty() {
        let environments: Vec<&str> = keyed.iter().map(|(new, ..)| new.scope.environment.as_str()).collect();
        let digests: Vec<&[u8]> = keyed.iter().map(|(_, _, key)| &key.digest[..]).collect();
        let created: Vec<&[u8]> = keyed.iter().map(|(_, message, _)| key(&message.id)).collect();
        let until: Vec<i64> =
            keyed.iter().map(|(_, _, key)| now.as_micros() + micros(key.lifetime)).collect();
        let expired: Vec<&str> =
            known.keys.values().filter(|made| made.expired).map(|made| made.place.as_str()).collect();
        if !expired.is_empty() {
            connection.execute(FORGET, &[&expired, &now.as_micros()]).await?;
        }
        let kind = Kind::Message as i16;
        connection.execute(REMEMBER, &[&environments, &digests, &created, &until, &kind]).await?;
    }
    let named: Vec<_> =
        new.iter().filter_map(|(_, message)| Some((message, message.event_id.as_ref()?))).collect();
    if !named.is_empty() {
        let applications: Vec<&[u8]> = named.iter().map(|(message, _)| key(&message.application)).collect();
        let names: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
        let ids: Vec<&[u8]> = named.iter().map(|(message, _)| key(&message.id)).collect();
        connection.execute(NAME, &[&applications, &names, &ids]).await?;
    }
    let short: Vec<_> =
        new.iter().filter(|(new, _)| new.payload_lifetime.is_some()).map(|(_, message)| message).collect();
    if !short.is_empty() {
        let until: Vec<i64> = short.iter().map(|message| message.payload_expires_at.as_micros()).collect();
        let ids: Vec<&[u8]> = short.iter().map(|message| key(&message.id)).collect();
        connection.execute(EXPIRE, &[&until, &ids]).await?;
    }
    Ok(())
}

/// The values of [`PENDING`].
pub(crate) struct PendingColumns<'a> {
    messages: Vec<&'a [u8]>,
    endpoints: Vec<&'a [u8]>,
    generations: Vec<i32>,
    applications: Vec<&'a [u8]>,
    shards: Vec<i16>,
    causes: Vec<i16>,
    due: Vec<i64>,
    deadlines: Vec<i64>,
}

impl<'a> PendingColumns<'a> {
    /// Of new deliveries.
    pub(crate) fn of(deliveries: impl Iterator<Item = &'a Handed>) -> Self {
        let mut columns = Self {
            messages: Vec::new(),
            endpoints: Vec::new(),
            generations: Vec::new(),
            applications: Vec::new(),
            shards: Vec::new(),
            causes: Vec::new(),
            due: Vec::new(),
            deadlines: Vec::new(),
        };
        for handed in deliveries {
            columns.messages.push(key(&handed.delivery.message));
            columns.endpoints.push(key(&handed.delivery.endpoint));
            columns.generations.push(number(handed.delivery.generation));
            columns.applications.push(key(&handed.scope.application));
            columns.shards.push(shards::of(handed.delivery.endpoint));
            columns.causes.push(i16::from(handed.trigger.code()));
            columns.due.push(handed.due_at.as_micros());
            columns.deadlines.push(handed.deadline_at.as_micros());
        }
        columns
    }

    /// In their order.
    pub(crate) fn values(&self) -> [&(dyn ToSql + Sync); 8] {
        [
            &self.messages,
            &self.endpoints,
            &self.generations,
            &self.applications,
            &self.shards,
            &self.causes,
            &self.due,
            &self.deadlines,
        ]
    }
}
