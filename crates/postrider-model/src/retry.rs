//! What happens after an attempt. Pure: the caller brings the jitter and applies its own clock to the wait.

use crate::{limits, outcome::Outcome};
use std::time::Duration;

/// The waits between attempts by default, from the Standard Webhooks specification: 10 attempts over 75 h 35 min 5 s.
pub const DEFAULT_WAITS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

const HOUR: Duration = Duration::from_hours(1);
/// A delivery lives at least this long, also with a schedule of milliseconds: `Retry-After` may stretch every wait.
const SHORTEST_DEADLINE: Duration = Duration::from_hours(24);

/// How a delivery is retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The waits between attempts; a delivery gets one attempt more than there are waits.
    pub waits: Vec<Duration>,
    /// Age at which a delivery is no longer attempted; `None` derives it from the waits.
    pub deadline: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { waits: DEFAULT_WAITS.to_vec(), deadline: None }
    }
}

impl RetryPolicy {
    /// Age at which a delivery expires: what was set, else the sum of the waits and a fifth more, at least a day.
    pub fn deadline(&self) -> Duration {
        self.deadline.unwrap_or_else(|| {
            let sum = self.waits.iter().fold(Duration::ZERO, |sum, wait| sum.saturating_add(*wait));
            sum.saturating_add(sum / 5).max(SHORTEST_DEADLINE)
        })
    }

    /// Checks a policy that a user gave: bounded in number, in each wait and in all. The text says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.waits.len() > limits::RETRY_STEPS {
            return Err(format!("at most {} waits are possible", limits::RETRY_STEPS));
        }
        if self.waits.iter().any(|wait| *wait > limits::RETRY_WAIT) {
            return Err(format!("a single wait can be {} seconds at most", limits::RETRY_WAIT.as_secs()));
        }
        if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err("the deadline must be longer than zero".to_owned());
        }
        if self.deadline() > limits::DELIVERY_AGE {
            return Err(format!(
                "the deadline (or the sum of the waits and a fifth) can be {} seconds at most",
                limits::DELIVERY_AGE.as_secs()
            ));
        }
        Ok(())
    }
}

/// What an endpoint sets of its own about retries, each for itself; the rest is the server's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOverride {
    /// Its own waits between attempts; `None` means the server's. No waits at all mean one attempt.
    pub waits: Option<Vec<Duration>>,
    /// Its own age at which a delivery is no longer attempted; `None` derives it from its own waits, or means the
    /// server's when it has none.
    pub deadline: Option<Duration>,
}

impl RetryOverride {
    /// The policy that holds for the endpoint of a server with this one.
    pub fn over(&self, server: &RetryPolicy) -> RetryPolicy {
        match &self.waits {
            Some(waits) => RetryPolicy { waits: waits.clone(), deadline: self.deadline },
            None => RetryPolicy { waits: server.waits.clone(), deadline: self.deadline.or(server.deadline) },
        }
    }

    /// Age at which its deliveries expire, when those of the server's policy expire at age `server`: the deadline of
    /// [`Self::over`], for those who know no more of that policy.
    pub fn deadline(&self, server: Duration) -> Duration {
        self.over(&RetryPolicy { waits: Vec::new(), deadline: Some(server) }).deadline()
    }

    /// Checks what a user gave, as [`RetryPolicy::check`] does. Own waits may be longer than a shorter deadline: what is
    /// due beyond it expires.
    pub fn check(&self) -> Result<(), String> {
        self.over(&RetryPolicy { waits: Vec::new(), deadline: None }).check()
    }
}

/// What came back from an attempt, as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status, when a status line arrived.
    pub status: Option<u16>,
    /// A valid `Retry-After`, as a wait.
    pub retry_after: Option<Duration>,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing more to do.
    Delivered,
    /// Once more after this wait.
    RetryAfter(Duration),
    /// Never again by itself.
    GiveUp(GiveUp),
}

/// Why a delivery failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The retry schedule is used up.
    Exhausted,
    /// Its deadline passed.
    Expired,
    /// The endpoint answered 410 Gone; it is disabled too.
    Gone,
    /// The process died several times during its attempts.
    Quarantined,
}

impl GiveUp {
    /// Stable name in the API and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Quarantined => "quarantined",
        }
    }

    /// Back from [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Exhausted, Self::Expired, Self::Gone, Self::Quarantined]
            .into_iter()
            .find(|reason| reason.name() == name)
    }
}

/// Decides what follows an answer.
///
/// `number` counts the scheduled attempts of the delivery, this one included (1 for the first). `jitter` in `0.0..=1.0`
/// adds up to a tenth to the wait, never less than announced. `Retry-After` of 429 and 503 stretches a wait, up to
/// the larger of twice the step and an hour (a hostile or mistaken header must not stall a delivery for days).
pub fn next_step(answer: &Answer, number: u32, policy: &RetryPolicy, jitter: f64) -> NextStep {
    if answer.outcome == Outcome::Succeeded {
        return NextStep::Delivered;
    }
    if answer.status == Some(410) {
        return NextStep::GiveUp(GiveUp::Gone);
    }
    let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(step) = policy.waits.get(index).copied() else {
        return NextStep::GiveUp(GiveUp::Exhausted);
    };
    let asked = match answer.status {
        Some(429 | 503) => answer.retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let wait = step.max(asked.min(step.saturating_mul(2).max(HOUR)));
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    NextStep::RetryAfter(wait.saturating_add(wait.mul_f64(jitter / 10.0)))
}

/// Length of every IMF-fixdate (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
const IMF_FIXDATE_BYTES: usize = 29;

/// Reads `Retry-After`: 1 to 9 digits of seconds, or an IMF-fixdate relative to `now_seconds` (Unix seconds; a date in
/// the past means at once). Anything else (floats, signs, other dates) is no value.
pub fn parse_retry_after(value: &[u8], now_seconds: i64) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    // The crate reads the two obsolete date forms too; only IMF-fixdate has this length.
    if text.len() != IMF_FIXDATE_BYTES {
        return None;
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(at.saturating_sub(u64::try_from(now_seconds).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(outcome: Outcome, status: Option<u16>, retry_after: Option<u64>) -> Answer {
        Answer { outcome, status, retry_after: retry_after.map(Duration::from_secs) }
    }

    fn secs(seconds: u64) -> NextStep {
        NextStep::RetryAfter(Duration::from_secs(seconds))
    }

    #[test]
    fn the_default_schedule_spans_three_days() {
        assert_eq!(DEFAULT_WAITS.iter().sum::<Duration>(), Duration::from_secs(75 * 3600 + 35 * 60 + 5));
    }

    #[test]
    fn each_answer_has_its_next_step() {
        let policy = RetryPolicy::default();
        for (given, number, expected) in [
            (answer(Outcome::Succeeded, Some(204), None), 1, NextStep::Delivered),
            (answer(Outcome::HttpError, Some(500), None), 1, secs(5)),
            (answer(Outcome::HttpError, Some(500), None), 2, secs(300)),
            (answer(Outcome::HttpError, Some(500), None), 9, secs(24 * 3600)),
            (answer(Outcome::HttpError, Some(500), None), 10, NextStep::GiveUp(GiveUp::Exhausted)),
            (answer(Outcome::HttpError, Some(410), None), 1, NextStep::GiveUp(GiveUp::Gone)),
            (answer(Outcome::Dns, None, None), 1, secs(5)),
            (answer(Outcome::TokenRejected, None, None), 1, secs(5)),
            // Retry-After: longer than the step counts, shorter does not, too long is cut to max(2 × step, 1 h).
            (answer(Outcome::HttpError, Some(429), Some(60)), 1, secs(60)),
            (answer(Outcome::HttpError, Some(503), Some(1)), 1, secs(5)),
            (answer(Outcome::HttpError, Some(503), Some(999_999_999)), 1, secs(3600)),
            (answer(Outcome::HttpError, Some(503), Some(999_999_999)), 4, secs(4 * 3600)),
            (answer(Outcome::HttpError, Some(500), Some(60)), 1, secs(5)),
        ] {
            assert_eq!(next_step(&given, number, &policy, 0.0), expected, "{given:?} at attempt {number}");
        }
    }

    #[test]
    fn the_deadline_covers_the_waits_with_a_margin() {
        assert_eq!(RetryPolicy::default().deadline().as_secs(), 326_526);
        let short = RetryPolicy { waits: vec![Duration::from_millis(1)], deadline: None };
        assert_eq!(short.deadline(), SHORTEST_DEADLINE);
        let set = RetryPolicy { deadline: Some(Duration::from_secs(5)), ..RetryPolicy::default() };
        assert_eq!(set.deadline(), Duration::from_secs(5));
    }

    #[test]
    fn policies_beyond_the_bounds_are_refused() {
        let policy = |waits: Vec<Duration>, deadline| RetryPolicy { waits, deadline };
        for accepted in [
            RetryPolicy::default(),
            policy(vec![], None),
            policy(vec![Duration::ZERO; limits::RETRY_STEPS], None),
            policy(vec![limits::RETRY_WAIT; 3], None),
            policy(vec![limits::RETRY_WAIT; 50], Some(limits::DELIVERY_AGE)),
        ] {
            assert_eq!(accepted.check(), Ok(()));
        }
        for refused in [
            policy(vec![Duration::ZERO; limits::RETRY_STEPS + 1], None),
            policy(vec![limits::RETRY_WAIT + Duration::from_nanos(1)], None),
            policy(vec![Duration::MAX; 50], Some(Duration::from_secs(1))),
            policy(vec![limits::RETRY_WAIT; 4], None),
            policy(vec![], Some(Duration::ZERO)),
            policy(vec![], Some(limits::DELIVERY_AGE + Duration::from_nanos(1))),
        ] {
            assert!(refused.check().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_endpoint_sets_its_schedule_and_its_deadline_each_for_itself() {
        let second = Duration::from_secs(1);
        let server = RetryPolicy { waits: vec![second; 3], deadline: Some(7 * second) };
        let own = |waits: Option<Vec<Duration>>, deadline| RetryOverride { waits, deadline };
        let policy = |waits: Vec<Duration>, deadline| RetryPolicy { waits, deadline };
        let schedule = vec![HOUR; 40];
        for (own, expected, age) in [
            (RetryOverride::default(), server.clone(), 7 * second),
            (own(None, Some(9 * second)), policy(vec![second; 3], Some(9 * second)), 9 * second),
            (own(Some(schedule.clone()), None), policy(schedule.clone(), None), 48 * HOUR),
            (own(Some(vec![]), None), policy(vec![], None), SHORTEST_DEADLINE),
            (own(Some(schedule.clone()), Some(HOUR)), policy(schedule, Some(HOUR)), HOUR),
        ] {
            assert_eq!(own.over(&server), expected, "{own:?}");
            assert_eq!(
                (own.over(&server).deadline(), own.deadline(server.deadline())),
                (age, age),
                "{own:?}"
            );
            assert_eq!(own.check(), Ok(()));
        }
        for refused in [
            own(None, Some(Duration::ZERO)),
            own(None, Some(limits::DELIVERY_AGE + second)),
            own(Some(vec![limits::RETRY_WAIT; 4]), None),
            own(Some(vec![limits::RETRY_WAIT + second]), Some(second)),
        ] {
            assert!(refused.check().is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_empty_schedule_means_one_attempt() {
        let policy = RetryPolicy { waits: vec![], deadline: None };
        let failed = answer(Outcome::Timeout, None, None);
        assert_eq!(next_step(&failed, 1, &policy, 0.0), NextStep::GiveUp(GiveUp::Exhausted));
    }

    #[test]
    fn hostile_retry_after_values_are_no_values() {
        let now = 1_767_225_600;
        let megabytes = "9".repeat(10_000_000);
        for text in [
            "inf",
            "nan",
            "1e300",
            "-1",
            "99999999999999999999",
            "1.5",
            "",
            " ",
            "+5",
            "0x10",
            "1 2",
            "1234567890",
            &megabytes,
            "Wed, 21 Oct 2015 07:28:00 (a (nested) comment)",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Wed, 21 Oct 1600 07:28:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_retry_after(text.as_bytes(), now), None, "{}", &text[..text.len().min(80)]);
        }
        let far = parse_retry_after(b"Fri, 31 Dec 9999 23:59:59 GMT", now);
        assert!(far.is_some_and(|wait| wait > Duration::from_hours(7900 * 8760)), "{far:?}");
        assert_eq!(parse_retry_after(b"\t 999999999 ", now), Some(Duration::from_secs(999_999_999)));
        assert_eq!(parse_retry_after(b"120", now), Some(Duration::from_mins(2)));
        assert_eq!(parse_retry_after(b"0", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after(b"Thu, 01 Jan 2026 00:01:00 GMT", now), Some(Duration::from_mins(1)));
        assert_eq!(parse_retry_after(b"Wed, 21 Oct 2015 07:28:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after(&[0xff; 10], now), None);
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_at_most_a_tenth(jitter in -2.0..3.0_f64, number in 1_u32..10, retry_after in proptest::option::of(0_u64..10_000_000_000)) {
            let policy = RetryPolicy::default();
            let given = answer(Outcome::HttpError, Some(503), retry_after);
            let NextStep::RetryAfter(least) = next_step(&given, number, &policy, 0.0) else { panic!("retried") };
            let NextStep::RetryAfter(wait) = next_step(&given, number, &policy, jitter) else { panic!("retried") };
            prop_assert!(wait >= least && wait <= least.mul_f64(1.100_001));
        }
    }
}
