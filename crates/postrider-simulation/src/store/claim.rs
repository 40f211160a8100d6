//! What is claimed: of all that is due, one delivery at a time, always of the application that was served longest ago,
//! and there of the endpoint that was served longest ago, which takes its first attempts and its retries in turn.

use super::{
    Disk, ModelStore,
    memory::{Memory, places},
    start,
};
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{ApplicationId, EndpointId},
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    deliveries::{Claimed, ClaimedDelivery, Lease, Room},
    endpoints::AppScope,
    hold,
};

/// A pending delivery of an enabled endpoint that no lease covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) delivery: DeliveryId,
    pub(super) application: ApplicationId,
    pub(super) due_at: Timestamp,
    pub(super) deferred_until: Timestamp,
    deadline_at: Timestamp,
    retry: bool,
}

/// All of them.
pub(super) fn waiting<'a>(disk: &'a Disk, memory: &'a Memory) -> impl Iterator<Item = Waiting> + use<'a> {
    disk.pending.iter().filter_map(|id| {
        let stored = disk.deliveries.get(id)?;
        let State::Pending { next_attempt_at } = stored.state else { return None };
        let endpoint = disk.live_endpoint(id.endpoint)?;
        let waits =
            endpoint.disabled.is_none() && !hold::is_on(next_attempt_at) && !memory.leases.contains_key(id);
        waits.then(|| Waiting {
            delivery: *id,
            application: endpoint.application,
            due_at: next_attempt_at,
            deferred_until: memory.deferred_until(id.endpoint, endpoint.application),
            deadline_at: stored.deadline_at,
            retry: stored.attempts > 0,
        })
    })
}

/// Leases what there is room for.
pub(super) fn claim(disk: &mut Disk, memory: &mut Memory, room: &Room, now: Timestamp) -> Claimed {
    start::keep_waits(disk, memory, now);
    memory.room = Some(room.clone());
    let mut all: Vec<Waiting> = waiting(disk, memory).collect();
    all.retain(|one| !expires(disk, one, now));
    let mut due = all.clone();
    due.retain(|one| one.due_at <= now && one.deferred_until <= now);
    due.sort_by_key(|one| (one.due_at, one.delivery));
    let (mut claimed, mut bytes) = (Claimed::default(), room.bytes);
    while claimed.deliveries.len() < room.total
        && let Some(next) = next(&due, memory, room)
    {
        let size = payload_bytes(disk, next.delivery);
        if !claimed.deliveries.is_empty() && size > bytes {
            break;
        }
        bytes = bytes.saturating_sub(size);
        due.retain(|one| one.delivery != next.delivery);
        all.retain(|one| one.delivery != next.delivery);
        claimed.deliveries.extend(lease(disk, memory, &next));
    }
    claimed.next_due = all
        .iter()
        .filter(|one| has_place(memory, room, one.delivery.endpoint))
        .map(|one| one.due_at.max(one.deferred_until))
        .min();
    claimed
}

fn payload_bytes(disk: &Disk, delivery: DeliveryId) -> usize {
    let payload = disk.messages.get(&delivery.message).and_then(|stored| stored.payload.as_ref());
    payload.map_or(0, bytes::Bytes::len)
}

fn has_place(memory: &Memory, room: &Room, endpoint: EndpointId) -> bool {
    memory.leased_of(endpoint) < places(room, endpoint)
}

/// Whose turn it is.
fn next(due: &[Waiting], memory: &Memory, room: &Room) -> Option<Waiting> {
    let can_start = due.iter().filter(|one| has_place(memory, room, one.delivery.endpoint));
    let first = can_start.min_by_key(|one| {
        let endpoint = one.delivery.endpoint;
        let application = memory.served_applications.get(&one.application).copied().unwrap_or(0);
        let served = memory.served_endpoints.get(&endpoint).copied().unwrap_or(0);
        let again = memory.last_was_retry.get(&endpoint).copied().unwrap_or(true) == one.retry;
        (application, served, endpoint, again, one.due_at, one.delivery)
    });
    first.copied()
}

fn lease(disk: &mut Disk, memory: &mut Memory, next: &Waiting) -> Option<ClaimedDelivery> {
    let endpoint = next.delivery.endpoint;
    memory.turn += 1;
    memory.served_applications.insert(next.application, memory.turn);
    memory.served_endpoints.insert(endpoint, memory.turn);
    memory.last_was_retry.insert(endpoint, next.retry);
    disk.epoch += 1;
    let lease = Lease { delivery: next.delivery, epoch: disk.epoch };
    let (stored, message) =
        (disk.deliveries.get(&next.delivery)?, disk.messages.get(&next.delivery.message)?);
    let claimed = ClaimedDelivery {
        lease,
        scope: AppScope { environment: message.environment.clone(), application: next.application },
        number: stored.attempts + 1,
        trigger: stored.trigger,
        payload: message.payload.clone()?,
        content_type: message.message.content_type.clone(),
        accepted_at: message.message.created_at,
        due_at: next.due_at,
        deaths: stored.deaths,
    };
    memory.give(lease);
    Some(claimed)
}

/// What is due but past its deadline is not attempted any more.
fn expires(disk: &mut Disk, one: &Waiting, now: Timestamp) -> bool {
    let past = one.due_at <= now && one.deadline_at < now;
    if past {
        disk.set_state(one.delivery, State::Failed(GiveUp::Expired));
    }
    past
}

/// What a claim has taken: given back when its caller goes away, or gets an error, before it is answered.
pub(super) struct Taking<'a> {
    pub(super) store: &'a ModelStore,
    pub(super) claimed: Option<Claimed>,
}

impl Taking<'_> {
    pub(super) fn done(mut self) -> Claimed {
        self.claimed.take().unwrap_or_default()
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let Some(claimed) = self.claimed.take() else { return };
        let mut memory = self.store.memory();
        for item in claimed.deliveries {
            if memory.holds(&item.lease) {
                memory.take_back(&item.lease);
            }
        }
    }
}
