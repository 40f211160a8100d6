//! How values of the domain are spelled in JSON answers: ids and names as text, instants as RFC 3339, durations as
//! milliseconds. For `serialize_with`, so that answers move values instead of copying them into strings.

use postrider_model::{
    event_type::EventTypeName,
    message::{Channel, Tag},
    time::Timestamp,
};
use serde::Serializer;
use std::{collections::BTreeSet, fmt::Display, time::Duration};

/// A value by its `Display`.
pub(crate) fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// An instant as RFC 3339 in UTC with microseconds.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
pub(crate) fn instant<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339())
}

/// The same, or `null`.
#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
pub(crate) fn instant_or_null<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_some(&at.to_rfc3339()),
        None => serializer.serialize_none(),
    }
}

/// A duration as milliseconds with three decimals, or `null`.
#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
pub(crate) fn millis_or_null<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&millis(*duration)),
        None => serializer.serialize_none(),
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// A name that has `as_str`.
pub(crate) trait Named {
    /// Its text.
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($kind:ty),*) => {$(
        impl Named for $kind {
            fn name(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}

named!(EventTypeName, Channel, Tag, postrider_model::application::Uid);

/// A name.
pub(crate) fn name<T: Named, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.name())
}

/// A name, or `null`.
#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
pub(crate) fn name_or_null<T: Named, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(value.name()),
        None => serializer.serialize_none(),
    }
}

/// A set of names; an empty one is `null`, as "none were given" is spelled in this API.
pub(crate) fn names_or_null<T: Named, S: Serializer>(
    values: &BTreeSet<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if values.is_empty() {
        return serializer.serialize_none();
    }
    serializer.collect_seq(values.iter().map(Named::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_keep_microseconds_and_no_more() {
        assert!((millis(Duration::from_nanos(1_234_567)) - 1.235).abs() < f64::EPSILON);
        assert!((millis(Duration::from_secs(15)) - 15_000.0).abs() < f64::EPSILON);
    }
}
