//! Applications.

use crate::{
    PostgresStore, Shared,
    connection::Connection,
    endpoints,
    failure::{Failure, Refusal, inconsistent},
    idempotency::{self, Kind},
    secrets,
    values::{self, Span, at, from_json, id_at, instant_at, key, to_json},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    application::{Application, Ref, Uid},
    environment::EnvironmentId,
    id::{ApplicationId, EndpointId, Ksuid},
};
use postrider_store::{
    StoreError, WriteError,
    applications::{ApplicationFields, ApplicationFilter, Applications},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest, Window},
};
use std::sync::Arc;
use tokio_postgres::Row;

const COLUMNS: &str = "id, environment, uid, name, throttle_rate, metadata, version, created_at, updated_at";

#[async_trait]
impl Applications for PostgresStore {
    async fn create_application(
        &self,
        environment: &EnvironmentId,
        fields: ApplicationFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Application>, WriteError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move { create(work, &environment, fields, idempotency.as_ref()).await })
        });
        Ok(change.await?)
    }

    async fn application(
        &self,
        environment: &EnvironmentId,
        reference: &Ref<ApplicationId>,
    ) -> Result<Option<Application>, StoreError> {
        if let Some(application) = self.shared.memory.application(environment, reference) {
            return Ok(Some(Application::clone(&application)));
        }
        let changes = self.shared.memory.changes();
        let connection = self.shared.reader_of(environment).await?;
        let found = match reference {
            Ref::Id(id) => of_id(&connection, environment, *id).await?,
            Ref::Uid(uid) => of_uid(&connection, environment, uid).await?,
        };
        let found = found.map(Arc::new);
        if let Some(application) = &found {
            self.shared.memory.keep_application(application, changes);
        }
        Ok(found.map(|application| Application::clone(&application)))
    }

    async fn applications(
        &self,
        environment: &EnvironmentId,
        filter: ApplicationFilter,
        page: PageRequest<ApplicationId>,
    ) -> Result<Page<Application>, StoreError> {
        Ok(list(&*self.shared.reader_of(environment).await?, environment, filter, &page).await?)
    }

    async fn replace_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
        from: u64,
        fields: ApplicationFields,
    ) -> Result<Application, WriteError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), Some(id), move |work| {
            Box::pin(async move { replace(work, &environment, id, from, fields).await })
        });
        Ok(change.await?)
    }

    async fn delete_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
    ) -> Result<bool, StoreError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), Some(id), move |work| {
            Box::pin(async move { delete(work, &environment, id).await })
        });
        let Some(deleted) = change.await? else { return Ok(false) };
        endpoints::cancel_pending(&self.shared, deleted).await?;
        Ok(true)
    }
}

fn read(row: &Row) -> Result<Application, Failure> {
    let id: ApplicationId = id_at(row, 0)?;
    let bad = |column| inconsistent("application", column, id);
    let (environment, uid, metadata): (&str, Option<&str>, &str) = (at(row, 1)?, at(row, 2)?, at(row, 5)?);
    Ok(Application {
        id,
        environment: EnvironmentId::parse(environment).ok_or_else(|| bad("environment"))?,
        uid: uid.map(|uid| Uid::parse(uid, "app_").ok_or_else(|| bad("uid"))).transpose()?,
        name: at(row, 3)?,
        throttle_rate: at::<Option<i32>>(row, 4)?.and_then(|rate| u16::try_from(rate).ok()),
        metadata: from_json(metadata, "application", "metadata", id)?,
        version: values::count(at(row, 6)?),
        created_at: instant_at(row, 7)?,
        updated_at: instant_at(row, 8)?,
    })
}

async fn of_id(
    connection: &Connection,
    environment: &EnvironmentId,
    id: ApplicationId,
) -> Result<Option<Application>, Failure> {
    let text = format!(
        "SELECT {COLUMNS} FROM application WHERE id = $1 AND environment = $2 AND deleted_at IS NULL"
    );
    let row = connection.first_row(&text, &[&key(&id), &environment.as_str()]).await?;
    row.map(|row| read(&row)).transpose()
}

async fn of_uid(
    connection: &Connection,
    environment: &EnvironmentId,
    uid: &Uid,
) -> Result<Option<Application>, Failure> {
    let text = format!(
        "SELECT {COLUMNS} FROM application WHERE environment = $1 AND uid = $2 AND deleted_at IS NULL"
    );
    let row = connection.first_row(&text, &[&environment.as_str(), &uid.as_str()]).await?;
    row.map(|row| read(&row)).transpose()
}

async fn create(
    work: &mut Work,
    environment: &EnvironmentId,
    fields: ApplicationFields,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<Application>, Failure> {
    let (connection, now) = (&work.connection, work.now);
    if let Some(created) =
        idempotency::recall(connection, environment, idempotency, Kind::Application, now).await?
        && let Ok(bytes) = <[u8; 20]>::try_from(created)
        && let Some(item) =
            of_id(connection, environment, ApplicationId::new(Ksuid::from_bytes(bytes))).await?
    {
        return Ok(Created { item, replayed: true });
    }
    // An environment is there from its first application on, with its data key.
    secrets::keys_for_writing(&work.shared, connection, environment, now).await?;
    let item = Application {
        id: work.shared.ids.next(now),
        environment: environment.clone(),
        uid: fields.uid,
        name: fields.name,
        throttle_rate: fields.throttle_rate,
        metadata: fields.metadata,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    connection
        .execute(
            "INSERT INTO application (id, environment, uid, name, throttle_rate, metadata, version, config_version,
                created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, nextval('config_version'), $8, $8)",
            &[
                &key(&item.id),
                &environment.as_str(),
                &item.uid.as_ref().map(Uid::as_str),
                &item.name,
                &item.throttle_rate.map(i32::from),
                &to_json(&item.metadata),
                &values::version(item.version),
                &now.as_micros(),
            ],
        )
        .await
        .map_err(Failure::taken_on_conflict)?;
    idempotency::remember(connection, environment, idempotency, Kind::Application, key(&item.id), now)
        .await?;
    Ok(Created { item, replayed: false })
}

async fn replace(
    work: &mut Work,
    environment: &EnvironmentId,
    id: ApplicationId,
    from: u64,
    fields: ApplicationFields,
) -> Result<Application, Failure> {
    let before = of_id(&work.connection, environment, id).await?.ok_or(Refusal::Missing)?;
    if before.version != from {
        return Err(Refusal::Stale.into());
    }
    let after = Application {
        uid: fields.uid,
        name: fields.name,
        throttle_rate: fields.throttle_rate,
        metadata: fields.metadata,
        version: before.version + 1,
        updated_at: work.now,
        ..before
    };
    work.connection
        .execute(
            "UPDATE application SET uid = $2, name = $3, throttle_rate = $4, metadata = $5, version = $6,
                updated_at = $7
             WHERE id = $1",
            &[
                &key(&id),
                &after.uid.as_ref().map(Uid::as_str),
                &after.name,
                &after.throttle_rate.map(i32::from),
                &to_json(&after.metadata),
                &values::version(after.version),
                &after.updated_at.as_micros(),
            ],
        )
        .await
        .map_err(Failure::taken_on_conflict)?;
    work.application_changes(id).await?;
    Ok(after)
}

/// Returns the endpoints that were deleted with it.
async fn delete(
    work: &mut Work,
    environment: &EnvironmentId,
    id: ApplicationId,
) -> Result<Option<Vec<EndpointId>>, Failure> {
    let connection = &work.connection;
    let changed = connection
        .execute(
            "UPDATE application SET deleted_at = $3 WHERE id = $1 AND environment = $2 AND deleted_at IS NULL",
            &[&key(&id), &environment.as_str(), &work.now.as_micros()],
        )
        .await?;
    if changed == 0 {
        return Ok(None);
    }
    let rows = connection
        .query(
            "UPDATE endpoint SET deleted_at = $2, version = version + 1, headers = NULL, oauth = NULL
             WHERE application = $1 AND deleted_at IS NULL RETURNING id",
            &[&key(&id), &work.now.as_micros()],
        )
        .await?;
    let endpoints: Vec<EndpointId> = rows.iter().map(|row| id_at(row, 0)).collect::<Result<_, _>>()?;
    secrets::delete_all(connection, &endpoints).await?;
    work.application_changes(id).await?;
    let dropped = endpoints.clone();
    work.after_commit(move |shared: &Shared| {
        let mut agenda = shared.agenda();
        for endpoint in dropped {
            agenda.drop_lane(endpoint);
        }
    });
    Ok(Some(endpoints))
}

async fn list(
    connection: &Connection,
    environment: &EnvironmentId,
    filter: ApplicationFilter,
    page: &PageRequest<ApplicationId>,
) -> Result<Page<Application>, Failure> {
    let span = Span::of_ids(page, Window::default());
    let endpoints =
        "SELECT 1 FROM endpoint WHERE endpoint.application = application.id AND endpoint.deleted_at IS NULL";
    let with_endpoints =
        if filter.with_endpoints { format!("AND EXISTS ({endpoints})") } else { String::new() };
    let not_all_disabled = if filter.not_all_disabled {
        format!("AND (NOT EXISTS ({endpoints}) OR EXISTS ({endpoints} AND disabled_at IS NULL))")
    } else {
        String::new()
    };
    let text = format!(
        "SELECT {COLUMNS} FROM application
         WHERE environment = $1 AND deleted_at IS NULL AND id >= $2 AND id < $3 {with_endpoints} {not_all_disabled}
         ORDER BY id {} LIMIT $4",
        span.direction()
    );
    let most = values::rows(page.limit).saturating_add(1);
    let rows = connection.query(&text, &[&environment.as_str(), &span.low, &span.high, &most]).await?;
    let found = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Page::from_rows(found, page.limit, page.backward))
}
