//! Which delivery comes next: the memory of what waits, kept small however much waits.
//!
//! One lane per endpoint with pending work. A lane holds
//! - a bounded queue of deliveries that are complete in memory: handed over by their commit, or read ahead;
//! - the earliest due time among those that lie only in the database (never later than the truth);
//! - the leases that are out.
//!
//! Lanes that have something due stand in a ring, and claims visit them in turn: an endpoint with a million waiting
//! deliveries gets one place, like any other. Lanes whose work lies in the future stand in a set ordered by time. A
//! held lane (disabled endpoint) stands in neither.
//!
//! While a lane is read from the database, changes that the reader may not have seen are noted beside it. Pure: no
//! clock, no database; losing all of it loses nothing, it is rebuilt at the next start.

mod lane;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use work::{Found, Handed, Taken, Wanted};

use lane::Lane;
use postrider_model::{delivery::DeliveryId, id::EndpointId, time::Timestamp};
use postrider_store::deliveries::{Lease, Room};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// Deliveries of one endpoint that are kept complete in memory.
const LANE_QUEUE: usize = 256;
/// One lane may queue this part of the bytes for all, and always one delivery.
const LANE_SHARE: usize = 8;
/// Deliveries read ahead for one lane in one claim.
const READ_AHEAD: usize = 256;

/// A lease that is out.
#[derive(Debug, Clone, Copy)]
struct Leased {
    epoch: u64,
    due_at: Timestamp,
    /// Where the begun attempt stands in the in-flight file.
    slot: Option<u32>,
    /// The delivery was settled or cancelled: nothing may be sent, but what was sent can be recorded.
    void: bool,
}

/// The memory of what waits.
#[derive(Debug)]
pub(crate) struct Agenda {
    lanes: HashMap<EndpointId, Lane>,
    ring: VecDeque<EndpointId>,
    future: BTreeSet<(Timestamp, EndpointId)>,
    leases: HashMap<DeliveryId, Leased>,
    epoch: u64,
    queued_bytes: usize,
    queue_budget: usize,
    per_endpoint: usize,
    /// Lanes that may lease more than `per_endpoint`.
    wide: HashMap<EndpointId, usize>,
    pending: u64,
}

impl Agenda {
    /// Empty; `queue_budget` bounds the bytes of queued deliveries. Leases are numbered from `first_epoch` on:
    /// those of an earlier process must not be taken for ours.
    pub(crate) fn new(queue_budget: usize, first_epoch: u64) -> Self {
        Self {
            lanes: HashMap::new(),
            ring: VecDeque::new(),
            future: BTreeSet::new(),
            leases: HashMap::new(),
            epoch: first_epoch,
            queued_bytes: 0,
            queue_budget,
            per_endpoint: usize::MAX,
            wide: HashMap::new(),
            pending: 0,
        }
    }

    /// Pending deliveries that lie in the database: at start, and when due in the future.
    pub(crate) fn add(
        &mut self,
        endpoint: EndpointId,
        held: bool,
        due: Timestamp,
        count: u64,
        now: Timestamp,
    ) {
        self.pending += count;
        let lane = self.lanes.entry(endpoint).or_default();
        lane.held = held;
        lane.lies_on_disk(due);
        self.settle(endpoint, now);
    }

    /// A delivery that was just committed. Kept complete in memory when it is due, nothing older waits in the database
    /// and there is room.
    pub(crate) fn hand_over(&mut self, handed: Handed, held: bool, now: Timestamp) {
        self.pending += 1;
        let endpoint = handed.delivery.endpoint;
        let size = handed.size();
        let fits = self.queued_bytes + size <= self.queue_budget;
        let lane = self.lanes.entry(endpoint).or_default();
        lane.held = held;
        // A reader may have found it between its commit and now; it may even be leased already.
        if lane.knows(&handed.delivery) {
            return;
        }
        // An endpoint that hangs must not fill the memory that others are served from.
        let share = lane.queued_bytes == 0 || lane.queued_bytes + size <= self.queue_budget / LANE_SHARE;
        if fits && share && lane.takes(handed.due_at, now) {
            lane.push(handed);
            self.queued_bytes += size;
        } else {
            lane.lies_on_disk(handed.due_at);
        }
        self.settle(endpoint, now);
    }

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

    /// Is this lease still out?
    pub(crate) fn holds(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.delivery).is_some_and(|leased| leased.epoch == lease.epoch)
    }

    /// May the first byte be sent under this lease?
    pub(crate) fn may_start(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.delivery).is_some_and(|leased| leased.epoch == lease.epoch && !leased.void)
            && self.lanes.get(&lease.delivery.endpoint).is_some_and(|lane| !lane.held)
    }

    /// Notes where the begun attempt stands in the in-flight file; returns the slot to clear: that of an earlier note,
    /// or this one when nothing may be sent any more.
    pub(crate) fn began(&mut self, lease: &Lease, slot: u32) -> Result<Option<u32>, u32> {
        if !self.may_start(lease) {
            return Err(slot);
        }
        Ok(self.leases.get_mut(&lease.delivery).and_then(|leased| leased.slot.replace(slot)))
    }

    /// A result was stored: the lease ends; `next` is when the delivery is due again, `None` when it is settled. Returns
    /// the slot to clear.
    pub(crate) fn recorded(&mut self, lease: &Lease, next: Option<Timestamp>, now: Timestamp) -> Option<u32> {
        if next.is_none() {
            self.pending = self.pending.saturating_sub(1);
        }
        let slot = self.end_lease(lease)?.slot;
        self.comes_back(lease.delivery, next, now);
        slot
    }

    /// A lease is given back without a result: due as before. Returns the slot to clear.
    pub(crate) fn released(&mut self, lease: &Lease, now: Timestamp) -> Option<u32> {
        let leased = self.end_lease(lease)?;
        let due = (!leased.void).then_some(leased.due_at);
        self.comes_back(lease.delivery, due, now);
        leased.slot
    }

    /// A result was stored of a delivery that had been settled by somebody else meanwhile. Returns the slot to clear.
    pub(crate) fn recorded_late(&mut self, lease: &Lease, now: Timestamp) -> Option<u32> {
        let leased = self.end_lease(lease)?;
        self.comes_back(lease.delivery, None, now);
        leased.slot
    }

    fn end_lease(&mut self, lease: &Lease) -> Option<Leased> {
        if !self.holds(lease) {
            return None;
        }
        self.leases.remove(&lease.delivery)
    }

    fn comes_back(&mut self, delivery: DeliveryId, next: Option<Timestamp>, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&delivery.endpoint) {
            lane.leased.remove(&delivery);
            lane.ended(delivery);
            if let Some(next) = next {
                lane.lies_on_disk(next);
            }
            self.settle(delivery.endpoint, now);
        }
    }

    /// A pending delivery was settled without a record: by a cancellation, or by the success of a manual one.
    pub(crate) fn settled(&mut self, delivery: DeliveryId, now: Timestamp) {
        self.pending = self.pending.saturating_sub(1);
        self.make_void(delivery);
        if let Some(lane) = self.lanes.get_mut(&delivery.endpoint) {
            lane.ended(delivery);
            self.queued_bytes -= lane.take_out(delivery);
            self.settle(delivery.endpoint, now);
        }
    }

    /// An endpoint was disabled or enabled.
    pub(crate) fn hold(&mut self, endpoint: EndpointId, held: bool, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.held = held;
            if held {
                self.queued_bytes -= lane.queued_bytes;
                lane.queue_to_disk();
            }
            self.settle(endpoint, now);
        }
    }

    /// An endpoint was deleted: nothing of it is claimed any more. Its deliveries are counted off by
    /// [`Self::cancelled`].
    pub(crate) fn drop_lane(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.remove(&endpoint) {
            for delivery in &lane.leased {
                self.make_void(*delivery);
            }
            if let Some(due) = lane.in_future {
                self.future.remove(&(due, endpoint));
            }
            self.queued_bytes -= lane.queued_bytes;
            // The ring forgets it when its turn comes.
        }
    }

    fn make_void(&mut self, delivery: DeliveryId) {
        if let Some(leased) = self.leases.get_mut(&delivery) {
            leased.void = true;
        }
    }

    /// So many pending deliveries of deleted endpoints were cancelled.
    pub(crate) fn cancelled(&mut self, count: u64) {
        self.pending = self.pending.saturating_sub(count);
    }

    /// Pending deliveries.
    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// When the earliest due delivery became due that could be claimed but is not.
    pub(crate) fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let claimable = self
            .lanes
            .iter()
            .filter(|(endpoint, lane)| !lane.held && lane.leased.len() < self.bound(**endpoint))
            .map(|(_, lane)| lane);
        claimable.filter_map(Lane::next_due).min().filter(|due| *due <= now)
    }

    /// When the earliest delivery of an enabled endpoint is due that no lease covers.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.lanes.values().filter(|lane| !lane.held).filter_map(Lane::next_due).min()
    }

    /// Deliveries of this endpoint that were due later are due from `due` on: the clock was set back.
    pub(crate) fn pulled_in(&mut self, endpoint: EndpointId, due: Timestamp, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        self.queued_bytes -= lane.queued_bytes;
        lane.queue_to_disk();
        lane.lies_on_disk(due);
        for delivery in &lane.leased {
            if let Some(leased) = self.leases.get_mut(delivery) {
                leased.due_at = leased.due_at.min(due);
            }
        }
        self.settle(endpoint, now);
    }

    /// Endpoints with pending work.
    pub(crate) fn endpoints(&self) -> Vec<EndpointId> {
        self.lanes.keys().copied().collect()
    }

    /// Endpoints that are held and have pending work.
    pub(crate) fn held(&self) -> Vec<EndpointId> {
        self.lanes.iter().filter(|(_, lane)| lane.held).map(|(endpoint, _)| *endpoint).collect()
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

    /// How many leases a lane may have out.
    fn bound(&self, endpoint: EndpointId) -> usize {
        self.wide.get(&endpoint).copied().unwrap_or(self.per_endpoint)
    }

    /// Puts a lane where it belongs: ring, future, neither, or nowhere when it is empty.
    fn settle(&mut self, endpoint: EndpointId, now: Timestamp) {
        let bound = self.bound(endpoint);
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if let Some(due) = lane.in_future.take() {
            self.future.remove(&(due, endpoint));
        }
        if lane.is_empty() {
            // In the ring it waits for its turn to go: a second one of its name would stand there twice.
            if !lane.in_ring {
                self.lanes.remove(&endpoint);
            }
            return;
        }
        if lane.held || lane.reading.is_some() || lane.leased.len() >= bound {
            return;
        }
        match lane.next_due() {
            Some(due) if due > now => {
                lane.in_future = Some(due);
                self.future.insert((due, endpoint));
            }
            Some(_) if !lane.in_ring => {
                lane.in_ring = true;
                self.ring.push_back(endpoint);
            }
            _ => {}
        }
    }
}

/// The earlier of two instants that may be missing.
fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
