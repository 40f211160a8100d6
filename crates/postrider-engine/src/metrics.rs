//! What an operator sees of deliveries, for Prometheus. No label has a value that users choose.

use postrider_model::{breaker::Trouble, outcome::Outcome};
use postrider_store::retention::Expired;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// Upper bounds in seconds: from an answer of a local receiver to the longest deadline.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0];
/// Upper bounds in seconds: from "at once" to a backlog of hours.
const LAG_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 36_000.0];

/// The engine's metrics. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    attempts: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    lag: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) panics: Counter,
    pub(crate) unstored_results: Gauge,
    pub(crate) superseded_results: Counter,
    pub(crate) claim_failures: Counter,
    open: Gauge,
    half_open: Gauge,
    trips: Family<TroubleLabel, Counter>,
    withheld: Family<ReasonLabel, Counter>,
    pub(crate) throttled: Counter,
    expired: Family<KindLabel, Counter>,
    last_sweep: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TroubleLabel {
    trouble: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Why a claimed delivery was given back without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// Its endpoint's breaker is open.
    Breaker,
    /// A probe of its endpoint is out.
    Probe,
    /// Its endpoint had its share of this second.
    Throttle,
    /// Its endpoint is slow, and the slow ones use all places that they may.
    Slow,
    /// It may have ended the process, and others of its kind that wait fill the memory that they may.
    Suspect,
}

impl Metrics {
    /// Makes the metrics and registers them under their full names, all of which begin with `postrider_`.
    pub fn register(registry: &mut Registry) -> Self {
        let breakers = Family::<StateLabel, Gauge>::default();
        registry.register(
            "postrider_breakers",
            "Endpoints that are left alone (open) or probed (half_open)",
            breakers.clone(),
        );
        let metrics = Self {
            attempts: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            lag: Histogram::new(LAG_BUCKETS),
            in_flight: Gauge::default(),
            panics: Counter::default(),
            unstored_results: Gauge::default(),
            superseded_results: Counter::default(),
            claim_failures: Counter::default(),
            open: breakers.get_or_create_owned(&StateLabel { state: "open" }),
            half_open: breakers.get_or_create_owned(&StateLabel { state: "half_open" }),
            trips: Family::default(),
            withheld: Family::default(),
            throttled: Counter::default(),
            expired: Family::default(),
            last_sweep: Gauge::default(),
        };
        metrics.register_deliveries(registry);
        metrics.register_waiting(registry);
        metrics.register_trouble(registry);
        metrics.register_retention(registry);
        metrics
    }

    fn register_deliveries(&self, registry: &mut Registry) {
        registry.register("postrider_attempts", "Attempts by outcome", self.attempts.clone());
        registry.register_with_unit(
            "postrider_attempt_duration",
            "Time of an attempt in all",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "postrider_delivery_lag",
            "Time between when an attempt was due and its start",
            Unit::Seconds,
            self.lag.clone(),
        );
        registry.register(
            "postrider_deliveries_in_flight",
            "Deliveries that are claimed and not yet recorded",
            self.in_flight.clone(),
        );
    }

    fn register_waiting(&self, registry: &mut Registry) {
        registry.register(
            "postrider_breaker_trips",
            "How often an endpoint began to be left alone, by its trouble",
            self.trips.clone(),
        );
        registry.register(
            "postrider_deliveries_withheld",
            "Deliveries that were claimed and given back without an attempt, by reason",
            self.withheld.clone(),
        );
        registry.register(
            "postrider_throttled",
            "How often a delivery had to wait for its endpoint's rate limit",
            self.throttled.clone(),
        );
    }

    fn register_trouble(&self, registry: &mut Registry) {
        registry.register(
            "postrider_engine_panics",
            "Panics that were caught in attempts and loops: each one is a defect",
            self.panics.clone(),
        );
        registry.register(
            "postrider_unstored_results",
            "Results of attempts that the store could not take yet; nothing is claimed meanwhile",
            self.unstored_results.clone(),
        );
        registry.register(
            "postrider_superseded_results",
            "Results that came after their lease was lost and changed nothing",
            self.superseded_results.clone(),
        );
        registry.register(
            "postrider_claim_failures",
            "Claims that the store could not answer",
            self.claim_failures.clone(),
        );
    }

    fn register_retention(&self, registry: &mut Registry) {
        registry.register(
            "postrider_retention_deleted",
            "Records that retention deleted, by kind",
            self.expired.clone(),
        );
        registry.register_with_unit(
            "postrider_retention_last_success_timestamp",
            "When the last complete sweep ended, as Unix time",
            Unit::Seconds,
            self.last_sweep.clone(),
        );
    }

    pub(crate) fn attempt_started(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    pub(crate) fn attempt_ended(&self, outcome: Outcome, duration: Duration) {
        self.attempts.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn breakers(&self, (open, half_open): (usize, usize)) {
        for (gauge, count) in [(&self.open, open), (&self.half_open, half_open)] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn tripped(&self, trouble: Trouble) {
        self.trips.get_or_create(&TroubleLabel { trouble: trouble.name() }).inc();
    }

    pub(crate) fn withheld(&self, why: Withheld) {
        let reason = match why {
            Withheld::Breaker => "breaker",
            Withheld::Probe => "probe",
            Withheld::Throttle => "throttle",
            Withheld::Slow => "slow",
            Withheld::Suspect => "suspect",
        };
        self.withheld.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn deleted(&self, expired: &Expired) {
        for (kind, count) in [
            ("payload", expired.payloads),
            ("attempt", expired.attempts),
            ("message", expired.messages),
            ("other", expired.others),
        ] {
            self.expired.get_or_create(&KindLabel { kind }).inc_by(count);
        }
    }

    pub(crate) fn swept(&self, unix_seconds: i64) {
        self.last_sweep.set(unix_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_exposed_under_their_names_with_bounded_labels() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.attempt_started(Duration::from_millis(2));
        metrics.attempt_ended(Outcome::HttpError, Duration::from_millis(20));
        metrics.deleted(&Expired { attempts: 3, ..Expired::default() });
        metrics.swept(1_700_000_000);
        metrics.breakers((2, 1));
        metrics.tripped(Trouble::Timeout);
        metrics.withheld(Withheld::Throttle);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        for line in [
            "postrider_attempts_total{outcome=\"http_error\"} 1",
            "postrider_attempt_duration_seconds_bucket{le=\"0.025\"} 1",
            "postrider_delivery_lag_seconds_bucket{le=\"0.005\"} 1",
            "postrider_retention_deleted_total{kind=\"attempt\"} 3",
            "postrider_retention_last_success_timestamp_seconds 1700000000",
            "postrider_deliveries_in_flight 0",
            "postrider_breakers{state=\"open\"} 2",
            "postrider_breakers{state=\"half_open\"} 1",
            "postrider_breaker_trips_total{trouble=\"timeout\"} 1",
            "postrider_deliveries_withheld_total{reason=\"throttle\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
