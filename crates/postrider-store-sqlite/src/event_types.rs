//! Event types.

use crate::{
    SqliteStore,
    failure::{Failure, Refusal, inconsistent},
    idempotency::{self, Kind},
    values::{from_json, instant_at, to_json},
    writer::Scope,
};
use async_trait::async_trait;
use postrider_model::{
    environment::EnvironmentId,
    event_type::{EventType, EventTypeName},
};
use postrider_store::{
    StoreError, WriteError,
    event_types::{EventTypeFields, EventTypeFilter, EventTypes},
    idempotency::{Created, IdempotencyKey},
    page::{Order, Page, PageRequest},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str =
    "name, description, archived, deprecated, schemas, feature_flags, group_name, created_at, updated_at";

#[async_trait]
impl EventTypes for SqliteStore {
    async fn create_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<EventType>, WriteError> {
        let environment = environment.clone();
        let create =
            move |work: &mut Scope<'_>| create(work, &environment, &name, &fields, idempotency.as_ref());
        Ok(self.shared.change(create).await?)
    }

    async fn event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
    ) -> Result<Option<EventType>, StoreError> {
        let (environment, name) = (environment.clone(), name.clone());
        Ok(self.shared.readers.read(move |connection| of_name(connection, &environment, &name)).await?)
    }

    async fn event_types(
        &self,
        environment: &EnvironmentId,
        filter: EventTypeFilter,
        page: PageRequest<EventTypeName>,
    ) -> Result<Page<EventType>, StoreError> {
        let environment = environment.clone();
        Ok(self.shared.readers.read(move |connection| list(connection, &environment, &filter, &page)).await?)
    }

    async fn put_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
    ) -> Result<(EventType, bool), WriteError> {
        let environment = environment.clone();
        let put = move |work: &mut Scope<'_>| {
            let before = of_name(work.connection, &environment, &name)?;
            Ok((write(work, &environment, &name, &fields)?, before.is_none()))
        };
        Ok(self.shared.change(put).await?)
    }

    async fn delete_event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
        expunge: bool,
    ) -> Result<bool, StoreError> {
        let (environment, name) = (environment.clone(), name.clone());
        let delete = move |work: &mut Scope<'_>| {
            let statement = if expunge {
                "DELETE FROM event_type WHERE environment = ?1 AND name = ?2 AND ?3 = ?3"
            } else {
                "UPDATE event_type SET archived = 1, updated_at = ?3 WHERE environment = ?1 AND name = ?2"
            };
            let key = params![environment.as_str(), name.as_str(), work.now.as_micros()];
            Ok(work.connection.execute(statement, key)? > 0)
        };
        Ok(self.shared.change(delete).await?)
    }
}

fn read(row: &Row<'_>) -> Result<EventType, Failure> {
    let (name, flags): (String, Option<String>) = (row.get(0)?, row.get(5)?);
    Ok(EventType {
        name: EventTypeName::parse(&name).ok_or_else(|| inconsistent("event_type", "name", &name))?,
        description: row.get(1)?,
        archived: row.get(2)?,
        deprecated: row.get(3)?,
        schemas: row.get(4)?,
        feature_flags: from_json(flags.as_deref().unwrap_or("[]"), "event_type", "feature_flags", &name)?,
        group_name: row.get(6)?,
        created_at: instant_at(row, 7)?,
        updated_at: instant_at(row, 8)?,
    })
}

fn of_name(
    connection: &Connection,
    environment: &EnvironmentId,
    name: &EventTypeName,
) -> Result<Option<EventType>, Failure> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM event_type WHERE environment = ?1 AND name = ?2"))?
        .query_row(params![environment.as_str(), name.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn create(
    work: &mut Scope<'_>,
    environment: &EnvironmentId,
    name: &EventTypeName,
    fields: &EventTypeFields,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<EventType>, Failure> {
    let existing = of_name(work.connection, environment, name)?;
    let recalled = idempotency::recall(work.connection, environment, idempotency, Kind::EventType, work.now)?;
    match existing {
        Some(item) if recalled.as_deref() == Some(name.as_str().as_bytes()) => {
            return Ok(Created { item, replayed: true });
        }
        Some(item) if !item.archived => return Err(Refusal::Taken.into()),
        _ => {}
    }
    let item = write(work, environment, name, fields)?;
    let created = name.as_str().as_bytes();
    idempotency::remember(work.connection, environment, idempotency, Kind::EventType, created, work.now)?;
    Ok(Created { item, replayed: false })
}

fn write(
    work: &Scope<'_>,
    environment: &EnvironmentId,
    name: &EventTypeName,
    fields: &EventTypeFields,
) -> Result<EventType, Failure> {
    crate::secrets::keys_for_writing(work.shared, work.connection, environment, work.now)?;
    let flags = (!fields.feature_flags.is_empty()).then(|| to_json(&fields.feature_flags));
    work.connection.execute(
        "INSERT INTO event_type (environment, name, description, archived, deprecated, schemas, feature_flags,
             group_name, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
         ON CONFLICT (environment, name) DO UPDATE SET description = excluded.description,
             archived = excluded.archived, deprecated = excluded.deprecated, schemas = excluded.schemas,
             feature_flags = excluded.feature_flags, group_name = excluded.group_name,
             updated_at = excluded.updated_at",
        params![
            environment.as_str(),
            name.as_str(),
            fields.description,
            fields.archived,
            fields.deprecated,
            fields.schemas,
            flags,
            fields.group_name,
            work.now.as_micros(),
        ],
    )?;
    of_name(work.connection, environment, name)?
        .ok_or_else(|| inconsistent("event_type", "name", name.as_str()))
}

fn list(
    connection: &Connection,
    environment: &EnvironmentId,
    filter: &EventTypeFilter,
    page: &PageRequest<EventTypeName>,
) -> Result<Page<EventType>, Failure> {
    let ascending = (page.order == Order::Ascending) != page.backward;
    let (comparison, direction) = if ascending { (">", "ASC") } else { ("<", "DESC") };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM event_type
         WHERE environment = ?1 AND (?2 IS NULL OR name {comparison} ?2) AND (archived = 0 OR ?3)
         ORDER BY name {direction}"
    ))?;
    let cursor = page.cursor.as_ref().map(EventTypeName::as_str);
    let mut rows = statement.query(params![environment.as_str(), cursor, filter.include_archived])?;
    let mut found = Vec::new();
    while found.len() <= page.limit
        && let Some(row) = rows.next()?
    {
        let item = read(row)?;
        let visible = filter
            .visible_with
            .as_ref()
            .is_none_or(|flags| item.feature_flags.is_empty() || !item.feature_flags.is_disjoint(flags));
        if visible {
            found.push(item);
        }
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}
