//! Who runs: how many deliveries in all, of one endpoint, and of slow endpoints; and which leases are out.
//!
//! An endpoint that answers quickly earns places; one that answers slowly gets fewer, and all slow endpoints together
//! get half of the places at most: however many endpoints hang, the others' deliveries find room. Decides nothing about what is due: the store does.

use crate::metrics::Metrics;
use postrider_model::id::EndpointId;
use postrider_store::deliveries::{Lease, Room};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Endpoints that are remembered as slow while nothing of theirs runs. Beyond it the idle ones are forgotten, and count
/// as quick until they prove otherwise.
const SLOW_REMEMBERED: usize = 10_000;

/// How many may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    /// To begin with.
    pub(crate) per_endpoint: usize,
    /// Once it has answered that many quickly.
    pub(crate) per_quick_endpoint: usize,
    pub(crate) per_slow_endpoint: usize,
    /// An attempt that takes this long makes its endpoint slow; a quicker one makes it quick again.
    pub(crate) slow_after: Duration,
}

/// The lanes of all endpoints on this node.
pub(crate) struct Lanes {
    state: Mutex<State>,
    freed: Notify,
    metrics: Metrics,
}

/// A delivery's place in its lane; dropping it makes room.
pub(crate) struct Place {
    lanes: Arc<Lanes>,
    lease: Lease,
    took: Option<Duration>,
}

impl Lanes {
    pub(crate) fn new(limits: Limits, metrics: Metrics) -> Self {
        Self { state: Mutex::new(State::new(limits)), freed: Notify::new(), metrics }
    }

    /// What can start now.
    pub(crate) fn room(&self) -> Room {
        self.state().room()
    }

    /// A place for a claimed delivery. `None` when its lane has none (it turned slow meanwhile): give the lease back.
    pub(crate) fn enter(self: &Arc<Self>, lease: Lease) -> Option<Place> {
        let entered = self.state().enter(lease);
        entered.then(|| {
            self.metrics.in_flight.inc();
            Place { lanes: Arc::clone(self), lease, took: None }
        })
    }

    /// A place for a suspect, which may wait long for its turn: until it [begins](Place::begin), it takes no room from
    /// its endpoint or from the node.
    pub(crate) fn wait(self: &Arc<Self>, lease: Lease) -> Option<Place> {
        let waits = self.state().wait(lease);
        waits.then(|| {
            self.metrics.in_flight.inc();
            Place { lanes: Arc::clone(self), lease, took: None }
        })
    }

    /// Notified when a place was freed that something may have waited for: in a full lane, or when all were taken. Other
    /// places were free before, so that nothing new can start.
    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    pub(crate) fn in_flight(&self) -> usize {
        let state = self.state();
        state.leases.len() + state.waiting.len()
    }

    /// The leases that are out.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        let state = self.state();
        state.leases.iter().chain(&state.waiting).copied().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A suspect's turn has come: it runs now.
    pub(crate) fn begin(&self) {
        self.lanes.state().begin(&self.lease);
    }

    /// The attempt took this long: what makes its endpoint slow or quick.
    pub(crate) fn took(&mut self, duration: Duration) {
        self.took = Some(duration);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_full = self.lanes.state().leave(&self.lease, self.took);
        self.lanes.metrics.in_flight.dec();
        if was_full {
            self.lanes.freed.notify_one();
        }
    }
}

/// The book-keeping, without a lock.
struct State {
    limits: Limits,
    leases: HashSet<Lease>,
    /// Suspects that wait for their turn. They are few: what was in flight when the process died, twice.
    waiting: HashSet<Lease>,
    /// The same by endpoint.
    waiting_of: HashMap<EndpointId, usize>,
    /// Endpoints with something running.
    running: HashMap<EndpointId, usize>,
    /// Endpoints that earned more places than `per_endpoint`; forgotten when nothing of theirs runs.
    wide: HashMap<EndpointId, usize>,
    slow: HashSet<EndpointId>,
    /// The sum of `running` over `slow`.
    slow_running: usize,
}

impl State {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            leases: HashSet::new(),
            waiting: HashSet::new(),
            waiting_of: HashMap::new(),
            running: HashMap::new(),
            wide: HashMap::new(),
            slow: HashSet::new(),
            slow_running: 0,
        }
    }

    fn room(&self) -> Room {
        let mut wide = self.wide.clone();
        for (endpoint, waiting) in &self.waiting_of {
            *wide.entry(*endpoint).or_insert(self.limits.per_endpoint) += waiting;
        }
        Room {
            total: self.limits.total.saturating_sub(self.leases.len()),
            per_endpoint: self.limits.per_endpoint,
            wide,
            // Quick lanes need no mention: the store counts the leases it gave out.
            full: self.slow.iter().copied().filter(|endpoint| self.is_full(*endpoint)).collect(),
        }
    }

    /// A quick lane takes what the store gives: it keeps to the bound it was told, and counts a delivery out a moment
    /// before its place here is free.
    fn enter(&mut self, lease: Lease) -> bool {
        let endpoint = lease.delivery.endpoint;
        let refused = self.slow.contains(&endpoint) && self.is_full(endpoint);
        if refused || !self.leases.insert(lease) {
            return false;
        }
        *self.running.entry(endpoint).or_default() += 1;
        self.slow_running += usize::from(self.slow.contains(&endpoint));
        true
    }

    fn wait(&mut self, lease: Lease) -> bool {
        let new = self.waiting.insert(lease);
        if new {
            *self.waiting_of.entry(lease.delivery.endpoint).or_default() += 1;
        }
        new
    }

    fn begin(&mut self, lease: &Lease) {
        let endpoint = lease.delivery.endpoint;
        if self.end_waiting(lease) && self.leases.insert(*lease) {
            *self.running.entry(endpoint).or_default() += 1;
            self.slow_running += usize::from(self.slow.contains(&endpoint));
        }
    }

    fn end_waiting(&mut self, lease: &Lease) -> bool {
        let waited = self.waiting.remove(lease);
        if waited && let Some(waiting) = self.waiting_of.get_mut(&lease.delivery.endpoint) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting_of.remove(&lease.delivery.endpoint);
            }
        }
        waited
    }

    /// `true` when the lane, or the node, was full until now.
    fn leave(&mut self, lease: &Lease, took: Option<Duration>) -> bool {
        let endpoint = lease.delivery.endpoint;
        if self.end_waiting(lease) {
            return false;
        }
        let lane_was_full = self.is_full(endpoint);
        let was_full = self.leases.len() >= self.limits.total || lane_was_full;
        if !self.leases.remove(lease) {
            return false;
        }
        if let Some(took) = took {
            self.widen(endpoint, lane_was_full && took < self.limits.slow_after);
        }
        self.slow_running -= usize::from(self.slow.contains(&endpoint));
        if let Some(running) = self.running.get_mut(&endpoint) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&endpoint);
                self.wide.remove(&endpoint);
            }
        }
        if let Some(took) = took {
            self.judge(endpoint, took >= self.limits.slow_after);
        }
        was_full
    }

    /// A quick answer of a full lane earns it one place more: its places double in the time that they take to answer.
    fn widen(&mut self, endpoint: EndpointId, earned: bool) {
        let most = self.limits.per_quick_endpoint;
        if earned && !self.slow.contains(&endpoint) && most > self.limits.per_endpoint {
            let places = self.wide.entry(endpoint).or_insert(self.limits.per_endpoint);
            *places = most.min(*places + 1);
        }
    }

    fn judge(&mut self, endpoint: EndpointId, slow: bool) {
        if slow && self.slow.insert(endpoint) {
            self.wide.remove(&endpoint);
            self.slow_running += self.running_of(endpoint);
            if self.slow.len() > SLOW_REMEMBERED {
                self.slow.retain(|endpoint| self.running.contains_key(endpoint));
            }
        } else if !slow && self.slow.remove(&endpoint) {
            self.slow_running -= self.running_of(endpoint);
        }
    }

    fn is_full(&self, endpoint: EndpointId) -> bool {
        let running = self.running_of(endpoint);
        if self.slow.contains(&endpoint) {
            let slow_share = self.limits.total.div_ceil(2);
            return running >= self.limits.per_slow_endpoint || self.slow_running >= slow_share;
        }
        running >= self.wide.get(&endpoint).copied().unwrap_or(self.limits.per_endpoint)
    }

    fn running_of(&self, endpoint: EndpointId) -> usize {
        self.running.get(&endpoint).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{
        delivery::DeliveryId,
        id::{Id, Ksuid},
    };

    const QUICK: Option<Duration> = Some(Duration::from_millis(3));
    const SLOW: Option<Duration> = Some(Duration::from_secs(15));

    fn lanes(total: usize) -> State {
        State::new(Limits {
            total,
            per_endpoint: 10,
            per_quick_endpoint: 12,
            per_slow_endpoint: 2,
            slow_after: Duration::from_secs(2),
        })
    }

    fn lease(endpoint: u8, message: u8) -> Lease {
        let delivery = DeliveryId {
            message: Id::new(Ksuid::from_bytes([message; 20])),
            endpoint: Id::new(Ksuid::from_bytes([endpoint; 20])),
            generation: 0,
        };
        Lease { delivery, epoch: 1 }
    }

    fn fill(lanes: &mut State, endpoint: u8, attempts: u8) -> usize {
        (0..attempts).filter(|message| lanes.enter(lease(endpoint, *message))).count()
    }

    #[test]
    fn room_is_what_does_not_run() {
        let mut lanes = lanes(12);
        assert_eq!(lanes.room().total, 12);
        assert_eq!(fill(&mut lanes, 1, 10), 10);
        assert_eq!(fill(&mut lanes, 2, 1), 1);
        assert_eq!(lanes.room().total, 1);
        lanes.leave(&lease(1, 0), QUICK);
        assert_eq!(lanes.room().total, 2);
        assert!(lanes.enter(lease(1, 11)));
    }

    #[test]
    fn quick_answers_of_a_full_lane_earn_it_places_up_to_a_bound() {
        let mut lanes = lanes(100);
        let endpoint = lease(1, 0).delivery.endpoint;
        fill(&mut lanes, 1, 9);
        lanes.leave(&lease(1, 0), QUICK);
        assert_eq!(lanes.room().wide.get(&endpoint), None, "nine did not fill it");
        fill(&mut lanes, 1, 10);
        for (answered, places) in [(1, 11), (2, 12), (3, 12)] {
            lanes.leave(&lease(1, answered), QUICK);
            assert_eq!(lanes.room().wide.get(&endpoint), Some(&places));
            while lanes.running_of(endpoint) < places {
                lanes
                    .enter(lease(1, 100 + u8::try_from(lanes.running_of(endpoint)).unwrap() + answered * 20));
            }
        }
        lanes.leave(&lease(1, 4), SLOW);
        assert!(lanes.room().wide.is_empty(), "a slow answer costs all of them");
        assert_eq!(lanes.slow_running, 11);
    }

    #[test]
    fn a_lease_is_counted_once_however_often_it_is_returned() {
        let mut lanes = lanes(5);
        assert!(lanes.enter(lease(1, 1)));
        assert!(!lanes.enter(lease(1, 1)));
        lanes.leave(&lease(1, 1), QUICK);
        lanes.leave(&lease(1, 1), QUICK);
        assert_eq!(lanes.room().total, 5);
        assert!(lanes.running.is_empty());
    }

    #[test]
    fn a_suspect_that_waits_takes_no_room() {
        let mut lanes = lanes(10);
        let endpoint = lease(1, 0).delivery.endpoint;
        for message in 0..30 {
            assert!(lanes.wait(lease(1, message)));
        }
        assert_eq!(lanes.room().total, 10);
        assert_eq!(lanes.room().wide.get(&endpoint), Some(&40), "the store counts their leases");
        lanes.begin(&lease(1, 0));
        assert_eq!((lanes.room().total, lanes.running_of(endpoint)), (9, 1));
        for message in 0..30 {
            lanes.leave(&lease(1, message), None);
        }
        assert_eq!(lanes.room().total, 10);
        assert!(lanes.room().wide.is_empty() && lanes.running.is_empty());
    }

    #[test]
    fn a_slow_endpoint_gets_two_places_until_it_is_quick_again() {
        let mut lanes = lanes(100);
        fill(&mut lanes, 1, 10);
        for message in 0..10 {
            lanes.leave(&lease(1, message), SLOW);
        }
        assert_eq!(lanes.room().full, []);
        assert_eq!(fill(&mut lanes, 1, 10), 2);
        assert_eq!(lanes.room().full, [lease(1, 0).delivery.endpoint]);
        assert_eq!(fill(&mut lanes, 2, 10), 10, "others keep their places");
        lanes.leave(&lease(1, 0), QUICK);
        assert_eq!(lanes.room().full, []);
        assert_eq!(fill(&mut lanes, 1, 10), 9);
        assert_eq!(lanes.slow_running, 0);
    }

    #[test]
    fn slow_endpoints_together_never_take_more_than_half() {
        let mut lanes = lanes(20);
        for endpoint in 0..20 {
            fill(&mut lanes, endpoint, 1);
        }
        for endpoint in 0..20 {
            lanes.leave(&lease(endpoint, 0), SLOW);
        }
        let entered: usize = (0..20).map(|endpoint| fill(&mut lanes, endpoint, 10)).sum();
        assert_eq!(entered, 10);
        assert_eq!(lanes.room().full.len(), 20, "every slow lane is closed");
        assert_eq!(fill(&mut lanes, 21, 10), 10, "a quick one finds room");
    }

    #[test]
    fn a_place_is_news_only_when_something_could_have_waited_for_it() {
        let mut lanes = lanes(12);
        fill(&mut lanes, 1, 10);
        assert!(lanes.leave(&lease(1, 0), QUICK), "its lane was full");
        assert!(!lanes.leave(&lease(1, 1), QUICK));
        fill(&mut lanes, 2, 4);
        assert!(lanes.leave(&lease(2, 0), QUICK), "all places were taken");
        assert!(!lanes.leave(&lease(2, 1), QUICK));
        fill(&mut lanes, 3, 1);
        lanes.leave(&lease(3, 0), SLOW);
        fill(&mut lanes, 3, 2);
        assert!(lanes.leave(&lease(3, 0), SLOW), "its lane was narrow and full");
    }

    #[test]
    fn an_end_without_a_time_changes_no_judgement() {
        let mut lanes = lanes(100);
        fill(&mut lanes, 1, 1);
        lanes.leave(&lease(1, 0), SLOW);
        fill(&mut lanes, 1, 2);
        lanes.leave(&lease(1, 0), None);
        assert!(lanes.slow.contains(&lease(1, 0).delivery.endpoint));
        assert_eq!(lanes.slow_running, 1);
    }
}
