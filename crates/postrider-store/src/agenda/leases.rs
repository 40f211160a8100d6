//! What becomes of a lease that is out: begun, recorded, given back.

use super::{Agenda, Leased, Part, turns};
use crate::deliveries::Lease;
use postrider_model::{delivery::DeliveryId, time::Timestamp};
use std::collections::hash_map::Entry;

impl Agenda {
    /// Is this lease still out?
    pub fn holds(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.delivery).is_some_and(|leased| leased.epoch == lease.epoch)
    }

    /// May the first byte be sent under this lease?
    pub fn may_start(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.delivery).is_some_and(|leased| leased.epoch == lease.epoch && !leased.void)
            && self.lanes.get(&lease.delivery.endpoint).is_some_and(|lane| !lane.held)
    }

    /// Notes where the begun attempt stands in the in-flight file; returns the slot to clear: that of an earlier note,
    /// or this one when nothing may be sent any more.
    pub fn began(&mut self, lease: &Lease, slot: u32) -> Result<Option<u32>, u32> {
        if !self.may_start(lease) {
            return Err(slot);
        }
        Ok(self.leases.get_mut(&lease.delivery).and_then(|leased| leased.slot.replace(slot)))
    }

    /// A result was stored: the lease ends; `next` is when the delivery is due again, `None` when it is settled. Returns
    /// the slot to clear.
    pub fn recorded(&mut self, lease: &Lease, next: Option<Timestamp>, now: Timestamp) -> Option<u32> {
        if next.is_none() {
            self.pending = self.pending.saturating_sub(1);
        }
        let slot = self.end_lease(lease)?.slot;
        self.comes_back(lease.delivery, next.map(|due| (Part::Retries, due)), now);
        slot
    }

    /// Has an attempt begun that was neither recorded nor given back?
    pub fn any_begun(&self) -> bool {
        self.leases.values().any(|leased| leased.slot.is_some())
    }

    /// A lease is given back without a result: due as before. Returns the slot to clear.
    pub fn released(&mut self, lease: &Lease, now: Timestamp) -> Option<u32> {
        let leased = self.end_lease(lease)?;
        let due = (!leased.void).then_some((leased.part, leased.due_at));
        self.comes_back(lease.delivery, due, now);
        leased.slot
    }

    /// A result was stored of a delivery that had been settled by somebody else meanwhile. Returns the slot to clear.
    pub fn recorded_late(&mut self, lease: &Lease, now: Timestamp) -> Option<u32> {
        let leased = self.end_lease(lease)?;
        self.comes_back(lease.delivery, None, now);
        leased.slot
    }

    fn end_lease(&mut self, lease: &Lease) -> Option<Leased> {
        match self.leases.entry(lease.delivery) {
            Entry::Occupied(leased) if leased.get().epoch == lease.epoch => Some(leased.remove()),
            _ => None,
        }
    }

    fn comes_back(&mut self, delivery: DeliveryId, next: Option<(Part, Timestamp)>, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&delivery.endpoint) {
            lane.leased.remove(&delivery);
            lane.ended(delivery);
            if let Some((part, due)) = next {
                lane.lies_on_disk(part, due);
            }
            self.settle(delivery.endpoint, turns::Entry::Last, now);
        }
    }
}
