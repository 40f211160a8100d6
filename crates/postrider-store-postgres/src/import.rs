//! Taking in a whole database of another backend: thing by thing, in batches, each with how far it came in one transaction,
//! so that a kill costs a batch. Then both are compared row by row. Until that is done nobody serves this one.

use crate::{
    Config, OpenError,
    address::Address,
    connection::{Connection, Use},
    failure::Failure,
    schema,
    values::at,
};
use postrider_model::time::Timestamp;
use postrider_store::{
    Clock,
    transfer::{
        Cell, Kind, Moved, Progress, Row, Source, THINGS, Thing, TransferError, add_to_checksum, read_key,
        write_key,
    },
};
use postrider_vault::keyring::Keyring;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_postgres::types::ToSql;

/// The lock of whoever takes in a database.
const LOCK: i32 = 7305;
/// Marks the end in the table of progress: both databases were compared.
const COMPARED: &str = "compared";
/// Weeks of history that get partitions; what is older lies in the default one.
const WEEKS: u32 = 260;
const WEEK: Duration = Duration::from_hours(7 * 24);

/// Something to move, shared with the threads that read it.
pub type Shared = Arc<Mutex<dyn Source>>;

/// Takes in everything that `source` has, or goes on with it, and compares both. `tell` hears how far it is.
///
/// # Errors
///
/// When the database is not empty and not half of the same move, when nodes are at work on it, or when both differ at
/// the end. Nothing that is there is ever changed or deleted.
pub async fn import(
    config: &Config,
    keyring: &Keyring,
    source: Shared,
    tell: impl Fn(Progress) + Send,
) -> Result<Vec<Moved>, OpenError> {
    let mut address = Address::parse(&config.url())?;
    address.name_schema(schema::known());
    let connection = Connection::first(&address, Use::Reading).await?;
    let now = Clock::default().now();
    schema::open(&connection, config, keyring, now).await?;
    let instance = ask(&source, |source| Ok(source.instance().to_owned())).await?;
    begin(&connection, &instance).await?;
    if let Some(oldest) = ask(&source, |source| source.oldest()).await? {
        let mut week = Timestamp::from_micros(oldest).max(now.minus(WEEK * WEEKS));
        while week < now {
            schema::make_partitions(&connection, week).await?;
            week = week.plus(WEEK);
        }
    }
    let work = Work { connection: &connection, instance: &instance, source: &source, config };
    for thing in THINGS {
        work.take_in(thing, &tell).await?;
    }
    // Plans go by what there is now.
    let analyse = connection.prepare("ANALYZE").await?;
    connection.run("SET statement_timeout = 0").await?;
    connection.client().execute(&analyse, &[]).await.map_err(Failure::from)?;
    let mut all = Vec::new();
    for thing in THINGS {
        all.push(work.compare(thing, &tell).await?);
    }
    connection.execute("UPDATE instance SET id = $1", &[&instance]).await?;
    let text = "UPDATE import SET done = true WHERE source = $1 AND item = $2";
    connection.execute(text, &[&instance, &COMPARED]).await?;
    Ok(all)
}

/// Refuses to serve a database that is not all there yet.
pub(crate) async fn check_complete(connection: &Connection) -> Result<(), OpenError> {
    let found = connection.first_row("SELECT 1 FROM import WHERE NOT done LIMIT 1", &[]).await?;
    if found.is_none() {
        return Ok(());
    }
    Err(OpenError::Refused(
        "a move of an embedded database to this one is not complete: run the same `postrider migrate-store` again, which \
         goes on where it was"
            .to_owned(),
    ))
}

/// Asks the source on a thread that may block.
async fn ask<T: Send + 'static>(
    source: &Shared,
    question: impl FnOnce(&mut dyn Source) -> Result<T, TransferError> + Send + 'static,
) -> Result<T, OpenError> {
    let source = Arc::clone(source);
    let asked = tokio::task::spawn_blocking(move || {
        question(&mut *source.lock().unwrap_or_else(PoisonError::into_inner))
    });
    match asked.await {
        Ok(answer) => answer.map_err(|error| OpenError::Refused(error.0)),
        Err(panic) => Err(OpenError::Refused(format!("reading ended abnormally: {panic}"))),
    }
}

/// Makes sure that the database is empty, or half of the same move, and that nobody else is at it.
async fn begin(connection: &Connection, instance: &str) -> Result<(), OpenError> {
    let refused = |text: &str| Err(OpenError::Refused(text.to_owned()));
    let row = connection.first_row("SELECT pg_try_advisory_lock($1, 0)", &[&LOCK]).await?;
    if !row.map(|row| at::<bool>(&row, 0)).transpose()?.unwrap_or(false) {
        return refused("another `postrider migrate-store` is at work on this database");
    }
    let text = "SELECT 1 FROM node WHERE NOT ended
         AND lease_until > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint LIMIT 1";
    if connection.first_row(text, &[]).await?.is_some() {
        return refused("a node is at work on the target, or was until a moment ago: stop it first");
    }
    let known = connection.first_row("SELECT source FROM import WHERE item = $1", &[&COMPARED]).await?;
    if let Some(known) = known {
        if at::<&str>(&known, 0)? == instance {
            return Ok(());
        }
        return refused("the target took in another database, or a part of it: create an empty one");
    }
    let text = "SELECT 1 WHERE EXISTS (SELECT 1 FROM environment) OR EXISTS (SELECT 1 FROM application)
         OR EXISTS (SELECT 1 FROM message) OR EXISTS (SELECT 1 FROM pending)";
    if connection.first_row(text, &[]).await?.is_some() {
        return refused("the target is not empty: create an empty database for it");
    }
    let names: Vec<&str> = THINGS.iter().map(|thing| thing.name).chain([COMPARED]).collect();
    let text = "INSERT INTO import (source, item, position, rows, done) SELECT $1, unnest($2::text[]), NULL, 0, false";
    connection.execute(text, &[&instance, &names]).await?;
    Ok(())
}

struct Work<'a> {
    connection: &'a Connection,
    instance: &'a str,
    source: &'a Shared,
    config: &'a Config,
}

impl Work<'_> {
    async fn read(&self, thing: &'static Thing, after: Option<Vec<Cell>>) -> Result<Vec<Row>, OpenError> {
        ask(self.source, move |source| source.read(thing, after.as_deref())).await
    }

    async fn take_in(
        &self,
        thing: &'static Thing,
        tell: &(impl Fn(Progress) + Send),
    ) -> Result<(), OpenError> {
        let text = "SELECT position, rows, done FROM import WHERE source = $1 AND item = $2";
        let Some(row) = self.connection.first_row(text, &[&self.instance, &thing.name]).await? else {
            return Err(OpenError::Refused(format!(
                "the target does not know how far `{}` came",
                thing.name
            )));
        };
        let mut after = at::<Option<&[u8]>>(&row, 0)?.and_then(read_key);
        let mut rows = u64::try_from(at::<i64>(&row, 1)?).unwrap_or(0);
        let mut done: bool = at(&row, 2)?;
        while !done {
            let batch = self.read(thing, after.clone()).await?;
            done = batch.is_empty();
            rows += batch.len() as u64;
            after = batch.last().map(|row| row[..thing.key].to_vec()).or(after);
            self.connection.run("BEGIN").await?;
            if let Err(failure) = self.write(thing, &batch, after.as_deref(), rows, done).await {
                // The connection goes, and with it what was begun.
                return Err(failure.into());
            }
            self.connection.run("COMMIT").await?;
            tell(Progress { thing: thing.name, compares: false, rows, done });
        }
        Ok(())
    }

    async fn write(
        &self,
        thing: &'static Thing,
        batch: &[Row],
        after: Option<&[Cell]>,
        rows: u64,
        done: bool,
    ) -> Result<(), Failure> {
        if !batch.is_empty() {
            let columns = columns(thing, batch);
            let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(Column::value).collect();
            self.connection.execute(&insert(thing), &values).await?;
            if thing.name == "message" {
                self.write_beside(batch).await?;
            }
        }
        let position = after.map(write_key);
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let text = "UPDATE import SET position = $3, rows = $4, done = $5 WHERE source = $1 AND item = $2";
        self.connection.execute(text, &[&self.instance, &thing.name, &position, &rows, &done]).await?;
        Ok(())
    }

    /// What follows from messages: their names, and payloads that go before the server's own retention.
    async fn write_beside(&self, batch: &[Row]) -> Result<(), Failure> {
        let ids: Vec<&[u8]> = batch
            .iter()
            .filter_map(|row| match row.first() {
                Some(Cell::Bytes(id)) => Some(id.as_slice()),
                _ => None,
            })
            .collect();
        let text = "INSERT INTO event_id (application, event_id, message)
             SELECT application, event_id, id FROM message WHERE id = ANY ($1) AND event_id IS NOT NULL
             ON CONFLICT DO NOTHING";
        self.connection.execute(text, &[&ids]).await?;
        let text = "INSERT INTO payload_expiry (expires_at, message)
             SELECT payload_expires_at, id FROM message
             WHERE id = ANY ($1) AND payload IS NOT NULL AND payload_expires_at < created_at + $2
             ON CONFLICT DO NOTHING";
        let retention = self.config.payload_retention_seconds.saturating_mul(1_000_000);
        let retention = i64::try_from(retention).unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
        self.connection.execute(text, &[&ids, &retention]).await?;
        Ok(())
    }

    /// Reads both side by side; every value of every row must be the same.
    async fn compare(
        &self,
        thing: &'static Thing,
        tell: &(impl Fn(Progress) + Send),
    ) -> Result<Moved, OpenError> {
        let differs = |row: u64| {
            OpenError::Refused(format!(
                "after the move, `{}` differs between both databases from row {row} on: the target must not be served. \
                 Begin anew with an empty database",
                thing.name
            ))
        };
        let mut moved = Moved { thing: thing.name, rows: 0, checksum: 0 };
        let mut after: Option<Vec<Cell>> = None;
        loop {
            let here = self.read(thing, after.clone()).await?;
            let there = self.read_back(thing, after.as_deref(), here.len().max(1)).await?;
            if here != there {
                return Err(differs(moved.rows));
            }
            let Some(last) = here.last() else {
                tell(Progress { thing: thing.name, compares: true, rows: moved.rows, done: true });
                return Ok(moved);
            };
            after = Some(last[..thing.key].to_vec());
            moved.rows += here.len() as u64;
            moved.checksum = here.iter().fold(moved.checksum, add_to_checksum);
            tell(Progress { thing: thing.name, compares: true, rows: moved.rows, done: false });
        }
    }

    async fn read_back(
        &self,
        thing: &'static Thing,
        after: Option<&[Cell]>,
        most: usize,
    ) -> Result<Vec<Row>, OpenError> {
        let values: Vec<Box<dyn ToSql + Sync + Send>> = after.unwrap_or_default().iter().map(one).collect();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value as _).collect();
        let found = self.connection.query(&select(thing, after.is_some(), most), &values).await?;
        let mut rows = Vec::with_capacity(found.len());
        for row in &found {
            let cells = thing.columns.iter().enumerate().map(|(column, (_, kind))| {
                Ok(match kind {
                    Kind::Text => at::<Option<String>>(row, column)?.map_or(Cell::Null, Cell::Text),
                    Kind::Bytes => at::<Option<Vec<u8>>>(row, column)?.map_or(Cell::Null, Cell::Bytes),
                    _ => at::<Option<i64>>(row, column)?.map_or(Cell::Null, Cell::Int),
                })
            });
            rows.push(cells.collect::<Result<Row, Failure>>()?);
        }
        Ok(rows)
    }
}

fn one(cell: &Cell) -> Box<dyn ToSql + Sync + Send> {
    match cell {
        Cell::Null => Box::new(None::<i64>),
        Cell::Int(number) => Box::new(*number),
        Cell::Text(text) => Box::new(text.clone()),
        Cell::Bytes(bytes) => Box::new(bytes.clone()),
    }
}

/// The values of a column over a batch.
enum Column<'a> {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Bytes(Vec<Option<&'a [u8]>>),
}

impl Column<'_> {
    fn value(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Numbers(values) => values,
            Self::Texts(values) => values,
            Self::Bytes(values) => values,
        }
    }
}

fn columns<'a>(thing: &Thing, batch: &'a [Row]) -> Vec<Column<'a>> {
    let cells = |column: usize| batch.iter().map(move |row| row.get(column).unwrap_or(&Cell::Null));
    let of = |(column, (_, kind)): (usize, &(&str, Kind))| match kind {
        Kind::Text => Column::Texts(
            cells(column)
                .map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None })
                .collect(),
        ),
        Kind::Bytes => Column::Bytes(
            cells(column)
                .map(|cell| if let Cell::Bytes(bytes) = cell { Some(bytes.as_slice()) } else { None })
                .collect(),
        ),
        _ => Column::Numbers(
            cells(column)
                .map(|cell| if let Cell::Int(number) = cell { Some(*number) } else { None })
                .collect(),
        ),
    };
    thing.columns.iter().enumerate().map(of).collect()
}

/// Columns that the source does not have, and what they follow from.
fn derived(thing: &str) -> &'static [(&'static str, &'static str)] {
    match thing {
        "application" => &[("config_version", "nextval('config_version')")],
        // See `shards`.
        "pending" => &[("shard", "(get_byte(endpoint, 19) % 64)::smallint"), ("retry", "attempts > 0")],
        "hold" => &[("one", "true")],
        _ => &[],
    }
}

fn insert(thing: &Thing) -> String {
    let (mut names, mut values, mut arrays) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (name, kind)) in (1..).zip(thing.columns) {
        let (array, value) = match kind {
            Kind::Big => ("bigint", (*name).to_owned()),
            Kind::Integer => ("bigint", format!("{name}::integer")),
            Kind::Small => ("bigint", format!("{name}::smallint")),
            Kind::Bool => ("bigint", format!("{name} <> 0")),
            Kind::Text => ("text", (*name).to_owned()),
            Kind::Bytes => ("bytea", (*name).to_owned()),
        };
        names.push(*name);
        values.push(value);
        arrays.push(format!("unnest(${number}::{array}[]) AS {name}"));
    }
    for (name, value) in derived(thing.name) {
        names.push(name);
        values.push((*value).to_owned());
    }
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM (SELECT {}) AS new ON CONFLICT DO NOTHING",
        thing.name,
        names.join(", "),
        values.join(", "),
        arrays.join(", ")
    )
}

fn select(thing: &Thing, from_key: bool, most: usize) -> String {
    let shown: Vec<String> = thing
        .columns
        .iter()
        .map(|(name, kind)| match kind {
            Kind::Bool => format!("{name}::integer::bigint"),
            Kind::Big | Kind::Integer | Kind::Small => format!("{name}::bigint"),
            Kind::Text | Kind::Bytes => (*name).to_owned(),
        })
        .collect();
    let key: Vec<&str> = thing.columns[..thing.key].iter().map(|(name, _)| *name).collect();
    let key = key.join(", ");
    let places: Vec<String> = (1..)
        .zip(&thing.columns[..thing.key])
        .map(|(number, (_, kind))| match kind {
            Kind::Text => format!("${number}::text"),
            Kind::Bytes => format!("${number}::bytea"),
            _ => format!("${number}::bigint"),
        })
        .collect();
    let from = if from_key { format!("WHERE ({key}) > ({})", places.join(", ")) } else { String::new() };
    format!("SELECT {} FROM {} {from} ORDER BY {key} LIMIT {most}", shown.join(", "), thing.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_every_column_once() {
        for thing in THINGS {
            let text = insert(thing);
            for (name, _) in thing.columns {
                assert!(text.contains(&format!("[]) AS {name}")), "{text}");
            }
            assert!(select(thing, true, 9).contains(") > ($1::"), "{}", thing.name);
        }
    }
}
