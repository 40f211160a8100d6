//! A message as answers show it. The payload is passed through as the JSON that was published, never parsed into values.

use super::spelling;
use bytes::Bytes;
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    id::MessageId,
    message::{Channel, Message, MessageWithPayload, Tag},
    time::Timestamp,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageOut<'a> {
    /// The message's id, sent as `webhook-id`.
    #[serde(serialize_with = "spelling::text")]
    #[schema(value_type = String, example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: MessageId,
    /// The publisher's own id.
    #[serde(serialize_with = "spelling::name_or_null")]
    #[schema(value_type = Option<String>)]
    event_id: Option<Uid>,
    /// What kind of message it is.
    #[serde(serialize_with = "spelling::name")]
    #[schema(value_type = String, example = "document.processed")]
    event_type: EventTypeName,
    /// The payload as published: key order, spacing and numbers untouched. `{}` when content was not asked for and when
    /// the body is not a JSON object (`GET …/raw` shows it); `{"expired": true}` once it is deleted.
    #[schema(value_type = Object)]
    payload: PayloadOut<'a>,
    /// Endpoints without one of these channels do not get it, unless they name no channels.
    #[serde(serialize_with = "spelling::names_or_null")]
    #[schema(value_type = Option<Vec<String>>)]
    channels: BTreeSet<Channel>,
    /// For finding it again.
    #[serde(serialize_with = "spelling::names_or_null")]
    #[schema(value_type = Option<Vec<String>>)]
    tags: BTreeSet<Tag>,
    /// When it was accepted.
    #[serde(serialize_with = "spelling::instant")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Not delivered before this instant.
    #[serde(serialize_with = "spelling::instant_or_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    deliver_at: Option<Timestamp>,
}

impl<'a> MessageOut<'a> {
    /// A message with what is to be shown as its payload.
    pub(crate) fn new(message: Message, payload: PayloadOut<'a>) -> Self {
        Self {
            id: message.id,
            event_id: message.event_id,
            event_type: message.event_type,
            payload,
            channels: message.channels,
            tags: message.tags,
            timestamp: message.created_at,
            deliver_at: message.deliver_at,
        }
    }

    /// A message as the store gave it, read with its payload when `with_content`.
    pub(crate) fn of_stored(stored: MessageWithPayload, with_content: bool, now: Timestamp) -> Self {
        let payload = PayloadOut::of_stored(&stored, with_content, now);
        Self::new(stored.message, payload)
    }
}

/// What is shown as the payload of a message.
#[derive(Debug, Clone)]
pub(crate) enum PayloadOut<'a> {
    /// The published bytes.
    Published(Bytes),
    /// A JSON object as this request brought it, read already.
    Brought(&'a RawValue),
    /// Content was not asked for.
    LeftOut,
    /// It has expired or was deleted on request.
    Expired,
}

impl PayloadOut<'_> {
    /// Of a stored message. `now` tells an expired payload that retention has not yet reached.
    pub(crate) fn of_stored(stored: &MessageWithPayload, with_content: bool, now: Timestamp) -> Self {
        match &stored.payload {
            _ if !with_content => Self::LeftOut,
            Some(payload) if now < stored.message.payload_expires_at => Self::Published(payload.clone()),
            _ => Self::Expired,
        }
    }
}

impl Serialize for PayloadOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Published(bytes) => match serde_json::from_slice::<&RawValue>(bytes) {
                // Clients declare the member as an object: a raw body of another kind would break their parsers.
                Ok(json) if json.get().starts_with('{') => json.serialize(serializer),
                _ => serializer.serialize_map(Some(0))?.end(),
            },
            Self::Brought(json) => json.serialize(serializer),
            Self::LeftOut => serializer.serialize_map(Some(0))?.end(),
            Self::Expired => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("expired", &true)?;
                map.end()
            }
        }
    }
}

/// Made-up messages for tests of answers.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use postrider_model::id::{ApplicationId, Ksuid};

    /// The instant at which the samples were made.
    pub(crate) const AT: Timestamp = Timestamp::from_micros(1_767_225_600_123_456);

    /// A message with this payload.
    pub(crate) fn message(payload: &'static [u8]) -> MessageWithPayload {
        let message = Message {
            id: MessageId::floor(AT),
            application: ApplicationId::new(Ksuid::floor(AT)),
            event_id: None,
            event_type: EventTypeName::parse("document.processed").unwrap(),
            channels: BTreeSet::new(),
            tags: BTreeSet::new(),
            content_type: None,
            deliver_at: None,
            payload_expires_at: AT.plus(std::time::Duration::from_mins(1)),
            created_at: AT,
        };
        MessageWithPayload { message, payload: Some(Bytes::from_static(payload)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};
    use serde_json::{Value, json};

    fn shown(stored: MessageWithPayload, with_content: bool, now: Timestamp) -> String {
        serde_json::to_string(&MessageOut::of_stored(stored, with_content, now)).unwrap()
    }

    #[test]
    fn a_message_has_every_member_that_clients_require() {
        let value: Value = serde_json::from_str(&shown(message(b"{}"), true, AT)).unwrap();
        for member in ["eventType", "id", "payload", "timestamp"] {
            assert!(!value[member].is_null(), "{member}");
        }
        assert_eq!(
            value,
            json!({
                "id": MessageId::floor(AT).to_string(), "eventId": null, "eventType": "document.processed",
                "payload": {}, "channels": null, "tags": null, "timestamp": "2026-01-01T00:00:00.123456Z",
            })
        );
    }

    /// ING-3 on the way back: what a list shows is what was published, byte for byte.
    #[test]
    fn a_payload_is_shown_with_its_key_order_spacing_and_numbers() {
        let published = br#"{"b": 1e308,  "a": 12345678901234567890.10, "a": "\/\u00e9"}"#;
        let text = shown(message(published), true, AT);
        assert!(text.contains(std::str::from_utf8(published).unwrap()), "{text}");
    }

    #[test]
    fn a_payload_that_is_left_out_expired_or_no_object_is_still_an_object() {
        let payload = |stored, with_content, now| {
            serde_json::from_str::<Value>(&shown(stored, with_content, now)).unwrap()["payload"].clone()
        };
        let gone = MessageWithPayload { payload: None, ..message(b"") };
        assert_eq!(payload(message(b"{\"a\":1}"), false, AT), json!({}));
        assert_eq!(payload(gone.clone(), true, AT), json!({"expired": true}));
        assert_eq!(payload(gone, false, AT), json!({}));
        assert_eq!(
            payload(message(b"{\"a\":1}"), true, AT.plus(std::time::Duration::from_mins(1))),
            json!({"expired": true})
        );
        for raw in [&b"<xml/>"[..], b"[1]", b"{\"a\":", b"", b"\xff{}", b"{} {}"] {
            assert_eq!(payload(message(raw), true, AT), json!({}), "{raw:?}");
        }
    }
}
