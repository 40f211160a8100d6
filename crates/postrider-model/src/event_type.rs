//! An event type: the name of a kind of message, with optional schemas.

use crate::time::Timestamp;
use std::{collections::BTreeSet, fmt, sync::Arc};

/// `document.processed`: 1 to 256 characters of `[a-zA-Z0-9\-_.]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTypeName(Arc<str>);

impl EventTypeName {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (1..=crate::limits::NAME_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        valid.then(|| Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventTypeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// An event type as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// Its name, unique in the environment.
    pub name: EventTypeName,
    /// Shown to people.
    pub description: String,
    /// Archived types are kept for history; endpoints can no longer choose them.
    pub archived: bool,
    /// Still sent, but not to be chosen for new endpoints.
    pub deprecated: bool,
    /// JSON object of version to JSON Schema (draft 7), as text. `None` when there is none.
    pub schemas: Option<String>,
    /// Only tokens with one of these flags see the type; empty means everyone.
    pub feature_flags: BTreeSet<String>,
    /// Groups types for people.
    pub group_name: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H09
    #[test]
    fn an_event_type_name_is_short_plain_text() {
        for text in ["a", "document.processed", "A-b_c.9", "..", &"a".repeat(256)] {
            assert_eq!(EventTypeName::parse(text).as_ref().map(EventTypeName::as_str), Some(text));
        }
        for text in ["", "a b", "a\r\nX: y", "a/b", "a:b", "ü", "a\0", &"a".repeat(257)] {
            assert_eq!(EventTypeName::parse(text), None, "{text:?}");
        }
    }
}
