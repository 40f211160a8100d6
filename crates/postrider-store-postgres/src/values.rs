//! How values stand in columns: ids as bytes, instants as microseconds, labels joined by line feeds, spans of ids.

use crate::failure::{Failure, inconsistent};
use postrider_model::{
    id::{Id, Kind, Ksuid},
    time::Timestamp,
};
use postrider_store::page::{Order, PageRequest, Window};
use std::{collections::BTreeSet, fmt::Write as _, time::Duration};
use tokio_postgres::{Row, types::FromSql};

/// An id as a parameter.
pub(crate) fn key<K: Kind>(id: &Id<K>) -> &[u8] {
    id.ksuid().as_bytes()
}

/// A value in a column.
pub(crate) fn at<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Failure> {
    Ok(row.try_get(column)?)
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of their text.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect()
}

/// An id in a column.
pub(crate) fn id_at<K: Kind>(row: &Row, column: usize) -> Result<Id<K>, Failure> {
    id_of(at::<&[u8]>(row, column)?)
}

/// An id of its bytes.
pub(crate) fn id_of<K: Kind>(bytes: &[u8]) -> Result<Id<K>, Failure> {
    let bytes = <[u8; 20]>::try_from(bytes).map_err(|_| inconsistent("any", "id", bytes.len()))?;
    Ok(Id::new(Ksuid::from_bytes(bytes)))
}

/// An instant in a column.
pub(crate) fn instant_at(row: &Row, column: usize) -> Result<Timestamp, Failure> {
    Ok(Timestamp::from_micros(at(row, column)?))
}

/// An instant in a column that can be NULL.
pub(crate) fn instant_or_null(row: &Row, column: usize) -> Result<Option<Timestamp>, Failure> {
    Ok(at::<Option<i64>>(row, column)?.map(Timestamp::from_micros))
}

/// A duration as microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A duration in a column that can be NULL.
pub(crate) fn duration_or_null(row: &Row, column: usize) -> Result<Option<Duration>, Failure> {
    Ok(at::<Option<i64>>(row, column)?.map(duration))
}

/// A duration from microseconds.
pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// A count from a column that never is negative.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A small number from a column that never is negative.
pub(crate) fn number_at(row: &Row, column: usize) -> Result<u32, Failure> {
    Ok(u32::try_from(at::<i32>(row, column)?).unwrap_or(0))
}

/// A code from a column.
pub(crate) fn code_at(row: &Row, column: usize) -> Result<u8, Failure> {
    Ok(u8::try_from(at::<i16>(row, column)?).unwrap_or(u8::MAX))
}

/// A small number as a column keeps it.
pub(crate) fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A version as a column keeps it.
pub(crate) fn version(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A bound of rows.
pub(crate) fn rows(value: usize) -> i64 {
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

/// Which positions of a list are read, and in which direction. Bytes compare one by one, the shorter one first, so that
/// a cursor's bytes and one zero byte more stand directly behind it.
#[derive(Debug, Clone)]
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
            span.after(key(cursor));
        }
        span
    }

    /// What is left behind this position.
    pub(crate) fn after(&mut self, position: &[u8]) {
        if self.ascending {
            let mut after = position.to_vec();
            after.push(0);
            self.low = std::mem::take(&mut self.low).max(after);
        } else {
            self.high = std::mem::take(&mut self.high).min(position.to_vec());
        }
    }

    /// The order in which rows are read.
    pub(crate) fn direction(&self) -> &'static str {
        if self.ascending { "ASC" } else { "DESC" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::MessageId;

    #[test]
    fn a_span_excludes_its_cursor_in_both_directions() {
        let id = |byte| MessageId::new(Ksuid::from_bytes([byte; 20]));
        let contains =
            |span: &Span, id: &MessageId| span.low.as_slice() <= key(id) && key(id) < span.high.as_slice();
        for (order, in_it, out_of_it) in [(Order::Ascending, 10, 8), (Order::Descending, 8, 10)] {
            let page = PageRequest { limit: 1, order, cursor: Some(id(9)), backward: false };
            let mut span = Span::of_ids(&page, Window::default());
            assert!(
                contains(&span, &id(in_it)) && !contains(&span, &id(9)) && !contains(&span, &id(out_of_it))
            );
            span.after(key(&id(in_it)));
            assert!(!contains(&span, &id(in_it)));
        }
    }
}
