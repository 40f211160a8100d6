//! Endpoints: configuration. Headers, signing secrets and OAuth2 settings are in [`crate::credentials`].

use crate::{
    PostgresStore, Shared,
    connection::Connection,
    credentials, endpoint_rows,
    failure::{Failure, RETRY_AFTER, Refusal},
    idempotency::{self, Kind},
    snapshots,
    values::{Span, at, count, key, rows},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    application::Ref,
    endpoint::{Disabled, DisabledReason, Endpoint},
    headers::CustomHeaders,
    id::{EndpointId, Ksuid},
    limits,
    oauth::OAuthSettings,
    signature::SigningSecret,
    time::Timestamp,
};
use postrider_store::{
    StoreError, WriteError,
    deliveries::Deferred,
    endpoints::{AppScope, EndpointFields, EndpointFilter, Endpoints, NewEndpoint, OAuthChange},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest, Window},
    snapshot::SendSettings,
};
use std::{sync::Arc, time::Duration};

/// Pending deliveries of a deleted endpoint that are cancelled in one operation.
const CANCEL_BATCH: i64 = 2000;
/// How long a caller that deletes waits for the cancellations.
const CANCEL_TIME: Duration = Duration::from_secs(10);

#[async_trait]
impl Endpoints for PostgresStore {
    async fn create_endpoint(
        &self,
        scope: &AppScope,
        endpoint: NewEndpoint,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Endpoint>, WriteError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { create(work, &scope, &endpoint, idempotency.as_ref()).await })
        });
        Ok(change.await?)
    }

    async fn endpoint(
        &self,
        scope: &AppScope,
        reference: &Ref<EndpointId>,
    ) -> Result<Option<Endpoint>, StoreError> {
        let connection = self.shared.reader_of(&scope.environment).await?;
        Ok(match reference {
            Ref::Id(id) => endpoint_rows::of_id(&connection, scope.application, *id).await?,
            Ref::Uid(uid) => endpoint_rows::of_uid(&connection, scope.application, uid).await?,
        })
    }

    async fn endpoints(
        &self,
        scope: &AppScope,
        filter: EndpointFilter,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Endpoint>, StoreError> {
        Ok(list(&*self.shared.reader_of(&scope.environment).await?, scope, &filter, &page).await?)
    }

    async fn replace_endpoint(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        fields: EndpointFields,
    ) -> Result<Endpoint, WriteError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { replace(work, &scope, id, from, fields).await })
        });
        Ok(change.await?)
    }

    async fn delete_endpoint(&self, scope: &AppScope, id: EndpointId) -> Result<bool, StoreError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { delete(work, &scope, id).await })
        });
        let deleted = change.await?;
        if deleted {
            cancel_pending(&self.shared, vec![id]).await?;
        }
        Ok(deleted)
    }

    async fn headers(&self, scope: &AppScope, id: EndpointId) -> Result<Option<CustomHeaders>, StoreError> {
        credentials::headers(&self.shared, scope, id).await
    }

    async fn replace_headers(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        headers: CustomHeaders,
    ) -> Result<(), WriteError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { credentials::replace_headers(work, &scope, id, from, &headers).await })
        });
        Ok(change.await?)
    }

    async fn signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<SigningSecret>, StoreError> {
        credentials::signing_secret(&self.shared, scope, id).await
    }

    async fn rotate_signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
        new: SigningSecret,
        overlap: Duration,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<SigningSecret>, WriteError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move {
                credentials::rotate(work, &scope, id, &new, overlap, idempotency.as_ref()).await
            })
        });
        Ok(change.await?)
    }

    async fn oauth(&self, scope: &AppScope, id: EndpointId) -> Result<Option<OAuthSettings>, StoreError> {
        Ok(credentials::oauth(&*self.shared.reader_of(&scope.environment).await?, scope.application, id)
            .await?)
    }

    async fn replace_oauth(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        change: Option<OAuthChange>,
    ) -> Result<(), WriteError> {
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { credentials::replace_oauth(work, &scope, id, from, change).await })
        });
        Ok(change.await?)
    }

    async fn send_settings(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<Arc<SendSettings>>, StoreError> {
        let snapshot = snapshots::current(&self.shared, scope).await?;
        Ok(snapshot.and_then(|snapshot| snapshot.endpoint(id).map(Arc::clone)))
    }
}

async fn create(
    work: &mut Work,
    scope: &AppScope,
    new: &NewEndpoint,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<Endpoint>, Failure> {
    let (connection, now) = (&work.connection, work.now);
    let environment = &scope.environment;
    if let Some(created) =
        idempotency::recall(connection, environment, idempotency, Kind::Endpoint, now).await?
        && let Ok(bytes) = <[u8; 20]>::try_from(created)
        && let Some(item) =
            endpoint_rows::of_id(connection, scope.application, EndpointId::new(Ksuid::from_bytes(bytes)))
                .await?
    {
        return Ok(Created { item, replayed: true });
    }
    let row = connection
        .first_row(
            "SELECT EXISTS (SELECT 1 FROM application WHERE id = $1 AND environment = $2 AND deleted_at IS NULL),
                    (SELECT COUNT(*) FROM endpoint WHERE application = $1 AND deleted_at IS NULL)",
            &[&key(&scope.application), &environment.as_str()],
        )
        .await?;
    let row = row.ok_or(Refusal::Missing)?;
    let (alive, endpoints): (bool, i64) = (at(&row, 0)?, at(&row, 1)?);
    if !alive {
        return Err(Refusal::Missing.into());
    }
    if count(endpoints) >= limits::ENDPOINTS_PER_APPLICATION as u64 {
        let most = limits::ENDPOINTS_PER_APPLICATION;
        return Err(Refusal::Limit(format!("an application can have {most} endpoints at most")).into());
    }
    let id = work.shared.ids.next(now);
    let item = with_fields(
        Endpoint {
            id,
            application: scope.application,
            uid: None,
            url: new.fields.url.clone(),
            description: String::new(),
            throttle_rate: None,
            filter: postrider_model::filter::Filter::default(),
            disabled: None,
            metadata: postrider_model::application::Metadata::default(),
            retry: postrider_model::retry::RetryOverride::default(),
            legacy_version: 0,
            version: 0,
            created_at: now,
            updated_at: now,
        },
        new.fields.clone(),
        now,
    );
    endpoint_rows::insert(connection, &item).await?;
    credentials::write_first(work, scope, id, &new.secret, &new.headers).await?;
    idempotency::remember(connection, environment, idempotency, Kind::Endpoint, key(&id), now).await?;
    work.application_changes(scope.application).await?;
    Ok(Created { item, replayed: false })
}

/// The endpoint with all fields replaced, one version on. A reason for being disabled stays while it holds.
fn with_fields(endpoint: Endpoint, fields: EndpointFields, now: Timestamp) -> Endpoint {
    let disabled = fields
        .disabled
        .then(|| endpoint.disabled.unwrap_or(Disabled { reason: DisabledReason::Requested, at: now }));
    Endpoint {
        uid: fields.uid,
        url: fields.url,
        description: fields.description,
        throttle_rate: fields.throttle_rate,
        filter: fields.filter,
        disabled,
        metadata: fields.metadata,
        retry: fields.retry,
        legacy_version: fields.legacy_version,
        version: endpoint.version + 1,
        updated_at: now,
        ..endpoint
    }
}

async fn replace(
    work: &mut Work,
    scope: &AppScope,
    id: EndpointId,
    from: u64,
    fields: EndpointFields,
) -> Result<Endpoint, Failure> {
    let before = endpoint_rows::to_change(&work.connection, scope.application, id, from).await?;
    let was_held = before.disabled.is_some();
    let after = with_fields(before, fields, work.now);
    endpoint_rows::update(&work.connection, &after).await?;
    work.application_changes(scope.application).await?;
    let held = after.disabled.is_some();
    if held != was_held {
        let now = work.now;
        work.after_commit(move |shared| shared.agenda().hold(id, held, now));
    }
    may_be_mended(work, id);
    Ok(after)
}

/// An endpoint was changed: what was put off because it failed is due again.
pub(crate) fn may_be_mended(work: &mut Work, id: EndpointId) {
    let now = work.now;
    work.after_commit(move |shared| {
        shared.agenda().defer(Deferred::Endpoint(id), now, now);
        shared.claimable.notify_one();
    });
}

async fn delete(work: &mut Work, scope: &AppScope, id: EndpointId) -> Result<bool, Failure> {
    let changed = work
        .connection
        .execute(
            "UPDATE endpoint SET deleted_at = $3, version = version + 1, updated_at = $3, headers = NULL,
                oauth = NULL
             WHERE id = $1 AND application = $2 AND deleted_at IS NULL",
            &[&key(&id), &key(&scope.application), &work.now.as_micros()],
        )
        .await?;
    if changed == 0 {
        return Ok(false);
    }
    crate::secrets::delete_all(&work.connection, &[id]).await?;
    work.application_changes(scope.application).await?;
    work.after_commit(move |shared| shared.agenda().drop_lane(id));
    Ok(true)
}

/// Cancels what is pending for deleted endpoints, some at a time so that others get their turn. Goes on when the caller
/// goes away and until it succeeds: the endpoints are deleted already, and nobody else would count their deliveries
/// off. What a stop of the process leaves is cancelled at the next start.
pub(crate) async fn cancel_pending(
    shared: &Arc<Shared>,
    endpoints: Vec<EndpointId>,
) -> Result<(), StoreError> {
    let shared = Arc::clone(shared);
    let work = tokio::spawn(async move {
        for endpoint in endpoints {
            cancel_all(&shared, endpoint).await;
        }
    });
    match tokio::time::timeout(CANCEL_TIME, work).await {
        Ok(Err(error)) => {
            Err(StoreError::Internal { detail: format!("cancelling ended abnormally: {error}") })
        }
        // It goes on without the caller, whose endpoints are deleted whatever comes of it.
        Err(_) | Ok(Ok(())) => Ok(()),
    }
}

async fn cancel_all(shared: &Arc<Shared>, endpoint: EndpointId) {
    while !shared.is_closed() {
        let some =
            shared.change(None, move |work| Box::pin(async move { cancel_some(work, endpoint).await }));
        match some.await {
            Ok(CANCEL_BATCH) => {}
            Ok(_) => return,
            Err(failure) => {
                let error = StoreError::from(failure);
                tracing::warn!(endpoint.id = %endpoint, %error, "the deliveries of a deleted endpoint cannot be cancelled yet");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn cancel_some(work: &mut Work, endpoint: EndpointId) -> Result<i64, Failure> {
    let cancelled = crate::settled::cancel_endpoint(&work.connection, endpoint, CANCEL_BATCH).await?;
    work.after_commit(move |shared| {
        if shared.owns(endpoint) {
            shared.agenda().cancelled(cancelled);
        }
    });
    Ok(i64::try_from(cancelled).unwrap_or(CANCEL_BATCH))
}

async fn list(
    connection: &Connection,
    scope: &AppScope,
    filter: &EndpointFilter,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Endpoint>, Failure> {
    let span = Span::of_ids(page, Window::default());
    // An application has a thousand endpoints at most.
    let text = format!(
        "SELECT {} FROM endpoint WHERE application = $1 AND deleted_at IS NULL AND id >= $2 AND id < $3
         ORDER BY id {} LIMIT $4",
        endpoint_rows::COLUMNS,
        span.direction()
    );
    let most = rows(limits::ENDPOINTS_PER_APPLICATION);
    let read = connection.query(&text, &[&key(&scope.application), &span.low, &span.high, &most]).await?;
    let part = filter.url_contains.as_ref().map(|part| part.to_lowercase());
    let mut found = Vec::new();
    for row in &read {
        let endpoint = endpoint_rows::read(row)?;
        let wanted = part.as_ref().is_none_or(|part| endpoint.url.as_str().to_lowercase().contains(part))
            && filter.disabled.is_none_or(|disabled| endpoint.disabled.is_some() == disabled)
            && filter.metadata.iter().all(|(name, value)| endpoint.metadata.get(name) == Some(value));
        if wanted {
            found.push(endpoint);
        }
        if found.len() > page.limit {
            break;
        }
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}
