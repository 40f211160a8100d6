//! The message table: reading its rows, with or without payloads.

use crate::{
    failure::{Failure, inconsistent},
    payload_rows,
    values::{id_at, instant_at, instant_or_null, key, split},
};
use bytes::Bytes;
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    id::{ApplicationId, MessageId},
    message::{Channel, Message, MessageWithPayload, Tag},
};
use postrider_store::messages::MessageFilter;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The columns that [`read`] expects, from 0: a message's, and its payload's body behind them.
pub(crate) const COLUMNS: &str = "message.id, message.application, message.event_id, message.event_type, \
     message.channels, message.tags, message.content_type, message.deliver_at, message.payload_expires_at, \
     message.created_at";

/// The message and, `with_payload`, its body in the column behind.
pub(crate) fn read(row: &Row<'_>, with_payload: bool) -> Result<MessageWithPayload, Failure> {
    let id: MessageId = id_at(row, 0)?;
    let bad = |column| inconsistent("message", column, id);
    let text = |column| row.get_ref(column).map(|value| value.as_str_or_null().ok().flatten());
    let uid = text(2)?.map(|uid| Uid::parse(uid, "msg_").ok_or_else(|| bad("event_id"))).transpose()?;
    let message = Message {
        id,
        application: id_at(row, 1)?,
        event_id: uid,
        event_type: text(3)?.and_then(EventTypeName::parse).ok_or_else(|| bad("event_type"))?,
        channels: split(text(4)?, Channel::parse).ok_or_else(|| bad("channels"))?,
        tags: split(text(5)?, Tag::parse).ok_or_else(|| bad("tags"))?,
        content_type: row.get(6)?,
        deliver_at: instant_or_null(row, 7)?,
        payload_expires_at: instant_at(row, 8)?,
        created_at: instant_at(row, 9)?,
    };
    let payload = if with_payload { row.get::<_, Option<Vec<u8>>>(10)?.map(Bytes::from) } else { None };
    Ok(MessageWithPayload { message, payload })
}

/// `COLUMNS`, with the payload's body when asked for.
pub(crate) fn columns(with_payload: bool) -> String {
    if with_payload { format!("{COLUMNS}, payload.body") } else { COLUMNS.to_owned() }
}

/// The join that [`columns`] needs.
pub(crate) fn join(with_payload: bool) -> &'static str {
    if with_payload { payload_rows::JOIN } else { "" }
}

/// The message of this id in this application.
pub(crate) fn of_id(
    connection: &Connection,
    application: ApplicationId,
    id: MessageId,
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    one(
        connection,
        "message.id = ?1 AND message.application = ?2",
        params![key(&id), key(&application)],
        with_payload,
    )
}

/// The message of this event id in this application.
pub(crate) fn of_event_id(
    connection: &Connection,
    application: ApplicationId,
    event_id: &Uid,
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    let named = params![event_id.as_str(), key(&application)];
    one(connection, "message.event_id = ?1 AND message.application = ?2", named, with_payload)
}

fn one(
    connection: &Connection,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
    with_payload: bool,
) -> Result<Option<MessageWithPayload>, Failure> {
    connection
        .prepare_cached(&format!(
            "SELECT {} FROM message {} WHERE {condition}",
            columns(with_payload),
            join(with_payload)
        ))?
        .query_row(values, |row| Ok(read(row, with_payload)))
        .optional()?
        .transpose()
}

/// Does the message pass all of the filter but its window?
pub(crate) fn passes(filter: &MessageFilter, message: &Message) -> bool {
    filter.channel.as_ref().is_none_or(|channel| message.channels.contains(channel))
        && filter.tag.as_ref().is_none_or(|tag| message.tags.contains(tag))
        && (filter.event_types.is_empty() || filter.event_types.contains(&message.event_type))
}
