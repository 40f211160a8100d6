//! What a start finds: attempts during which the process died; and a clock that was set back.

use super::{Disk, disk::Begun, memory::Memory};
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{DeliveryId, State},
    limits::POISON_DEATHS,
    outcome::Outcome,
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{Ids, hold};
use std::time::Duration;

/// Smaller steps of the clock are not looked at.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Books attempts that had begun as interrupted ones; their deliveries are due at once, with one more death.
pub(super) fn recover(disk: &mut Disk, ids: &Ids, now: Timestamp) {
    let mut left: Vec<(DeliveryId, Begun)> = std::mem::take(&mut disk.begun).into_iter().collect();
    left.sort_by_key(|(_, begun)| begun.started_at);
    for (delivery, begun) in left {
        book(disk, ids, delivery, begun, now);
    }
    let youngest = disk.messages.last_key_value().map(|(_, stored)| stored.message.created_at);
    if youngest.is_some_and(|at| at.since(now) >= TOLERANCE) {
        pull_in(disk, now);
    }
}

fn book(disk: &mut Disk, ids: &Ids, delivery: DeliveryId, begun: Begun, now: Timestamp) {
    let Some(stored) = disk.deliveries.get_mut(&delivery) else { return };
    stored.attempts = stored.attempts.max(begun.number);
    stored.deaths += 1;
    let (trigger, deaths, before) = (stored.trigger, stored.deaths, stored.state);
    let attempt = Attempt {
        id: ids.next(begun.started_at),
        delivery,
        number: begun.number,
        trigger,
        url: begun.url,
        started_at: begun.started_at,
        duration: Duration::ZERO,
        outcome: Outcome::Interrupted,
        detail: "the server stopped during this attempt".to_owned(),
        status: None,
        response: Response::default(),
        phases: Phases::default(),
    };
    disk.attempts.insert(attempt.id, attempt);
    if let State::Pending { next_attempt_at } = before {
        let quarantined = deaths >= POISON_DEATHS;
        let again = State::Pending { next_attempt_at: next_attempt_at.min(now) };
        disk.set_state(delivery, if quarantined { State::Failed(GiveUp::Quarantined) } else { again });
    }
}

/// When the clock was set back since anything was done, nothing waits for the later time to come again.
pub(super) fn keep_waits(disk: &mut Disk, memory: &mut Memory, now: Timestamp) {
    if memory.latest.since(now) >= TOLERANCE {
        memory.latest = now;
        // Nobody knows how long a deferral was meant to last.
        memory.deferred.clear();
        pull_in(disk, now);
    }
    memory.latest = memory.latest.max(now);
}

/// What was due when it was made is due now, and a retry that was scheduled by the later time has its wait over again
/// from now. What an earlier schedule or a publisher's own date says stays.
fn pull_in(disk: &mut Disk, now: Timestamp) {
    let pending: Vec<DeliveryId> = disk.pending.iter().copied().collect();
    for delivery in pending {
        let Some(stored) = disk.deliveries.get(&delivery) else { continue };
        let State::Pending { next_attempt_at } = stored.state else { continue };
        if hold::is_on(next_attempt_at) {
            continue;
        }
        let due = if stored.attempts > 0 {
            let mine = disk.attempts.values().filter(|attempt| attempt.delivery == delivery);
            let last = mine.map(|attempt| attempt.started_at).max().filter(|at| *at > now);
            last.map(|started| now.plus(next_attempt_at.since(started)))
        } else {
            let dated = disk.messages.get(&delivery.message).and_then(|stored| stored.message.deliver_at);
            let dated = dated.filter(|_| delivery.generation == 0);
            Some(dated.map_or(now, |at| at.max(now)))
        };
        if let Some(due) = due.filter(|due| *due < next_attempt_at) {
            disk.set_state(delivery, State::Pending { next_attempt_at: due });
        }
    }
}
