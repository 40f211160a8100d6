//! One endpoint's lane: how many places it has, what its breaker says, at which rate it is sent to. Pure.

use super::{Limits, Standing};
use postrider_model::{
    breaker::{Breaker, Finding},
    throttle::Throttle,
    time::Timestamp,
};
use std::time::Duration;

/// Places of an endpoint that was just down: it gets more with each quick good answer.
pub(super) const RECOVERING_PLACES: usize = 2;
/// An endpoint counts as throttled for this long after a delivery was held back: longer than the slowest rate's pace, a
/// message a second.
const THROTTLED_FOR: Duration = Duration::from_secs(2);

/// See the head.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) running: usize,
    /// Bytes of their payloads.
    pub(super) bytes: usize,
    /// Of these, the ones whose attempt is over and whose result is being stored.
    pub(super) ended: usize,
    /// Suspects that wait for their turn.
    pub(super) waiting: usize,
    pub(super) places: usize,
    /// The bound that the store is told, when it is not the usual one.
    pub(super) told: Option<usize>,
    pub(super) slow: bool,
    /// Its last attempt was quick. A new endpoint has to show that first.
    pub(super) quick: bool,
    pub(super) breaker: Breaker,
    /// The version of the configuration that the breaker speaks of.
    pub(super) version: u64,
    throttle: Option<Throttle>,
    throttled: Option<Throttled>,
    /// Deliveries that entered before this one do not cut the places again: they tell of the same overload.
    cut: u64,
    /// When an attempt last ended.
    touched: Timestamp,
    /// When it last began to run something.
    since: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Throttled {
    since: Timestamp,
    last: Timestamp,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) finding: Finding,
    pub(super) took: Duration,
    /// In `0.0..1.0`.
    pub(super) jitter: f64,
    pub(super) now: Timestamp,
}

impl Lane {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            running: 0,
            bytes: 0,
            ended: 0,
            waiting: 0,
            places: limits.per_endpoint,
            told: None,
            slow: false,
            quick: false,
            breaker: Breaker::default(),
            version: 0,
            throttle: None,
            throttled: None,
            cut: 0,
            touched: Timestamp::default(),
            since: Timestamp::default(),
        }
    }

    /// One more runs.
    pub(super) fn begins(&mut self, now: Timestamp) {
        if self.active() == 0 {
            self.since = now;
        }
        self.running += 1;
    }

    /// Do attempts run of which none has ended for so long that it is slow, whenever they end?
    pub(super) fn is_stalled(&self, limits: &Limits, now: Timestamp) -> bool {
        !self.slow && self.active() > 0 && now.since(self.touched.max(self.since)) >= limits.slow_after
    }

    /// It takes long, or did.
    pub(super) fn is_slow(&mut self, limits: &Limits) {
        (self.slow, self.quick) = (true, false);
        self.places = self.places.min(limits.per_slow_endpoint);
    }

    /// Attempts that are under way.
    pub(super) fn active(&self) -> usize {
        self.running - self.ended
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    /// Is there a place? A lane with the usual places or more takes what the store gives: it keeps to the bound that it
    /// was told, and counts a delivery out a moment before its place here is free.
    pub(super) fn has_place(&self, limits: &Limits) -> bool {
        self.places >= limits.per_endpoint || self.active() < self.places
    }

    /// The leases that the store may have out, when they are not the usual number.
    pub(super) fn bound(&self, limits: &Limits) -> Option<usize> {
        let bound = self.places + self.waiting;
        (!self.is_idle() && bound != limits.per_endpoint).then_some(bound)
    }

    /// Its configuration may be newer than what the breaker speaks of: then its owner may have mended it. Returns whether
    /// it was left alone until now.
    pub(super) fn configured(&mut self, version: u64, limits: &Limits) -> bool {
        if version <= self.version {
            return false;
        }
        self.version = version;
        let before = std::mem::take(&mut self.breaker);
        if before != Breaker::default() && !self.slow {
            self.places = self.places.max(limits.per_endpoint);
        }
        before.pause().is_some()
    }

    /// Adapts the places to an answer; returns whether it earned one. `entered` numbers the delivery, `newest` the last
    /// one that entered.
    pub(super) fn adapt(&mut self, report: &Report, entered: u64, newest: u64, limits: &Limits) -> bool {
        self.touched = report.now;
        // Those whose results are being stored count: the store's bound counts them too, so that a lane whose answers come
        // sooner than its commits would never look full, and stay at ten places for ever.
        let full = self.running >= self.places;
        if report.took >= limits.slow_after {
            self.is_slow(limits);
            return false;
        }
        (self.slow, self.quick) = (false, true);
        match report.finding {
            Finding::Trouble(trouble, _) if trouble.is_overload() => {
                if entered > self.cut {
                    self.cut = newest;
                    self.places = (self.places / 2).max(1);
                }
                false
            }
            // A failing endpoint earns nothing, a throttled one has no use for more.
            Finding::Trouble(..) | Finding::Nothing => false,
            Finding::Well if !full || self.throttled_since(report.now).is_some() => false,
            Finding::Well => {
                let most = limits.per_quick_endpoint.max(limits.per_endpoint);
                let earned = self.places < most;
                self.places += usize::from(earned);
                earned
            }
        }
    }

    /// When the next delivery may go out at this rate, and what follows if it does.
    pub(super) fn next_turn(&self, rate: u16, now: Timestamp) -> (Timestamp, Throttle) {
        let throttle = self.throttle.filter(|throttle| throttle.rate() == rate);
        throttle.unwrap_or_else(|| Throttle::new(rate)).next(now)
    }

    /// A delivery goes out, or will: it has had its turn.
    pub(super) fn takes_turn(&mut self, throttle: Throttle) {
        self.throttle = Some(throttle);
    }

    /// A delivery has to wait for its turn.
    pub(super) fn is_throttled(&mut self, now: Timestamp) {
        let since = self.throttled_since(now).unwrap_or(now);
        self.throttled = Some(Throttled { since, last: now });
    }

    /// The earliest time at which its rate lets something go out.
    pub(super) fn due(&self, now: Timestamp) -> Timestamp {
        self.throttle.map_or(now, |throttle| throttle.next(now).0)
    }

    fn throttled_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.throttled
            .filter(|throttled| now.since(throttled.last) <= THROTTLED_FOR)
            .map(|throttled| throttled.since)
    }

    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        Standing { breaker: self.breaker, places: self.places, throttled_since: self.throttled_since(now) }
    }

    /// Nothing of it runs: places beyond the usual are earned anew.
    pub(super) fn rest(&mut self, limits: &Limits) {
        self.places = self.places.min(limits.per_endpoint);
    }

    /// A new lane would do as well, but for having shown that it is quick.
    pub(super) fn is_blank(&self, limits: &Limits, now: Timestamp) -> bool {
        self.is_idle()
            && !self.slow
            && self.places == limits.per_endpoint
            && self.breaker.is_blank()
            && self.throttle.is_none_or(|throttle| throttle.is_blank(now))
    }

    /// Is it idle, and has nothing been heard of it for this long (after its pause, if it has one)?
    pub(super) fn is_stale(&self, age: Duration, now: Timestamp) -> bool {
        let until = self.breaker.pause().map_or(self.touched, |pause| self.touched.max(pause.until));
        self.is_idle() && now.since(until) > age
    }
}
