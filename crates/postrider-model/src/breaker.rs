//! The circuit breaker of an endpoint: when to stop sending to it, for how long, and how to begin again. Pure: the caller
//! brings the time and the jitter, keeps the state and holds the deliveries back.
//!
//! - **Closed**: everything is sent. Troubles are counted: [`COSTLY_IN_A_ROW`] that each held a place for long, or half
//!   of at least [`WINDOW_LEAST`] among the last [`WINDOW`] outcomes, open it. What is older than [`MEMORY`] does not count:
//!   one message that is retried over hours opens nothing.
//! - **Open**: nothing is sent until a time, which depends on the [`Trouble`] ([`Trouble::pause`]) and doubles with each
//!   opening up to [`PAUSE_MOST`].
//! - **Half-open**: exactly one delivery is out, the probe. Its outcome opens the breaker again or closes it.
//! - Closed after a probe, it is **recovering**: two troubles in a row open it again, and the pause goes on doubling, until
//!   [`RECOVERED_AFTER`] deliveries went well.
//!
//! An answer that speaks of the message (400, 404, 422 …) is no trouble: the endpoint is there and reads.

use crate::{outcome::Outcome, retry::Answer, time::Timestamp};
use std::time::Duration;

/// Troubles in a row that each held a place until a deadline, or a connection attempt: at 15 s for each, five have cost
/// more than a minute of places. Fewer would let one lost packet burst stop an endpoint.
pub const COSTLY_IN_A_ROW: u8 = 5;
/// Outcomes that are looked back at: few enough that a busy endpoint that fails now is noticed within them.
pub const WINDOW: u8 = 32;
/// With fewer outcomes than this, a share says nothing.
pub const WINDOW_LEAST: u8 = 20;
/// Outcomes count together when no more than this lies between two of them.
pub const MEMORY: Duration = Duration::from_mins(1);
/// The longest pause: what an endpoint that is well again waits for at most, with a tenth of jitter.
pub const PAUSE_MOST: Duration = Duration::from_mins(5);
/// Troubles in a row that open a recovering breaker again.
pub const RECOVERING_IN_A_ROW: u8 = 2;
/// Deliveries that went well until a recovering endpoint counts as well.
pub const RECOVERED_AFTER: u8 = 20;

/// What is wrong with an endpoint, as far as the pause depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No answer in time.
    Timeout,
    /// No connection, or no TLS session.
    Connect,
    /// Its name does not resolve, or resolves to where nothing may be sent.
    Host,
    /// It answers that it fails: 5xx, or something that is not HTTP.
    Failing,
    /// It answers that it has too much to do: 429, 503 and what proxies say in its place (502, 504).
    Overloaded,
    /// It refuses the credentials: 401, 403, 407.
    Refusing,
    /// There is no access token at present.
    TokenUnavailable,
    /// The token endpoint refuses the credential.
    TokenRejected,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Connect,
        Self::Host,
        Self::Failing,
        Self::Overloaded,
        Self::Refusing,
        Self::TokenUnavailable,
        Self::TokenRejected,
    ];

    /// Stable name in the API, metrics and logs. One name for failed resolution and blocked addresses, as everywhere that
    /// an endpoint's owner reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Host => "host_not_deliverable",
            Self::Failing => "failing",
            Self::Overloaded => "overloaded",
            Self::Refusing => "refusing",
            Self::TokenUnavailable => "token_unavailable",
            Self::TokenRejected => "token_rejected",
        }
    }

    /// The first pause. Short where the endpoint answers at once, so that a retry after 5 s comes no later than about
    /// that; longer where asking costs a place for long, and where only somebody's work can help.
    pub const fn pause(self) -> Duration {
        match self {
            Self::Failing | Self::Overloaded => Duration::from_secs(5),
            Self::Timeout | Self::Connect | Self::TokenUnavailable => Duration::from_secs(10),
            Self::Host | Self::Refusing => Duration::from_secs(30),
            Self::TokenRejected => Duration::from_mins(1),
        }
    }

    /// Did it hold a place for long, or cost a connection attempt?
    pub const fn is_costly(self) -> bool {
        !matches!(self, Self::Failing | Self::Overloaded | Self::Refusing)
    }

    /// Would sending less at a time help?
    pub const fn is_overload(self) -> bool {
        matches!(self, Self::Timeout | Self::Connect | Self::Overloaded)
    }
}

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It is there and answers.
    Well,
    /// It is in trouble; the wait that it asked for.
    Trouble(Trouble, Option<Duration>),
    /// Nothing: the attempt ended before it came to the endpoint, by this server's doing.
    Nothing,
}

/// What an answer says of the endpoint that gave it.
pub fn finding(answer: &Answer) -> Finding {
    let trouble = match answer.outcome {
        Outcome::Succeeded | Outcome::RedirectNotFollowed => return Finding::Well,
        Outcome::HttpError => match answer.status {
            Some(429 | 502..=504) => Trouble::Overloaded,
            Some(401 | 403 | 407) => Trouble::Refusing,
            // It was too slow for us, or we for it.
            Some(408 | 425) => Trouble::Failing,
            // Gone disables the endpoint, which is another matter.
            Some(status) if status < 500 => return Finding::Well,
            _ => Trouble::Failing,
        },
        Outcome::Unauthorized => Trouble::Refusing,
        Outcome::Timeout => Trouble::Timeout,
        Outcome::Connect | Outcome::Tls => Trouble::Connect,
        Outcome::Dns | Outcome::Blocked => Trouble::Host,
        Outcome::ResponseMalformed => Trouble::Failing,
        Outcome::TokenUnavailable => Trouble::TokenUnavailable,
        Outcome::TokenRejected | Outcome::TokenInvalid => Trouble::TokenRejected,
        Outcome::ConfigInvalid
        | Outcome::CredentialUnavailable
        | Outcome::Interrupted
        | Outcome::Internal => return Finding::Nothing,
    };
    let asked = answer.retry_after.filter(|_| matches!(answer.status, Some(429 | 503)));
    Finding::Trouble(trouble, asked)
}

/// The state of an endpoint's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Everything is sent.
    Closed(Recent),
    /// Nothing is sent until [`Pause::until`]; what comes then is the probe.
    Open(Pause),
    /// One delivery is out, the probe with this number.
    HalfOpen(Pause, u64),
}

/// What is remembered while it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent {
    /// The last outcomes, the newest in the lowest bit; set for trouble.
    troubles: u32,
    /// How many of them are known.
    seen: u8,
    costly_in_a_row: u8,
    in_a_row: u8,
    last: Timestamp,
    recovering: Option<Recovering>,
}

/// It was open a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recovering {
    from: Pause,
    went_well: u8,
}

/// Why and until when nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// What opened the breaker last.
    pub trouble: Trouble,
    /// When it was first opened, of the openings that `trips` counts.
    pub since: Timestamp,
    /// When the next probe is due.
    pub until: Timestamp,
    /// Openings since the endpoint was last well.
    pub trips: u32,
}

/// May a delivery be sent?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Send,
    /// Yes, and what comes of it decides.
    Probe,
    /// Not before this time.
    Wait(Timestamp),
    /// Not while the probe is out.
    AfterProbe,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed(Recent::default())
    }
}

impl Breaker {
    /// May a delivery be sent now? `urgent` is one that somebody waits for: it does not wait for the pause, it is the
    /// probe.
    #[must_use]
    pub fn admission(&self, now: Timestamp, urgent: bool) -> Admission {
        match self {
            Self::Closed(_) => Admission::Send,
            Self::HalfOpen(..) => Admission::AfterProbe,
            // Further away than a pause can be: the clock was set back.
            Self::Open(pause) if pause.until.since(now) > PAUSE_MOST.mul_f64(1.1) => Admission::Probe,
            Self::Open(pause) if pause.until > now && !urgent => Admission::Wait(pause.until),
            Self::Open(_) => Admission::Probe,
        }
    }

    /// The probe is out: only its outcome counts from here on.
    #[must_use]
    pub fn probing(self, number: u64) -> Self {
        match self {
            Self::Open(pause) => Self::HalfOpen(pause, number),
            other => other,
        }
    }

    /// After a delivery that was no probe. `jitter` in `0.0..=1.0` stretches a pause by up to a tenth. While it is open,
    /// what was sent before tells nothing new.
    #[must_use]
    pub fn after(self, finding: Finding, now: Timestamp, jitter: f64) -> Self {
        match self {
            Self::Closed(recent) => recent.after(finding, now, jitter),
            other => other,
        }
    }

    /// After the probe with this number; of any other, nothing changes.
    #[must_use]
    pub fn after_probe(self, number: u64, finding: Finding, now: Timestamp, jitter: f64) -> Self {
        match (self, finding) {
            (Self::HalfOpen(pause, out), Finding::Trouble(trouble, asked)) if out == number => {
                Self::Open(pause.again(trouble, asked, now, jitter))
            }
            (Self::HalfOpen(pause, out), Finding::Well) if out == number => {
                let recovering = Some(Recovering { from: pause, went_well: 1 });
                Self::Closed(Recent { last: now, recovering, ..Recent::default() })
            }
            (Self::HalfOpen(..), Finding::Nothing) => self.without_probe(number, now),
            _ => self,
        }
    }

    /// The probe with this number came to nothing: the next delivery is one.
    #[must_use]
    pub fn without_probe(self, number: u64, now: Timestamp) -> Self {
        match self {
            Self::HalfOpen(pause, out) if out == number => {
                Self::Open(Pause { until: pause.until.min(now), ..pause })
            }
            other => other,
        }
    }

    /// Nothing worth remembering.
    pub fn is_blank(&self) -> bool {
        matches!(self, Self::Closed(recent) if recent.troubles == 0 && recent.recovering.is_none())
    }

    /// The endpoint was in trouble a moment ago and is tried carefully.
    pub fn is_recovering(&self) -> bool {
        matches!(self, Self::Closed(recent) if recent.recovering.is_some())
    }

    /// Why nothing is sent, when nothing is.
    pub fn pause(&self) -> Option<Pause> {
        match self {
            Self::Closed(_) => None,
            Self::Open(pause) | Self::HalfOpen(pause, _) => Some(*pause),
        }
    }
}

impl Recent {
    fn after(mut self, finding: Finding, now: Timestamp, jitter: f64) -> Breaker {
        if finding == Finding::Nothing {
            return Breaker::Closed(self);
        }
        if now.since(self.last) > MEMORY {
            self = Self::default();
        }
        self.last = now;
        self.seen = WINDOW.min(self.seen + 1);
        self.troubles <<= 1;
        if let Finding::Trouble(trouble, asked) = finding {
            self.troubles |= 1;
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.costly_in_a_row = self.costly_in_a_row.saturating_add(u8::from(trouble.is_costly()));
            if self.is_too_much() {
                let pause = match self.recovering {
                    Some(recovering) => recovering.from.again(trouble, asked, now, jitter),
                    None => Pause::first(trouble, asked, now, jitter),
                };
                return Breaker::Open(pause);
            }
        } else {
            self.in_a_row = 0;
            self.costly_in_a_row = 0;
            self.recovering = self.recovering.and_then(Recovering::went_well);
        }
        Breaker::Closed(self)
    }

    fn is_too_much(&self) -> bool {
        let half = self.troubles.count_ones() * 2 >= u32::from(self.seen);
        self.costly_in_a_row >= COSTLY_IN_A_ROW
            || (self.seen >= WINDOW_LEAST && half)
            || (self.recovering.is_some() && self.in_a_row >= RECOVERING_IN_A_ROW)
    }
}

impl Recovering {
    fn went_well(mut self) -> Option<Self> {
        self.went_well += 1;
        (self.went_well < RECOVERED_AFTER).then_some(self)
    }
}

impl Pause {
    fn first(trouble: Trouble, asked: Option<Duration>, now: Timestamp, jitter: f64) -> Self {
        let until = now.plus(length(trouble, asked, 1, jitter));
        Self { trouble, since: now, until, trips: 1 }
    }

    fn again(self, trouble: Trouble, asked: Option<Duration>, now: Timestamp, jitter: f64) -> Self {
        let trips = self.trips.saturating_add(1);
        let until = now.plus(length(trouble, asked, trips, jitter));
        Self { trouble, since: self.since, until, trips }
    }
}

/// How long a pause is: doubled with each opening, what the endpoint asked for if that is longer, never more than
/// [`PAUSE_MOST`] and the jitter.
fn length(trouble: Trouble, asked: Option<Duration>, trips: u32, jitter: f64) -> Duration {
    let doubled = trouble.pause().saturating_mul(1 << trips.saturating_sub(1).min(16));
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    doubled.max(asked.unwrap_or_default()).min(PAUSE_MOST).mul_f64(1.0 + jitter / 10.0)
}

#[cfg(test)]
mod tests;
