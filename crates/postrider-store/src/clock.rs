//! The clock that a store goes by: the system's, or that of the tokio runtime, plus an offset that tests move.

use postrider_model::time::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;

/// Wall-clock time with an offset. One per store; engine and API read the same one.
#[derive(Debug, Default)]
pub struct Clock {
    offset_micros: AtomicI64,
    moved: Notify,
    /// Goes by the runtime's time: what it shows at which instant.
    runtime: Option<(Timestamp, tokio::time::Instant)>,
}

impl Clock {
    /// A clock that shows `at` now and goes on as the tokio runtime's time does, which a simulation moves.
    pub fn of_runtime(at: Timestamp) -> Self {
        Self { runtime: Some((at, tokio::time::Instant::now())), ..Self::default() }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let micros = self.source().as_micros();
        Timestamp::from_micros(micros.saturating_add(self.offset_micros.load(Ordering::Relaxed)))
    }

    fn source(&self) -> Timestamp {
        if let Some((at, since)) = self.runtime {
            return at.plus(since.elapsed());
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the adapter that everything else reads time through"
        )]
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(system.as_micros()).unwrap_or(i64::MAX))
    }

    /// Moves the clock; for tests. Those who sleep wake up and look again.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.offset_micros.fetch_add(micros, Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// Sets the clock back; for tests. Nobody is woken: a system clock that is set back wakes nobody either.
    pub fn set_back(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.offset_micros.fetch_sub(micros, Ordering::Relaxed);
    }

    /// Returns at `at`, also when the clock is moved there. Wakes at least once a minute to notice a system clock that
    /// was set.
    pub async fn sleep_until(&self, at: Timestamp) {
        loop {
            // Registered before reading the time, so that a move in between is not missed.
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let now = self.now();
            if now >= at {
                return;
            }
            let wait = at.since(now).min(Duration::from_mins(1));
            // In a fixed order, for simulations.
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = moved => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn an_advanced_clock_shows_the_later_time() {
        let clock = Clock::default();
        let before = clock.now();
        clock.advance(Duration::from_hours(48));
        let moved = clock.now().since(before);
        assert!(moved >= Duration::from_hours(48) && moved < Duration::from_hours(49), "{moved:?}");
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved_past_its_time() {
        let clock = Arc::new(Clock::default());
        let at = clock.now().plus(Duration::from_hours(2));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until(at).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_hours(1));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished(), "an hour is missing");
        clock.advance(Duration::from_hours(1));
        let woken = tokio::time::timeout(Duration::from_secs(10), sleeper).await.expect("it wakes").unwrap();
        assert!(woken >= at);
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_not_waited_for() {
        let clock = Clock::default();
        tokio::time::timeout(Duration::from_secs(10), clock.sleep_until(Timestamp::default())).await.unwrap();
    }
}
