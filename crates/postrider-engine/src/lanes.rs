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
            bytes: usize::MAX,
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
mod tests;
