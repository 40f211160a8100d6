//! The hold: all at once, since there is no batch that could be too large here.

use super::{Call, ModelStore};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, State},
    id::EndpointId,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    backup::Backups,
    hold::{Decision, Fate, Hold, Holding, Place, Step, is_on, put_on, taken_off},
    neighbours::Neighbours,
};
use std::collections::BTreeMap;

impl Backups for ModelStore {}
impl Neighbours for ModelStore {}

#[async_trait]
impl Holding for ModelStore {
    async fn hold(&self) -> Result<Option<Hold>, StoreError> {
        self.read(|disk| {
            let (since, reason) = disk.hold.clone()?;
            let on = disk.pending.iter().filter_map(|id| match disk.deliveries.get(id)?.state {
                State::Pending { next_attempt_at } if is_on(next_attempt_at) => {
                    Some(taken_off(next_attempt_at))
                }
                _ => None,
            });
            let due: Vec<Timestamp> = on.collect();
            let overdue = due.iter().filter(|due| **due < since).count() as u64;
            let oldest_due = due.iter().min().copied();
            Some(Hold { since, reason, deliveries: due.len() as u64, overdue, oldest_due })
        })
        .await
    }

    fn held_since(&self) -> Option<Timestamp> {
        super::lock(&self.disk).hold.as_ref().map(|(since, _)| *since)
    }

    async fn put_on_hold(&self, reason: &str, _: Option<Place>, _: usize) -> Result<Step, StoreError> {
        self.write(Call::Write, |disk, _, now| {
            disk.hold.get_or_insert_with(|| (now, reason.to_owned()));
            let mut moved = 0;
            let pending: Vec<DeliveryId> = disk.pending.iter().copied().collect();
            for id in pending {
                let Some(stored) = disk.deliveries.get_mut(&id) else { continue };
                if let State::Pending { next_attempt_at } = &mut stored.state {
                    moved += u64::from(!is_on(*next_attempt_at));
                    *next_attempt_at = put_on(*next_attempt_at);
                }
            }
            Ok(Step { moved, ..Step::default() })
        })
        .await
    }

    async fn decide(&self, decision: Decision, _: Option<Place>, _: usize) -> Result<Step, StoreError> {
        self.write(Call::Write, |disk, _, _| {
            disk.hold = None;
            let mut parts: BTreeMap<(EndpointId, bool), Vec<(Timestamp, DeliveryId)>> = BTreeMap::new();
            for id in &disk.pending {
                let Some(stored) = disk.deliveries.get(id) else { continue };
                if let State::Pending { next_attempt_at } = stored.state
                    && is_on(next_attempt_at)
                {
                    let part = parts.entry((id.endpoint, stored.attempts > 0)).or_default();
                    part.push((taken_off(next_attempt_at), *id));
                }
            }
            let mut step = Step::default();
            for part in parts.values_mut() {
                part.sort_unstable();
                for (place, (due, id)) in (0..).zip(part.iter()) {
                    let Some(stored) = disk.deliveries.get_mut(id) else { continue };
                    match decision.fate(*due, stored.deadline_at, place, part.len() as u64) {
                        Fate::Cancelled => {
                            disk.set_state(*id, State::Cancelled);
                            step.cancelled += 1;
                        }
                        Fate::Due { at, deadline } => {
                            stored.state = State::Pending { next_attempt_at: at };
                            stored.deadline_at = deadline;
                            step.moved += 1;
                        }
                    }
                }
            }
            Ok(step)
        })
        .await
    }
}
