//! How values stand in columns: ids as blobs, instants as microseconds, labels joined by line feeds, spans of ids.

use crate::failure::{Failure, inconsistent};
use postrider_model::{
    id::{Id, Kind, Ksuid},
    time::Timestamp,
};
use postrider_store::page::{Order, PageRequest, Window};
use rusqlite::Row;
use std::{collections::BTreeSet, time::Duration};

/// An id as a parameter.
pub(crate) fn key<K: Kind>(id: &Id<K>) -> &[u8] {
    id.ksuid().as_bytes()
}

/// An id in a column.
pub(crate) fn id_at<K: Kind>(row: &Row<'_>, column: usize) -> rusqlite::Result<Id<K>> {
    row.get(column).map(|bytes: [u8; 20]| Id::new(Ksuid::from_bytes(bytes)))
}

/// An instant in a column.
pub(crate) fn instant_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_micros)
}

/// An instant in a column that can be NULL.
pub(crate) fn instant_or_null(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

/// A duration as microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A duration in a column that can be NULL.
pub(crate) fn duration_or_null(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Duration>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(duration))
}

/// A duration from microseconds.
pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A count from a column that never is negative.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A version as a column keeps it.
pub(crate) fn version(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Labels joined; `None` when there are none.
pub(crate) fn join<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut joined = String::new();
    for label in labels {
        if !joined.is_empty() {
            joined.push('\n');
        }
        joined.push_str(label);
    }
    (!joined.is_empty()).then_some(joined)
}

/// Labels taken apart; `None` when one of them does not read.
pub(crate) fn split<T: Ord>(joined: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Option<BTreeSet<T>> {
    joined.map_or_else(|| Some(BTreeSet::new()), |text| text.split('\n').map(read).collect())
}

/// JSON of our own values, which always can be written.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// JSON of our own values, read back.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    text: &str,
    table: &'static str,
    column: &'static str,
    row: impl std::fmt::Display,
) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|_| inconsistent(table, column, row))
}

/// Which positions of a list are read, and in which direction. Blobs compare byte by byte, the shorter one first, so
/// that a cursor's bytes and one zero byte more stand directly behind it.
#[derive(Debug)]
pub(crate) struct Span {
    /// Inclusive.
    pub(crate) low: Vec<u8>,
    /// Exclusive.
    pub(crate) high: Vec<u8>,
    /// Direction of travel, also of a page that is read backward.
    pub(crate) ascending: bool,
}

impl Span {
    /// The span of a page over ids.
    pub(crate) fn of_ids<K: Kind>(page: &PageRequest<Id<K>>, window: Window) -> Self {
        let ascending = (page.order == Order::Ascending) != page.backward;
        let mut span = Self { low: Vec::new(), high: vec![0xff; 21], ascending };
        if let Some(from) = window.from {
            span.low = Ksuid::floor(from).as_bytes().to_vec();
        }
        if let Some(until) = window.until {
            span.high = Ksuid::floor(until).as_bytes().to_vec();
        }
        if let Some(cursor) = &page.cursor {
            if ascending {
                let mut after = key(cursor).to_vec();
                after.push(0);
                span.low = span.low.max(after);
            } else {
                span.high = span.high.min(key(cursor).to_vec());
            }
        }
        span
    }

    /// The order in which rows are read.
    pub(crate) fn direction(&self) -> &'static str {
        if self.ascending { "ASC" } else { "DESC" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{id::MessageId, message::Tag};

    fn page(order: Order, cursor: Option<MessageId>, backward: bool) -> PageRequest<MessageId> {
        PageRequest { limit: 10, order, cursor, backward }
    }

    #[test]
    fn a_span_excludes_its_cursor_and_includes_its_windows_start() {
        let at = Timestamp::from_micros(1_767_225_600_000_000);
        let cursor = MessageId::new(Ksuid::from_bytes([9; 20]));
        let contains =
            |span: &Span, id: &MessageId| span.low.as_slice() <= key(id) && key(id) < span.high.as_slice();
        for (order, backward) in [(Order::Ascending, false), (Order::Descending, true)] {
            let span = Span::of_ids(&page(order, Some(cursor), backward), Window::default());
            assert!(span.ascending && !contains(&span, &cursor));
            assert!(contains(&span, &MessageId::new(Ksuid::from_bytes([10; 20]))));
        }
        let span = Span::of_ids(&page(Order::Descending, Some(cursor), false), Window::default());
        assert!(!span.ascending && !contains(&span, &cursor));
        assert!(contains(&span, &MessageId::new(Ksuid::from_bytes([8; 20]))));
        let window = Window { from: Some(at), until: None };
        assert!(contains(
            &Span::of_ids(&page(Order::Descending, None, false), window),
            &MessageId::floor(at)
        ));
        let window = Window { from: None, until: Some(at) };
        assert!(!contains(
            &Span::of_ids(&page(Order::Descending, None, false), window),
            &MessageId::floor(at)
        ));
    }

    #[test]
    fn labels_read_back() {
        let tags: BTreeSet<_> = ["a/b", "c#"].iter().filter_map(|text| Tag::parse(text)).collect();
        let joined = join(tags.iter().map(Tag::as_str));
        assert_eq!(split(joined.as_deref(), Tag::parse), Some(tags));
        assert_eq!(join([]), None);
        assert_eq!(split(None, Tag::parse), Some(BTreeSet::new()));
        assert_eq!(split(Some("a\n\u{1}"), Tag::parse), None);
    }
}
