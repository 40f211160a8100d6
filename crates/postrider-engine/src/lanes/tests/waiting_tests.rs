//! Tests of what makes deliveries wait: breakers and rates.

use super::*;

const TIMEOUT: Finding = Finding::Trouble(Trouble::Timeout, None);
const DEADLINE: Duration = Duration::from_secs(15);

/// Five timeouts in a row; returns until when nothing is sent.
fn down(lanes: &mut Bench, of: u8) -> Timestamp {
    lanes.fill(of, 5);
    for message in 0..5 {
        assert_eq!(lanes.admit(of, message, 1, false), Gate::Open);
    }
    let mut until = None;
    for message in 0..5 {
        until = lanes.end(of, message, TIMEOUT, DEADLINE).defer;
        lanes.leave(of, message);
    }
    until.expect("the fifth opens the breaker")
}

#[test]
fn an_endpoint_that_is_down_is_left_alone_and_probed_once() {
    let mut lanes = lanes(100);
    let until = down(&mut lanes, 1);
    assert_eq!(until, lanes.now.plus(Trouble::Timeout.pause()));
    assert_eq!(lanes.state.breakers(), (1, 0));
    lanes.fill(1, 2);
    assert_eq!(lanes.admit(1, 0, 1, false), Gate::Shut(until, Withheld::Breaker));
    lanes.now = until;
    let looked_at_again = until.plus(Duration::from_secs(20));
    assert_eq!(lanes.admit(1, 0, 1, false), Gate::Probe(looked_at_again));
    assert_eq!(lanes.state.breakers(), (0, 1));
    assert_eq!(lanes.admit(1, 1, 1, false), Gate::Shut(looked_at_again, Withheld::Probe));
    assert_eq!(lanes.admit(1, 1, 1, true), Gate::Shut(looked_at_again, Withheld::Probe), "urgent or not");

    let again = lanes.end(1, 0, TIMEOUT, DEADLINE);
    assert_eq!(again.defer, Some(until.plus(Trouble::Timeout.pause() * 2)));
    assert_eq!(again.opened.map(|pause| pause.trips), Some(2));
    assert_eq!(lanes.state.breakers(), (1, 0));
    assert_eq!(lanes.admit(1, 1, 1, true), Gate::Probe(looked_at_again), "somebody waits for this one");
}

#[test]
fn a_good_probe_closes_the_breaker_and_the_endpoint_gets_its_places_back_one_by_one() {
    let mut lanes = lanes(100);
    lanes.now = down(&mut lanes, 1);
    lanes.fill(1, 1);
    assert!(matches!(lanes.admit(1, 0, 1, false), Gate::Probe(_)));
    let outcome = lanes.end(1, 0, Finding::Well, QUICK);
    assert!(outcome.closed && outcome.defer == Some(lanes.now), "the store hands out again");
    lanes.leave(1, 0);
    assert_eq!((lanes.state.breakers(), lanes.places(1)), ((0, 0), 2));
    let mut message = 10;
    for round in [2, 4, 8, 12, 12] {
        let entered = (0..20).filter(|more| lanes.enter(1, message + more)).count();
        assert!(entered <= round, "{entered} at once");
        for more in 0..20 {
            if lanes.tickets.contains_key(&lease(1, message + more)) {
                lanes.admit(1, message + more, 1, false);
                lanes.answer(1, message + more, QUICK);
            }
        }
        message += 20;
    }
    assert!(lanes.state.room().wide.is_empty());
    assert!(!lanes.state.standing(endpoint(1), lanes.now).breaker.is_recovering(), "twenty went well");
}

#[test]
fn a_probe_that_comes_to_nothing_leaves_its_turn_to_the_next() {
    let mut lanes = lanes(100);
    lanes.now = down(&mut lanes, 1);
    lanes.fill(1, 2);
    assert!(matches!(lanes.admit(1, 0, 1, false), Gate::Probe(_)));
    assert_eq!(lanes.leave(1, 0).defer, Some(lanes.now), "it was given back");
    assert_eq!(lanes.state.breakers(), (1, 0));
    assert!(matches!(lanes.admit(1, 1, 1, false), Gate::Probe(_)));
    let outcome = lanes.end(1, 1, Finding::Nothing, QUICK);
    assert!(outcome.opened.is_none() && outcome.defer == Some(lanes.now), "it was this server's fault");
}

#[test]
fn a_new_configuration_closes_the_breaker() {
    let mut lanes = lanes(100);
    let until = down(&mut lanes, 1);
    lanes.fill(1, 2);
    assert_eq!(lanes.admit(1, 0, 1, false), Gate::Shut(until, Withheld::Breaker));
    assert_eq!(lanes.admit(1, 1, 2, false), Gate::Mended);
    assert_eq!(lanes.admit(1, 0, 2, false), Gate::Open);
    assert_eq!(lanes.state.breakers(), (0, 0));
}

#[test]
fn what_was_sent_with_an_older_configuration_says_nothing_of_the_new_one() {
    let mut lanes = lanes(100);
    lanes.fill(1, 10);
    for message in 0..9 {
        lanes.admit(1, message, 1, false);
    }
    assert_eq!(lanes.admit(1, 9, 2, false), Gate::Open);
    for message in 0..9 {
        lanes.finish(1, message, TIMEOUT, DEADLINE);
    }
    assert_eq!(lanes.state.breakers(), (0, 0));
}

#[test]
fn an_old_probe_does_not_speak_of_a_new_configuration() {
    let mut lanes = lanes(100);
    lanes.now = down(&mut lanes, 1);
    lanes.fill(1, 2);
    assert!(matches!(lanes.admit(1, 0, 1, false), Gate::Probe(_)));
    assert_eq!(lanes.admit(1, 1, 2, false), Gate::Mended);
    let outcome = lanes.end(1, 0, TIMEOUT, DEADLINE);
    assert!(outcome.defer.is_none() && lanes.state.breakers() == (0, 0));
}

#[test]
fn breakers_of_endpoints_do_not_touch_each_other() {
    let mut lanes = lanes(100);
    down(&mut lanes, 1);
    assert_eq!(lanes.fill(2, 10), 10);
    assert_eq!(lanes.admit(2, 0, 1, false), Gate::Open);
    assert_eq!(lanes.state.room().full, [], "an open breaker costs a claim nothing");
    assert!(lanes.state.room().wide.is_empty());
}

#[test]
fn a_rate_is_kept_over_everything_that_is_sent_to_an_endpoint() {
    let mut lanes = lanes(100);
    lanes.fill(1, 3);
    let (now, rate) = (lanes.now, 4);
    assert_eq!(lanes.state.pace(endpoint(1), rate, now), Paced::Go);
    let next = now.plus(Duration::from_millis(230));
    assert_eq!(lanes.state.pace(endpoint(1), rate, now), Paced::Shut(next), "too long to wait for");
    let soon = next.minus(Duration::from_millis(60));
    assert_eq!(lanes.state.pace(endpoint(1), rate, soon), Paced::At(next), "it waits in its place");
    let standing = lanes.state.standing(endpoint(1), soon);
    assert_eq!(standing.throttled_since, Some(now));
    let later = soon.plus(Duration::from_secs(3));
    assert_eq!(lanes.state.standing(endpoint(1), later).throttled_since, None);
}

#[test]
fn another_rate_holds_at_once() {
    let mut lanes = lanes(100);
    lanes.fill(1, 1);
    let now = lanes.now;
    assert_eq!(lanes.state.pace(endpoint(1), 1, now), Paced::Go);
    assert!(matches!(lanes.state.pace(endpoint(1), 1, now), Paced::Shut(_)));
    assert_eq!(lanes.state.pace(endpoint(1), 50, now), Paced::Go);
    assert!(matches!(lanes.state.pace(endpoint(1), 1, now), Paced::Go));
    assert!(matches!(lanes.state.pace(endpoint(1), 1, now), Paced::Shut(_)));
}

#[test]
fn few_places_are_for_waiting() {
    let mut lanes = lanes(8);
    for of in 1..=3 {
        lanes.fill(of, 2);
        assert_eq!(lanes.state.pace(endpoint(of), 20, lanes.now), Paced::Go);
    }
    let now = lanes.now;
    let waits = (1..=3).filter(|of| matches!(lanes.state.pace(endpoint(*of), 20, now), Paced::At(_)));
    assert_eq!(waits.count(), 2, "a quarter of eight");
    lanes.state.paced();
    assert!(matches!(lanes.state.pace(endpoint(3), 20, now), Paced::At(_)));
}

#[test]
fn a_hundred_thousand_endpoints_that_are_down_are_remembered_and_no_more() {
    let mut lanes = lanes(100);
    let mut at_most = 0;
    for number in 0_u32..100_010 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let of: EndpointId = Id::new(Ksuid::from_bytes(bytes));
        let lease = Lease { delivery: DeliveryId { endpoint: of, ..lease(1, 1).delivery }, epoch: 1 };
        for _ in 0..5 {
            let Entered::In(mut ticket) = lanes.state.enter(lease, 1, lanes.now) else { panic!("no room") };
            lanes.state.admit(of, &mut ticket, 1, false, lanes.now);
            let report = Report { finding: TIMEOUT, took: QUICK, jitter: 0.0, now: lanes.now };
            lanes.state.ended(of, &mut ticket, &report);
            lanes.state.leave(&lease, &ticket, lanes.now);
        }
        at_most = at_most.max(lanes.state.breakers().0);
        if number == 99_999 {
            assert_eq!(lanes.state.breakers().0, 100_000);
            assert!(lanes.state.room().wide.is_empty() && lanes.state.room().full.is_empty());
        }
    }
    assert_eq!((at_most, lanes.state.breakers().0), (100_000, lanes.state.remembered()));
}
