//! Deferrals: who waits, what a claim says of them, and how they end.

use super::*;

const ONE: Deferred = Deferred::Endpoint(EndpointId::new(Ksuid::from_bytes([1; 20])));
const THEIRS: Deferred = Deferred::Application(ApplicationId::new(Ksuid::from_bytes([0; 20])));

/// An agenda with one delivery for each of these endpoints, all of application 0.
fn with(endpoints: std::ops::RangeInclusive<u8>) -> Agenda {
    let mut agenda = Agenda::new(1_000_000, 7);
    for number in endpoints {
        agenda.hand_over(handed(number, 1, 0), false, at(0));
    }
    agenda
}

fn claim(agenda: &mut Agenda, now: i64) -> (Vec<EndpointId>, Option<Timestamp>) {
    let taken = agenda.take(&room(PLENTY, PLENTY), at(now));
    (endpoints(&taken.deliveries), taken.next_due)
}

#[test]
fn a_deferred_endpoint_waits_and_the_others_do_not() {
    let mut agenda = with(1..=2);
    agenda.defer(ONE, at(10), at(0));
    assert_eq!(agenda.next_due(), Some(at(0)));
    assert_eq!(claim(&mut agenda, 0), (vec![endpoint(2)], Some(at(10))));
    assert_eq!((agenda.next_due(), agenda.oldest_due(at(9))), (Some(at(10)), None));
    assert_eq!(claim(&mut agenda, 9), (vec![], Some(at(10))));
    assert_eq!(claim(&mut agenda, 10), (vec![endpoint(1)], None));
    assert_eq!(agenda.deferrals.len(), 0, "what has ended is forgotten");
}

#[test]
fn a_deferred_application_waits_with_all_its_endpoints() {
    let mut agenda = with(1..=3);
    agenda.hand_over(in_application(1, handed(4, 1, 0)), false, at(0));
    agenda.defer(THEIRS, at(10), at(0));
    assert_eq!(claim(&mut agenda, 0), (vec![endpoint(4)], Some(at(10))));
    agenda.hand_over(handed(5, 1, 1), false, at(1));
    assert_eq!((agenda.next_due(), agenda.oldest_due(at(9))), (Some(at(10)), None));
    assert_eq!(claim(&mut agenda, 9), (vec![], Some(at(10))));
    assert_eq!(claim(&mut agenda, 10).0.len(), 4);
}

#[test]
fn a_deferral_counts_for_what_comes_later() {
    let mut agenda = with(2..=2);
    agenda.defer(ONE, at(10), at(0));
    agenda.defer(Deferred::Application(application(1)), at(20), at(0));
    assert_eq!(claim(&mut agenda, 0), (vec![endpoint(2)], None), "nobody waits for it");
    agenda.hand_over(handed(1, 1, 5), false, at(5));
    agenda.hand_over(in_application(1, handed(3, 1, 5)), false, at(5));
    assert_eq!(claim(&mut agenda, 5), (vec![], Some(at(10))));
    assert_eq!(claim(&mut agenda, 10), (vec![endpoint(1)], Some(at(20))));
    assert_eq!(claim(&mut agenda, 20), (vec![endpoint(3)], None));
}

#[test]
fn the_latest_word_on_a_deferral_counts() {
    for whose in [ONE, THEIRS] {
        let mut agenda = with(1..=1);
        agenda.defer(whose, at(10), at(0));
        assert_eq!(claim(&mut agenda, 0), (vec![], Some(at(10))));
        agenda.defer(whose, at(20), at(1));
        assert_eq!(claim(&mut agenda, 10), (vec![], Some(at(20))), "later");
        agenda.defer(whose, at(15), at(11));
        assert_eq!(claim(&mut agenda, 11), (vec![], Some(at(15))), "earlier");
        agenda.defer(whose, at(12), at(12));
        assert_eq!(claim(&mut agenda, 12), (vec![endpoint(1)], None), "taken back");
    }
}

#[test]
fn the_later_of_an_endpoints_and_its_applications_deferral_counts() {
    for (own, applications) in [(10, 20), (20, 10)] {
        let mut agenda = with(1..=1);
        agenda.defer(THEIRS, at(applications), at(0));
        assert_eq!(claim(&mut agenda, 0), (vec![], Some(at(applications))));
        agenda.defer(ONE, at(own), at(0));
        assert_eq!(agenda.next_due(), Some(at(20)));
        assert_eq!(claim(&mut agenda, 0), (vec![], Some(at(20))));
        assert_eq!(claim(&mut agenda, 19), (vec![], Some(at(20))));
        assert_eq!(claim(&mut agenda, 20).0.len(), 1);
    }
}

/// A retry that is due before its application's deferral ends wakes nobody in between, and is not early when that is
/// taken back.
#[test]
fn what_is_due_within_a_deferral_is_due_at_its_end_and_not_before_its_own_time() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::First, 5, 1), at(0));
    agenda.add(on_disk(1, 2, Part::First, 30, 1), at(0));
    agenda.defer(THEIRS, at(10), at(0));
    assert_eq!(claim(&mut agenda, 0), (vec![], Some(at(10))));
    agenda.defer(THEIRS, at(1), at(1));
    let taken = agenda.take(&room(PLENTY, PLENTY), at(1));
    assert_eq!((taken.wanted.len(), taken.next_due), (0, Some(at(5))));
    agenda.defer(THEIRS, at(10), at(2));
    assert_eq!(agenda.take(&room(PLENTY, PLENTY), at(2)).next_due, Some(at(10)));
    assert_eq!(to_read(&mut agenda, 10).len(), 1);
}

#[test]
fn leases_that_are_out_are_not_deferred() {
    let mut agenda = with(1..=1);
    let taken = take(&mut agenda, PLENTY, PLENTY, 0);
    agenda.defer(ONE, at(10), at(0));
    agenda.defer(THEIRS, at(10), at(0));
    assert!(agenda.may_start(&taken[0].0));
    agenda.released(&taken[0].0, at(1));
    assert_eq!(agenda.take(&room(PLENTY, PLENTY), at(1)).next_due, Some(at(10)));
    assert_eq!(to_read(&mut agenda, 10).len(), 1);
}

#[test]
fn a_deferral_outlives_disabling_and_says_nothing_of_the_deleted() {
    let mut agenda = with(1..=2);
    agenda.defer(ONE, at(10), at(0));
    agenda.defer(Deferred::Endpoint(endpoint(2)), at(10), at(0));
    agenda.hold(endpoint(1), true, at(1));
    agenda.drop_lane(endpoint(2));
    assert_eq!(claim(&mut agenda, 1), (vec![], None));
    agenda.hold(endpoint(1), false, at(2));
    assert_eq!(claim(&mut agenda, 2), (vec![], Some(at(10))));
    assert_eq!(to_read(&mut agenda, 10).len(), 1);
    assert_eq!((agenda.deferrals.len(), agenda.future.len()), (0, 0));
}

#[test]
fn a_clock_that_was_set_back_ends_deferrals() {
    let mut agenda = with(1..=1);
    agenda.hand_over(in_application(1, handed(2, 1, 0)), false, at(0));
    agenda.defer(ONE, at(3600), at(3590));
    agenda.defer(Deferred::Application(application(1)), at(3600), at(3590));
    assert_eq!(claim(&mut agenda, 3590), (vec![], Some(at(3600))));
    agenda.forget_deferrals(at(10));
    assert_eq!(claim(&mut agenda, 10).0.len(), 2);
}

#[test]
fn deferrals_are_bounded_and_the_first_to_end_is_forgotten() {
    let mut deferrals = Deferrals::default();
    let who = |number: u32| {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Who::Endpoint(EndpointId::new(Ksuid::from_bytes(bytes)))
    };
    let mut forgotten = Vec::new();
    for number in 0..200_002 {
        let until = at(if number == 77 { 5 } else { 10 + i64::from(number) });
        forgotten.extend(deferrals.set(who(number), until, at(0)));
    }
    assert_eq!(forgotten, [who(77), who(0)]);
    assert_eq!(deferrals.len(), 200_000);
    deferrals.forget_ended(at(1_000_000));
    assert_eq!(deferrals.len(), 0);
}

/// A hundred thousand deferred endpoints are not looked at by claims, before and after they were met once.
#[test]
fn deferred_lanes_leave_the_ring_and_cost_a_claim_nothing() {
    let mut agenda = with(1..=200);
    for number in 1..=199 {
        agenda.defer(Deferred::Endpoint(endpoint(number)), at(100), at(0));
    }
    assert_eq!(claim(&mut agenda, 0), (vec![endpoint(200)], Some(at(100))));
    assert_eq!((agenda.turns.lanes(), agenda.future.len()), (0, 199));
    agenda.hand_over(handed(7, 2, 1), false, at(1));
    assert_eq!(agenda.turns.lanes(), 0, "a fresh message does not bring a deferred lane back");
    assert_eq!(claim(&mut agenda, 100).0.len(), 200);
}
