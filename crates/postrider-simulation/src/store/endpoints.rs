//! Endpoints and their credentials.

use super::{
    Call, Disk, ModelStore,
    disk::{StoredEndpoint, Thing},
    paging,
};
use async_trait::async_trait;
use postrider_model::{
    application::Ref,
    delivery::State,
    endpoint::{Disabled, DisabledReason, Endpoint},
    headers::CustomHeaders,
    id::EndpointId,
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
    page::{Page, PageRequest},
    snapshot::SendSettings,
};
use std::{sync::Arc, time::Duration};

#[async_trait]
impl Endpoints for ModelStore {
    async fn create_endpoint(
        &self,
        scope: &AppScope,
        endpoint: NewEndpoint,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Endpoint>, WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let key = idempotency.as_ref();
            if let Some(Thing::Endpoint(id)) = disk.recall(&scope.environment, key, now)
                && let Some(found) = disk.endpoint_in(scope, *id)
            {
                return Ok(Created { item: found.endpoint.clone(), replayed: true });
            }
            disk.application_in(scope).ok_or(WriteError::Missing)?;
            if live_in(disk, scope).count() >= limits::ENDPOINTS_PER_APPLICATION {
                return Err(WriteError::Limit("the application has too many endpoints".to_owned()));
            }
            check_uid(disk, scope, &endpoint.fields, None)?;
            let id: EndpointId = self.ids.next(now);
            let item = with_fields(blank(id, scope, &endpoint.fields, now), endpoint.fields, now);
            let stored = StoredEndpoint {
                endpoint: item.clone(),
                deleted_at: None,
                headers: endpoint.headers,
                signing: vec![(endpoint.secret, None)],
                oauth: None,
                client_secret: None,
                oauth_version: 0,
            };
            disk.endpoints.insert(id, stored);
            disk.remember(&scope.environment, key, Thing::Endpoint(id), now);
            Ok(Created { item, replayed: false })
        })
        .await
    }

    async fn endpoint(
        &self,
        scope: &AppScope,
        reference: &Ref<EndpointId>,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.read(|disk| {
            let is_it = |found: &&Endpoint| match reference {
                Ref::Id(id) => found.id == *id,
                Ref::Uid(uid) => found.uid.as_ref() == Some(uid),
            };
            live_in(disk, scope).find(is_it).cloned()
        })
        .await
    }

    async fn endpoints(
        &self,
        scope: &AppScope,
        filter: EndpointFilter,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Endpoint>, StoreError> {
        let part = filter.url_contains.as_ref().map(|part| part.to_lowercase());
        let wanted = |found: &&Endpoint| {
            part.as_ref().is_none_or(|part| found.url.as_str().to_lowercase().contains(part))
                && filter.disabled.is_none_or(|disabled| found.disabled.is_some() == disabled)
                && filter.metadata.iter().all(|(name, value)| found.metadata.get(name) == Some(value))
        };
        self.read(|disk| {
            let rows = live_in(disk, scope).filter(wanted).map(|found| (found.id, found.clone()));
            paging::page(rows.collect(), &page)
        })
        .await
    }

    async fn replace_endpoint(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        fields: EndpointFields,
    ) -> Result<Endpoint, WriteError> {
        self.write(Call::Write, |disk, memory, now| {
            disk.endpoint_to_change(scope, id, from)?;
            check_uid(disk, scope, &fields, Some(id))?;
            let stored = disk.endpoint_to_change(scope, id, from)?;
            stored.endpoint = with_fields(stored.endpoint.clone(), fields, now);
            memory.deferred.remove(&Deferred::Endpoint(id));
            Ok(stored.endpoint.clone())
        })
        .await
    }

    async fn delete_endpoint(&self, scope: &AppScope, id: EndpointId) -> Result<bool, StoreError> {
        self.change(|disk, now| {
            let there = disk.endpoint_in(scope, id).is_some();
            if there {
                delete_endpoint(disk, id, now);
            }
            there
        })
        .await
    }

    async fn headers(&self, scope: &AppScope, id: EndpointId) -> Result<Option<CustomHeaders>, StoreError> {
        self.read(|disk| disk.endpoint_in(scope, id).map(|stored| stored.headers.clone())).await
    }

    async fn replace_headers(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        headers: CustomHeaders,
    ) -> Result<(), WriteError> {
        self.write(Call::Write, |disk, memory, now| {
            let stored = disk.endpoint_to_change(scope, id, from)?;
            memory.deferred.remove(&Deferred::Endpoint(id));
            stored.headers = headers;
            touch(stored, now);
            Ok(())
        })
        .await
    }

    async fn signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<SigningSecret>, StoreError> {
        self.read(|disk| disk.endpoint_in(scope, id).and_then(current_secret)).await
    }

    async fn rotate_signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
        new: SigningSecret,
        overlap: Duration,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<SigningSecret>, WriteError> {
        self.write(Call::Write, |disk, memory, now| {
            let (key, environment) = (idempotency.as_ref(), &scope.environment);
            let found = disk.endpoint_in(scope, id).ok_or(WriteError::Missing)?;
            if disk.recall(environment, key, now) == Some(&Thing::Rotation(id))
                && let Some(item) = current_secret(found)
            {
                return Ok(Created { item, replayed: true });
            }
            let previous = found.signing.iter().filter(|(_, until)| until.is_some_and(|until| until > now));
            if !overlap.is_zero() && previous.count() >= limits::PREVIOUS_SECRETS {
                return Err(WriteError::Limit(
                    "too many previous signing secrets are still valid".to_owned(),
                ));
            }
            disk.remember(environment, key, Thing::Rotation(id), now);
            let stored = disk.endpoints.get_mut(&id).ok_or(WriteError::Missing)?;
            if overlap.is_zero() {
                stored.signing.retain(|(_, until)| until.is_some());
            }
            let until = now.plus(overlap.min(limits::SECRET_OVERLAP));
            for (_, end) in &mut stored.signing {
                *end = end.or(Some(until));
            }
            stored.signing.push((new.clone(), None));
            touch(stored, now);
            memory.deferred.remove(&Deferred::Endpoint(id));
            Ok(Created { item: new, replayed: false })
        })
        .await
    }

    async fn oauth(&self, scope: &AppScope, id: EndpointId) -> Result<Option<OAuthSettings>, StoreError> {
        self.read(|disk| disk.endpoint_in(scope, id).and_then(|stored| stored.oauth.clone())).await
    }

    async fn replace_oauth(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        change: Option<OAuthChange>,
    ) -> Result<(), WriteError> {
        self.write(Call::Write, |disk, memory, now| {
            let stored = disk.endpoint_to_change(scope, id, from)?;
            if let Some(OAuthChange { settings, client_secret }) = change {
                let secret = client_secret.or_else(|| stored.client_secret.clone());
                stored.client_secret = Some(secret.ok_or(WriteError::Missing)?);
                stored.oauth = Some(settings);
            } else {
                (stored.oauth, stored.client_secret) = (None, None);
            }
            stored.oauth_version += 1;
            memory.deferred.remove(&Deferred::Endpoint(id));
            touch(stored, now);
            Ok(())
        })
        .await
    }

    async fn send_settings(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<Arc<SendSettings>>, StoreError> {
        let now = self.clock.now();
        self.read(|disk| {
            let application = disk.application_in(scope)?;
            disk.endpoint_in(scope, id).map(|stored| Arc::new(stored.settings(application, now)))
        })
        .await
    }
}

fn live_in<'a>(disk: &'a Disk, scope: &AppScope) -> impl Iterator<Item = &'a Endpoint> {
    let live = disk.endpoints.values().filter(|stored| stored.deleted_at.is_none());
    live.map(|stored| &stored.endpoint).filter(|found| found.application == scope.application)
}

fn check_uid(
    disk: &Disk,
    scope: &AppScope,
    fields: &EndpointFields,
    own: Option<EndpointId>,
) -> Result<(), WriteError> {
    let taken = |found: &Endpoint| fields.uid.is_some() && found.uid == fields.uid && Some(found.id) != own;
    if live_in(disk, scope).any(taken) { Err(WriteError::Taken) } else { Ok(()) }
}

fn blank(id: EndpointId, scope: &AppScope, fields: &EndpointFields, now: Timestamp) -> Endpoint {
    Endpoint {
        id,
        application: scope.application,
        uid: None,
        url: fields.url.clone(),
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
    }
}

/// The endpoint with all fields replaced, one version on. A reason for being disabled stays while it holds.
fn with_fields(endpoint: Endpoint, fields: EndpointFields, now: Timestamp) -> Endpoint {
    let requested = Disabled { reason: DisabledReason::Requested, at: now };
    Endpoint {
        uid: fields.uid,
        url: fields.url,
        description: fields.description,
        throttle_rate: fields.throttle_rate,
        filter: fields.filter,
        disabled: fields.disabled.then(|| endpoint.disabled.unwrap_or(requested)),
        metadata: fields.metadata,
        retry: fields.retry,
        legacy_version: fields.legacy_version,
        version: endpoint.version + 1,
        updated_at: now,
        ..endpoint
    }
}

fn touch(stored: &mut StoredEndpoint, now: Timestamp) {
    stored.endpoint.version += 1;
    stored.endpoint.updated_at = now;
}

fn current_secret(stored: &StoredEndpoint) -> Option<SigningSecret> {
    stored.signing.iter().find(|(_, until)| until.is_none()).map(|(secret, _)| secret.clone())
}

/// Deletes an endpoint with its credentials; what is pending is cancelled.
pub(super) fn delete_endpoint(disk: &mut Disk, id: EndpointId, now: Timestamp) {
    if let Some(stored) = disk.endpoints.get_mut(&id) {
        stored.deleted_at = Some(now);
        stored.headers = CustomHeaders::default();
        stored.signing.clear();
        (stored.oauth, stored.client_secret) = (None, None);
        touch(stored, now);
    }
    disk.end_pending(|delivery| delivery.endpoint == id, State::Cancelled);
}
