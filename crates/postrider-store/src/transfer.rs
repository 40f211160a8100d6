//! Moving a whole database from one backend to another: the things that are moved, row by row, in a shape that both know.
//!
//! Apart from the contract, which knows no rows: whoever serves never comes here.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cell {
    /// None.
    Null,
    /// A number, an instant in microseconds, or a truth as 0 and 1.
    Int(i64),
    /// Text.
    Text(String),
    /// An id, a sealed value, a payload.
    Bytes(Vec<u8>),
}

impl Cell {
    /// Bytes that it keeps in memory, about.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Null | Self::Int(_) => 0,
                Self::Text(text) => text.len(),
                Self::Bytes(bytes) => bytes.len(),
            }
    }
}

/// Values in the order of the thing's columns.
pub type Row = Vec<Cell>;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of 64 bits.
    Big,
    /// A number of 32 bits.
    Integer,
    /// A number of 16 bits.
    Small,
    /// A truth.
    Bool,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
}

/// A thing that is moved, which is a table of the target.
#[derive(Debug)]
pub struct Thing {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, Kind)],
    /// So many of the first columns name a row; rows go in their order.
    pub key: usize,
}

use Kind::{Big, Bool, Bytes, Integer, Small, Text};

/// Everything, in an order in which the configuration comes first.
pub const THINGS: &[Thing] = &[
    Thing { name: "environment", key: 1, columns: &[("id", Text), ("created_at", Big)] },
    Thing {
        name: "data_key",
        key: 2,
        columns: &[
            ("environment", Text),
            ("id", Bytes),
            ("kek", Text),
            ("wrapped", Bytes),
            ("active", Bool),
            ("created_at", Big),
        ],
    },
    Thing {
        name: "secret",
        key: 4,
        columns: &[
            ("owner", Bytes),
            ("kind", Text),
            ("id", Text),
            ("version", Big),
            ("environment", Text),
            ("application", Bytes),
            ("owner_table", Text),
            ("sealed", Bytes),
            ("fingerprint", Bytes),
            ("created_at", Big),
            ("valid_until", Big),
        ],
    },
    Thing {
        name: "api_key",
        key: 1,
        columns: &[
            ("id", Bytes),
            ("environment", Text),
            ("scope", Text),
            ("name", Text),
            ("created_at", Big),
            ("expires_at", Big),
            ("revoked_at", Big),
            ("kek", Text),
            ("secret_mac", Bytes),
            ("row_mac", Bytes),
        ],
    },
    Thing {
        name: "idempotency",
        key: 2,
        columns: &[
            ("environment", Text),
            ("digest", Bytes),
            ("kind", Small),
            ("created", Bytes),
            ("expires_at", Big),
        ],
    },
    Thing {
        name: "application",
        key: 1,
        columns: &[
            ("id", Bytes),
            ("environment", Text),
            ("uid", Text),
            ("name", Text),
            ("throttle_rate", Integer),
            ("metadata", Text),
            ("version", Big),
            ("created_at", Big),
            ("updated_at", Big),
            ("deleted_at", Big),
        ],
    },
    Thing {
        name: "endpoint",
        key: 1,
        columns: &[
            ("id", Bytes),
            ("application", Bytes),
            ("uid", Text),
            ("url", Text),
            ("description", Text),
            ("throttle_rate", Integer),
            ("event_types", Text),
            ("channels", Text),
            ("disabled_reason", Text),
            ("disabled_at", Big),
            ("metadata", Text),
            ("retry", Text),
            ("legacy_version", Integer),
            ("version", Big),
            ("headers", Text),
            ("oauth", Text),
            ("oauth_version", Big),
            ("created_at", Big),
            ("updated_at", Big),
            ("deleted_at", Big),
        ],
    },
    Thing {
        name: "event_type",
        key: 2,
        columns: &[
            ("environment", Text),
            ("name", Text),
            ("description", Text),
            ("archived", Bool),
            ("deprecated", Bool),
            ("schemas", Text),
            ("feature_flags", Text),
            ("group_name", Text),
            ("created_at", Big),
            ("updated_at", Big),
        ],
    },
    Thing {
        name: "message",
        key: 1,
        columns: &[
            ("id", Bytes),
            ("application", Bytes),
            ("event_id", Text),
            ("event_type", Text),
            ("channels", Text),
            ("tags", Text),
            ("content_type", Text),
            ("deliver_at", Big),
            ("payload_expires_at", Big),
            ("created_at", Big),
            ("payload", Bytes),
        ],
    },
    Thing {
        name: "pending",
        key: 3,
        columns: &[
            ("message", Bytes),
            ("endpoint", Bytes),
            ("generation", Integer),
            ("application", Bytes),
            ("attempts", Integer),
            ("deaths", Integer),
            ("cause", Small),
            ("due_at", Big),
            ("deadline_at", Big),
        ],
    },
    Thing {
        name: "delivery",
        key: 3,
        columns: &[
            ("message", Bytes),
            ("endpoint", Bytes),
            ("generation", Integer),
            ("state", Small),
            ("attempts", Integer),
            ("deaths", Integer),
            ("cause", Small),
            ("reason", Text),
        ],
    },
    Thing {
        name: "attempt",
        key: 3,
        columns: &[
            ("message", Bytes),
            ("endpoint", Bytes),
            ("id", Bytes),
            ("generation", Integer),
            ("number", Integer),
            ("cause", Small),
            ("url", Text),
            ("started_at", Big),
            ("duration", Big),
            ("outcome", Small),
            ("detail", Text),
            ("status", Integer),
            ("truncated", Bool),
            ("expunged", Bool),
            ("token", Big),
            ("dns", Big),
            ("connect", Big),
            ("tls", Big),
            ("first_byte", Big),
            ("body", Bytes),
        ],
    },
    Thing { name: "hold", key: 1, columns: &[("since", Big), ("reason", Text)] },
];

/// Why something was not moved.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TransferError(pub String);

/// What is moved.
pub trait Source: Send {
    /// Which database it is.
    fn instance(&self) -> &str;

    /// When its oldest message was accepted, in microseconds; `None` when there is none.
    fn oldest(&mut self) -> Result<Option<i64>, TransferError>;

    /// The rows behind a key, in their order: as many as fit into some mebibytes. None: there are no more.
    fn read(&mut self, thing: &'static Thing, after: Option<&[Cell]>) -> Result<Vec<Row>, TransferError>;
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is worked at.
    pub thing: &'static str,
    /// It is compared, having been moved.
    pub compares: bool,
    /// Rows so far.
    pub rows: u64,
    /// That was all of it.
    pub done: bool,
}

/// What was moved, of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub thing: &'static str,
    /// Rows, the same on both sides.
    pub rows: u64,
    /// Over all values of all rows, the same on both sides.
    pub checksum: u64,
}

/// Adds a row to a checksum that does not depend on how rows come in batches.
#[must_use]
pub fn add_to_checksum(checksum: u64, row: &Row) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    checksum.wrapping_add(hasher.finish())
}

/// A key as bytes, for a row of progress.
pub fn write_key(key: &[Cell]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in key {
        let (tag, value): (u8, Vec<u8>) = match cell {
            Cell::Null => (0, Vec::new()),
            Cell::Int(number) => (1, number.to_be_bytes().to_vec()),
            Cell::Text(text) => (2, text.as_bytes().to_vec()),
            Cell::Bytes(value) => (3, value.clone()),
        };
        bytes.push(tag);
        bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

/// A key of its bytes; `None` when they are something else.
pub fn read_key(mut bytes: &[u8]) -> Option<Vec<Cell>> {
    let mut key = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        key.push(match tag {
            0 => Cell::Null,
            1 => Cell::Int(i64::from_be_bytes(value.try_into().ok()?)),
            2 => Cell::Text(std::str::from_utf8(value).ok()?.to_owned()),
            3 => Cell::Bytes(value.to_vec()),
            _ => return None,
        });
        bytes = rest;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let key = vec![Cell::Bytes(vec![0, 255]), Cell::Text("é".to_owned()), Cell::Int(-7), Cell::Null];
        assert_eq!(read_key(&write_key(&key)), Some(key));
        assert_eq!(read_key(&[]), Some(Vec::new()));
        assert_eq!(read_key(&[9, 0, 0, 0, 0]), None);
        assert_eq!(read_key(&[3, 0, 0, 0, 9, 1]), None);
    }

    #[test]
    fn a_checksum_sees_each_value_and_not_the_order() {
        let (one, two) = (vec![Cell::Int(1), Cell::Null], vec![Cell::Null, Cell::Int(1)]);
        let of = |rows: &[&Row]| rows.iter().fold(0, |sum, row| add_to_checksum(sum, row));
        assert_eq!(of(&[&one, &two]), of(&[&two, &one]));
        assert_ne!(of(&[&one]), of(&[&two]));
    }
}
