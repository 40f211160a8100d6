//! Who runs: how many deliveries in all, of one endpoint, and of slow endpoints; which endpoints are left alone for a
//! while, and which are sent to at a limited rate. Decides nothing about what is due: the store does.
//!
//! The cast: `state` counts what runs, and `answers` has what it says of it; `lane` is one endpoint's part: its places,
//! its breaker, its rate. A claimed delivery [enters](Lanes::enter) its lane and gets a [`Place`]; its attempt asks the
//! place whether it is [admitted](Place::admit) (the breaker) and [when it may send](Place::pace) (the rate), and tells
//! it [what came of it](Place::ended).
//!
//! **Places.** One mechanism: more with each quick good answer of a full lane, half of them when the endpoint says that
//! it is too much, two when it is slow or was just down. All slow endpoints together get half of the node's places, and of its memory for payloads:
//! however many endpoints hang, the others' deliveries find room.
//!
//! **Waiting.** What may not be sent now is given back without an attempt, and the store is told until when it need not
//! be claimed (`defer`): a hundred thousand endpoints that are down cost a claim nothing. The store is told under the
//! lock, so that what it heard last is what holds.

mod answers;
mod lane;
mod state;

use crate::metrics::{Metrics, Withheld};
use answers::{Entered, Gate, Paced, Ticket};
use lane::Report;
use postrider_model::{
    breaker::{Breaker, Finding},
    id::EndpointId,
    time::Timestamp,
};
use postrider_store::{
    Store,
    deliveries::{Deferred, Lease, Room},
};
use state::State;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// How many may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    /// Bytes of payloads in all.
    pub(crate) bytes: usize,
    /// To begin with.
    pub(crate) per_endpoint: usize,
    /// Once it has answered that many quickly.
    pub(crate) per_quick_endpoint: usize,
    pub(crate) per_slow_endpoint: usize,
    /// An attempt that takes this long makes its endpoint slow; a quicker one makes it quick again.
    pub(crate) slow_after: Duration,
    /// What a probe may take until its endpoint's deliveries are looked at again, should nothing be heard of it.
    pub(crate) probe_time: Duration,
}

/// How an endpoint is treated at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// Deliveries of it that may run at the same time.
    pub places: usize,
    /// Since when its rate limit has held deliveries back.
    pub throttled_since: Option<Timestamp>,
}

/// The lanes of all endpoints on this node.
pub(crate) struct Lanes {
    state: Mutex<State>,
    freed: Notify,
    store: Arc<dyn Store>,
    metrics: Metrics,
}

/// A delivery's place in its lane; dropping it makes room.
pub(crate) struct Place {
    lanes: Arc<Lanes>,
    lease: Lease,
    ticket: Ticket,
    sent: bool,
}

impl Lanes {
    pub(crate) fn new(limits: Limits, store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { state: Mutex::new(State::new(limits)), freed: Notify::new(), store, metrics }
    }

    /// What can start now.
    pub(crate) fn room(&self) -> Room {
        let now = self.now();
        let mut state = self.state();
        if state.sweep(now) {
            self.metrics.breakers(state.breakers());
        }
        state.look_for_stalled(now);
        state.room()
    }

    /// A place for a claimed delivery with so many bytes of payload. `None` when its lane has none now (it turned slow
    /// meanwhile): give the lease back.
    pub(crate) fn enter(self: &Arc<Self>, lease: Lease, bytes: usize) -> Option<Place> {
        let now = self.now();
        let mut state = self.state();
        match state.enter(lease, bytes, now) {
            Entered::In(ticket) => Some(self.place(lease, ticket)),
            Entered::Full => None,
            Entered::Later(until) => {
                self.withhold(lease.delivery.endpoint, until, Withheld::Slow);
                None
            }
        }
    }

    /// A place for a suspect, which may wait long for its turn: until it [begins](Place::begin), it takes no room from
    /// its endpoint or from the node, only of the memory for payloads. `None` as in [`enter`](Self::enter).
    pub(crate) fn wait(self: &Arc<Self>, lease: Lease, bytes: usize) -> Option<Place> {
        let now = self.now();
        let mut state = self.state();
        match state.wait(lease, bytes, now) {
            Entered::In(ticket) => Some(self.place(lease, ticket)),
            Entered::Full => None,
            Entered::Later(until) => {
                self.withhold(lease.delivery.endpoint, until, Withheld::Suspect);
                None
            }
        }
    }

    /// Notified when a place was freed that something may have waited for: in a full lane, or when all were taken. Other
    /// places were free before, so that nothing new can start.
    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    /// The leases that are out.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.state().leases()
    }

    /// How an endpoint is treated.
    pub(crate) fn standing(&self, endpoint: EndpointId) -> Standing {
        let now = self.now();
        self.state().standing(endpoint, now)
    }

    fn place(self: &Arc<Self>, lease: Lease, ticket: Ticket) -> Place {
        self.metrics.in_flight.inc();
        Place { lanes: Arc::clone(self), lease, ticket, sent: false }
    }

    /// A delivery is given back: the store need not hand out more of its endpoint before this time.
    fn withhold(&self, endpoint: EndpointId, until: Timestamp, why: Withheld) {
        self.metrics.withheld(why);
        self.store.defer(Deferred::Endpoint(endpoint), until);
    }

    fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A suspect's turn has come: it runs now.
    pub(crate) fn begin(&mut self) {
        let now = self.lanes.now();
        self.lanes.state().begin(&self.lease, &mut self.ticket, now);
    }

    /// May the delivery be attempted with the configuration of this version? `urgent` is one that somebody waits for.
    /// `false`: give the lease back, the store knows until when it need not come again.
    pub(crate) fn admit(&mut self, version: u64, urgent: bool) -> bool {
        let (lanes, endpoint) = (&self.lanes, self.lease.delivery.endpoint);
        let now = lanes.now();
        let mut state = lanes.state();
        let gate = state.admit(endpoint, &mut self.ticket, version, urgent, now);
        lanes.metrics.breakers(state.breakers());
        match gate {
            Gate::Open => true,
            Gate::Mended => {
                lanes.store.defer(Deferred::Endpoint(endpoint), now);
                true
            }
            Gate::Probe(until) => {
                lanes.store.defer(Deferred::Endpoint(endpoint), until);
                tracing::debug!(endpoint.id = %endpoint, "probing an endpoint that was left alone");
                true
            }
            Gate::Shut(until, why) => {
                lanes.withhold(endpoint, until, why);
                false
            }
        }
    }

    /// Waits a moment if that makes the delivery keep to its endpoint's rate, in messages per second. `false` when a moment
    /// is not enough: give the lease back, the store knows until when it need not come again.
    pub(crate) async fn pace(&self, rate: Option<u16>) -> bool {
        let Some(rate) = rate else { return true };
        let (lanes, endpoint) = (&self.lanes, self.lease.delivery.endpoint);
        let now = lanes.now();
        let paced = {
            let mut state = lanes.state();
            let paced = state.pace(endpoint, rate, now);
            if let Paced::Shut(until) = paced {
                lanes.metrics.throttled.inc();
                lanes.withhold(endpoint, until, Withheld::Throttle);
            }
            paced
        };
        match paced {
            Paced::Go => true,
            Paced::At(at) => {
                lanes.metrics.throttled.inc();
                let _waits = Pacing(lanes);
                // The second for a clock that is set back meanwhile: the place must not wait until it gets there again.
                tokio::select! {
                    biased;
                    () = lanes.store.clock().sleep_until(at) => {}
                    () = tokio::time::sleep(at.since(now)) => {}
                }
                true
            }
            Paced::Shut(_) => false,
        }
    }

    /// Its request is about to be sent: from here on the history must get it.
    pub(crate) fn sends(&mut self) {
        self.sent = true;
    }

    /// Its request was sent, or may have been.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent
    }

    /// The attempt is over: what it says of its endpoint, how long it took, and a random number for the pause that may
    /// follow.
    pub(crate) fn ended(&mut self, finding: Finding, took: Duration, jitter: f64) {
        let (lanes, endpoint) = (&self.lanes, self.lease.delivery.endpoint);
        let report = Report { finding, took, jitter, now: lanes.now() };
        let mut state = lanes.state();
        let outcome = state.ended(endpoint, &mut self.ticket, &report);
        if let Some(until) = outcome.defer {
            lanes.store.defer(Deferred::Endpoint(endpoint), until);
        }
        if let Some(pause) = outcome.opened {
            lanes.metrics.tripped(pause.trouble);
            tracing::info!(
                endpoint.id = %endpoint, trouble = pause.trouble.name(), trips = pause.trips, until = pause.until.to_rfc3339(),
                "the endpoint is left alone for a while"
            );
        }
        if outcome.closed {
            tracing::info!(endpoint.id = %endpoint, "the endpoint answers again");
        }
        lanes.metrics.breakers(state.breakers());
        drop(state);
        if outcome.earned {
            lanes.freed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let lanes = &self.lanes;
        let now = lanes.now();
        let mut state = lanes.state();
        let left = state.leave(&self.lease, &self.ticket, now);
        if let Some(until) = left.defer {
            lanes.store.defer(Deferred::Endpoint(self.lease.delivery.endpoint), until);
            lanes.metrics.breakers(state.breakers());
        }
        drop(state);
        lanes.metrics.in_flight.dec();
        if left.was_full {
            lanes.freed.notify_one();
        }
    }
}

/// A delivery that waits a moment for its turn at its endpoint's rate.
struct Pacing<'a>(&'a Lanes);

impl Drop for Pacing<'_> {
    fn drop(&mut self) {
        self.0.state().paced();
    }
}

#[cfg(test)]
mod tests;
