//! Moving this database to another backend: it is read thing by thing, and from the beginning of that on marked as moved,
//! so that nobody serves it by mistake.

use crate::{Config, OpenError, SqliteStore, data_dir, schema};
use postrider_store::{
    Clock, Store as _,
    transfer::{Cell, Row, Source, Thing, TransferError},
};
use postrider_vault::keyring::Keyring;
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};

/// Rows of one reading, and bytes after which it ends.
const ROWS: usize = 2_000;
const BYTES: usize = 4 * 1024 * 1024;

/// A database that is being moved: nobody else can have it.
pub struct Export {
    connection: Connection,
    instance: String,
    _lock: data_dir::Lock,
}

impl Export {
    /// Takes the database, as an orderly stop leaves it, and marks it as moved to `target`, which is shown to whoever
    /// tries to serve it. The keyring is needed twice: keys are not copied.
    ///
    /// # Errors
    ///
    /// When a server uses it, there is none, or it was moved somewhere else.
    pub async fn begin(
        config: &Config,
        keyring: &Keyring,
        same_keyring: Keyring,
        target: &str,
    ) -> Result<Self, OpenError> {
        let path = data_dir::database(&config.data_dir);
        if !path.exists() {
            return Err(OpenError::Refused(format!("there is no database at {}", path.display())));
        }
        let (begun, lock) = open(config, keyring)?;
        match moved_to(&begun)? {
            Some(other) if other != target => return Err(moved(&other)),
            Some(_) => return Self::of(begun, lock),
            None => {}
        }
        drop((begun, lock));
        // What a kill left is booked by whoever opens it next: that is the last time here.
        SqliteStore::open(config.clone(), same_keyring)?.close().await;
        let (connection, lock) = open(config, keyring)?;
        connection.execute("UPDATE instance SET migrated_to = ?1", [target])?;
        Self::of(connection, lock)
    }

    fn of(connection: Connection, lock: data_dir::Lock) -> Result<Self, OpenError> {
        let instance = connection.query_row("SELECT id FROM instance", [], |row| row.get(0))?;
        // What is read must not be taken back by a power loss.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(Self { connection, instance, _lock: lock })
    }

    /// Lets the database be served again. From now on it is another one than that which was moved. `false`: it was not
    /// moved.
    pub fn undo(config: &Config, keyring: &Keyring) -> Result<bool, OpenError> {
        let (connection, _lock) = open(config, keyring)?;
        let undone = connection.execute(
            "UPDATE instance SET migrated_to = NULL, id = lower(hex(randomblob(16))) WHERE migrated_to IS NOT NULL",
            [],
        )?;
        Ok(undone > 0)
    }
}

fn open(config: &Config, keyring: &Keyring) -> Result<(Connection, data_dir::Lock), OpenError> {
    let lock = data_dir::take(&config.data_dir)?;
    let path = data_dir::database(&config.data_dir);
    let connection = schema::open_writer(&path, config, keyring, Clock::default().now())
        .map_err(|error| error.of_file(&path))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok((connection, lock))
}

fn moved_to(connection: &Connection) -> Result<Option<String>, rusqlite::Error> {
    let found = connection.query_row("SELECT migrated_to FROM instance", [], |row| row.get(0)).optional();
    Ok(found?.flatten())
}

fn moved(target: &str) -> OpenError {
    OpenError::Refused(format!(
        "this database was moved to {target}, or a move there was begun: serve that one (database.url). To serve this one \
         again, say `postrider migrate-store --undo`; what was moved is of no use then"
    ))
}

/// Refuses to serve a database that was moved.
pub(crate) fn check_not_moved(connection: &Connection) -> Result<(), OpenError> {
    moved_to(connection)?.map_or(Ok(()), |target| Err(moved(&target)))
}

/// Where a thing lies here: its tables, and the columns whose names differ.
fn place(thing: &str) -> (&'static str, &'static [(&'static str, &'static str)]) {
    match thing {
        "message" => (
            "message LEFT JOIN payload ON payload.id = message.payload AND payload.message = message.id",
            &[("id", "message.id"), ("payload", "payload.body")],
        ),
        "pending" => (
            "delivery JOIN message ON message.id = delivery.message WHERE delivery.state = 0",
            &[
                ("message", "delivery.message"),
                ("due_at", "delivery.next_attempt_at"),
                ("application", "message.application"),
            ],
        ),
        "delivery" => ("delivery WHERE state <> 0", &[]),
        "attempt" => ("attempt LEFT JOIN response ON response.attempt = attempt.id", &[]),
        "environment" => ("environment", &[]),
        "data_key" => ("data_key", &[]),
        "secret" => ("secret", &[]),
        "api_key" => ("api_key", &[]),
        "idempotency" => ("idempotency", &[]),
        "application" => ("application", &[]),
        "endpoint" => ("endpoint", &[]),
        "event_type" => ("event_type", &[]),
        _ => ("hold", &[]),
    }
}

/// The query of a thing, from a key on or from the beginning.
fn query(thing: &Thing, from_key: bool) -> String {
    let (tables, names) = place(thing.name);
    let column = |name: &'static str| {
        let own = match thing.name {
            "message" => format!("message.{name}"),
            _ => name.to_owned(),
        };
        names.iter().find(|(of, _)| *of == name).map_or(own, |(_, here)| (*here).to_owned())
    };
    let columns: Vec<String> = thing.columns.iter().map(|(name, _)| column(name)).collect();
    let key = columns[..thing.key].join(", ");
    let places: Vec<String> = (1..=thing.key).map(|number| format!("?{number}")).collect();
    let glue = if tables.contains("WHERE") { "AND" } else { "WHERE" };
    let from = if from_key { format!("{glue} ({key}) > ({})", places.join(", ")) } else { String::new() };
    format!("SELECT {} FROM {tables} {from} ORDER BY {key} LIMIT {ROWS}", columns.join(", "))
}

fn cell(value: Value) -> Cell {
    match value {
        // There is no real number in any column.
        Value::Null | Value::Real(_) => Cell::Null,
        Value::Integer(number) => Cell::Int(number),
        // PostgreSQL has no text with a zero byte.
        Value::Text(text) => {
            Cell::Text(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text })
        }
        Value::Blob(bytes) => Cell::Bytes(bytes),
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(number) => Value::Integer(*number),
        Cell::Text(text) => Value::Text(text.clone()),
        Cell::Bytes(bytes) => Value::Blob(bytes.clone()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn failed(error: rusqlite::Error) -> TransferError {
    TransferError(format!("the embedded database cannot be read: {error}"))
}

impl Source for Export {
    fn instance(&self) -> &str {
        &self.instance
    }

    fn oldest(&mut self) -> Result<Option<i64>, TransferError> {
        let text = "SELECT created_at FROM message ORDER BY id LIMIT 1";
        self.connection.query_row(text, [], |row| row.get(0)).optional().map_err(failed)
    }

    fn read(&mut self, thing: &'static Thing, after: Option<&[Cell]>) -> Result<Vec<Row>, TransferError> {
        let key: Vec<Value> = after.unwrap_or_default().iter().map(value).collect();
        let text = query(thing, after.is_some());
        let mut statement = self.connection.prepare_cached(&text).map_err(failed)?;
        let mut found = statement.query(params_from_iter(key)).map_err(failed)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < BYTES
            && let Some(row) = found.next().map_err(failed)?
        {
            let cells: Result<Row, rusqlite::Error> =
                (0..thing.columns.len()).map(|column| row.get(column).map(cell)).collect();
            let cells = cells.map_err(failed)?;
            bytes += cells.iter().map(Cell::size).sum::<usize>();
            rows.push(cells);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_store::transfer::THINGS;

    #[test]
    fn every_thing_is_read_along_its_key() {
        let connection = Connection::open_in_memory().unwrap();
        for (_, text) in schema::MIGRATIONS {
            connection.execute_batch(text).unwrap();
        }
        for thing in THINGS {
            for from_key in [false, true] {
                let text = query(thing, from_key);
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
                let mut steps = statement.raw_query();
                while let Some(step) = steps.next().unwrap() {
                    let step: String = step.get(3).unwrap();
                    assert!(thing.name == "hold" || !step.contains("TEMP B-TREE"), "{text}\n{step}");
                }
            }
        }
    }

    #[test]
    fn text_without_a_place_in_postgresql_is_told_apart() {
        assert_eq!(cell(Value::Text("a\0b".to_owned())), Cell::Text("a\u{fffd}b".to_owned()));
        assert_eq!(value(&cell(Value::Blob(vec![0]))), Value::Blob(vec![0]));
    }
}
