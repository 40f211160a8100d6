//! Retention: one look over everything.

use super::{Disk, ModelStore};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{ApplicationId, AttemptId, EndpointId, Id, MessageId},
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    retention::{Cutoffs, Expired, Retention},
};

#[async_trait]
impl Retention for ModelStore {
    async fn expire(&self, cutoffs: Cutoffs, batch: usize) -> Result<Expired, StoreError> {
        self.change(|disk, now| {
            let held = expire_held(disk, batch, now);
            let mut expired = Expired {
                payloads: expire_payloads(disk, batch, now),
                attempts: expire_attempts(disk, cutoffs, batch),
                messages: expire_messages(disk, cutoffs, batch),
                others: expire_others(disk, cutoffs, batch, now),
                more: false,
            };
            let full = |count: u64| count >= batch as u64;
            expired.more = [held, expired.payloads, expired.attempts, expired.messages, expired.others]
                .into_iter()
                .any(full);
            expired
        })
        .await
    }
}

fn waits(disk: &Disk, message: MessageId) -> bool {
    disk.pending.iter().any(|delivery| delivery.message == message)
}

/// What a disabled endpoint holds past its deadline.
fn expire_held(disk: &mut Disk, batch: usize, now: Timestamp) -> u64 {
    let held = |id: &&DeliveryId| {
        let disabled = disk.live_endpoint(id.endpoint).is_some_and(|endpoint| endpoint.disabled.is_some());
        disabled && disk.deliveries.get(id).is_some_and(|stored| stored.deadline_at < now)
    };
    let past: Vec<DeliveryId> = disk.pending.iter().filter(held).take(batch).copied().collect();
    for id in &past {
        disk.set_state(*id, State::Failed(GiveUp::Expired));
    }
    past.len() as u64
}

fn expire_payloads(disk: &mut Disk, batch: usize, now: Timestamp) -> u64 {
    let old = disk.messages.values().filter(|stored| {
        stored.payload.is_some()
            && stored.message.payload_expires_at <= now
            && !waits(disk, stored.message.id)
    });
    let old: Vec<MessageId> = old.take(batch).map(|stored| stored.message.id).collect();
    for id in &old {
        if let Some(stored) = disk.messages.get_mut(id) {
            stored.payload = None;
        }
    }
    old.len() as u64
}

fn expire_attempts(disk: &mut Disk, cutoffs: Cutoffs, batch: usize) -> u64 {
    let old = disk.attempts.range(..Id::floor(cutoffs.attempts));
    let old = old.filter(|(_, attempt)| !waits(disk, attempt.delivery.message));
    let old: Vec<AttemptId> = old.take(batch).map(|(id, _)| *id).collect();
    for id in &old {
        disk.attempts.remove(id);
    }
    old.len() as u64
}

/// A message goes with everything that hangs on it.
fn expire_messages(disk: &mut Disk, cutoffs: Cutoffs, batch: usize) -> u64 {
    let old = disk.messages.range(..Id::floor(cutoffs.messages)).filter(|(id, _)| !waits(disk, **id));
    let old: Vec<MessageId> = old.take(batch).map(|(id, _)| *id).collect();
    for id in &old {
        disk.messages.remove(id);
        disk.deliveries.retain(|delivery, _| delivery.message != *id);
        disk.attempts.retain(|_, attempt| attempt.delivery.message != *id);
    }
    old.len() as u64
}

/// Idempotency records, overlapped signing secrets, and, uncounted, what was deleted and has no history any more.
fn expire_others(disk: &mut Disk, cutoffs: Cutoffs, batch: usize, now: Timestamp) -> u64 {
    let old = disk.idempotency.iter().filter(|(_, one)| one.expires_at <= now);
    let old: Vec<_> = old.take(batch).map(|(key, _)| key.clone()).collect();
    for key in &old {
        disk.idempotency.remove(key);
    }
    let mut gone = old.len() as u64;
    for stored in disk.endpoints.values_mut() {
        let before = stored.signing.len();
        stored.signing.retain(|(_, until)| until.is_none_or(|until| until > now));
        gone += (before - stored.signing.len()) as u64;
    }
    let is_old = |at: Option<Timestamp>| at.is_some_and(|at| at < cutoffs.messages);
    let endpoints = disk.endpoints.values().filter(|one| is_old(one.deleted_at));
    let endpoints = endpoints.map(|one| one.endpoint.id);
    let unused: Vec<EndpointId> =
        endpoints.filter(|id| disk.deliveries.keys().all(|delivery| delivery.endpoint != *id)).collect();
    for id in unused {
        disk.endpoints.remove(&id);
    }
    let applications = disk.applications.values().filter(|one| is_old(one.deleted_at));
    let unused: Vec<ApplicationId> = applications
        .map(|one| one.application.id)
        .filter(|id| {
            disk.messages.values().all(|stored| stored.message.application != *id)
                && disk.endpoints.values().all(|stored| stored.endpoint.application != *id)
        })
        .collect();
    for id in unused {
        disk.applications.remove(&id);
    }
    gone
}
