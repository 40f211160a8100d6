//! When messages are meant to be sent: an even schedule that does not wait for answers, and a timer fine enough for it.

use anyhow::{Context, Result};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::{os::fd::OwnedFd, time::Duration};
use tokio::io::unix::AsyncFd;

/// Ticks come no closer than this: each costs a few microseconds of the machine that is measured.
const CLOSEST: Duration = Duration::from_micros(100);

/// Messages at even distances. Each is late by itself when it is sent late: the ones after it do not move (no
/// coordinated omission).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Messages per second.
    rate: f64,
    /// How many there are.
    pub(crate) total: u64,
}

impl Schedule {
    /// `rate` messages per second for this long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of messages"
    )]
    pub(crate) fn new(rate: f64, duration: Duration) -> Self {
        let rate = rate.max(0.001);
        Self { rate, total: (rate * duration.as_secs_f64()).round().max(1.0) as u64 }
    }

    /// When message `number` is meant to be sent, from the start.
    #[expect(clippy::cast_precision_loss, reason = "numbers of messages are far below 2^52")]
    pub(crate) fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many messages are due by then.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of messages"
    )]
    pub(crate) fn released(&self, elapsed: Duration) -> u64 {
        let released = (elapsed.as_secs_f64() * self.rate).floor() as u64;
        released.saturating_add(1).min(self.total)
    }

    /// The distance of the ticks that release messages.
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate).clamp(CLOSEST, Duration::from_millis(50))
    }
}

/// A timer of the kernel: the runtime's own counts in milliseconds, which would be most of what is measured.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: AsyncFd<OwnedFd>,
}

impl Ticker {
    /// Ticks from now on, so far apart.
    pub(crate) fn new(every: Duration) -> Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .context("a timer")?;
        let every = Timespec {
            tv_sec: i64::try_from(every.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: every.subsec_nanos().into(),
        };
        let ticks = Itimerspec { it_interval: every, it_value: every };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &ticks).context("a timer")?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an `OwnedFd` stays open for as long as it is registered"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Waits for the next tick; ticks that were missed count as one.
    pub(crate) async fn tick(&self) -> Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0_u8; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?));
            // Else it was not ready after all.
            if let Ok(read) = read {
                return read.map(|_| ()).context("a timer");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_schedule_is_even_and_counts_all_its_messages() {
        let schedule = Schedule::new(100.0, millis(500));
        assert_eq!(schedule.total, 50);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(49), millis(490));
    }

    /// What is due is decided by the clock alone: after a stall everything that was held up is released, each message with
    /// the time at which it was meant.
    #[test]
    fn a_stall_releases_everything_it_held_up_and_moves_nothing() {
        let schedule = Schedule::new(100.0, millis(500));
        assert_eq!(schedule.released(Duration::ZERO), 1);
        assert_eq!(schedule.released(millis(95)), 10);
        assert_eq!(schedule.released(millis(305)), 31);
        assert_eq!(schedule.due(30), millis(300));
        assert_eq!(schedule.released(millis(9_000)), 50);
    }

    #[test]
    fn ticks_follow_the_rate_within_bounds() {
        let tick = |rate| Schedule::new(rate, millis(500)).tick();
        assert_eq!(tick(1_000.0), millis(1));
        assert_eq!(tick(1_000_000.0), CLOSEST);
        assert_eq!(tick(1.0), millis(50));
    }

    #[tokio::test]
    async fn the_timer_is_finer_than_a_millisecond() {
        let ticker = Ticker::new(Duration::from_micros(200)).unwrap();
        let mut shortest = Duration::MAX;
        for _ in 0..50 {
            let started = Instant::now();
            ticker.tick().await.unwrap();
            shortest = shortest.min(started.elapsed());
        }
        // Of a busy machine only the best is told.
        assert!(shortest < Duration::from_micros(900), "{shortest:?}");
    }
}
