//! Applications.

use super::{
    Call, Disk, ModelStore,
    disk::{StoredApplication, Thing},
    endpoints::delete_endpoint,
    paging,
};
use async_trait::async_trait;
use postrider_model::{
    application::{Application, Ref},
    environment::EnvironmentId,
    id::{ApplicationId, EndpointId},
};
use postrider_store::{
    StoreError, WriteError,
    applications::{ApplicationFields, ApplicationFilter, Applications},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest},
};

#[async_trait]
impl Applications for ModelStore {
    async fn create_application(
        &self,
        environment: &EnvironmentId,
        fields: ApplicationFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Application>, WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let key = idempotency.as_ref();
            if let Some(Thing::Application(id)) = disk.recall(environment, key, now)
                && let Some(item) = disk.live_application(*id)
            {
                return Ok(Created { item: item.clone(), replayed: true });
            }
            check_uid(disk, environment, &fields, None)?;
            let ApplicationFields { uid, name, throttle_rate, metadata } = fields;
            let item = Application {
                id: self.ids.next(now),
                environment: environment.clone(),
                uid,
                name,
                throttle_rate,
                metadata,
                version: 1,
                created_at: now,
                updated_at: now,
            };
            disk.environments.insert(environment.clone());
            disk.remember(environment, key, Thing::Application(item.id), now);
            let stored = StoredApplication { application: item.clone(), deleted_at: None };
            disk.applications.insert(item.id, stored);
            Ok(Created { item, replayed: false })
        })
        .await
    }

    async fn application(
        &self,
        environment: &EnvironmentId,
        reference: &Ref<ApplicationId>,
    ) -> Result<Option<Application>, StoreError> {
        self.read(|disk| {
            let is_it = |found: &&Application| match reference {
                Ref::Id(id) => found.id == *id,
                Ref::Uid(uid) => found.uid.as_ref() == Some(uid),
            };
            live_in(disk, environment).find(is_it).cloned()
        })
        .await
    }

    async fn applications(
        &self,
        environment: &EnvironmentId,
        filter: ApplicationFilter,
        page: PageRequest<ApplicationId>,
    ) -> Result<Page<Application>, StoreError> {
        self.read(|disk| {
            let wanted = |found: &&Application| {
                let endpoints = || {
                    let all = disk.endpoints.values().filter(|one| one.deleted_at.is_none());
                    all.filter(|one| one.endpoint.application == found.id)
                };
                let any = endpoints().count() > 0;
                let any_enabled = endpoints().any(|one| one.endpoint.disabled.is_none());
                (!filter.with_endpoints || any) && (!filter.not_all_disabled || !any || any_enabled)
            };
            let rows = live_in(disk, environment).filter(wanted).map(|found| (found.id, found.clone()));
            paging::page(rows.collect(), &page)
        })
        .await
    }

    async fn replace_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
        from: u64,
        fields: ApplicationFields,
    ) -> Result<Application, WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let before = live_in(disk, environment).find(|found| found.id == id).cloned();
            let before = before.ok_or(WriteError::Missing)?;
            if before.version != from {
                return Err(WriteError::Stale);
            }
            check_uid(disk, environment, &fields, Some(id))?;
            let ApplicationFields { uid, name, throttle_rate, metadata } = fields;
            let version = before.version + 1;
            let after =
                Application { uid, name, throttle_rate, metadata, version, updated_at: now, ..before };
            let stored = StoredApplication { application: after.clone(), deleted_at: None };
            disk.applications.insert(id, stored);
            Ok(after)
        })
        .await
    }

    async fn delete_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
    ) -> Result<bool, StoreError> {
        self.change(|disk, now| {
            if live_in(disk, environment).all(|found| found.id != id) {
                return false;
            }
            if let Some(stored) = disk.applications.get_mut(&id) {
                stored.deleted_at = Some(now);
            }
            let mine = disk.endpoints.values().filter(|one| one.endpoint.application == id);
            let mine: Vec<EndpointId> =
                mine.filter(|one| one.deleted_at.is_none()).map(|one| one.endpoint.id).collect();
            for endpoint in mine {
                delete_endpoint(disk, endpoint, now);
            }
            true
        })
        .await
    }
}

fn live_in<'a>(disk: &'a Disk, environment: &EnvironmentId) -> impl Iterator<Item = &'a Application> {
    let live = disk.applications.values().filter(|stored| stored.deleted_at.is_none());
    live.map(|stored| &stored.application).filter(move |found| found.environment == *environment)
}

fn check_uid(
    disk: &Disk,
    environment: &EnvironmentId,
    fields: &ApplicationFields,
    own: Option<ApplicationId>,
) -> Result<(), WriteError> {
    let taken =
        |found: &Application| fields.uid.is_some() && found.uid == fields.uid && Some(found.id) != own;
    if live_in(disk, environment).any(taken) { Err(WriteError::Taken) } else { Ok(()) }
}
