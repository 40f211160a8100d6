//! What an operator can set about deliveries, with its bounds.

use crate::lanes::Limits;
use postrider_model::{
    limits,
    retry::{DEFAULT_WAITS, RetryPolicy},
    url::UrlRules,
};
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, time::Duration};

const DAY: Duration = Duration::from_hours(24);
/// Below a second nothing beyond the same machine answers in time; beyond half a minute a hanging endpoint holds its
/// place for longer than its answer is worth.
const TOTAL_DEADLINE_MS: RangeInclusive<u64> = 1_000..=30_000;
/// Each delivery in flight holds a payload (1 MiB at worst) and a socket.
const IN_FLIGHT: RangeInclusive<usize> = 1..=20_000;
/// From one payload of the largest size to two thousand of them.
const IN_FLIGHT_BYTES: RangeInclusive<usize> = limits::PAYLOAD_BYTES..=2 * 1024 * 1024 * 1024;
/// What a probe may take beyond an attempt's deadline until its endpoint is looked at again.
const PROBE_GRACE: Duration = Duration::from_secs(5);
const RETENTION_DAYS: RangeInclusive<u32> = 1..=3_650;
const RETENTION_BATCH: RangeInclusive<usize> = 1..=10_000;
const USER_AGENT_BYTES: usize = 256;

/// Settings of the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time for one attempt in all, in milliseconds: access token, DNS, connect, TLS, request and answer.
    /// Default 15000; 1000 to 30000.
    pub total_deadline_ms: u64,
    /// Deliveries that run at the same time on this node. Default 2000; 1 to 20000.
    pub in_flight_total: usize,
    /// Bytes of payloads of the deliveries that run at the same time on this node, counted for each delivery. Default
    /// 268435456 (256 MiB); 1048576 to 2147483648.
    pub in_flight_bytes: usize,
    /// Deliveries to one endpoint that run at the same time on this node, to begin with. Default 10.
    pub in_flight_per_endpoint: usize,
    /// The same for an endpoint that keeps answering quickly: each quick answer earns it a place more. Default 100.
    pub in_flight_per_quick_endpoint: usize,
    /// The same for an endpoint that answers slowly. Default 2.
    pub in_flight_per_slow_endpoint: usize,
    /// An endpoint is slow while its attempts take at least this long, in milliseconds. Default 2000.
    pub slow_after_ms: u64,
    /// Waits between the attempts of a delivery, in milliseconds, for endpoints without a schedule of their own; an
    /// empty list means one attempt. Default: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
    pub retry_waits_ms: Vec<u64>,
    /// Age in seconds at which a delivery is no longer attempted. Default: the sum of the waits and a fifth more, at
    /// least a day.
    pub delivery_deadline_secs: Option<u64>,
    /// Send the `svix-id`, `svix-timestamp` and `svix-signature` headers besides the `webhook-*` ones. Default true.
    pub svix_headers: bool,
    /// The `User-Agent` of deliveries. Default `Postrider/<version>`.
    pub user_agent: String,
    /// How long records are kept.
    pub retention: RetentionConfig,
    /// The rules that endpoint URLs are judged by once more before each attempt. Not part of the file: the same rules
    /// hold for the API, and the server hands them to both.
    #[serde(skip)]
    pub url_rules: UrlRules,
}

/// How long records are kept. Nothing that is pending is ever deleted, whatever its age.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Days that messages are kept, with their deliveries. Default 30; 1 to 3650.
    pub messages_days: u32,
    /// Days that attempts are kept. Default 30; 1 to 3650.
    pub attempts_days: u32,
    /// Seconds between two sweeps. Default 300.
    pub sweep_interval_secs: u64,
    /// Records of each kind that one transaction deletes. Default 500; 1 to 10000.
    pub batch: usize,
    /// Milliseconds between two batches, which leave the database to deliveries. Default 50.
    pub batch_pause_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            total_deadline_ms: 15_000,
            in_flight_total: 2_000,
            in_flight_bytes: 256 * 1024 * 1024,
            in_flight_per_endpoint: 10,
            in_flight_per_quick_endpoint: 100,
            in_flight_per_slow_endpoint: 2,
            slow_after_ms: 2_000,
            retry_waits_ms: DEFAULT_WAITS
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
                .to_vec(),
            delivery_deadline_secs: None,
            svix_headers: true,
            user_agent: format!("Postrider/{}", env!("CARGO_PKG_VERSION")),
            retention: RetentionConfig::default(),
            url_rules: UrlRules::default(),
        }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            messages_days: 30,
            attempts_days: 30,
            sweep_interval_secs: 300,
            batch: 500,
            batch_pause_ms: 50,
        }
    }
}

impl Config {
    /// Checks every bound. The text names the field and what is possible.
    pub fn check(&self) -> Result<(), String> {
        within("total_deadline_ms", &self.total_deadline_ms, &TOTAL_DEADLINE_MS)?;
        within("in_flight_total", &self.in_flight_total, &IN_FLIGHT)?;
        within("in_flight_bytes", &self.in_flight_bytes, &IN_FLIGHT_BYTES)?;
        within("in_flight_per_endpoint", &self.in_flight_per_endpoint, &(1..=self.in_flight_total))?;
        within("in_flight_per_quick_endpoint", &self.in_flight_per_quick_endpoint, &IN_FLIGHT)?;
        within(
            "in_flight_per_slow_endpoint",
            &self.in_flight_per_slow_endpoint,
            &(1..=self.in_flight_per_endpoint),
        )?;
        self.retry_policy()
            .check()
            .map_err(|problem| format!("retry_waits_ms, delivery_deadline_secs: {problem}"))?;
        let printable = self.user_agent.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
        if !printable || self.user_agent.trim().is_empty() || self.user_agent.len() > USER_AGENT_BYTES {
            return Err(format!("user_agent: must have 1 to {USER_AGENT_BYTES} printable ASCII characters"));
        }
        self.retention.check().map_err(|problem| format!("retention.{problem}"))
    }

    /// How deliveries are retried unless their endpoint has its own policy.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            waits: self.retry_waits_ms.iter().copied().map(Duration::from_millis).collect(),
            deadline: self.delivery_deadline_secs.map(Duration::from_secs),
        }
    }

    pub(crate) fn total_deadline(&self) -> Duration {
        Duration::from_millis(self.total_deadline_ms)
    }

    pub(crate) fn lane_limits(&self) -> Limits {
        Limits {
            total: self.in_flight_total,
            bytes: self.in_flight_bytes,
            per_endpoint: self.in_flight_per_endpoint,
            per_quick_endpoint: self.in_flight_per_quick_endpoint,
            per_slow_endpoint: self.in_flight_per_slow_endpoint,
            slow_after: Duration::from_millis(self.slow_after_ms),
            probe_time: self.total_deadline() + PROBE_GRACE,
        }
    }
}

impl RetentionConfig {
    fn check(&self) -> Result<(), String> {
        within("messages_days", &self.messages_days, &RETENTION_DAYS)?;
        within("attempts_days", &self.attempts_days, &RETENTION_DAYS)?;
        within("sweep_interval_secs", &self.sweep_interval_secs, &(1..=DAY.as_secs()))?;
        within("batch", &self.batch, &RETENTION_BATCH)?;
        within("batch_pause_ms", &self.batch_pause_ms, &(0..=10_000))
    }

    pub(crate) fn messages(&self) -> Duration {
        DAY.saturating_mul(self.messages_days)
    }

    pub(crate) fn attempts(&self) -> Duration {
        DAY.saturating_mul(self.attempts_days)
    }

    pub(crate) fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_interval_secs)
    }

    pub(crate) fn batch_pause(&self) -> Duration {
        Duration::from_millis(self.batch_pause_ms)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("{field}: {value} is not possible, only {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_possible_and_are_the_standard_schedule() {
        let config = Config::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.retry_policy(), RetryPolicy::default());
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_by_its_name() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().expect_err("refused")
        };
        for (problem, field) in [
            (with(|config| config.total_deadline_ms = 999), "total_deadline_ms"),
            (with(|config| config.total_deadline_ms = 30_001), "total_deadline_ms"),
            (with(|config| config.in_flight_total = 0), "in_flight_total"),
            (with(|config| config.in_flight_bytes = 1_000), "in_flight_bytes"),
            (with(|config| config.in_flight_per_endpoint = 2_001), "in_flight_per_endpoint"),
            (with(|config| config.in_flight_per_slow_endpoint = 11), "in_flight_per_slow_endpoint"),
            (with(|config| config.retry_waits_ms = vec![1; 51]), "retry_waits_ms"),
            (with(|config| config.user_agent = "a\r\nb".to_owned()), "user_agent"),
            (with(|config| config.retention.messages_days = 0), "retention.messages_days"),
            (with(|config| config.retention.batch = 0), "retention.batch"),
        ] {
            assert!(problem.starts_with(field), "{problem}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let read = |text: &str| serde_json::from_str::<Config>(text);
        assert!(read(r#"{"total_deadline_ms": 2000, "retention": {"batch": 7}}"#).is_ok());
        assert!(read(r#"{"total_deadline": 2000}"#).is_err());
        assert!(read(r#"{"retention": {"days": 7}}"#).is_err());
        assert!(read(r#"{"url_rules": {}}"#).is_err());
    }
}
