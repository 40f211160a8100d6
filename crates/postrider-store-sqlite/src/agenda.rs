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
//! While a lane is read from the database, changes that the reader may not have seen are noted beside it. Here: what
//! comes and goes with messages and endpoints; `claiming` has the claims, `leases` what becomes of them, `lane` one
//! endpoint's part. Pure: no clock, no database; losing all of it loses nothing, it is rebuilt at the next start.

mod claiming;
mod lane;
mod leases;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use work::{Found, Handed, Taken, Wanted};

use lane::Lane;
use postrider_model::{delivery::DeliveryId, id::EndpointId, time::Timestamp};
use postrider_store::deliveries::Deferred;
use std::collections::{BTreeSet, HashMap, VecDeque};

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

    /// Nothing of theirs is claimed until then.
    pub(crate) fn defer(&mut self, _whose: Deferred, _until: Timestamp, _now: Timestamp) {}

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
