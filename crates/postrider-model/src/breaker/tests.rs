//! Tests of the breaker: tables of what opens it and how long, and properties over any history.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000).plus(Duration::from_secs(seconds))
}

fn trouble(trouble: Trouble) -> Finding {
    Finding::Trouble(trouble, None)
}

/// After these findings, one a second.
fn after(findings: impl IntoIterator<Item = Finding>) -> Breaker {
    let findings = findings.into_iter().zip(0..);
    findings.fold(Breaker::default(), |breaker, (finding, second)| breaker.after(finding, at(second), 0.0))
}

fn repeated(finding: Finding, times: usize) -> Vec<Finding> {
    vec![finding; times]
}

fn opened(first: Trouble) -> Breaker {
    let breaker = after(repeated(trouble(first), 40));
    assert!(breaker.pause().is_some());
    breaker
}

#[test]
fn each_outcome_says_of_the_endpoint_what_it_can() {
    let says = |outcome, status| finding(&Answer { outcome, status, retry_after: None });
    for (outcome, status, expected) in [
        (Outcome::Succeeded, Some(200), Finding::Well),
        (Outcome::RedirectNotFollowed, Some(302), Finding::Well),
        (Outcome::HttpError, Some(400), Finding::Well),
        (Outcome::HttpError, Some(404), Finding::Well),
        (Outcome::HttpError, Some(410), Finding::Well),
        (Outcome::HttpError, Some(413), Finding::Well),
        (Outcome::HttpError, Some(422), Finding::Well),
        (Outcome::HttpError, Some(401), trouble(Trouble::Refusing)),
        (Outcome::HttpError, Some(403), trouble(Trouble::Refusing)),
        (Outcome::HttpError, Some(408), trouble(Trouble::Failing)),
        (Outcome::HttpError, Some(429), trouble(Trouble::Overloaded)),
        (Outcome::HttpError, Some(500), trouble(Trouble::Failing)),
        (Outcome::HttpError, Some(502), trouble(Trouble::Overloaded)),
        (Outcome::HttpError, Some(503), trouble(Trouble::Overloaded)),
        (Outcome::HttpError, Some(504), trouble(Trouble::Overloaded)),
        (Outcome::HttpError, Some(599), trouble(Trouble::Failing)),
        (Outcome::Unauthorized, Some(401), trouble(Trouble::Refusing)),
        (Outcome::Timeout, None, trouble(Trouble::Timeout)),
        (Outcome::Connect, None, trouble(Trouble::Connect)),
        (Outcome::Tls, None, trouble(Trouble::Connect)),
        (Outcome::Dns, None, trouble(Trouble::Host)),
        (Outcome::Blocked, None, trouble(Trouble::Host)),
        (Outcome::ResponseMalformed, None, trouble(Trouble::Failing)),
        (Outcome::TokenUnavailable, None, trouble(Trouble::TokenUnavailable)),
        (Outcome::TokenRejected, None, trouble(Trouble::TokenRejected)),
        (Outcome::TokenInvalid, None, trouble(Trouble::TokenRejected)),
        (Outcome::ConfigInvalid, None, Finding::Nothing),
        (Outcome::CredentialUnavailable, None, Finding::Nothing),
        (Outcome::Interrupted, None, Finding::Nothing),
        (Outcome::Internal, None, Finding::Nothing),
    ] {
        assert_eq!(says(outcome, status), expected, "{outcome:?} {status:?}");
    }
}

#[test]
fn only_429_and_503_can_ask_for_a_wait() {
    for (status, expected) in [(429, Some(SECOND)), (503, Some(SECOND)), (502, None), (500, None)] {
        let answer = Answer { outcome: Outcome::HttpError, status: Some(status), retry_after: Some(SECOND) };
        let Finding::Trouble(_, asked) = finding(&answer) else { panic!("{status} is trouble") };
        assert_eq!(asked, expected, "{status}");
    }
}

#[test]
fn five_costly_troubles_in_a_row_open_it() {
    for costly in [Trouble::Timeout, Trouble::Connect, Trouble::Host, Trouble::TokenRejected] {
        assert_eq!(after(repeated(trouble(costly), 4)).pause(), None, "{costly:?}");
        let pause = after(repeated(trouble(costly), 5)).pause().expect("open");
        assert_eq!((pause.trouble, pause.since, pause.trips), (costly, at(4), 1));
        assert_eq!(pause.until, at(4).plus(costly.pause()));
    }
    let mut interrupted = repeated(trouble(Trouble::Timeout), 4);
    interrupted.push(Finding::Well);
    interrupted.extend(repeated(trouble(Trouble::Timeout), 4));
    assert_eq!(after(interrupted).pause(), None, "one that went well begins the row anew");
}

#[test]
fn half_of_at_least_twenty_outcomes_open_it() {
    for quick in [Trouble::Failing, Trouble::Overloaded, Trouble::Refusing] {
        assert_eq!(after(repeated(trouble(quick), 19)).pause(), None, "{quick:?}: too few to tell");
        assert!(after(repeated(trouble(quick), 20)).pause().is_some(), "{quick:?}");
    }
    let opens_with_trouble_every = |count: usize| {
        let findings = (1..200)
            .map(|number| if number % count == 0 { trouble(Trouble::Failing) } else { Finding::Well });
        after(findings).pause().is_some()
    };
    assert!(opens_with_trouble_every(2));
    assert!(!opens_with_trouble_every(3));
    let mut busy = repeated(Finding::Well, 10_000);
    busy.extend(repeated(trouble(Trouble::Failing), 16));
    assert!(after(busy).pause().is_some(), "a busy endpoint is noticed within a window");
}

#[test]
fn answers_that_speak_of_the_message_never_open_it() {
    let unprocessable =
        finding(&Answer { outcome: Outcome::HttpError, status: Some(422), retry_after: None });
    assert_eq!(after(repeated(unprocessable, 1000)).pause(), None);
}

#[test]
fn what_lies_apart_does_not_count_together() {
    let hourly = (0..100).fold(Breaker::default(), |breaker, hour| {
        breaker.after(trouble(Trouble::Timeout), at(hour * 3600), 0.0)
    });
    assert_eq!(hourly.pause(), None);
}

#[test]
fn the_pause_depends_on_the_trouble_doubles_and_has_a_bound() {
    for (first, seconds) in [
        (Trouble::Failing, [5, 10, 20, 40, 80, 160, 300, 300]),
        (Trouble::Overloaded, [5, 10, 20, 40, 80, 160, 300, 300]),
        (Trouble::Timeout, [10, 20, 40, 80, 160, 300, 300, 300]),
        (Trouble::Connect, [10, 20, 40, 80, 160, 300, 300, 300]),
        (Trouble::TokenUnavailable, [10, 20, 40, 80, 160, 300, 300, 300]),
        (Trouble::Host, [30, 60, 120, 240, 300, 300, 300, 300]),
        (Trouble::Refusing, [30, 60, 120, 240, 300, 300, 300, 300]),
        (Trouble::TokenRejected, [60, 120, 240, 300, 300, 300, 300, 300]),
    ] {
        let mut breaker = opened(first);
        let mut now = breaker.pause().expect("open").since;
        for (pause, trips) in seconds.into_iter().zip(1..) {
            let expected = Duration::from_secs(pause);
            let open = breaker.pause().expect("open");
            assert_eq!((open.until.since(now), open.trips), (expected, trips), "{first:?}");
            now = open.until;
            assert_eq!(breaker.admission(now, false), Admission::Probe);
            breaker = breaker.probing(7).after_probe(7, trouble(first), now, 0.0);
        }
    }
    for trips in [1, 5, u32::MAX] {
        for jitter in [0.0, 0.5, 1.0, 9.0, -1.0, f64::NAN] {
            for trouble in Trouble::ALL {
                let pause = length(trouble, Some(Duration::MAX), trips, jitter);
                assert!(pause >= PAUSE_MOST && pause <= PAUSE_MOST.mul_f64(1.1), "{pause:?}");
            }
        }
    }
}

#[test]
fn a_wait_that_the_endpoint_asks_for_stretches_the_pause() {
    for (asked, expected) in [(0, 5), (3, 5), (60, 60), (3600, 300)] {
        let finding = Finding::Trouble(Trouble::Overloaded, Some(Duration::from_secs(asked)));
        let pause = after(repeated(finding, 20)).pause().expect("open");
        assert_eq!(pause.until.since(pause.since), Duration::from_secs(expected), "{asked}");
    }
}

#[test]
fn while_it_is_open_everything_waits_but_what_somebody_waits_for() {
    let breaker = opened(Trouble::Timeout);
    let until = breaker.pause().expect("open").until;
    assert_eq!(breaker.admission(at(5), false), Admission::Wait(until));
    assert_eq!(breaker.admission(at(5), true), Admission::Probe);
    assert_eq!(breaker.admission(until, false), Admission::Probe);
    let probing = breaker.probing(1);
    for urgent in [false, true] {
        assert_eq!(probing.admission(until.plus(SECOND), urgent), Admission::AfterProbe, "one is enough");
    }
    assert_eq!(breaker.after(Finding::Well, at(6), 0.0), breaker, "what was sent before says nothing new");
    assert_eq!(probing.after(Finding::Well, at(6), 0.0), probing);
}

#[test]
fn a_clock_that_is_set_back_does_not_stretch_a_pause() {
    let breaker = opened(Trouble::Timeout);
    assert_eq!(breaker.admission(at(0).minus(Duration::from_hours(1)), false), Admission::Probe);
}

#[test]
fn only_its_own_probe_decides() {
    let probing = opened(Trouble::Timeout).probing(2);
    assert_eq!(probing.after_probe(1, Finding::Well, at(30), 0.0), probing, "an older one");
    assert_eq!(probing.without_probe(1, at(30)), probing);
    assert!(probing.after_probe(2, Finding::Well, at(30), 0.0).is_recovering());
    assert!(matches!(probing.after_probe(2, trouble(Trouble::Host), at(30), 0.0), Breaker::Open(_)));
    for nothing in [probing.without_probe(2, at(9)), probing.after_probe(2, Finding::Nothing, at(9), 0.0)] {
        assert_eq!(nothing.admission(at(9), false), Admission::Probe, "the next one is the probe");
        assert_eq!(nothing.pause().map(|pause| pause.trips), Some(1));
    }
}

#[test]
fn a_recovering_endpoint_is_stopped_sooner_and_forgiven_after_twenty_good_deliveries() {
    let closed = opened(Trouble::Timeout).probing(1).after_probe(1, Finding::Well, at(100), 0.0);
    assert!(closed.is_recovering() && closed.pause().is_none());
    let one = closed.after(trouble(Trouble::Failing), at(101), 0.0);
    assert_eq!(one.pause(), None);
    let again = one.after(trouble(Trouble::Failing), at(102), 0.0).pause().expect("open again");
    assert_eq!((again.trips, again.since), (2, at(4)), "the same outage goes on");
    assert_eq!(again.until, at(112), "twice the pause of failing");

    let mut well = closed;
    for second in 0..u64::from(RECOVERED_AFTER) - 2 {
        well = well.after(Finding::Well, at(101 + second), 0.0);
        assert!(well.is_recovering());
    }
    well = well.after(Finding::Well, at(120), 0.0);
    assert!(!well.is_recovering() && well.is_blank());
}

#[test]
fn what_went_well_for_long_is_forgotten() {
    let mut findings = repeated(trouble(Trouble::Failing), 3);
    assert!(Breaker::default().is_blank() && !after(findings.clone()).is_blank());
    findings.extend(repeated(Finding::Well, usize::from(WINDOW)));
    assert!(after(findings).is_blank());
    assert!(after([Finding::Nothing]).is_blank(), "what says nothing leaves nothing");
}

fn any_finding() -> impl Strategy<Value = Finding> {
    prop_oneof![
        3 => Just(Finding::Well),
        4 => (0..Trouble::ALL.len(), proptest::option::of(0_u64..10_000))
            .prop_map(|(which, asked)| Finding::Trouble(Trouble::ALL[which], asked.map(Duration::from_secs))),
        1 => Just(Finding::Nothing),
    ]
}

proptest! {
    /// Whatever happens: never more than one probe, no pause beyond the bound, and a way out of every state.
    #[test]
    fn no_history_leads_astray(
        steps in proptest::collection::vec((any_finding(), 0_u64..90, any::<bool>(), 0.0_f64..1.0), 1..300),
    ) {
        let mut breaker = Breaker::default();
        let mut now = at(0);
        let mut probes = 0;
        let mut out = None;
        for (finding, seconds, urgent, jitter) in steps {
            now = now.plus(Duration::from_secs(seconds));
            match breaker.admission(now, urgent) {
                Admission::Send => breaker = breaker.after(finding, now, jitter),
                Admission::Probe => {
                    prop_assert!(out.is_none(), "a second probe");
                    probes += 1;
                    breaker = breaker.probing(probes);
                    out = Some(probes);
                }
                Admission::Wait(until) => {
                    prop_assert!(until > now && until.since(now) <= PAUSE_MOST.mul_f64(1.1));
                }
                Admission::AfterProbe => {
                    let number = out.take().expect("a probe is out");
                    breaker = breaker.after_probe(number, finding, now, jitter);
                    prop_assert!(!matches!(breaker, Breaker::HalfOpen(..)));
                }
            }
        }
        // Well from here on, it closes and forgets.
        for second in 0..700_u64 {
            let now = now.plus(Duration::from_secs(second));
            breaker = match breaker.admission(now, false) {
                Admission::Send => breaker.after(Finding::Well, now, 0.0),
                Admission::Probe => breaker.probing(999).after_probe(999, Finding::Well, now, 0.0),
                Admission::AfterProbe => breaker.after_probe(out.expect("out"), Finding::Well, now, 0.0),
                Admission::Wait(_) => breaker,
            };
        }
        prop_assert!(breaker.is_blank(), "{:?}", breaker);
    }

    /// Fewer troubles than any rule asks for never stop an endpoint.
    #[test]
    fn one_trouble_in_three_never_opens_it(which in 0..Trouble::ALL.len(), offset in 0_usize..3) {
        let findings = (0..300).map(|number| {
            if number % 3 == offset { trouble(Trouble::ALL[which]) } else { Finding::Well }
        });
        prop_assert_eq!(after(findings).pause(), None);
    }
}
