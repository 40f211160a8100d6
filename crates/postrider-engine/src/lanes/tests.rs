//! Tests of the lanes' book-keeping: places. `waiting_tests` has breakers and rates.

use super::{
    answers::{Left, Outcome},
    *,
};
use postrider_model::{
    breaker::Trouble,
    delivery::DeliveryId,
    id::{Id, Ksuid},
};
use std::collections::HashMap;

mod any_order;
mod waiting_tests;

pub(super) const QUICK: Duration = Duration::from_millis(3);
pub(super) const SLOW: Duration = Duration::from_secs(15);
const KIB: usize = 1024;

/// Lanes, and the tickets of what runs in them.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Timestamp,
    tickets: HashMap<Lease, Ticket>,
}

pub(super) fn lanes(total: usize) -> Bench {
    let limits = Limits {
        total,
        bytes: 100 * KIB,
        per_endpoint: 10,
        per_quick_endpoint: 12,
        per_slow_endpoint: 2,
        slow_after: Duration::from_secs(2),
        probe_time: Duration::from_secs(20),
    };
    Bench { state: State::new(limits), now: crate::samples::at(), tickets: HashMap::new() }
}

pub(super) fn endpoint(number: u8) -> EndpointId {
    Id::new(Ksuid::from_bytes([number; 20]))
}

pub(super) fn lease(of: u8, message: u8) -> Lease {
    let delivery = DeliveryId {
        message: Id::new(Ksuid::from_bytes([message; 20])),
        endpoint: endpoint(of),
        generation: 0,
    };
    Lease { delivery, epoch: 1 }
}

impl Bench {
    pub(super) fn enter(&mut self, of: u8, message: u8) -> bool {
        let lease = lease(of, message);
        match self.state.enter(lease, 1, self.now) {
            Entered::In(ticket) => self.tickets.insert(lease, ticket).is_none(),
            Entered::Full | Entered::Later(_) => false,
        }
    }

    /// Lets a suspect wait; `None`: it is to come again later.
    fn wait(&mut self, of: u8, message: u8, bytes: usize) -> Option<Ticket> {
        match self.state.wait(lease(of, message), bytes, self.now) {
            Entered::In(ticket) => Some(ticket),
            Entered::Later(until) => {
                assert!(until > self.now, "else it would be claimed again at once");
                None
            }
            Entered::Full => panic!("it waits for the first time"),
        }
    }

    pub(super) fn fill(&mut self, of: u8, attempts: u8) -> usize {
        (0..attempts).filter(|message| self.enter(of, *message)).count()
    }

    pub(super) fn admit(&mut self, of: u8, message: u8, version: u64, urgent: bool) -> Gate {
        let ticket = self.tickets.get_mut(&lease(of, message)).expect("it runs");
        self.state.admit(endpoint(of), ticket, version, urgent, self.now)
    }

    pub(super) fn end(&mut self, of: u8, message: u8, finding: Finding, took: Duration) -> Outcome {
        let ticket = self.tickets.get_mut(&lease(of, message)).expect("it runs");
        let report = Report { finding, took, jitter: 0.0, now: self.now };
        self.state.ended(endpoint(of), ticket, &report)
    }

    pub(super) fn leave(&mut self, of: u8, message: u8) -> Left {
        let ticket = self.tickets.remove(&lease(of, message)).expect("it runs");
        self.state.leave(&lease(of, message), &ticket, self.now)
    }

    /// Ends and leaves; whether that freed a place that something may have waited for.
    pub(super) fn finish(&mut self, of: u8, message: u8, finding: Finding, took: Duration) -> bool {
        let earned = self.end(of, message, finding, took).earned;
        self.leave(of, message).was_full || earned
    }

    /// Shows that these endpoints are quick.
    pub(super) fn show_quick(&mut self, endpoints: impl IntoIterator<Item = u8>) {
        for of in endpoints {
            assert!(self.enter(of, u8::MAX));
            self.finish(of, u8::MAX, Finding::Well, QUICK);
        }
    }

    fn answer(&mut self, of: u8, message: u8, took: Duration) -> bool {
        self.finish(of, message, Finding::Well, took)
    }

    pub(super) fn bound(&self, of: u8) -> Option<usize> {
        self.state.room().wide.get(&endpoint(of)).copied()
    }

    pub(super) fn places(&self, of: u8) -> usize {
        self.state.standing(endpoint(of), self.now).places
    }
}

#[test]
fn room_is_what_does_not_run() {
    let mut lanes = lanes(12);
    lanes.show_quick([1, 2]);
    assert_eq!(lanes.state.room().total, 12);
    assert_eq!(lanes.fill(1, 10), 10);
    assert_eq!(lanes.fill(2, 1), 1);
    assert_eq!(lanes.state.room().total, 1);
    lanes.answer(1, 0, QUICK);
    assert_eq!(lanes.state.room().total, 2);
    assert!(lanes.enter(1, 11));
}

#[test]
fn payloads_take_room_too() {
    let mut lanes = lanes(1000);
    lanes.show_quick([1]);
    let enter = |lanes: &mut Bench, message, bytes| {
        let entered = lanes.state.enter(lease(1, message), bytes, lanes.now);
        let Entered::In(ticket) = entered else { panic!("{entered:?}") };
        ticket
    };
    let first = enter(&mut lanes, 1, 60 * KIB);
    assert_eq!((lanes.state.room().bytes, lanes.state.room().total), (40 * KIB, 999));
    let second = enter(&mut lanes, 2, 70 * KIB);
    assert_eq!(lanes.state.room().total, 0, "a claim would hand out one of any size");
    assert!(lanes.state.leave(&lease(1, 1), &first, lanes.now).was_full, "something may have waited for it");
    assert_eq!(lanes.state.room().bytes, 30 * KIB);
    lanes.state.leave(&lease(1, 2), &second, lanes.now);
    let suspect = lanes.wait(1, 3, 50 * KIB).expect("it waits");
    assert_eq!(lanes.state.room().bytes, 50 * KIB, "what waits is in memory as well");
    lanes.state.leave(&lease(1, 3), &suspect, lanes.now);
    assert_eq!((lanes.state.room().bytes, lanes.state.room().total), (100 * KIB, 1000));
}

#[test]
fn suspects_that_wait_leave_memory_to_the_others() {
    let mut lanes = lanes(1000);
    let mut first = lanes.wait(1, 1, 20 * KIB).expect("the first waits whatever its size");
    assert!(lanes.wait(1, 2, 20 * KIB).is_none(), "two would take more than a quarter");
    assert_eq!(lanes.state.room().bytes, 80 * KIB);
    lanes.state.begin(&lease(1, 1), &mut first, lanes.now);
    let second = lanes.wait(1, 2, 20 * KIB).expect("the first runs and no longer waits");
    lanes.state.check();
    lanes.state.leave(&lease(1, 1), &first, lanes.now);
    lanes.state.leave(&lease(1, 2), &second, lanes.now);
    assert_eq!(lanes.state.room().bytes, 100 * KIB);
    lanes.state.check();
}

#[test]
fn large_payloads_of_slow_endpoints_leave_memory_to_the_others() {
    let mut lanes = lanes(1000);
    lanes.show_quick([9]);
    for of in 1..=4 {
        assert!(lanes.enter(of, 0));
        lanes.answer(of, 0, SLOW);
    }
    let now = lanes.now;
    let entered =
        |lanes: &mut Bench, of| matches!(lanes.state.enter(lease(of, 1), 20 * KIB, now), Entered::In(_));
    assert_eq!((1..=4).filter(|of| entered(&mut lanes, *of)).count(), 2, "half of the memory");
    assert!(entered(&mut lanes, 9), "a quick one finds room");
    // Endpoints of which nothing is known may be slow as well: a quarter is left to those known to be quick.
    assert_eq!((5..=7).filter(|of| entered(&mut lanes, *of)).count(), 1);
    assert_eq!(lanes.state.room().bytes, 20 * KIB);
    lanes.state.check();
}

#[test]
fn quick_answers_of_a_full_lane_earn_it_places_up_to_a_bound() {
    let mut lanes = lanes(100);
    lanes.fill(1, 9);
    lanes.answer(1, 0, QUICK);
    assert_eq!(lanes.bound(1), None, "nine did not fill it");
    lanes.fill(1, 10);
    let mut running: Vec<u8> = (0..10).collect();
    let mut next = 100;
    for places in [11, 12, 12] {
        assert!(lanes.answer(1, running.remove(0), QUICK), "its lane was full");
        assert_eq!(lanes.bound(1), Some(places));
        while running.len() < places {
            assert!(lanes.enter(1, next));
            running.push(next);
            next += 1;
        }
    }
    lanes.answer(1, running.remove(0), SLOW);
    assert_eq!(lanes.bound(1), Some(2), "a slow answer costs all of them");
    for message in running {
        lanes.answer(1, message, QUICK);
    }
    assert!(lanes.state.room().wide.is_empty(), "what is idle needs no mention");
}

/// Ten places were all that an endpoint had whose answers came sooner than their commits: a third of the throughput.
#[test]
fn answers_that_wait_for_their_commit_fill_a_lane_as_attempts_do() {
    let mut lanes = lanes(100);
    lanes.fill(1, 10);
    for message in 0..9 {
        lanes.end(1, message, Finding::Nothing, QUICK);
    }
    assert!(lanes.end(1, 9, Finding::Well, QUICK).earned, "one attempt was left, and all places were taken");
    assert_eq!(lanes.bound(1), Some(11));
}

#[test]
fn failures_earn_nothing_and_overload_halves_the_places_once_a_round() {
    let mut lanes = lanes(100);
    let (failing, overloaded) =
        (Finding::Trouble(Trouble::Failing, None), Finding::Trouble(Trouble::Overloaded, None));
    lanes.fill(1, 10);
    lanes.finish(1, 0, failing, QUICK);
    assert_eq!(lanes.places(1), 10);
    for message in 1..5 {
        lanes.finish(1, message, overloaded, QUICK);
        assert_eq!(lanes.places(1), 5, "those that were sent at the same time tell the same");
    }
    assert_eq!(lanes.bound(1), Some(5));
    assert!(!lanes.enter(1, 20), "five run still");
    lanes.finish(1, 5, Finding::Well, QUICK);
    assert_eq!(lanes.places(1), 6, "it was full, and it went well");
    assert!(lanes.enter(1, 20) && lanes.enter(1, 21) && !lanes.enter(1, 22));
    for (message, places) in [(20, 3), (21, 3)] {
        lanes.finish(1, message, overloaded, QUICK);
        assert_eq!(lanes.places(1), places);
    }
    for round in 0..5 {
        lanes.now = lanes.now.plus(QUICK);
        for message in 6..10 {
            if round == 0 {
                lanes.finish(1, message, Finding::Nothing, QUICK);
            }
        }
        assert!(lanes.enter(1, 30));
        lanes.finish(1, 30, overloaded, QUICK);
    }
    assert_eq!(lanes.places(1), 1, "one always remains");
}

#[test]
fn a_lease_is_counted_once_however_often_it_is_returned() {
    let mut lanes = lanes(5);
    assert!(lanes.enter(1, 1));
    assert!(!lanes.enter(1, 1));
    let mut ticket = lanes.tickets[&lease(1, 1)];
    lanes.answer(1, 1, QUICK);
    let report = Report { finding: Finding::Well, took: SLOW, jitter: 0.0, now: lanes.now };
    lanes.state.ended(endpoint(1), &mut ticket, &report);
    lanes.state.leave(&lease(1, 1), &ticket, lanes.now);
    assert_eq!((lanes.state.room().total, lanes.state.in_flight()), (5, 0));
}

#[test]
fn a_suspect_that_waits_takes_no_room() {
    let mut lanes = lanes(10);
    let mut tickets: Vec<Ticket> =
        (0..30).map(|message| lanes.wait(1, message, 1).expect("it waits")).collect();
    assert_eq!(lanes.state.room().total, 10);
    assert_eq!(lanes.bound(1), Some(40), "the store counts their leases");
    let now = lanes.now;
    lanes.state.begin(&lease(1, 0), &mut tickets[0], now);
    assert_eq!((lanes.state.room().total, lanes.bound(1)), (9, Some(39)));
    for (message, ticket) in (0..30).zip(&tickets) {
        lanes.state.leave(&lease(1, message), ticket, lanes.now);
    }
    assert_eq!((lanes.state.room().total, lanes.bound(1)), (10, None));
    assert_eq!(lanes.state.in_flight(), 0);
}

#[test]
fn a_slow_endpoint_gets_two_places_and_more_once_it_is_quick_again() {
    let mut lanes = lanes(100);
    lanes.fill(1, 10);
    for message in 0..10 {
        lanes.answer(1, message, SLOW);
    }
    assert_eq!(lanes.fill(1, 10), 2);
    assert_eq!(lanes.bound(1), Some(2));
    assert_eq!(lanes.fill(2, 10), 10, "others keep their places");
    lanes.answer(1, 0, QUICK);
    assert_eq!(lanes.places(1), 3);
    assert!(lanes.enter(1, 20) && lanes.enter(1, 21) && !lanes.enter(1, 22));
}

#[test]
fn slow_endpoints_together_never_take_more_than_half() {
    let mut lanes = lanes(20);
    lanes.show_quick(0..22);
    for endpoint in 0..20 {
        lanes.fill(endpoint, 1);
    }
    for endpoint in 0..20 {
        lanes.answer(endpoint, 0, SLOW);
    }
    let entered: usize = (0..20).map(|endpoint| lanes.fill(endpoint, 10)).sum();
    assert_eq!(entered, 10);
    assert_eq!(lanes.fill(21, 10), 10, "a quick one finds room");
    let Entered::Later(until) = lanes.state.enter(lease(19, 50), 1, lanes.now) else { panic!("no room") };
    assert!(until > lanes.now, "the store is not asked for it again and again");
    for message in 0..5 {
        lanes.answer(21, message, QUICK);
    }
    lanes.answer(0, 0, QUICK);
    assert!(lanes.enter(19, 50), "one of them has become quick");
}

#[test]
fn a_place_is_news_only_when_something_could_have_waited_for_it() {
    let mut lanes = lanes(12);
    lanes.show_quick([1, 2, 3]);
    lanes.fill(1, 10);
    assert!(lanes.answer(1, 0, QUICK), "its lane was full");
    assert!(!lanes.answer(1, 1, QUICK));
    lanes.fill(2, 4);
    assert!(lanes.answer(2, 0, QUICK), "all places were taken");
    assert!(!lanes.answer(2, 1, QUICK));
    for message in 2..6 {
        lanes.answer(1, message, QUICK);
    }
    lanes.fill(3, 1);
    lanes.answer(3, 0, SLOW);
    lanes.fill(3, 2);
    assert!(lanes.answer(3, 0, SLOW), "its lane was narrow and full");
}

#[test]
fn an_end_without_an_attempt_changes_no_judgement() {
    let mut lanes = lanes(20);
    lanes.fill(1, 1);
    lanes.answer(1, 0, SLOW);
    lanes.fill(1, 2);
    lanes.leave(1, 0);
    assert_eq!(lanes.places(1), 2);
    lanes.leave(1, 1);
    let entered: usize = (2..12).map(|endpoint| lanes.fill(endpoint, 1)).sum();
    assert_eq!(entered, 10, "nothing of the slow one is counted any more");
}

#[test]
fn a_lane_is_remembered_while_what_it_has_shown_matters() {
    let mut lanes = lanes(10);
    lanes.show_quick([1]);
    lanes.now = lanes.now.plus(Duration::from_mins(9));
    lanes.state.sweep(lanes.now);
    assert_eq!(lanes.state.remembered(), 1, "it is quick");
    lanes.now = lanes.now.plus(Duration::from_mins(2));
    lanes.state.sweep(lanes.now);
    assert_eq!(lanes.state.remembered(), 0, "ten minutes ago");
    lanes.fill(1, 1);
    lanes.answer(1, 0, SLOW);
    lanes.now = lanes.now.plus(Duration::from_mins(59));
    lanes.state.sweep(lanes.now);
    assert_eq!(lanes.state.remembered(), 1, "it is slow");
    lanes.now = lanes.now.plus(Duration::from_mins(3));
    lanes.state.sweep(lanes.now);
    assert_eq!(lanes.state.remembered(), 0, "long ago");
}

/// A thousand tar pits at a message a second each filled all places within two seconds, and the first of them was found to be
/// slow at its deadline: nobody else was served for fifteen seconds.
#[test]
fn new_endpoints_leave_a_quarter_of_the_places_to_those_that_are_known_to_be_quick() {
    let mut lanes = lanes(20);
    lanes.show_quick([1]);
    let entered: usize = (2..30).map(|endpoint| lanes.fill(endpoint, 1)).sum();
    assert_eq!(entered, 15);
    let Entered::Later(until) = lanes.state.enter(lease(40, 0), 1, lanes.now) else { panic!("no room") };
    assert!(until > lanes.now);
    assert_eq!(lanes.fill(1, 5), 5, "the quick one finds room");
}

#[test]
fn endpoints_that_do_not_answer_are_slow_before_their_deadline() {
    let mut lanes = lanes(20);
    lanes.show_quick([1]);
    lanes.fill(1, 1);
    lanes.fill(2, 10);
    lanes.now = lanes.now.plus(Duration::from_millis(1900));
    lanes.answer(1, 0, QUICK);
    lanes.fill(1, 1);
    lanes.state.look_for_stalled(lanes.now);
    assert_eq!(lanes.places(2), 10, "not yet");
    lanes.now = lanes.now.plus(Duration::from_millis(300));
    lanes.state.look_for_stalled(lanes.now);
    assert_eq!((lanes.places(2), lanes.bound(2)), (2, Some(2)));
    assert_eq!(lanes.places(1), 10, "one that answers meanwhile is not");
    lanes.state.check();
    for message in 0..10 {
        lanes.answer(2, message, QUICK);
    }
    assert!(lanes.places(2) > 2, "it was only held up");
    lanes.state.check();
}
