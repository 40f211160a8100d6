//! How long a token is used, when it is renewed, and how long a failure is remembered: the state of one credential as
//! pure functions of time.

use crate::{
    oauth::TokenFailure,
    token_response::{Grant, RefusalKind},
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use tokio::time::Instant;

/// Tokens that live shorter are used once and not kept.
const SHORTEST_KEPT: Duration = Duration::from_secs(20);
/// A 401 to a token younger than this is not the token's age; no new one is fetched.
const TOO_YOUNG_TO_REPLACE: Duration = Duration::from_secs(5);
/// At most one refresh after a 401 in this time: an endpoint that always answers 401 must not make us
/// hammer the token endpoint.
const FORCED_REFRESH: Duration = Duration::from_mins(1);

/// An instant by both clocks: the monotonic one stops while a machine sleeps, the other one can be set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) monotonic: Instant,
    /// Since the Unix epoch.
    pub(crate) wall: Duration,
}

impl Moment {
    /// The longer of both measures: a token that either clock holds for expired is expired.
    fn since(self, earlier: Self) -> Duration {
        self.monotonic
            .saturating_duration_since(earlier.monotonic)
            .max(self.wall.saturating_sub(earlier.wall))
    }
}

/// A token in use. Its times are fixed at its issue; remaining lives are never counted anew.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) value: SecretString,
    issued: Moment,
    refresh_after: Duration,
    usable_for: Duration,
}

impl Kept {
    /// `None` when the token is too short-lived to keep. `asked` is the instant before its request was sent;
    /// `jitter`, 0 to 1, spreads the renewals of many credentials.
    pub(crate) fn new(grant: &Grant, asked: Moment, jitter: f64) -> Option<Self> {
        if grant.life < SHORTEST_KEPT {
            return None;
        }
        // The margin covers the time between taking the token and the receiver's check of it.
        let margin = (grant.life / 10).clamp(Duration::from_secs(10), Duration::from_mins(1));
        let usable_for = grant.life.saturating_sub(margin);
        let refresh_after =
            grant.life.mul_f64(0.75 + 0.1 * jitter.clamp(0.0, 1.0)).min(usable_for.mul_f64(0.9));
        Some(Self { value: grant.value.clone(), issued: asked, refresh_after, usable_for })
    }

    fn is_usable(&self, now: Moment) -> bool {
        now.since(self.issued) < self.usable_for
    }

    fn wants_refresh(&self, now: Moment) -> bool {
        now.since(self.issued) >= self.refresh_after
    }
}

/// A failure that is not tried again before its time.
#[derive(Debug, Clone)]
struct Remembered {
    failure: TokenFailure,
    until: Instant,
    in_a_row: u32,
}

/// What is known of one credential in one version.
#[derive(Debug, Default)]
pub(crate) struct State {
    kept: Option<Kept>,
    failure: Option<Remembered>,
    forced: Option<Instant>,
}

/// What to do for a caller that wants a token.
#[derive(Debug)]
pub(crate) enum Decision {
    Use(SecretString),
    /// Use it, and renew it meanwhile.
    UseAndRefresh(SecretString),
    Fail(TokenFailure),
    Fetch,
}

/// What to do for a caller whose token was answered with 401.
#[derive(Debug)]
pub(crate) enum Replacement {
    /// Another one is known already.
    Use(SecretString),
    Fail(TokenFailure),
    Fetch,
    /// The 401 stands.
    Nothing,
}

impl State {
    pub(crate) fn decide(&self, now: Moment) -> Decision {
        let waiting = self.failure.as_ref().filter(|failure| now.monotonic < failure.until);
        match (self.kept.as_ref().filter(|kept| kept.is_usable(now)), waiting) {
            (Some(kept), None) if kept.wants_refresh(now) => Decision::UseAndRefresh(kept.value.clone()),
            (Some(kept), _) => Decision::Use(kept.value.clone()),
            (None, Some(remembered)) => Decision::Fail(remembered.failure.clone()),
            (None, None) => Decision::Fetch,
        }
    }

    /// `fetching`: a request for a token is under way.
    pub(crate) fn replace(&mut self, rejected: &SecretString, fetching: bool, now: Moment) -> Replacement {
        if let Some(kept) = self.kept.as_ref().filter(|kept| kept.is_usable(now)) {
            if kept.value.expose_secret() != rejected.expose_secret() {
                return Replacement::Use(kept.value.clone());
            }
            if now.since(kept.issued) < TOO_YOUNG_TO_REPLACE {
                return Replacement::Nothing;
            }
        }
        if fetching {
            self.kept = None;
            return Replacement::Fetch;
        }
        if self.forced.is_some_and(|forced| now.monotonic.saturating_duration_since(forced) < FORCED_REFRESH)
        {
            return Replacement::Nothing;
        }
        self.kept = None;
        if let Some(remembered) = self.failure.as_ref().filter(|failure| now.monotonic < failure.until) {
            return Replacement::Fail(remembered.failure.clone());
        }
        self.forced = Some(now.monotonic);
        Replacement::Fetch
    }

    pub(crate) fn granted(&mut self, grant: &Grant, asked: Moment, jitter: f64) {
        self.kept = Kept::new(grant, asked, jitter);
        self.failure = None;
    }

    pub(crate) fn failed(&mut self, failure: TokenFailure, kind: RefusalKind, now: Instant, jitter: f64) {
        let in_a_row = self.failure.as_ref().map_or(0, |failure| failure.in_a_row).saturating_add(1);
        self.failure = Some(Remembered { failure, until: now + pause(kind, in_a_row, jitter), in_a_row });
    }
}

/// How long a failure is remembered. What can pass by itself is tried again soon, at a random point of a growing time;
/// what needs a person is tried again rarely.
fn pause(kind: RefusalKind, in_a_row: u32, jitter: f64) -> Duration {
    const LONGEST: Duration = Duration::from_hours(1);
    let doubled = |first: u64, most: Duration| {
        Duration::from_secs(first.saturating_mul(1 << in_a_row.saturating_sub(1).min(16))).min(most)
    };
    match kind {
        RefusalKind::Unavailable { retry_after: Some(asked) } => asked.min(LONGEST),
        RefusalKind::Unavailable { retry_after: None } => {
            doubled(1, Duration::from_mins(1)).mul_f64(jitter.clamp(0.0, 1.0))
        }
        RefusalKind::Rejected => doubled(60, LONGEST),
        RefusalKind::Invalid | RefusalKind::Unreachable => doubled(300, LONGEST),
    }
}

#[cfg(test)]
#[path = "token_cache_tests.rs"]
mod tests;
