//! Waits that double up to a bound, for asking a store again that could not answer. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// An outage of any length costs at most this much once it is over.
const MOST: Duration = Duration::from_secs(2);

/// The next wait after each failure in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// It works again. `true` when it did not before.
    pub(crate) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// This is the first failure in a row: the one to log.
    pub(crate) fn is_first(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_over() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_first());
        let waits: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert!(!backoff.is_first());
        assert!(backoff.reset(), "it had failed");
        assert!(!backoff.reset(), "it had not failed again");
        assert_eq!(backoff.next(), FIRST);
    }
}
