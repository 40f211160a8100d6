//! Event types.

use crate::{
    PostgresStore,
    connection::Connection,
    failure::{Failure, Refusal, inconsistent},
    idempotency::{self, Kind},
    values::{at, from_json, instant_at, rows, to_json},
    work::Work,
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
use tokio_postgres::Row;

const COLUMNS: &str =
    "name, description, archived, deprecated, schemas, feature_flags, group_name, created_at, updated_at";

#[async_trait]
impl EventTypes for PostgresStore {
    async fn create_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<EventType>, WriteError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move { create(work, &environment, &name, &fields, idempotency.as_ref()).await })
        });
        Ok(change.await?)
    }

    async fn event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
    ) -> Result<Option<EventType>, StoreError> {
        Ok(of_name(&*self.shared.reader_of(environment).await?, environment, name).await?)
    }

    async fn event_types(
        &self,
        environment: &EnvironmentId,
        filter: EventTypeFilter,
        page: PageRequest<EventTypeName>,
    ) -> Result<Page<EventType>, StoreError> {
        Ok(list(&*self.shared.reader_of(environment).await?, environment, &filter, &page).await?)
    }

    async fn put_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
    ) -> Result<(EventType, bool), WriteError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move {
                let before = of_name(&work.connection, &environment, &name).await?;
                Ok((write(work, &environment, &name, &fields).await?, before.is_none()))
            })
        });
        Ok(change.await?)
    }

    async fn delete_event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
        expunge: bool,
    ) -> Result<bool, StoreError> {
        let (environment, name) = (environment.clone(), name.clone());
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move {
                let text = if expunge {
                    "DELETE FROM event_type WHERE environment = $1 AND name = $2 AND $3::bigint IS NOT NULL"
                } else {
                    "UPDATE event_type SET archived = true, updated_at = $3 WHERE environment = $1 AND name = $2"
                };
                let values = (environment.as_str(), name.as_str(), work.now.as_micros());
                Ok::<_, Failure>(work.connection.execute(text, &[&values.0, &values.1, &values.2]).await? > 0)
            })
        });
        Ok(change.await?)
    }
}

fn read(row: &Row) -> Result<EventType, Failure> {
    let (name, flags): (&str, Option<&str>) = (at(row, 0)?, at(row, 5)?);
    Ok(EventType {
        name: EventTypeName::parse(name).ok_or_else(|| inconsistent("event_type", "name", name))?,
        description: at(row, 1)?,
        archived: at(row, 2)?,
        deprecated: at(row, 3)?,
        schemas: at(row, 4)?,
        feature_flags: from_json(flags.unwrap_or("[]"), "event_type", "feature_flags", name)?,
        group_name: at(row, 6)?,
        created_at: instant_at(row, 7)?,
        updated_at: instant_at(row, 8)?,
    })
}

async fn of_name(
    connection: &Connection,
    environment: &EnvironmentId,
    name: &EventTypeName,
) -> Result<Option<EventType>, Failure> {
    let text = format!("SELECT {COLUMNS} FROM event_type WHERE environment = $1 AND name = $2");
    let row = connection.first_row(&text, &[&environment.as_str(), &name.as_str()]).await?;
    row.map(|row| read(&row)).transpose()
}

async fn create(
    work: &mut Work,
    environment: &EnvironmentId,
    name: &EventTypeName,
    fields: &EventTypeFields,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<EventType>, Failure> {
    let recalled =
        idempotency::recall(&work.connection, environment, idempotency, Kind::EventType, work.now).await?;
    // Others that create the same type wait here.
    let text = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7305))";
    work.connection.query(text, &[&format!("{}/{}", environment.as_str(), name.as_str())]).await?;
    let existing = of_name(&work.connection, environment, name).await?;
    match existing {
        Some(item) if recalled.as_deref() == Some(name.as_str().as_bytes()) => {
            return Ok(Created { item, replayed: true });
        }
        Some(item) if !item.archived => return Err(Refusal::Taken.into()),
        _ => {}
    }
    let item = write(work, environment, name, fields).await?;
    let created = name.as_str().as_bytes();
    idempotency::remember(&work.connection, environment, idempotency, Kind::EventType, created, work.now)
        .await?;
    Ok(Created { item, replayed: false })
}

async fn write(
    work: &Work,
    environment: &EnvironmentId,
    name: &EventTypeName,
    fields: &EventTypeFields,
) -> Result<EventType, Failure> {
    crate::secrets::keys_for_writing(&work.shared, &work.connection, environment, work.now).await?;
    let flags = (!fields.feature_flags.is_empty()).then(|| to_json(&fields.feature_flags));
    work.connection
        .execute(
            "INSERT INTO event_type (environment, name, description, archived, deprecated, schemas, feature_flags,
                group_name, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
             ON CONFLICT (environment, name) DO UPDATE SET description = excluded.description,
                archived = excluded.archived, deprecated = excluded.deprecated, schemas = excluded.schemas,
                feature_flags = excluded.feature_flags, group_name = excluded.group_name,
                updated_at = excluded.updated_at",
            &[
                &environment.as_str(),
                &name.as_str(),
                &fields.description,
                &fields.archived,
                &fields.deprecated,
                &fields.schemas,
                &flags,
                &fields.group_name,
                &work.now.as_micros(),
            ],
        )
        .await?;
    let written = of_name(&work.connection, environment, name).await?;
    written.ok_or_else(|| inconsistent("event_type", "name", name.as_str()))
}

async fn list(
    connection: &Connection,
    environment: &EnvironmentId,
    filter: &EventTypeFilter,
    page: &PageRequest<EventTypeName>,
) -> Result<Page<EventType>, Failure> {
    let ascending = (page.order == Order::Ascending) != page.backward;
    let (comparison, direction) = if ascending { (">", "ASC") } else { ("<", "DESC") };
    let text = format!(
        "SELECT {COLUMNS} FROM event_type
         WHERE environment = $1 AND ($2::text IS NULL OR name {comparison} $2) AND (NOT archived OR $3)
         ORDER BY name {direction} LIMIT $4"
    );
    let chunk = page.limit.saturating_add(1).max(100);
    let mut cursor = page.cursor.as_ref().map(|name| name.as_str().to_owned());
    let mut found = Vec::new();
    loop {
        let values = (environment.as_str(), filter.include_archived, rows(chunk));
        let read_rows = connection.query(&text, &[&values.0, &cursor, &values.1, &values.2]).await?;
        for row in &read_rows {
            let item = read(row)?;
            cursor = Some(item.name.as_str().to_owned());
            let visible = filter
                .visible_with
                .as_ref()
                .is_none_or(|flags| item.feature_flags.is_empty() || !item.feature_flags.is_disjoint(flags));
            if visible {
                found.push(item);
            }
        }
        if read_rows.len() < chunk || found.len() > page.limit {
            return Ok(Page::from_rows(found, page.limit, page.backward));
        }
    }
}
