//! Event types.

use super::{Call, Disk, ModelStore, disk::Thing, paging};
use async_trait::async_trait;
use postrider_model::{
    environment::EnvironmentId,
    event_type::{EventType, EventTypeName},
    time::Timestamp,
};
use postrider_store::{
    StoreError, WriteError,
    event_types::{EventTypeFields, EventTypeFilter, EventTypes},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest},
};

#[async_trait]
impl EventTypes for ModelStore {
    async fn create_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<EventType>, WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let key = idempotency.as_ref();
            let thing = Thing::EventType(name.clone());
            match disk.event_types.get(&(environment.clone(), name.clone())) {
                Some(item) if disk.recall(environment, key, now) == Some(&thing) => {
                    return Ok(Created { item: item.clone(), replayed: true });
                }
                Some(item) if !item.archived => return Err(WriteError::Taken),
                _ => {}
            }
            let item = put(disk, environment, name, fields, now);
            disk.remember(environment, key, thing, now);
            Ok(Created { item, replayed: false })
        })
        .await
    }

    async fn event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
    ) -> Result<Option<EventType>, StoreError> {
        self.read(|disk| disk.event_types.get(&(environment.clone(), name.clone())).cloned()).await
    }

    async fn event_types(
        &self,
        environment: &EnvironmentId,
        filter: EventTypeFilter,
        page: PageRequest<EventTypeName>,
    ) -> Result<Page<EventType>, StoreError> {
        let wanted = |found: &EventType| {
            let visible = filter.visible_with.as_ref().is_none_or(|flags| {
                found.feature_flags.is_empty() || !found.feature_flags.is_disjoint(flags)
            });
            visible && (filter.include_archived || !found.archived)
        };
        self.read(|disk| {
            let mine = disk.event_types.iter().filter(|((owner, _), _)| owner == environment);
            let rows = mine.filter(|(_, found)| wanted(found));
            paging::page(rows.map(|((_, name), found)| (name.clone(), found.clone())).collect(), &page)
        })
        .await
    }

    async fn put_event_type(
        &self,
        environment: &EnvironmentId,
        name: EventTypeName,
        fields: EventTypeFields,
    ) -> Result<(EventType, bool), WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let created = !disk.event_types.contains_key(&(environment.clone(), name.clone()));
            Ok((put(disk, environment, name, fields, now), created))
        })
        .await
    }

    async fn delete_event_type(
        &self,
        environment: &EnvironmentId,
        name: &EventTypeName,
        expunge: bool,
    ) -> Result<bool, StoreError> {
        self.change(|disk, now| {
            let key = (environment.clone(), name.clone());
            if expunge {
                return disk.event_types.remove(&key).is_some();
            }
            let found = disk.event_types.get_mut(&key);
            found.is_some_and(|found| {
                (found.archived, found.updated_at) = (true, now);
                true
            })
        })
        .await
    }
}

fn put(
    disk: &mut Disk,
    environment: &EnvironmentId,
    name: EventTypeName,
    fields: EventTypeFields,
    now: Timestamp,
) -> EventType {
    let key = (environment.clone(), name.clone());
    let created_at = disk.event_types.get(&key).map_or(now, |before| before.created_at);
    let EventTypeFields { description, archived, deprecated, schemas, feature_flags, group_name } = fields;
    let item = EventType {
        name,
        description,
        archived,
        deprecated,
        schemas,
        feature_flags,
        group_name,
        created_at,
        updated_at: now,
    };
    disk.environments.insert(environment.clone());
    disk.event_types.insert(key, item.clone());
    item
}
