//! The book-keeping of the lanes, without a lock. Pure: the caller brings the time and tells the store what it returns.

use super::{
    Limits, Standing,
    answers::{Entered, Gate, Left, Outcome, Paced, Ticket},
    lane::{Lane, RECOVERING_PLACES, Report},
};
use crate::metrics::Withheld;
use postrider_model::{
    breaker::{Admission, Breaker, Finding},
    id::EndpointId,
    time::Timestamp,
};
use postrider_store::deliveries::{Lease, Room};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Lanes that are remembered while nothing of theirs runs, some 200 bytes each. Beyond it those that are well are
/// forgotten first, then those that are left alone: they prove themselves anew.
const REMEMBERED: usize = 100_000;
/// How often what need not be remembered is looked for.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// What is not heard of for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(1);
/// What a delivery waits for its turn in its place; what would wait longer is given back. Short: it holds a place and a
/// payload. Long enough that rates from a hundred messages a second on are kept without giving back.
const PATIENCE: Duration = Duration::from_millis(100);
/// A quick endpoint that nothing is heard of for this long has to show anew that it is.
const QUICK_FOR: Duration = Duration::from_mins(10);
/// One in so many places is kept for endpoints that are known to be quick: a thousand new ones that all hang take all
/// others before the first of them is known to be slow.
const KEPT_SHARE: usize = 4;
/// How often lanes are looked for that have stalled, once one in [`KEPT_SHARE`] places is taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long an endpoint that is not known to be quick waits while only places are free that are kept.
const KEPT_TURN: Duration = Duration::from_millis(100);
/// The part of all places in which deliveries may wait for their turn.
const PACING_SHARE: usize = 4;
/// How long the suspects of an endpoint wait while others fill what suspects may take of the memory for payloads, one in
/// [`KEPT_SHARE`]: they run one at a time, and must not keep all others from running meanwhile.
const SUSPECT_TURN: Duration = Duration::from_secs(1);
/// How long a slow endpoint waits for one of the places of the slow: at least, and at most.
const SLOW_TURN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// See the head.
pub(super) struct State {
    limits: Limits,
    lanes: HashMap<EndpointId, Lane>,
    /// Bounds of lanes with something running that are not the usual ones.
    own: HashMap<EndpointId, usize>,
    leases: HashSet<Lease>,
    /// Suspects that wait for their turn, and their bytes. They are few: what was in flight when the process died, twice.
    waiting: HashSet<Lease>,
    waiting_bytes: usize,
    bytes: usize,
    /// Lanes that are slow, and what they have running.
    slow: usize,
    slow_running: Running,
    /// What lanes that are not known to be quick have running, slow ones included.
    unproven_running: Running,
    /// Deliveries that wait for their turn in their places.
    pacing: usize,
    /// Breakers that are open, and half-open.
    breakers: (usize, usize),
    entered: u64,
    probes: u64,
    swept: Timestamp,
    looked: Timestamp,
}

/// What some of the lanes have running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Running {
    deliveries: usize,
    /// Of their payloads.
    bytes: usize,
}

impl Running {
    fn of(lane: &Lane) -> Self {
        Self { deliveries: lane.running, bytes: lane.bytes }
    }

    /// Whether one more of so many bytes stays within a bound. The first one does, whatever its size.
    fn has_room_for(self, bytes: usize, most: Self) -> bool {
        self.deliveries < most.deliveries && (self.bytes == 0 || self.bytes + bytes <= most.bytes)
    }

    fn add(&mut self, more: Self) {
        *self = Self { deliveries: self.deliveries + more.deliveries, bytes: self.bytes + more.bytes };
    }

    fn remove(&mut self, less: Self) {
        *self = Self { deliveries: self.deliveries - less.deliveries, bytes: self.bytes - less.bytes };
    }
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            own: HashMap::new(),
            leases: HashSet::new(),
            waiting: HashSet::new(),
            waiting_bytes: 0,
            bytes: 0,
            slow: 0,
            slow_running: Running::default(),
            unproven_running: Running::default(),
            pacing: 0,
            breakers: (0, 0),
            entered: 0,
            probes: 0,
            swept: Timestamp::default(),
            looked: Timestamp::default(),
        }
    }

    pub(super) fn room(&self) -> Room {
        let bytes = self.limits.bytes.saturating_sub(self.bytes);
        // A claim hands out its first delivery whatever its size.
        let total = if bytes == 0 { 0 } else { self.limits.total.saturating_sub(self.leases.len()) };
        Room {
            total,
            bytes,
            per_endpoint: self.limits.per_endpoint,
            wide: self.own.clone(),
            // Told by their bounds, or deferred.
            full: Vec::new(),
        }
    }

    pub(super) fn enter(&mut self, lease: Lease, bytes: usize, now: Timestamp) -> Entered {
        let endpoint = lease.delivery.endpoint;
        self.make_room_for(endpoint, now);
        let limits = self.limits;
        let lane = self.lanes.entry(endpoint).or_insert_with(|| Lane::new(&limits));
        if !lane.has_place(&limits) {
            return Entered::Full;
        }
        let half = Running { deliveries: limits.total.div_ceil(2), bytes: limits.bytes.div_ceil(2) };
        if lane.slow && !self.slow_running.has_room_for(bytes, half) {
            return Entered::Later(now.plus(self.slow_turn()));
        }
        let but_kept = Running {
            deliveries: limits.total - limits.total / KEPT_SHARE,
            bytes: limits.bytes - limits.bytes / KEPT_SHARE,
        };
        if !lane.quick && !self.unproven_running.has_room_for(bytes, but_kept) {
            return Entered::Later(now.plus(KEPT_TURN));
        }
        if !self.leases.insert(lease) {
            return Entered::Full;
        }
        lane.begins(now);
        lane.bytes += bytes;
        let one = Running { deliveries: 1, bytes };
        if lane.slow {
            self.slow_running.add(one);
        }
        if !lane.quick {
            self.unproven_running.add(one);
        }
        self.bytes += bytes;
        self.entered += 1;
        self.tell_bound(endpoint);
        Entered::In(Ticket { entered: self.entered, bytes, ..Ticket::default() })
    }

    pub(super) fn wait(&mut self, lease: Lease, bytes: usize, now: Timestamp) -> Entered {
        let limits = self.limits;
        let most = limits.bytes / KEPT_SHARE;
        if self.waiting_bytes > 0 && self.waiting_bytes + bytes > most {
            return Entered::Later(now.plus(SUSPECT_TURN));
        }
        if !self.waiting.insert(lease) {
            return Entered::Full;
        }
        let endpoint = lease.delivery.endpoint;
        self.lanes.entry(endpoint).or_insert_with(|| Lane::new(&limits)).waiting += 1;
        self.bytes += bytes;
        self.waiting_bytes += bytes;
        self.tell_bound(endpoint);
        Entered::In(Ticket { bytes, ..Ticket::default() })
    }

    pub(super) fn begin(&mut self, lease: &Lease, ticket: &mut Ticket, now: Timestamp) {
        let endpoint = lease.delivery.endpoint;
        if !self.waiting.remove(lease) || !self.leases.insert(*lease) {
            return;
        }
        self.waiting_bytes -= ticket.bytes;
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.waiting -= 1;
            lane.begins(now);
            lane.bytes += ticket.bytes;
            let one = Running { deliveries: 1, bytes: ticket.bytes };
            if lane.slow {
                self.slow_running.add(one);
            }
            if !lane.quick {
                self.unproven_running.add(one);
            }
        }
        self.entered += 1;
        ticket.entered = self.entered;
        self.tell_bound(endpoint);
    }

    pub(super) fn admit(
        &mut self,
        endpoint: EndpointId,
        ticket: &mut Ticket,
        version: u64,
        urgent: bool,
        now: Timestamp,
    ) -> Gate {
        let limits = self.limits;
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Gate::Open };
        let before = lane.breaker;
        let mended = lane.configured(version, &limits);
        ticket.version = Some(version);
        let gate = match lane.breaker.admission(now, urgent) {
            Admission::Send if mended => Gate::Mended,
            Admission::Send => Gate::Open,
            Admission::Wait(until) => Gate::Shut(until, Withheld::Breaker),
            Admission::AfterProbe => Gate::Shut(now.plus(limits.probe_time), Withheld::Probe),
            Admission::Probe => {
                self.probes += 1;
                ticket.probe = Some(self.probes);
                lane.breaker = lane.breaker.probing(self.probes);
                Gate::Probe(now.plus(limits.probe_time))
            }
        };
        let after = lane.breaker;
        self.count(before, after);
        self.tell_bound(endpoint);
        gate
    }

    pub(super) fn pace(&mut self, endpoint: EndpointId, rate: u16, now: Timestamp) -> Paced {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Paced::Go };
        let (at, throttle) = lane.next_turn(rate, now);
        if at <= now {
            lane.takes_turn(throttle);
            return Paced::Go;
        }
        lane.is_throttled(now);
        if at.since(now) > PATIENCE || self.pacing >= self.limits.total.div_ceil(PACING_SHARE) {
            return Paced::Shut(at);
        }
        lane.takes_turn(throttle);
        self.pacing += 1;
        Paced::At(at)
    }

    /// A delivery has waited for its turn.
    pub(super) fn paced(&mut self) {
        self.pacing = self.pacing.saturating_sub(1);
    }

    /// An attempt is over; its delivery keeps its place until the result is stored.
    pub(super) fn ended(&mut self, endpoint: EndpointId, ticket: &mut Ticket, report: &Report) -> Outcome {
        let (limits, newest) = (self.limits, self.entered);
        let Some(lane) = self.lanes.get_mut(&endpoint).filter(|_| !ticket.ended) else {
            return Outcome::default();
        };
        let (was_slow, was_quick) = (lane.slow, lane.quick);
        let mut outcome =
            Outcome { earned: lane.adapt(report, ticket.entered, newest, &limits), ..Outcome::default() };
        if lane.slow != was_slow {
            if lane.slow {
                self.slow += 1;
                self.slow_running.add(Running::of(lane));
            } else {
                self.slow -= 1;
                self.slow_running.remove(Running::of(lane));
            }
        }
        if lane.quick != was_quick {
            if lane.quick {
                self.unproven_running.remove(Running::of(lane));
            } else {
                self.unproven_running.add(Running::of(lane));
            }
        }
        lane.ended += 1;
        ticket.ended = true;
        let before = lane.breaker;
        // What was sent with another configuration tells nothing of this one.
        if ticket.version == Some(lane.version) {
            lane.breaker = judged(before, ticket.probe, report);
        }
        let after = lane.breaker;
        match (before, after) {
            (Breaker::Closed(_) | Breaker::HalfOpen(..), Breaker::Open(pause)) => {
                outcome.defer = Some(pause.until);
                // A probe that came to nothing opens nothing anew.
                outcome.opened =
                    (before.pause().map(|pause| pause.trips) != Some(pause.trips)).then_some(pause);
            }
            (Breaker::HalfOpen(..), Breaker::Closed(_)) => {
                let most = if lane.slow { limits.per_slow_endpoint } else { limits.per_endpoint };
                lane.places = RECOVERING_PLACES.min(most);
                outcome.defer = Some(lane.due(report.now));
                outcome.closed = true;
            }
            _ => {}
        }
        self.count(before, after);
        self.tell_bound(endpoint);
        outcome
    }

    pub(super) fn leave(&mut self, lease: &Lease, ticket: &Ticket, now: Timestamp) -> Left {
        let endpoint = lease.delivery.endpoint;
        let mut left = Left::default();
        let out_of_bytes = self.bytes >= self.limits.bytes;
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return left };
        let before = lane.breaker;
        if self.waiting.remove(lease) {
            lane.waiting -= 1;
            self.waiting_bytes -= ticket.bytes;
            left.was_full = out_of_bytes;
        } else if self.leases.contains(lease) {
            let full = self.leases.len() >= self.limits.total || lane.running >= lane.places;
            left.was_full = full || out_of_bytes;
            self.leases.remove(lease);
            lane.running -= 1;
            lane.bytes -= ticket.bytes;
            lane.ended -= usize::from(ticket.ended);
            let one = Running { deliveries: 1, bytes: ticket.bytes };
            if lane.slow {
                self.slow_running.remove(one);
            }
            if !lane.quick {
                self.unproven_running.remove(one);
            }
            if let Some(probe) = ticket.probe.filter(|_| !ticket.ended) {
                lane.breaker = before.without_probe(probe, now);
                left.defer = (lane.breaker != before).then(|| lane.due(now));
            }
        } else {
            return left;
        }
        let after = lane.breaker;
        self.bytes -= ticket.bytes;
        self.count(before, after);
        self.settle(endpoint);
        left
    }

    /// Looks, while places are taken, for lanes that have stalled: they are slow from now on, not only once their attempts
    /// have run into their deadline.
    pub(super) fn look_for_stalled(&mut self, now: Timestamp) {
        let few = self.leases.len() < self.limits.total / KEPT_SHARE;
        // The last for a clock that was set back.
        if few || (now.since(self.looked) < LOOK_EVERY && self.looked <= now) {
            return;
        }
        self.looked = now;
        let limits = self.limits;
        let mut stalled = Vec::new();
        for (endpoint, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.is_stalled(&limits, now)) {
            let running = Running::of(lane);
            if lane.quick {
                self.unproven_running.add(running);
            }
            lane.is_slow(&limits);
            self.slow += 1;
            self.slow_running.add(running);
            stalled.push(*endpoint);
        }
        for endpoint in stalled {
            self.tell_bound(endpoint);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.leases.len() + self.waiting.len()
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.leases.iter().chain(&self.waiting).copied().collect()
    }

    /// How many breakers are open, and half-open.
    pub(super) fn breakers(&self) -> (usize, usize) {
        self.breakers
    }

    pub(super) fn standing(&self, endpoint: EndpointId, now: Timestamp) -> Standing {
        let limits = &self.limits;
        self.lanes.get(&endpoint).map_or_else(|| Lane::new(limits).standing(now), |lane| lane.standing(now))
    }

    /// Everything that is counted on the way, counted anew.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let lanes = || self.lanes.values();
        let sum = |count: fn(&Lane) -> usize| lanes().map(count).sum::<usize>();
        assert_eq!(self.leases.len(), sum(|lane| lane.running));
        assert_eq!(self.waiting.len(), sum(|lane| lane.waiting));
        assert_eq!(self.slow, lanes().filter(|lane| lane.slow).count());
        let running = |which: fn(&Lane) -> bool| {
            let mut all = Running::default();
            lanes().filter(|lane| which(lane)).for_each(|lane| all.add(Running::of(lane)));
            all
        };
        assert_eq!(self.slow_running, running(|lane| lane.slow));
        assert_eq!(self.unproven_running, running(|lane| !lane.quick));
        assert_eq!(self.bytes, sum(|lane| lane.bytes) + self.waiting_bytes);
        let open = lanes().filter(|lane| matches!(lane.breaker, Breaker::Open(_))).count();
        let half_open = lanes().filter(|lane| matches!(lane.breaker, Breaker::HalfOpen(..))).count();
        assert_eq!(self.breakers, (open, half_open));
        let own = self.lanes.iter().filter_map(|(id, lane)| Some((*id, lane.bound(&self.limits)?)));
        assert_eq!(self.own, own.collect());
        assert!(lanes().all(|lane| lane.ended <= lane.running));
        assert!(lanes().all(|lane| (1..=self.limits.per_quick_endpoint).contains(&lane.places)));
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.lanes.len()
    }

    /// Forgets, once a minute, what need not be remembered. Returns whether it did look.
    pub(super) fn sweep(&mut self, now: Timestamp) -> bool {
        // The second for a clock that was set back.
        if now.since(self.swept) < SWEEP_EVERY && self.swept <= now {
            return false;
        }
        self.swept = now;
        let limits = self.limits;
        self.forget(|lane| {
            let age = if lane.is_blank(&limits, now) { QUICK_FOR } else { FORGET_AFTER };
            lane.is_stale(age, now)
        });
        true
    }

    /// One lane more than are remembered: those that matter least are forgotten.
    fn make_room_for(&mut self, endpoint: EndpointId, now: Timestamp) {
        if self.lanes.len() < REMEMBERED || self.lanes.contains_key(&endpoint) {
            return;
        }
        self.forget(|lane| lane.is_idle() && lane.breaker.pause().is_none_or(|pause| pause.until < now));
        // A tenth at least, so that the next one does not look through all of them again.
        if self.lanes.len() > REMEMBERED / 10 * 9 {
            self.forget(Lane::is_idle);
        }
    }

    fn forget(&mut self, which: impl Fn(&Lane) -> bool) {
        let (slow, breakers) = (&mut self.slow, &mut self.breakers);
        self.lanes.retain(|_, lane| {
            let forgotten = which(lane);
            if forgotten {
                *slow -= usize::from(lane.slow);
                breakers.0 -= usize::from(matches!(lane.breaker, Breaker::Open(_)));
                breakers.1 -= usize::from(matches!(lane.breaker, Breaker::HalfOpen(..)));
            }
            !forgotten
        });
    }

    fn count(&mut self, before: Breaker, after: Breaker) {
        let counted = |breaker: Breaker| match breaker {
            Breaker::Closed(_) => (0, 0),
            Breaker::Open(_) => (1, 0),
            Breaker::HalfOpen(..) => (0, 1),
        };
        let ((open, half), (more_open, more_half)) = (counted(before), counted(after));
        self.breakers = (self.breakers.0 + more_open - open, self.breakers.1 + more_half - half);
    }

    /// How long a slow endpoint waits until it is looked at again: what it takes until all had their turn.
    fn slow_turn(&self) -> Duration {
        let share = u32::try_from(self.limits.total.div_ceil(2)).unwrap_or(u32::MAX);
        let slow = u32::try_from(self.slow).unwrap_or(u32::MAX);
        let round = self.limits.slow_after.saturating_mul(slow) / share.max(1);
        round.clamp(SLOW_TURN.0, SLOW_TURN.1)
    }

    fn tell_bound(&mut self, endpoint: EndpointId) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let bound = lane.bound(&self.limits);
        if bound == lane.told {
            return;
        }
        lane.told = bound;
        match bound {
            Some(bound) => self.own.insert(endpoint, bound),
            None => self.own.remove(&endpoint),
        };
    }

    /// After something of a lane ended to run.
    fn settle(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.get_mut(&endpoint).filter(|lane| lane.is_idle()) {
            lane.rest(&self.limits);
        }
        self.tell_bound(endpoint);
    }
}

/// The breaker after an attempt.
fn judged(before: Breaker, probe: Option<u64>, report: &Report) -> Breaker {
    let Report { finding, now, jitter, .. } = *report;
    match probe {
        Some(probe) => before.after_probe(probe, finding, now, jitter),
        // Most attempts are of endpoints that are well, and stay so.
        None if finding == Finding::Well && before.is_blank() => before,
        None => before.after(finding, now, jitter),
    }
}
