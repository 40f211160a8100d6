//! The life of a token and of a failure, second by second.

use super::*;
use postrider_model::outcome::Outcome;

/// A clock of the test.
#[derive(Clone, Copy)]
struct Start(Instant);

impl Start {
    fn at(self, seconds: u64) -> Moment {
        self.moved(seconds, i64::try_from(seconds).unwrap())
    }

    /// The wall clock apart from the monotonic one.
    fn moved(self, seconds: u64, wall_seconds: i64) -> Moment {
        let wall = Duration::from_secs(1_000_000).saturating_add_signed(wall_seconds);
        Moment { monotonic: self.0 + Duration::from_secs(seconds), wall }
    }
}

trait SaturatingAddSigned {
    fn saturating_add_signed(self, seconds: i64) -> Self;
}

impl SaturatingAddSigned for Duration {
    fn saturating_add_signed(self, seconds: i64) -> Self {
        let moved = Self::from_secs(seconds.unsigned_abs());
        if seconds < 0 { self.saturating_sub(moved) } else { self + moved }
    }
}

fn grant(value: &str, life: u64) -> Grant {
    Grant { value: value.to_owned().into(), life: Duration::from_secs(life) }
}

fn with_token(start: Start, life: u64, jitter: f64) -> State {
    let mut state = State::default();
    state.granted(&grant("one", life), start.at(0), jitter);
    state
}

fn name(decision: &Decision) -> &'static str {
    match decision {
        Decision::Use(_) => "use",
        Decision::UseAndRefresh(_) => "refresh",
        Decision::Fail(_) => "fail",
        Decision::Fetch => "fetch",
    }
}

fn failure() -> TokenFailure {
    TokenFailure { outcome: Outcome::TokenUnavailable, detail: "x".to_owned() }
}

const UNAVAILABLE: RefusalKind = RefusalKind::Unavailable { retry_after: None };

/// O06: with a life of 100 s the token is used alone until 75 to 85 s, renewed beside its use until 90 s, then fetched.
#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let start = Start(Instant::now());
    for (jitter, refresh_at) in [(0.0, 75), (1.0, 81)] {
        let state = with_token(start, 100, jitter);
        for (second, expected) in [
            (0, "use"),
            (refresh_at - 1, "use"),
            (refresh_at, "refresh"),
            (89, "refresh"),
            (90, "fetch"),
            (1000, "fetch"),
        ] {
            assert_eq!(name(&state.decide(start.at(second))), expected, "jitter {jitter}, second {second}");
        }
    }
}

/// O04: short lives are used once and not kept.
#[tokio::test]
async fn a_short_lived_token_is_not_kept() {
    let start = Start(Instant::now());
    for (life, expected) in [(0, "fetch"), (19, "fetch"), (20, "use")] {
        assert_eq!(name(&with_token(start, life, 0.5).decide(start.at(1))), expected, "{life}");
    }
    assert_eq!(name(&with_token(start, 20, 0.5).decide(start.at(10))), "fetch");
    assert_eq!(name(&with_token(start, 24 * 3600, 0.5).decide(start.at(24 * 3600 - 61))), "refresh");
    assert_eq!(name(&with_token(start, 24 * 3600, 0.5).decide(start.at(24 * 3600 - 60))), "fetch");
}

/// O18: a machine that slept has a wall clock that went on; a clock set back does not lengthen a life.
#[tokio::test]
async fn either_clock_ends_a_token() {
    let start = Start(Instant::now());
    let state = with_token(start, 3600, 0.5);
    assert_eq!(name(&state.decide(start.moved(10, 2 * 3600))), "fetch", "two hours passed while asleep");
    assert_eq!(name(&state.decide(start.moved(10, -2 * 3600))), "use");
    assert_eq!(name(&state.decide(start.moved(3600, -2 * 3600))), "fetch");
    // No storm: what is fetched then lives its own life.
    let mut state = State::default();
    state.granted(&grant("two", 3600), start.moved(10, 2 * 3600), 0.5);
    assert_eq!(name(&state.decide(start.moved(11, 2 * 3600 + 1))), "use");
}

/// A failed renewal changes nothing until the old token ends.
#[tokio::test]
async fn a_failed_renewal_leaves_the_old_token_in_use() {
    let start = Start(Instant::now());
    let mut state = with_token(start, 100, 0.0);
    state.failed(failure(), UNAVAILABLE, start.at(75).monotonic, 1.0);
    assert_eq!(name(&state.decide(start.at(75))), "use", "the next renewal waits");
    assert_eq!(name(&state.decide(start.at(76))), "refresh");
    assert_eq!(name(&state.decide(start.at(90))), "fetch");
}

/// O05, O19: a failure is remembered for a growing time, and gone after a success.
#[tokio::test]
async fn failures_are_remembered_for_a_growing_time() {
    for (kind, pauses) in [
        (UNAVAILABLE, [1, 2, 4, 8, 16, 32, 60, 60]),
        (RefusalKind::Rejected, [60, 120, 240, 480, 960, 1920, 3600, 3600]),
        (RefusalKind::Invalid, [300, 600, 1200, 2400, 3600, 3600, 3600, 3600]),
        (RefusalKind::Unreachable, [300, 600, 1200, 2400, 3600, 3600, 3600, 3600]),
        (RefusalKind::Unavailable { retry_after: Some(Duration::from_secs(7)) }, [7; 8]),
    ] {
        let start = Start(Instant::now());
        let (mut state, mut now) = (State::default(), 0);
        for pause in pauses {
            state.failed(failure(), kind, start.at(now).monotonic, 1.0);
            assert_eq!(name(&state.decide(start.at(now + pause - 1))), "fail", "{kind:?} {pause}");
            now += pause;
            assert_eq!(name(&state.decide(start.at(now))), "fetch", "{kind:?} {pause}");
        }
        state.granted(&grant("one", 3600), start.at(now), 0.5);
        state.failed(failure(), kind, start.at(now).monotonic, 1.0);
        assert_eq!(pause(kind, 1, 1.0).as_secs(), pauses[0]);
    }
    assert_eq!(pause(UNAVAILABLE, u32::MAX, 1.0), Duration::from_mins(1));
}

/// O08: a 401 replaces an old cached token once a minute, a young one never, and takes a newer one without asking.
#[tokio::test]
async fn a_401_replaces_a_token_once_a_minute() {
    let start = Start(Instant::now());
    let (one, two) = (SecretString::from("one".to_owned()), SecretString::from("two".to_owned()));
    let mut state = with_token(start, 3600, 0.5);
    assert!(matches!(state.replace(&one, false, start.at(4)), Replacement::Nothing), "too young");
    assert!(matches!(state.replace(&one, false, start.at(6)), Replacement::Fetch));
    assert!(
        matches!(state.replace(&one, true, start.at(6)), Replacement::Fetch),
        "a second caller joins the first"
    );
    state.granted(&grant("two", 3600), start.at(7), 0.5);
    assert!(
        matches!(state.replace(&one, false, start.at(8)), Replacement::Use(value) if value.expose_secret() == "two")
    );
    assert!(matches!(state.replace(&two, false, start.at(60)), Replacement::Nothing), "within a minute");
    assert_eq!(name(&state.decide(start.at(60))), "use", "and the token stays");
    assert!(matches!(state.replace(&two, false, start.at(66)), Replacement::Fetch));
}

#[tokio::test]
async fn a_401_does_not_break_a_pause_after_failures() {
    let start = Start(Instant::now());
    let mut state = with_token(start, 3600, 0.5);
    state.failed(failure(), RefusalKind::Rejected, start.at(10).monotonic, 0.5);
    let one = SecretString::from("one".to_owned());
    assert!(matches!(state.replace(&one, false, start.at(20)), Replacement::Fail(_)));
    assert_eq!(name(&state.decide(start.at(20))), "fail", "the refused token is not used again");
}
