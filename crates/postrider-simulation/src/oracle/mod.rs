//! What must never happen, watched from outside the engine: it knows what was published and configured, sees what the
//! store did and what left for endpoints, and compares. The numbers are those of the reliability contract:
//!
//! - I1 nothing accepted is lost; I2 one id, one body; I3 nothing arrives that was not published for that endpoint;
//! - I4 whatever arrived has an attempt in the history; I5 a success is repeated only where a crash or a lost answer
//!   explains it; I6 no delivery has more attempts than its schedule;
//! - I7 a result is dropped only when it is stored already; I8 final states stay; I9 one idempotency key, one message;
//! - I11 a saturating application keeps no other waiting; I12 everything pending has a next event;
//! - besides: no limit on what runs and no rate is exceeded, an open breaker lets one probe out, what was given back was
//!   not sent, and the scheduler does not spin.
//!
//! `requests` watches what leaves, `publications` what was promised, `history` the disk.

mod history;
mod publications;
mod requests;

use crate::{plan::Plan, store::Deed, trace::Entry};
use postrider_model::{
    delivery::{DeliveryId, State},
    id::EndpointId,
    retry::{GiveUp, NextStep},
    signature::SigningSecret,
};
use postrider_store::deliveries::{AttemptRecord, Lease, Recorded};
use publications::Publications;
use requests::Sending;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Deaths of the process during its attempts that make a delivery a suspect.
const SUSPECT_DEATHS: u32 = 2;

/// The oracle of a run.
pub(crate) struct Oracle {
    limits: Limits,
    fairness: bool,
    pub(crate) endpoints: Vec<EndpointView>,
    pub(crate) publications: Publications,
    /// The attempt whose request leaves next.
    about_to_leave: Option<(DeliveryId, u32, Duration)>,
    /// Attempts that have begun on the node that lives, and were not recorded yet.
    running: BTreeMap<DeliveryId, u32>,
    /// When the node that lives claimed a delivery, and whether it runs alone as a suspect, outside of all limits.
    claimed: BTreeMap<DeliveryId, (Duration, bool)>,
    /// Requests that are under way from it.
    sending: BTreeMap<DeliveryId, Sending>,
    /// Deliveries that it knows to have succeeded.
    succeeded: BTreeSet<DeliveryId>,
    /// Leases whose results are stored.
    stored: BTreeSet<u64>,
    receipts: Vec<Receipt>,
    pulse: Pulse,
    states: BTreeMap<DeliveryId, (State, u32)>,
    /// Numbers for the report.
    pub(crate) counts: Counts,
}

/// What a run came to, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were acknowledged.
    pub messages: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Processes that were started.
    pub boots: u64,
    /// First attempts whose queue delay was measured beside a saturating application.
    pub measured: u64,
}

/// What an operator configured.
struct Limits {
    total: usize,
    per_quick_endpoint: usize,
    per_slow_endpoint: usize,
    slow_after: Duration,
    deadline: Duration,
}

/// An endpoint as its owner knows it.
pub(crate) struct EndpointView {
    pub(crate) id: Option<EndpointId>,
    pub(crate) application: usize,
    /// Its URLs, each since when.
    pub(crate) urls: Vec<(Duration, String)>,
    /// Every secret that it ever had.
    pub(crate) secrets: Vec<SigningSecret>,
    pub(crate) oauth: bool,
    /// Messages per second, its own or its application's.
    rate: Option<u16>,
    /// Since when it certainly gets everything; `None` while that is not certain.
    pub(crate) certain_since: Option<Duration>,
    /// Attempts of a scheduled delivery at most, without interrupted ones.
    most_attempts: usize,
    health: requests::Health,
}

/// How often the scheduler looks, and what comes of it.
#[derive(Debug, Default)]
struct Pulse {
    /// The second that is counted.
    second: u64,
    claims: u64,
    progress: u64,
}

/// Claims in a second, beyond some for each result: looking again is what a scheduler does when something has changed.
const CLAIMS: u64 = 100;
const CLAIMS_FOR_A_RESULT: u64 = 10;

impl Pulse {
    fn claims(&mut self, at: Duration) -> Result<(), String> {
        if self.second != at.as_secs() {
            *self = Self { second: at.as_secs(), ..Self::default() };
        }
        self.claims += 1;
        if self.claims > CLAIMS + CLAIMS_FOR_A_RESULT * self.progress {
            return Err(format!("{} claims in a second, with {} results", self.claims, self.progress));
        }
        Ok(())
    }
}

/// A request that arrived at an endpoint.
struct Receipt {
    delivery: DeliveryId,
    number: u32,
    /// The endpoint took it.
    taken: bool,
}

impl Oracle {
    pub(crate) fn new(plan: &Plan) -> Self {
        let config = &plan.config;
        let limits = Limits {
            total: config.in_flight_total,
            per_quick_endpoint: config.in_flight_per_quick_endpoint.max(config.in_flight_per_endpoint),
            per_slow_endpoint: config.in_flight_per_slow_endpoint,
            slow_after: Duration::from_millis(config.slow_after_ms),
            deadline: Duration::from_millis(config.total_deadline_ms),
        };
        let endpoints = plan.endpoints.iter().map(|endpoint| EndpointView {
            id: None,
            application: endpoint.application,
            urls: Vec::new(),
            secrets: Vec::new(),
            oauth: endpoint.oauth,
            rate: endpoint.throttle_rate.or(plan.applications[endpoint.application].throttle_rate),
            certain_since: None,
            most_attempts: endpoint.waits.as_ref().map_or(config.retry_waits_ms.len(), Vec::len) + 1,
            health: requests::Health::default(),
        });
        Self {
            limits,
            fairness: plan.fairness,
            endpoints: endpoints.collect(),
            publications: Publications::default(),
            about_to_leave: None,
            running: BTreeMap::new(),
            claimed: BTreeMap::new(),
            sending: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            stored: BTreeSet::new(),
            receipts: Vec::new(),
            pulse: Pulse::default(),
            states: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// A node comes up: what the one before had in memory is gone.
    pub(crate) fn boots(&mut self) {
        self.about_to_leave = None;
        self.running.clear();
        self.claimed.clear();
        self.sending.clear();
        self.succeeded.clear();
        for endpoint in &mut self.endpoints {
            endpoint.health = requests::Health::default();
        }
        self.counts.boots += 1;
    }

    /// The store did something.
    pub(crate) fn saw(&mut self, deed: &Deed<'_>, at: Duration) -> (Entry, Result<(), String>) {
        match deed {
            Deed::Claimed { room, claimed, out } => {
                for item in &claimed.deliveries {
                    self.claimed.insert(item.lease.delivery, (at, item.deaths >= SUSPECT_DEATHS));
                }
                let entry = Entry::Claimed(claimed.deliveries.len(), out.len());
                (entry, self.claims(room.total, out, at))
            }
            Deed::Started { lease, number } => {
                let entry = Entry::Started(lease.delivery, *number);
                (entry, self.starts(lease, *number, at))
            }
            Deed::Recorded { record, result } => {
                let stored = matches!(result, Recorded::Stored(_));
                let entry = Entry::Recorded(record.lease.delivery, record.attempt.number, stored);
                (entry, self.records(record, stored))
            }
            Deed::Released { lease } => (Entry::Released(lease.delivery), self.releases(lease)),
        }
    }

    fn claims(&mut self, room: usize, out: &[Lease], at: Duration) -> Result<(), String> {
        self.pulse.claims(at)?;
        if room > self.limits.total {
            return Err(format!("a claim asks for {room}, more than may run in all"));
        }
        // What has no place when it comes is given back at once, and suspects wait outside.
        if out.len() > 3 * self.limits.total + 10 {
            return Err(format!("{} leases are out, {} may run", out.len(), self.limits.total));
        }
        Ok(())
    }

    fn starts(&mut self, lease: &Lease, number: u32, at: Duration) -> Result<(), String> {
        let delivery = lease.delivery;
        if let Some(other) = self.running.insert(delivery, number) {
            return Err(format!("I5: attempt {number} of {delivery:?} begins while attempt {other} runs"));
        }
        if self.succeeded.contains(&delivery) {
            return Err(format!("I5: {delivery:?} is attempted again although it succeeded"));
        }
        self.about_to_leave = Some((delivery, number, at));
        Ok(())
    }

    fn records(&mut self, record: &AttemptRecord, stored: bool) -> Result<(), String> {
        let (delivery, epoch) = (record.lease.delivery, record.lease.epoch);
        if !stored {
            // The answer to the record that stored it was lost.
            let repeated = self.stored.contains(&epoch);
            return if repeated { Ok(()) } else { Err(format!("I7: a result of {delivery:?} was dropped")) };
        }
        self.stored.insert(epoch);
        self.pulse.progress += 1;
        self.running.remove(&delivery);
        let quick = record.attempt.duration < self.limits.slow_after;
        if let Some(view) = self.endpoints.iter_mut().find(|view| view.id == Some(delivery.endpoint)) {
            if record.next == NextStep::GiveUp(GiveUp::Gone) {
                view.certain_since = None;
            }
            if quick {
                view.health.was_quick();
            }
        }
        Ok(())
    }

    fn releases(&mut self, lease: &Lease) -> Result<(), String> {
        if self.running.remove(&lease.delivery).is_some() {
            return Err(format!("{:?} was given back although it had been sent", lease.delivery));
        }
        Ok(())
    }
}
