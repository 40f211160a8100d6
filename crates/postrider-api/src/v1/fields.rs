//! Members that requests of several nouns share, checked in one place. Each check names its member.

use crate::{error::Problem, json::unique_or_null, patch::Patch};
use postrider_model::{
    application::{Metadata, Uid},
    limits,
};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// A name or description: bounded, and without control characters that break terminals and logs.
pub(crate) fn text(member: &'static str, text: String) -> Result<String, Problem> {
    if text.len() > limits::TEXT_BYTES {
        return Err(Problem::body(member, format!("at most {} bytes are possible", limits::TEXT_BYTES)));
    }
    if text.bytes().any(|byte| byte < 0x09 || byte == 0x7f) {
        return Err(Problem::body(member, "control characters are not possible"));
    }
    Ok(text)
}

/// A name that must not be empty.
pub(crate) fn name(name: String) -> Result<String, Problem> {
    if name.is_empty() {
        return Err(Problem::body("name", "must not be empty"));
    }
    text("name", name)
}

/// A uid; `prefix` is the prefix of ids of the same kind of thing.
pub(crate) fn uid(member: &'static str, text: &str, prefix: &str) -> Result<Uid, Problem> {
    Uid::parse(text, prefix).ok_or_else(|| {
        Problem::at(
            "body",
            &[member, "__all__"],
            format!("expected 1 to {} characters of a-z, A-Z, 0-9, `-`, `_` and `.`, not beginning with `{prefix}`", limits::NAME_BYTES),
        )
    })
}

/// `throttleRate`, or `rateLimit` as older clients call it.
pub(crate) fn throttle(throttle_rate: Option<u16>, rate_limit: Option<u16>) -> Result<Option<u16>, Problem> {
    let member = if throttle_rate.is_some() { "throttleRate" } else { "rateLimit" };
    match throttle_rate.or(rate_limit) {
        Some(0) => Err(Problem::body(member, "must be at least 1; leave it out or send null for no limit")),
        rate => Ok(rate),
    }
}

/// The same in a PATCH: `throttleRate` wins, either may clear the other.
pub(crate) fn patch_throttle(
    throttle_rate: Patch<u16>,
    rate_limit: Patch<u16>,
    current: Option<u16>,
) -> Result<Option<u16>, Problem> {
    if throttle_rate.is_sent() {
        throttle(throttle_rate.apply(current), None)
    } else {
        throttle(None, rate_limit.apply(current))
    }
}

/// Metadata: bounded as JSON, which is how it is kept and returned.
pub(crate) fn metadata(metadata: Metadata) -> Result<Metadata, Problem> {
    let length = serde_json::to_vec(&metadata).map_or(usize::MAX, |json| json.len());
    if length > limits::METADATA_BYTES {
        return Err(Problem::body(
            "metadata",
            format!("at most {} bytes of JSON are possible", limits::METADATA_BYTES),
        ));
    }
    Ok(metadata)
}

/// For `#[serde(deserialize_with)]`: a map of a PATCH, whose keys are all different.
pub(crate) fn patch_map<'de, D, V>(deserializer: D) -> Result<Patch<BTreeMap<String, V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    Ok(unique_or_null(deserializer)?.map_or(Patch::Null, Patch::Set))
}

/// A member that may be left out but not be `null`.
pub(crate) fn not_null<T>(member: &'static str, patch: Patch<T>, current: T) -> Result<T, Problem> {
    match patch {
        Patch::Absent => Ok(current),
        Patch::Set(value) => Ok(value),
        Patch::Null => Err(Problem::body(member, "cannot be null; leave it out to keep it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P16.
    #[test]
    fn either_spelling_of_the_throttle_sets_and_clears_it() {
        for (throttle_rate, rate_limit, expected) in [
            (Patch::Absent, Patch::Absent, Some(1)),
            (Patch::Null, Patch::Absent, None),
            (Patch::Absent, Patch::Null, None),
            (Patch::Absent, Patch::Set(3), Some(3)),
            (Patch::Set(2), Patch::Set(3), Some(2)),
            (Patch::Set(2), Patch::Null, Some(2)),
        ] {
            assert_eq!(patch_throttle(throttle_rate, rate_limit, Some(1)), Ok(expected));
        }
        assert!(throttle(Some(0), None).is_err());
        assert!(patch_throttle(Patch::Set(0), Patch::Absent, None).is_err());
    }

    #[test]
    fn metadata_is_measured_as_json() {
        let fits = [("k".to_owned(), "x".repeat(limits::METADATA_BYTES - 8))].into();
        assert!(metadata(fits).is_ok());
        let escaped = [("k".to_owned(), "\"".repeat(limits::METADATA_BYTES / 2))].into();
        assert!(metadata(escaped).is_err());
    }

    #[test]
    fn uids_cannot_look_like_ids() {
        assert!(uid("uid", "customer-1.eu", "app_").is_ok());
        for text in ["", "app_x", "a b", "a/b", "ü", &"x".repeat(257)] {
            assert!(uid("uid", text, "app_").is_err(), "{text}");
        }
    }
}
