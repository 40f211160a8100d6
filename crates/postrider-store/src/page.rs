//! Pages of lists: by position, never by count.

use postrider_model::{limits::PAGE_BYTES, time::Timestamp};

/// Direction of a list's natural order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest (or alphabetically first) first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<C> {
    /// Items at most, 1 to [`PAGE_MOST`](postrider_model::limits::PAGE_MOST).
    pub limit: usize,
    /// The natural order of the items that come back, also when reading backward.
    pub order: Order,
    /// Start after this position (before it, when `backward`); `None` starts at the list's end on that side.
    pub cursor: Option<C>,
    /// Read towards the start of the list. Items still come back in the natural order.
    pub backward: bool,
}

/// Items in natural order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Nothing more follows in the direction of travel.
    pub done: bool,
}

impl<T> Page<T> {
    /// From one row more than the limit, in the order they were read. Backends fetch `limit + 1` rows.
    pub fn from_rows(mut rows: Vec<T>, limit: usize, backward: bool) -> Self {
        let done = rows.len() <= limit;
        rows.truncate(limit);
        if backward {
            rows.reverse();
        }
        Self { items: rows, done }
    }

    /// The same of rows with payloads: where these exceed [`PAGE_BYTES`] the page ends early, and is not the last one.
    /// Backends need not fetch more rows than that.
    pub fn from_sized_rows(rows: Vec<T>, limit: usize, backward: bool, size: impl Fn(&T) -> usize) -> Self {
        let mut bytes = 0;
        let fit = rows.iter().take_while(|row| {
            bytes += size(row);
            bytes <= PAGE_BYTES
        });
        let fit = fit.count().max(1);
        Self::from_rows(rows, limit.min(fit), backward)
    }

    /// The same page of other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), done: self.done }
    }
}

/// A window of time over ids: from the first id of `from` (inclusive) up to the first id of `until` (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Inclusive, at id resolution (4 ms).
    pub from: Option<Timestamp>,
    /// Exclusive, at id resolution.
    pub until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_more_than_the_limit_means_that_more_follows() {
        for (rows, backward, items, done) in [
            (vec![1, 2, 3], false, vec![1, 2], false),
            (vec![1, 2], false, vec![1, 2], true),
            (vec![], false, vec![], true),
            // Read backward from 5: 4, 3 and one more; shown in the natural order.
            (vec![4, 3, 2], true, vec![3, 4], false),
            (vec![1], true, vec![1], true),
        ] {
            assert_eq!(Page::from_rows(rows.clone(), 2, backward), Page { items, done }, "{rows:?}");
        }
    }

    #[test]
    fn a_page_ends_where_its_payloads_get_too_large() {
        for (rows, items, done) in [
            (vec![1, 1], vec![1, 1], true),
            (vec![1, PAGE_BYTES - 1, 0], vec![1, PAGE_BYTES - 1, 0], true),
            (vec![1, PAGE_BYTES, 0], vec![1], false),
            (vec![PAGE_BYTES + 1, 1], vec![PAGE_BYTES + 1], false),
            (vec![0, 0, 0, 0], vec![0, 0, 0], false),
        ] {
            let page = Page::from_sized_rows(rows.clone(), 3, false, |row| *row);
            assert_eq!(page, Page { items, done }, "{rows:?}");
        }
    }
}
