//! An application: one customer of the publisher, the unit of fairness.

use crate::{environment::EnvironmentId, id::ApplicationId, time::Timestamp};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// What a user may attach to an application or endpoint; at most [`METADATA_BYTES`](crate::limits::METADATA_BYTES) as JSON.
pub type Metadata = BTreeMap<String, String>;

/// A name that the caller chose for a thing of theirs: 1 to 256 characters of `[a-zA-Z0-9\-_.]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Reads a uid; `prefix` is the id prefix of the thing's own kind, with which no uid may begin (an id and a uid
    /// stand in the same place of a path).
    pub fn parse(text: &str, prefix: &str) -> Option<Self> {
        let valid = (1..=crate::limits::NAME_BYTES).contains(&text.len())
            && !text.starts_with(prefix)
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        valid.then(|| Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// An id or a uid, as a path names a thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ref<I> {
    /// By the id that this server gave.
    Id(I),
    /// By the name that the caller gave.
    Uid(Uid),
}

impl<K: crate::id::Kind> Ref<crate::id::Id<K>> {
    /// Reads a path segment; `None` when it can name nothing of this kind.
    pub fn parse(text: &str) -> Option<Self> {
        crate::id::Id::parse(text).map(Self::Id).or_else(|| Uid::parse(text, K::PREFIX).map(Self::Uid))
    }
}

impl<I> Ref<I> {
    /// The name, if it refers by name.
    pub fn uid(&self) -> Option<&Uid> {
        match self {
            Self::Id(_) => None,
            Self::Uid(uid) => Some(uid),
        }
    }
}

/// An application as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its id.
    pub id: ApplicationId,
    /// The environment that owns it.
    pub environment: EnvironmentId,
    /// The caller's own name for it, unique in the environment.
    pub uid: Option<Uid>,
    /// Shown to people.
    pub name: String,
    /// Messages per second and endpoint; an endpoint's own value wins.
    pub throttle_rate: Option<u16>,
    /// The caller's own data.
    pub metadata: Metadata,
    /// Grows with every change; an update names the one it was made from.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_short_name_that_cannot_be_taken_for_an_id() {
        for text in ["a", "customer-1", "A.b_c-9", "ep_x", &"a".repeat(256)] {
            assert_eq!(Uid::parse(text, "app_").map(|uid| uid.as_str().to_owned()).as_deref(), Some(text));
        }
        for text in ["", "app_", "app_x", "a b", "a/b", "a%", "ü", "a\n", "a\0", &"a".repeat(257)] {
            assert_eq!(Uid::parse(text, "app_"), None, "{text:?}");
        }
    }

    #[test]
    fn a_path_segment_is_an_id_or_a_uid_of_its_kind() {
        let id = ApplicationId::floor(Timestamp::from_micros(1_767_225_600_000_000));
        assert_eq!(Ref::parse(&id.to_string()), Some(Ref::Id(id)));
        assert_eq!(Ref::<ApplicationId>::parse("customer-1"), Uid::parse("customer-1", "app_").map(Ref::Uid));
        // Neither a whole id nor a possible uid.
        assert_eq!(Ref::<ApplicationId>::parse("app_123"), None);
        assert_eq!(Ref::<ApplicationId>::parse(""), None);
    }
}
