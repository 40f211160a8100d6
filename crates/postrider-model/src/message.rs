//! A message: one thing accepted for one application. It never changes; its payload may expire.

use crate::{
    application::Uid,
    event_type::EventTypeName,
    id::{ApplicationId, MessageId},
    time::Timestamp,
};
use bytes::Bytes;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// A channel: 1 to 128 characters of `[a-zA-Z0-9\-_.:+]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(Arc<str>);

/// A tag: 1 to 128 characters of `[a-zA-Z0-9\-_./\\#]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

macro_rules! label {
    ($name:ident, $most:expr, $($extra:pat_param)|+) => {
        impl $name {
            /// Reads it; `None` when empty, too long or with other characters.
            pub fn parse(text: &str) -> Option<Self> {
                let valid = (1..=$most).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, $($extra)|+));
                valid.then(|| Self(text.into()))
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }
    };
}

label!(Channel, crate::limits::CHANNEL_BYTES, b'-' | b'_' | b'.' | b':' | b'+');
label!(Tag, crate::limits::TAG_BYTES, b'-' | b'_' | b'.' | b'/' | b'\\' | b'#');

/// A message without its payload, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, sent as `webhook-id`.
    pub id: MessageId,
    /// The application it is for.
    pub application: ApplicationId,
    /// The publisher's own id, unique in the application.
    pub event_id: Option<Uid>,
    /// What kind of message it is.
    pub event_type: EventTypeName,
    /// Restricts it to endpoints of these channels (and endpoints without channels).
    pub channels: BTreeSet<Channel>,
    /// For finding it again.
    pub tags: BTreeSet<Tag>,
    /// `content-type` of the payload; `None` means `application/json`.
    pub content_type: Option<String>,
    /// The publisher asked for delivery not before this instant.
    pub deliver_at: Option<Timestamp>,
    /// When the payload is deleted.
    pub payload_expires_at: Timestamp,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// A message and the body that is sent for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageWithPayload {
    /// The message.
    pub message: Message,
    /// Exactly the published bytes; `None` once expired or expunged.
    pub payload: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_tags_take_the_characters_of_the_wire() {
        for text in ["eu", "project:1+2", "a-b_c.d", &"a".repeat(128)] {
            assert_eq!(Channel::parse(text).as_ref().map(Channel::as_str), Some(text));
        }
        for text in ["my_tag", "a/b\\c#d.e-f", &"a".repeat(128)] {
            assert_eq!(Tag::parse(text).as_ref().map(Tag::as_str), Some(text));
        }
        for text in ["", "a b", "ü", "a\n", "a,b", "a\0", &"a".repeat(129)] {
            assert_eq!((Channel::parse(text), Tag::parse(text)), (None, None), "{text:?}");
        }
        assert_eq!((Channel::parse("a/b"), Channel::parse("a#b")), (None, None));
        assert_eq!((Tag::parse("a:b"), Tag::parse("a+b")), (None, None));
    }
}
