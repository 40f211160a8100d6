//! Which delivery comes next: the memory of what waits, kept small however much waits.
//!
//! One lane per endpoint with pending work. A lane holds the leases that are out, and for first attempts and for retries
//! - a bounded queue of deliveries that are complete in memory: handed over by their commit, or read ahead;
//! - the earliest due time among those that lie only in the database (never later than the truth).
//!
//! Where both have something, they take turns: however many retries are due, a fresh message is next but one.
//!
//! Lanes that have something due stand in the ring of their application, and these in a ring of applications. Claims
//! visit them in turn: an endpoint with a million waiting deliveries gets one place, like any other, and an application
//! with a thousand such endpoints gets one turn. Lanes whose work is due later, or deferred, stand in a set ordered by
//! time. A lane that can start nothing (disabled endpoint, all leases out, being read) stands in neither. So a claim meets
//! only what it can take; whose standing changed meanwhile leaves the ring when its turn comes, once.
//!
//! While a lane is read from the database, changes that the reader may not have seen are noted beside it. Here: what
//! comes and goes with messages and endpoints; `claiming` has the claims, `turns` whose turn it is, `leases` what becomes
//! of them, `lane` one endpoint's part, `deferrals` and `bounds` what the claimer said. Pure: no clock, no database;
//! losing all of it loses nothing, it is rebuilt at the next start.

mod bounds;
mod claiming;
mod deferrals;
mod ids;
mod lane;
mod leases;
mod shards;
#[cfg(test)]
mod tests;
mod turns;
mod work;

pub use work::{Found, Handed, OnDisk, Part, Taken, Wanted};

use crate::deliveries::Deferred;
use bounds::Bounds;
use deferrals::{Deferrals, Who};
use ids::{IdMap, IdSet};
use lane::{Lane, Standing};
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    id::EndpointId,
    time::Timestamp,
};
use std::collections::BTreeSet;
use turns::{Entry, Turns};

/// Deliveries of each part of a lane that are kept complete in memory.
const LANE_QUEUE: usize = 256;
/// One lane may queue this part of the bytes for all, and always one delivery.
const LANE_SHARE: usize = 8;
/// Deliveries read ahead for one part of a lane at a time, at most and at least.
const READ_AHEAD: std::ops::RangeInclusive<usize> = 8..=256;
/// Deliveries that one claim reads ahead, shared by the lanes that have a turn.
const READ_ROWS: usize = 1024;
/// Parts of lanes that are read at the same time.
const READINGS: usize = 128;
/// Deliveries of one turn at most.
const TURN: usize = 256;
/// Lanes that become due, or leave the ring, in one claim: others want the agenda too.
const LOOKS: usize = 2000;

/// A lease that is out.
#[derive(Debug, Clone, Copy)]
struct Leased {
    epoch: u64,
    due_at: Timestamp,
    /// Where the begun attempt stands in the in-flight file.
    slot: Option<u32>,
    /// Where it lies when it is given back.
    part: Part,
    /// The delivery was settled or cancelled: nothing may be sent, but what was sent can be recorded.
    void: bool,
}

/// The memory of what waits.
#[derive(Debug)]
pub struct Agenda {
    /// Boxed, so that a table with room for more is small.
    lanes: IdMap<EndpointId, Box<Lane>>,
    turns: Turns,
    /// Lanes that are due later, and applications that have something due and are deferred.
    future: BTreeSet<(Timestamp, Who)>,
    deferrals: Deferrals,
    bounds: Bounds,
    leases: IdMap<DeliveryId, Leased>,
    epoch: u64,
    queued_bytes: usize,
    queue_budget: usize,
    pending: u64,
    /// Parts of lanes that are being read.
    readings: IdSet<(EndpointId, Part)>,
}

impl Agenda {
    /// Empty; `queue_budget` bounds the bytes of queued deliveries. Leases are numbered from `first_epoch` on:
    /// those of an earlier process must not be taken for ours.
    pub fn new(queue_budget: usize, first_epoch: u64) -> Self {
        Self {
            lanes: IdMap::default(),
            turns: Turns::default(),
            future: BTreeSet::new(),
            deferrals: Deferrals::default(),
            bounds: Bounds::default(),
            leases: IdMap::default(),
            epoch: first_epoch,
            queued_bytes: 0,
            queue_budget,
            pending: 0,
            readings: IdSet::default(),
        }
    }

    /// Pending deliveries that lie in the database: what a start finds.
    pub fn add(&mut self, found: OnDisk, now: Timestamp) {
        self.pending += found.count;
        let lane = self.lanes.entry(found.endpoint).or_insert_with(|| Box::new(Lane::new(found.application)));
        lane.held = found.held;
        lane.lies_on_disk(found.part, found.due);
        self.settle(found.endpoint, Entry::Last, now);
    }

    /// A delivery that was just committed. Kept complete in memory when it is due, nothing older of its part waits in
    /// the database and there is room.
    pub fn hand_over(&mut self, handed: Handed, held: bool, now: Timestamp) {
        self.pending += 1;
        let endpoint = handed.delivery.endpoint;
        // Whoever sends something by hand waits for the answer: not behind a backlog, nor for the end of a deferral.
        let manual = handed.trigger == Trigger::Manual;
        if manual {
            self.defer(Deferred::Endpoint(endpoint), now, now);
        }
        let size = handed.size();
        let fits = self.queued_bytes + size <= self.queue_budget;
        let application = handed.scope.application;
        let lane = self.lanes.entry(endpoint).or_insert_with(|| Box::new(Lane::new(application)));
        lane.held = held;
        // A reader may have found it between its commit and now; it may even be leased already.
        if lane.knows(&handed.delivery) {
            return;
        }
        // An endpoint that hangs must not fill the memory that others are served from.
        let share = lane.queued_bytes == 0 || lane.queued_bytes + size <= self.queue_budget / LANE_SHARE;
        if manual && fits && share && lane.takes_first(handed.part(), handed.due_at, now) {
            lane.push_first(handed);
            self.queued_bytes += size;
            self.settle(endpoint, Entry::New, now);
        } else if fits && share && lane.takes(handed.part(), handed.due_at, now) {
            lane.push(handed);
            self.queued_bytes += size;
            self.settle(endpoint, Entry::New, now);
        } else {
            lane.lies_on_disk(handed.part(), handed.due_at);
            self.settle(endpoint, Entry::Last, now);
        }
    }

    /// A pending delivery was settled without a record: by a cancellation, or by the success of a manual one.
    pub fn settled(&mut self, delivery: DeliveryId, now: Timestamp) {
        self.pending = self.pending.saturating_sub(1);
        self.make_void(delivery);
        if let Some(lane) = self.lanes.get_mut(&delivery.endpoint) {
            lane.ended(delivery);
            self.queued_bytes -= lane.take_out(delivery);
            self.settle(delivery.endpoint, Entry::Last, now);
        }
    }

    /// A pending delivery was put on hold: memory forgets it, and if its attempt has not begun, it will not.
    pub fn put_on_hold(&mut self, delivery: DeliveryId, now: Timestamp) {
        self.settled(delivery, now);
        self.pending += 1;
    }

    /// Nothing of theirs is claimed until then; an instant that has passed takes it back.
    pub fn defer(&mut self, whose: Deferred, until: Timestamp, now: Timestamp) {
        let who = Who::from(whose);
        let forgotten = self.deferrals.set(who, until, now);
        for who in forgotten.into_iter().chain([who]) {
            self.settle_anyone(who, now);
        }
    }

    /// The clock was set back: nobody knows how long a deferral was meant to last.
    pub fn forget_deferrals(&mut self, now: Timestamp) {
        for who in self.deferrals.take_all() {
            self.settle_anyone(who, now);
        }
    }

    /// An endpoint was disabled or enabled.
    pub fn hold(&mut self, endpoint: EndpointId, held: bool, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.held = held;
            if held {
                self.queued_bytes -= lane.queued_bytes;
                lane.queue_to_disk();
            }
            self.settle(endpoint, Entry::Last, now);
        }
    }

    /// An endpoint was deleted: nothing of it is claimed any more. Its deliveries are counted off by
    /// [`Self::cancelled`].
    pub fn drop_lane(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.remove(&endpoint) {
            for delivery in &lane.leased {
                self.make_void(*delivery);
            }
            if let Some(due) = lane.in_future {
                self.future.remove(&(due, Who::Endpoint(endpoint)));
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
    pub fn cancelled(&mut self, count: u64) {
        self.pending = self.pending.saturating_sub(count);
    }

    /// Pending deliveries.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// When the earliest delivery of an enabled endpoint can be claimed that no lease covers.
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = |endpoint: EndpointId, lane: &Lane| {
            let due = lane.next_due().filter(|_| !lane.held)?;
            Some(self.deferred(endpoint, lane).map_or(due, |until| due.max(until)))
        };
        self.lanes.iter().filter_map(|(endpoint, lane)| due(*endpoint, lane)).min()
    }

    /// Until when a lane is deferred, for itself or with its application; it may have passed.
    fn deferred(&self, endpoint: EndpointId, lane: &Lane) -> Option<Timestamp> {
        let own = self.deferrals.of(Who::Endpoint(endpoint));
        own.max(self.deferrals.of(Who::Application(lane.application)))
    }

    /// Deliveries of this endpoint that were due later are due from `due` on: the clock was set back.
    pub fn pulled_in(&mut self, endpoint: EndpointId, due: Timestamp, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        self.queued_bytes -= lane.queued_bytes;
        lane.queue_to_disk();
        for part in Part::ALL {
            lane.lies_on_disk(part, due);
        }
        for delivery in &lane.leased {
            if let Some(leased) = self.leases.get_mut(delivery) {
                leased.due_at = leased.due_at.min(due);
            }
        }
        self.settle(endpoint, Entry::Last, now);
    }

    /// Endpoints with pending work.
    pub fn endpoints(&self) -> Vec<EndpointId> {
        self.lanes.keys().copied().collect()
    }

    /// Endpoints that are held and have pending work.
    pub fn held(&self) -> Vec<EndpointId> {
        self.lanes.iter().filter(|(_, lane)| lane.held).map(|(endpoint, _)| *endpoint).collect()
    }

    /// Where a lane belongs. Its application's deferral does not count: that keeps the application out of the ring.
    fn standing(&self, endpoint: EndpointId, now: Timestamp) -> Standing {
        let deferred = self.deferrals.of(Who::Endpoint(endpoint));
        let bound = self.bounds.of(endpoint);
        self.lanes.get(&endpoint).map_or(Standing::Nowhere, |lane| lane.standing(bound, deferred, now))
    }

    fn settle_anyone(&mut self, who: Who, now: Timestamp) {
        match who {
            Who::Endpoint(endpoint) => self.settle(endpoint, Entry::Last, now),
            Who::Application(application) => self.settle_application(application, Entry::Last, now),
        }
    }

    /// Puts a lane where it belongs: ring, future, neither, or away when it is empty.
    fn settle(&mut self, endpoint: EndpointId, entry: Entry, now: Timestamp) {
        let deferred = self.deferrals.of(Who::Endpoint(endpoint));
        let bound = self.bounds.of(endpoint);
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        // Its turn will tell: whoever leaves the ring is settled then.
        if lane.in_ring {
            return;
        }
        if let Some(due) = lane.in_future.take() {
            self.future.remove(&(due, Who::Endpoint(endpoint)));
        }
        if lane.is_empty() {
            self.lanes.remove(&endpoint);
            return;
        }
        match lane.standing(bound, deferred, now) {
            Standing::Due => {
                lane.in_ring = true;
                let application = lane.application;
                self.enter_ring(application, endpoint, entry, now);
            }
            Standing::Later(due) => {
                lane.in_future = Some(due);
                self.future.insert((due, Who::Endpoint(endpoint)));
            }
            Standing::Nowhere => {}
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
