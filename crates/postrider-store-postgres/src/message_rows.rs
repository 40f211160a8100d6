//! The message table: reading its rows, with or without payloads.

use crate::{
    connection::{Connection, Values},
    failure::{Failure, inconsistent},
    values::{at, id_at, instant_at, instant_or_null, key, split},
};
use bytes::Bytes;
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    id::{ApplicationId, MessageId},
    message::{Channel, Message, MessageWithPayload, Tag},
};
use postrider_store::messages::MessageFilter;
use std::collections::HashMap;
use tokio_postgres::Row;

/// The columns that [`read`] expects, from 0: a message's, and its payload's body behind them.
pub(crate) const COLUMNS: &str = "message.id, message.application, message.event_id, message.event_type, \
     message.channels, message.tags, message.content_type, message.deliver_at, message.payload_expires_at, \
     message.created_at";

/// The message and, `with_payload`, its body in the column behind.
pub(crate) fn read(row: &Row, with_payload: bool) -> Result<MessageWithPayload, Failure> {
    let id: MessageId = id_at(row, 0)?;
    let bad = |column| inconsistent("message", column, id);
    let text = |column| at::<Option<&str>>(row, column);
    let uid = text(2)?.map(|uid| Uid::parse(uid, "msg_").ok_or_else(|| bad("event_id"))).transpose()?;
    let message = Message {
        id,
        application: id_at(row, 1)?,
        event_id: uid,
        event_type: text(3)?.and_then(EventTypeName::parse).ok_or_else(|| bad("event_type"))?,
        channels: split(text(4)?, Channel::parse).ok_or_else(|| bad("channels"))?,
        tags: split(text(5)?, Tag::parse).ok_or_else(|| bad("tags"))?,
        content_type: at(row, 6)?,
        deliver_at: instant_or_null(row, 7)?,
        payload_expires_at: instant_at(row, 8)?,
        created_at: instant_at(row, 9)?,
    };
    let payload = if with_payload { at::<Option<&[u8]>>(row, 10)?.map(Bytes::copy_from_slice) } else { None };
    Ok(MessageWithPayload { message, payload })
}

/// `COLUMNS`, with the payload's body when asked for.
pub(crate) fn columns(with_payload: bool) -> String {
    if with_payload { format!("{COLUMNS}, message.payload") } else { COLUMNS.to_owned() }
}

/// The message of this id in this application.
pub(crate) async fn of_id(
    connection: &Connection,
    application: ApplicationId,
    id: MessageId,
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    let condition = "message.id = $1 AND message.application = $2";
    one(connection, condition, &[&key(&id), &key(&application)], with_payload).await
}

/// The message of this event id in this application.
pub(crate) async fn of_event_id(
    connection: &Connection,
    application: ApplicationId,
    event_id: &Uid,
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    let condition = "message.id = (SELECT named.message FROM event_id AS named
                                   WHERE named.application = $2 AND named.event_id = $1)";
    one(connection, condition, &[&event_id.as_str(), &key(&application)], with_payload).await
}

async fn one(
    connection: &Connection,
    condition: &str,
    values: Values<'_>,
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    let text = format!("SELECT {} FROM message WHERE {condition}", columns(with_payload));
    let row = connection.first_row(&text, values).await?;
    row.map(|row| read(&row, with_payload)).transpose()
}

/// Does the message pass all of the filter but its window?
pub(crate) fn passes(filter: &MessageFilter, message: &Message) -> bool {
    filter.channel.as_ref().is_none_or(|channel| message.channels.contains(channel))
        && filter.tag.as_ref().is_none_or(|tag| message.tags.contains(tag))
        && (filter.event_types.is_empty() || filter.event_types.contains(&message.event_type))
}

/// Adds their payloads to messages that were read without.
pub(crate) async fn add_payloads<'a>(
    connection: &Connection,
    messages: impl Iterator<Item = &'a mut MessageWithPayload>,
) -> Result<(), Failure> {
    let mut messages: HashMap<MessageId, &mut MessageWithPayload> =
        messages.map(|message| (message.message.id, message)).collect();
    let ids: Vec<Vec<u8>> = messages.keys().map(|id| key(id).to_vec()).collect();
    for row in connection.query("SELECT id, payload FROM message WHERE id = ANY ($1)", &[&ids]).await? {
        if let Some(message) = messages.get_mut(&id_at(&row, 0)?) {
            message.payload = at::<Option<&[u8]>>(&row, 1)?.map(Bytes::copy_from_slice);
        }
    }
    Ok(())
}
