//! Messages: accepting and reading them.

use super::{
    Call, Disk, ModelStore,
    disk::{StoredDelivery, StoredMessage, Thing},
    paging,
};
use async_trait::async_trait;
use postrider_model::{
    application::Ref,
    delivery::{State, Trigger},
    event_type::EventTypeName,
    id::{EndpointId, MessageId},
    message::{Channel, Message, MessageWithPayload},
    time::Timestamp,
};
use postrider_store::{
    StoreError, WriteError,
    deliveries::Deferred,
    endpoints::AppScope,
    messages::{Accepted, Audience, MessageFilter, Messages, NewMessage},
    page::{Page, PageRequest},
    snapshot::first_delivery,
};
use std::{collections::BTreeSet, time::Duration};

/// How long a payload is kept when its publisher does not say.
const PAYLOAD_LIFETIME: Duration = Duration::from_hours(30 * 24);

#[async_trait]
impl Messages for ModelStore {
    async fn accept(&self, messages: Vec<NewMessage>) -> Vec<Result<Accepted, WriteError>> {
        let count = messages.len();
        let accepted = self
            .write(Call::Accept, |disk, memory, now| {
                for new in &messages {
                    if let Audience::Only(endpoint) = new.audience {
                        memory.deferred.remove(&Deferred::Endpoint(endpoint));
                    }
                }
                Ok(messages.into_iter().map(|new| self.accept_one(disk, new, now)).collect::<Vec<_>>())
            })
            .await;
        match accepted {
            Ok(results) => results,
            Err(error) => {
                let error: StoreError = error;
                (0..count).map(|_| Err(WriteError::Store(error.clone()))).collect()
            }
        }
    }

    async fn message(
        &self,
        scope: &AppScope,
        reference: &Ref<MessageId>,
    ) -> Result<Option<MessageWithPayload>, StoreError> {
        self.read(|disk| {
            let is_it = |found: &&StoredMessage| match reference {
                Ref::Id(id) => found.message.id == *id,
                Ref::Uid(uid) => found.message.event_id.as_ref() == Some(uid),
            };
            let mut mine =
                disk.messages.values().filter(|found| found.message.application == scope.application);
            mine.find(is_it).map(|found| with_payload(found, true))
        })
        .await
    }

    async fn messages(
        &self,
        scope: &AppScope,
        filter: MessageFilter,
        payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<MessageWithPayload>, StoreError> {
        let wanted = |found: &&StoredMessage| {
            found.message.application == scope.application
                && paging::passes(&filter, &found.message)
                && paging::within(found.message.id, filter.window)
        };
        self.read(|disk| {
            let rows = disk.messages.values().filter(wanted);
            paging::page(rows.map(|found| (found.message.id, with_payload(found, payload))).collect(), &page)
        })
        .await
    }

    async fn expunge_payload(&self, scope: &AppScope, id: MessageId) -> Result<bool, StoreError> {
        self.change(|disk, _| {
            if disk.message_in(scope, id).is_none() {
                return false;
            }
            if let Some(stored) = disk.messages.get_mut(&id) {
                stored.payload = None;
            }
            disk.end_pending(|delivery| delivery.message == id, State::Cancelled);
            true
        })
        .await
    }

    async fn any_match(
        &self,
        scope: &AppScope,
        event_type: &EventTypeName,
        channels: &BTreeSet<Channel>,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.read(|disk| {
            let snapshot = disk.snapshot(scope, now);
            snapshot.is_some_and(|snapshot| snapshot.matching(event_type, channels).next().is_some())
        })
        .await
    }
}

pub(super) fn with_payload(stored: &StoredMessage, payload: bool) -> MessageWithPayload {
    let payload = stored.payload.clone().filter(|_| payload);
    MessageWithPayload { message: stored.message.clone(), payload }
}

impl ModelStore {
    fn accept_one(&self, disk: &mut Disk, new: NewMessage, now: Timestamp) -> Result<Accepted, WriteError> {
        let (environment, key) = (&new.scope.environment, new.idempotency.as_ref());
        if let Some(Thing::Message(id)) = disk.recall(environment, key, now)
            && let Some(found) = disk.message_in(&new.scope, *id)
        {
            return Ok(Accepted { message: found.message.clone(), replayed: true });
        }
        let targets = targets(disk, &new, now)?;
        let same_event = |one: &StoredMessage| new.event_id.is_some() && one.message.event_id == new.event_id;
        let mut mine = disk.messages.values().filter(|one| one.message.application == new.scope.application);
        if mine.any(same_event) {
            return Err(WriteError::Taken);
        }
        let message = Message {
            id: self.ids.next(now),
            application: new.scope.application,
            event_id: new.event_id,
            event_type: new.event_type,
            channels: new.channels,
            tags: new.tags,
            content_type: new.content_type,
            deliver_at: new.deliver_at,
            payload_expires_at: now.plus(new.payload_lifetime.unwrap_or(PAYLOAD_LIFETIME)),
            created_at: now,
        };
        let due_at = new.deliver_at.map_or(now, |at| at.max(now));
        for (endpoint, trigger) in targets {
            let delivery = self.new_delivery(disk, endpoint, trigger, due_at);
            disk.add_delivery(first_delivery(message.id, endpoint), delivery);
        }
        disk.remember(environment, key, Thing::Message(message.id), now);
        let environment = environment.clone();
        let stored = StoredMessage { message: message.clone(), environment, payload: Some(new.payload) };
        disk.messages.insert(message.id, stored);
        Ok(Accepted { message, replayed: false })
    }

    pub(super) fn new_delivery(
        &self,
        disk: &Disk,
        endpoint: EndpointId,
        trigger: Trigger,
        due_at: Timestamp,
    ) -> StoredDelivery {
        let own = disk.endpoints.get(&endpoint);
        let age = own.map_or(self.age, |stored| stored.endpoint.retry.deadline(self.age));
        StoredDelivery {
            state: State::Pending { next_attempt_at: due_at },
            attempts: 0,
            deadline_at: due_at.plus(age),
            trigger,
            deaths: 0,
        }
    }
}

/// Which endpoints get the message, and why.
fn targets(disk: &Disk, new: &NewMessage, now: Timestamp) -> Result<Vec<(EndpointId, Trigger)>, WriteError> {
    let snapshot = disk.snapshot(&new.scope, now).ok_or(WriteError::Missing)?;
    match new.audience {
        Audience::Matching => {
            let matching = snapshot.matching(&new.event_type, &new.channels);
            Ok(matching.map(|settings| (settings.endpoint.id, Trigger::Scheduled)).collect())
        }
        Audience::Only(id) => {
            snapshot.endpoint(id).ok_or(WriteError::Missing)?;
            Ok(vec![(id, Trigger::Manual)])
        }
    }
}
