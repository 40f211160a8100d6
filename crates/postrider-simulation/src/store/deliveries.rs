//! Deliveries: the contract's calls. What is claimed is decided in [`super::claim`], what a record changes in
//! [`super::record`].

use super::{
    Call, Disk, ModelStore,
    claim::{self, Taking},
    disk::{Begun, Thing},
    lock,
    messages::with_payload,
    paging, record,
    weather::Deed,
};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    id::{EndpointId, MessageId},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    deliveries::{
        AttemptRecord, Claimed, Deferred, Deliveries, Destination, EndpointMessage, Lease, ProgressKind,
        Recorded, ResendError, Room,
    },
    endpoints::AppScope,
    hold,
    idempotency::{Created, IdempotencyKey},
    messages::MessageFilter,
    page::{Page, PageRequest},
};
use std::collections::BTreeSet;
use tokio::sync::Notify;

#[async_trait]
impl Deliveries for ModelStore {
    async fn claim(&self, room: &Room) -> Result<Claimed, StoreError> {
        self.weather.before(Call::Claim).await?;
        let taking = {
            let mut disk = lock(&self.disk);
            self.check_open(&disk)?;
            let (mut memory, now) = (self.memory(), self.clock.now());
            let claimed = claim::claim(&mut disk, &mut memory, room, now);
            let out: Vec<Lease> = memory.leases.values().copied().collect();
            self.weather.saw(Deed::Claimed { room, claimed: &claimed, out: &out });
            Taking { store: self, claimed: Some(claimed) }
        };
        self.weather.after(Call::Claim).await?;
        Ok(taking.done())
    }

    fn defer(&self, whose: Deferred, until: Timestamp) {
        self.memory().deferred.insert(whose, until);
        self.claimable.notify_one();
    }

    fn claimable(&self) -> &Notify {
        &self.claimable
    }

    fn started(&self, lease: &Lease, number: u32, url: &str) -> bool {
        let mut disk = lock(&self.disk);
        let may = self.weather.lives()
            && self.check_open(&disk).is_ok()
            && self.memory().holds(lease)
            && may_be_sent(&disk, lease.delivery);
        if may {
            let begun = Begun { number, started_at: self.clock.now(), url: url.to_owned() };
            disk.begun.insert(lease.delivery, begun);
            self.weather.saw(Deed::Started { lease, number });
        }
        may
    }

    async fn record(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>> {
        let count = records.len();
        let recorded: Result<Vec<Recorded>, StoreError> = self
            .write(Call::Record, |disk, memory, now| {
                let results = records.iter().map(|item| {
                    let result = record::store(disk, memory, item, now);
                    self.weather.saw(Deed::Recorded { record: item, result });
                    result
                });
                Ok(results.collect())
            })
            .await;
        match recorded {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    async fn release(&self, leases: Vec<Lease>) -> Result<(), StoreError> {
        self.write(Call::Release, |disk, memory, _| {
            for lease in &leases {
                if memory.holds(lease) {
                    memory.take_back(lease);
                    self.weather.saw(Deed::Released { lease });
                    disk.begun.remove(&lease.delivery);
                }
            }
            Ok(())
        })
        .await
    }

    async fn resend(
        &self,
        scope: &AppScope,
        message: MessageId,
        endpoint: EndpointId,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<DeliveryId>, ResendError> {
        self.write(Call::Write, |disk, memory, now| {
            let (environment, key) = (&scope.environment, idempotency.as_ref());
            if let Some(Thing::Resend(generation)) = disk.recall(environment, key, now) {
                let item = DeliveryId { message, endpoint, generation: *generation };
                return Ok(Created { item, replayed: true });
            }
            disk.endpoint_in(scope, endpoint).ok_or(ResendError::Missing)?;
            let found = disk.message_in(scope, message).ok_or(ResendError::Missing)?;
            found.payload.as_ref().ok_or(ResendError::PayloadGone)?;
            let last = disk.generations(message, endpoint).map(|(generation, _)| generation).max();
            let item = DeliveryId { message, endpoint, generation: last.unwrap_or(0) + 1 };
            let delivery = self.new_delivery(disk, endpoint, Trigger::Manual, now);
            disk.add_delivery(item, delivery);
            memory.deferred.remove(&Deferred::Endpoint(endpoint));
            disk.remember(environment, key, Thing::Resend(item.generation), now);
            Ok(Created { item, replayed: false })
        })
        .await
    }

    async fn destinations(
        &self,
        scope: &AppScope,
        message: MessageId,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Destination>, StoreError> {
        self.read(|disk| {
            if disk.message_in(scope, message).is_none() {
                return Page { items: Vec::new(), done: true };
            }
            let all = disk.deliveries.keys().filter(|delivery| delivery.message == message);
            let endpoints: BTreeSet<EndpointId> = all.map(|delivery| delivery.endpoint).collect();
            let rows = endpoints.into_iter().filter_map(|id| {
                let endpoint = disk.endpoints.get(&id)?.endpoint.clone();
                Some((id, Destination { endpoint, progress: disk.progress(message, id)? }))
            });
            paging::page(rows.collect(), &page)
        })
        .await
    }

    async fn endpoint_messages(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        filter: MessageFilter,
        kind: Option<ProgressKind>,
        payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<EndpointMessage>, StoreError> {
        self.read(|disk| {
            if disk.endpoint_in(scope, endpoint).is_none() {
                return Page { items: Vec::new(), done: true };
            }
            let all = disk.deliveries.keys().filter(|delivery| delivery.endpoint == endpoint);
            let messages: BTreeSet<MessageId> = all.map(|delivery| delivery.message).collect();
            let rows = messages.into_iter().filter_map(|id| {
                let stored = disk.messages.get(&id)?;
                let progress = disk.progress(id, endpoint)?;
                let wanted = paging::passes(&filter, &stored.message)
                    && paging::within(id, filter.window)
                    && kind.is_none_or(|kind| kind == kind_of(progress.state, progress.attempts));
                wanted.then(|| (id, EndpointMessage { message: with_payload(stored, payload), progress }))
            });
            paging::page(rows.collect(), &page)
        })
        .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|disk| {
            let memory = self.memory();
            claim::waiting(disk, &memory).map(|waiting| waiting.due_at.max(waiting.deferred_until)).min()
        })
        .await
    }
}

/// The delivery is pending and not on hold, its endpoint enabled, its payload there.
fn may_be_sent(disk: &Disk, delivery: DeliveryId) -> bool {
    let on_hold = |state| matches!(state, State::Pending { next_attempt_at } if hold::is_on(next_attempt_at));
    disk.pending.contains(&delivery)
        && disk.deliveries.get(&delivery).is_some_and(|stored| !on_hold(stored.state))
        && disk.live_endpoint(delivery.endpoint).is_some_and(|endpoint| endpoint.disabled.is_none())
        && disk.messages.get(&delivery.message).is_some_and(|stored| stored.payload.is_some())
}

fn kind_of(state: State, attempts: u32) -> ProgressKind {
    match state {
        State::Pending { .. } if attempts == 0 => ProgressKind::Waiting,
        State::Pending { .. } => ProgressKind::Retrying,
        State::Delivered => ProgressKind::Delivered,
        State::Failed(_) => ProgressKind::Failed,
        State::Cancelled => ProgressKind::Cancelled,
    }
}
