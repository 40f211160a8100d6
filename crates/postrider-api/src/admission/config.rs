//! Settings of the gates.

use postrider_model::limits::REQUEST_BODY_BYTES;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// A quarter of the bytes must hold the largest body.
const PUBLISH_BYTES: RangeInclusive<usize> = 4 * REQUEST_BODY_BYTES..=64 * 1024 * 1024 * 1024;
const AT_ONCE: RangeInclusive<usize> = 1..=4096;
const WAITING: RangeInclusive<usize> = 4..=100_000;

/// How much is worked on at one time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Publish requests that are worked on at the same time; more than the disk and the processors can use only take
    /// time from deliveries. Further ones wait for their turn, the applications in turn. 1 to 4096.
    pub publishes_at_once: usize,
    /// Publish requests that may wait, a quarter of them of one application. 4 to 100000.
    pub publishes_waiting: usize,
    /// Once requests of an application have waited for a second without a pause, further ones are refused while the
    /// first of them waits longer than this, in milliseconds, and twice `publishes_at_once` do: 429 if it is this
    /// application that asks too much, 503 if all together do. No request waits longer than a second. 1 to 1000.
    pub publish_wait_ms: u64,
    /// Bytes of the bodies of publish requests that may be in memory; one application has a quarter of them. At least
    /// 8650752, which is four of the largest bodies.
    pub publish_bytes: usize,
    /// Requests that read and are worked on at the same time; a token has half of these places. 1 to 4096.
    pub reads_at_once: usize,
    /// Requests that change something, publishing aside, and are worked on at the same time; a token has half of these
    /// places. 1 to 4096.
    pub changes_at_once: usize,
    /// Publishing is refused with 503 while so many deliveries are pending. 0: never.
    pub backlog_deliveries: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            publishes_at_once: 128,
            publishes_waiting: 4096,
            publish_wait_ms: 20,
            publish_bytes: 64 * 1024 * 1024,
            reads_at_once: 16,
            changes_at_once: 64,
            backlog_deliveries: 10_000_000,
        }
    }
}

impl LimitsConfig {
    /// Checks every bound. The text names the setting and what is possible.
    pub(crate) fn check(&self) -> Result<(), String> {
        within("publishes_at_once", &self.publishes_at_once, &AT_ONCE)?;
        within("publishes_waiting", &self.publishes_waiting, &WAITING)?;
        within("publish_wait_ms", &self.publish_wait_ms, &(1..=1000))?;
        within("publish_bytes", &self.publish_bytes, &PUBLISH_BYTES)?;
        within("reads_at_once", &self.reads_at_once, &AT_ONCE)?;
        within("changes_at_once", &self.changes_at_once, &AT_ONCE)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(format!("api.limits.{name}: {value} is not possible, only {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_bounds_are_refused_by_their_name() {
        assert_eq!(LimitsConfig::default().check(), Ok(()));
        let with = |change: fn(&mut LimitsConfig)| {
            let mut config = LimitsConfig::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        for (problem, name) in [
            (with(|limits| limits.publishes_at_once = 0), "publishes_at_once"),
            (with(|limits| limits.publishes_waiting = 3), "publishes_waiting"),
            (with(|limits| limits.publish_wait_ms = 0), "publish_wait_ms"),
            (with(|limits| limits.publish_bytes = REQUEST_BODY_BYTES), "publish_bytes"),
            (with(|limits| limits.reads_at_once = 0), "reads_at_once"),
            (with(|limits| limits.changes_at_once = 0), "changes_at_once"),
        ] {
            assert!(problem.starts_with(&format!("api.limits.{name}:")), "{problem}");
        }
    }
}
