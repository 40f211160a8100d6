//! What a record changes.

use super::{Disk, memory::Memory};
use postrider_model::{
    delivery::{State, Trigger},
    endpoint::{Disabled, DisabledReason},
    id::EndpointId,
    retry::{GiveUp, NextStep},
    time::Timestamp,
};
use postrider_store::deliveries::{AttemptRecord, Recorded};

/// Stores an attempt and its delivery's new state.
pub(super) fn store(
    disk: &mut Disk,
    memory: &mut Memory,
    record: &AttemptRecord,
    now: Timestamp,
) -> Recorded {
    let delivery = record.lease.delivery;
    if !memory.holds(&record.lease) {
        return Recorded::Superseded;
    }
    let Some(stored) = disk.deliveries.get_mut(&delivery) else { return Recorded::Superseded };
    memory.take_back(&record.lease);
    disk.begun.remove(&delivery);
    stored.attempts = stored.attempts.max(record.attempt.number);
    let (before, trigger, deadline_at) = (stored.state, stored.trigger, stored.deadline_at);
    let pending = matches!(before, State::Pending { .. });
    let state = if pending { after(record.next, trigger, deadline_at, now) } else { before };
    disk.attempts.insert(record.attempt.id, record.attempt.clone());
    disk.set_state(delivery, state);
    if record.next == NextStep::Delivered && trigger == Trigger::Manual {
        let same = |other: &postrider_model::delivery::DeliveryId| {
            other.message == delivery.message && other.endpoint == delivery.endpoint
        };
        disk.end_pending(same, State::Delivered);
    }
    if record.next == NextStep::GiveUp(GiveUp::Gone) {
        disable(disk, delivery.endpoint, now);
    }
    Recorded::Stored(state)
}

fn after(next: NextStep, trigger: Trigger, deadline_at: Timestamp, now: Timestamp) -> State {
    match next {
        NextStep::Delivered => State::Delivered,
        NextStep::GiveUp(reason) => State::Failed(reason),
        NextStep::RetryAfter(_) if trigger == Trigger::Manual => State::Failed(GiveUp::Exhausted),
        NextStep::RetryAfter(wait) if now.plus(wait) > deadline_at => State::Failed(GiveUp::Expired),
        NextStep::RetryAfter(wait) => State::Pending { next_attempt_at: now.plus(wait) },
    }
}

/// The endpoint answered that it is gone for good.
fn disable(disk: &mut Disk, id: EndpointId, now: Timestamp) {
    let Some(stored) = disk.endpoints.get_mut(&id) else { return };
    if stored.deleted_at.is_none() && stored.endpoint.disabled.is_none() {
        stored.endpoint.disabled = Some(Disabled { reason: DisabledReason::Gone, at: now });
        stored.endpoint.version += 1;
        stored.endpoint.updated_at = now;
    }
}
