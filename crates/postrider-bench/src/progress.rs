//! What is going on, on standard error: the time that has passed, the time that is left, the step.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Of the whole run.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Estimates of what has not begun, and of what runs.
    ahead: Duration,
    current: Duration,
    current_since: Instant,
    scenario: String,
}

impl Progress {
    /// Of scenarios that take about this long together.
    pub(crate) fn new(estimate: Duration) -> Self {
        let now = Instant::now();
        let state =
            State { ahead: estimate, current: Duration::ZERO, current_since: now, scenario: String::new() };
        Self { started: now, state: Mutex::new(state) }
    }

    /// A scenario begins that takes about this long.
    pub(crate) fn scenario(&self, name: &str, estimate: Duration) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ahead = state.ahead.saturating_sub(estimate);
            state.current = estimate;
            state.current_since = Instant::now();
            name.clone_into(&mut state.scenario);
        }
        self.step("begins");
    }

    /// A step of it begins.
    pub(crate) fn step(&self, what: &str) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.ahead + state.current.saturating_sub(state.current_since.elapsed());
        eprintln!(
            "[{}, about {} left] {}: {what}",
            clock(self.started.elapsed()),
            clock(left),
            state.scenario
        );
    }
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{:02}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_minutes_and_seconds() {
        assert_eq!(clock(Duration::from_secs(3_671)), "61:11");
    }
}
