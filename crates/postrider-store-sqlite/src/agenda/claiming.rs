//! Claims against the agenda: which lanes to read first, what they gave, and what is leased, one lane after the other.

use super::{Agenda, Found, Leased, READ_AHEAD, Taken, Wanted, earlier};
use postrider_model::{id::EndpointId, time::Timestamp};
use postrider_store::deliveries::{Lease, Room};
use std::collections::HashSet;

impl Agenda {
    /// Lanes to read before this claim: those among the next in turn that have nothing in memory. They are out of the
    /// ring until [`Self::found`] or [`Self::not_found`].
    pub(crate) fn wanted(&mut self, room: &Room, now: Timestamp) -> Vec<Wanted> {
        self.begin_claim(room, now);
        let full: HashSet<&EndpointId> = room.full.iter().collect();
        let visited = room.total.min(self.ring.len());
        let share = room.total.checked_div(visited).unwrap_or(0).clamp(1, READ_AHEAD);
        let mut wanted = Vec::new();
        // Full lanes take no turn: those behind them would wait for nothing.
        for endpoint in self.ring.iter().filter(|endpoint| !full.contains(endpoint)).take(visited) {
            let Some(lane) = self.lanes.get_mut(endpoint) else { continue };
            let bound = self.wide.get(endpoint).copied().unwrap_or(self.per_endpoint);
            let places = bound.saturating_sub(lane.leased.len());
            if places == 0 || !lane.must_be_read(now) {
                continue;
            }
            // More than has a place now is read while there is memory for it: one reading serves many claims.
            let most = if self.queued_bytes < self.queue_budget / 2 { share } else { share.min(places) };
            lane.begin_reading();
            wanted.push(Wanted { endpoint: *endpoint, most, leased: lane.leased.iter().copied().collect() });
        }
        wanted
    }

    /// A lane was read.
    pub(crate) fn found(&mut self, found: Found, now: Timestamp) {
        let Found { endpoint, deliveries, next } = found;
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && let Some(reading) = lane.reading.take()
        {
            lane.disk_due = earlier(next, reading.added);
            for handed in deliveries {
                if reading.ended.contains(&handed.delivery) || lane.leased.contains(&handed.delivery) {
                    continue;
                }
                if lane.held {
                    lane.lies_on_disk(handed.due_at);
                } else {
                    self.queued_bytes += handed.size();
                    lane.found(handed);
                }
            }
        }
        self.settle(endpoint, now);
    }

    /// A lane could not be read: it stands as before.
    pub(crate) fn not_found(&mut self, endpoint: EndpointId, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && let Some(reading) = lane.reading.take()
        {
            lane.disk_due = earlier(lane.disk_due, reading.added);
        }
        self.settle(endpoint, now);
    }

    /// Leases what there is room for, one lane after the other.
    pub(crate) fn take(&mut self, room: &Room, now: Timestamp) -> Taken {
        self.begin_claim(room, now);
        let mut taken = Taken::default();
        let no_room: HashSet<&EndpointId> = room.full.iter().collect();
        let mut full = Vec::new();
        let mut unread = Vec::new();
        let quantum = room.total.checked_div(self.ring.len()).unwrap_or(0).clamp(1, READ_AHEAD);
        while taken.deliveries.len() < room.total
            && let Some(endpoint) = self.ring.pop_front()
        {
            let bound = self.bound(endpoint);
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            if no_room.contains(&endpoint) {
                full.push(endpoint);
                continue;
            }
            // Its bound has shrunk since it came here: a lease that comes back brings it here again.
            if lane.leased.len() >= bound {
                lane.in_ring = false;
                continue;
            }
            if lane.must_be_read(now) {
                unread.push(endpoint);
                continue;
            }
            lane.in_ring = false;
            let most = quantum.min(room.total - taken.deliveries.len());
            self.take_from(endpoint, most, now, &mut taken);
            self.settle(endpoint, now);
        }
        let waits = !self.ring.is_empty() || !unread.is_empty();
        self.ring.extend(unread);
        self.ring.extend(full);
        taken.next_due = if waits { Some(now) } else { self.future.first().map(|(due, _)| *due) };
        taken
    }

    fn take_from(&mut self, endpoint: EndpointId, most: usize, now: Timestamp, taken: &mut Taken) {
        let bound = self.bound(endpoint);
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let mut left = most;
        while left > 0
            && lane.leased.len() < bound
            && let Some(handed) = lane.pop()
        {
            self.queued_bytes -= handed.size();
            self.epoch += 1;
            let lease = Lease { delivery: handed.delivery, epoch: self.epoch };
            lane.leased.insert(handed.delivery);
            let leased = Leased { epoch: self.epoch, due_at: handed.due_at, slot: None, void: false };
            self.leases.insert(handed.delivery, leased);
            if handed.payload.is_none() || handed.deadline_at < now {
                taken.dead.push((lease, handed));
            } else {
                taken.deliveries.push((lease, handed));
                left -= 1;
            }
        }
    }

    fn begin_claim(&mut self, room: &Room, now: Timestamp) {
        if self.per_endpoint != room.per_endpoint {
            self.per_endpoint = room.per_endpoint;
            for endpoint in self.lanes.keys().copied().collect::<Vec<_>>() {
                self.settle(endpoint, now);
            }
        }
        if self.wide != room.wide {
            let before = std::mem::replace(&mut self.wide, room.wide.clone());
            for (endpoint, bound) in &room.wide {
                if before.get(endpoint).copied().unwrap_or(self.per_endpoint) < *bound {
                    self.settle(*endpoint, now);
                }
            }
        }
        while self.future.first().is_some_and(|(due, _)| *due <= now)
            && let Some((_, endpoint)) = self.future.pop_first()
        {
            self.settle(endpoint, now);
        }
    }
}
