//! Turns: of applications, of the endpoints of each, and what a claim looks at.

use super::*;
use std::collections::HashMap;

/// Application 1 with these endpoints, and application 2 with endpoint 250; each endpoint has as many deliveries.
fn crowd_and_single(crowd: std::ops::RangeInclusive<u8>, deliveries: u32) -> Agenda {
    let mut agenda = Agenda::new(100_000_000, 7);
    for message in 0..deliveries {
        for number in crowd.clone() {
            agenda.hand_over(in_application(1, handed(number, message, 0)), false, at(0));
        }
        agenda.hand_over(in_application(2, handed(250, message, 0)), false, at(0));
    }
    agenda
}

fn of_single(taken: &[(Lease, Handed)]) -> usize {
    taken.iter().filter(|(lease, _)| lease.delivery.endpoint == endpoint(250)).count()
}

#[test]
fn an_application_with_many_endpoints_has_no_more_turns_than_one_with_a_single_one() {
    for total in [1, 2, 3, 7, 10, 64] {
        let mut agenda = crowd_and_single(1..=200, 250);
        let (mut all, mut single) = (0, 0);
        while all < 200 {
            let taken = take(&mut agenda, total, PLENTY, 0);
            all += taken.len();
            single += of_single(&taken);
        }
        assert!(single.abs_diff(all - single) <= 2 * total, "{single} of {all}, {total} at a time");
    }
}

#[test]
fn endpoints_of_an_application_take_turns() {
    let mut agenda = crowd_and_single(1..=20, 50);
    let mut counts: HashMap<EndpointId, usize> = HashMap::new();
    for _ in 0..40 {
        for (lease, _) in take(&mut agenda, 10, PLENTY, 0) {
            *counts.entry(lease.delivery.endpoint).or_default() += 1;
        }
    }
    assert_eq!(counts.remove(&endpoint(250)), Some(50), "all that it had");
    let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
    assert!(counts.len() == 20 && most - least <= 1, "{counts:?}");
}

/// Whoever was cut short for want of room goes on first.
#[test]
fn a_turn_that_a_claim_had_no_room_for_goes_on_at_the_next() {
    let mut agenda = crowd_and_single(1..=1, 50);
    let taken = take(&mut agenda, 40, PLENTY, 0);
    assert_eq!(of_single(&taken), 20);
    let large = |number, message| Handed {
        payload: Some(Bytes::from(vec![b'x'; 1000])),
        ..in_application(1, handed(number, message, 0))
    };
    let mut agenda = Agenda::new(100_000_000, 7);
    for message in 0..4 {
        agenda.hand_over(large(1, message), false, at(0));
        agenda.hand_over(in_application(2, handed(250, message, 0)), false, at(0));
    }
    let narrow = Room { bytes: 1500, ..room(4, PLENTY) };
    let taken = agenda.take(&narrow, at(0));
    assert_eq!((taken.deliveries.len(), taken.next_due), (1, Some(at(0))), "the second one is too large");
    let taken = agenda.take(&narrow, at(0)).deliveries;
    assert_eq!((taken[0].0.delivery.message, of_single(&taken)), (delivery(1, 1).message, 2));
}

#[test]
fn a_delivery_larger_than_the_room_is_handed_out_alone() {
    let mut agenda = Agenda::new(100_000_000, 7);
    let payload = Some(Bytes::from(vec![b'x'; 1000]));
    agenda.hand_over(Handed { payload, ..handed(1, 1, 0) }, false, at(0));
    agenda.hand_over(handed(1, 2, 0), false, at(0));
    let taken = agenda.take(&Room { bytes: 10, ..room(PLENTY, PLENTY) }, at(0));
    assert_eq!((taken.deliveries.len(), taken.next_due), (1, Some(at(0))));
}

/// Lanes that can start nothing are met once, however many they are.
#[test]
fn full_lanes_leave_the_ring_until_they_have_room() {
    let mut agenda = crowd_and_single(1..=200, 1);
    let full = Room { full: (1..=200).map(endpoint).collect(), ..room(PLENTY, PLENTY) };
    assert_eq!(endpoints(&agenda.take(&full, at(0)).deliveries), [endpoint(250)]);
    assert_eq!(agenda.turns.lanes(), 0);
    agenda.hand_over(in_application(1, handed(3, 2, 0)), false, at(0));
    assert_eq!(agenda.turns.lanes(), 0);
    let fewer = Room { full: (2..=200).map(endpoint).collect(), ..room(PLENTY, PLENTY) };
    assert_eq!(endpoints(&agenda.take(&fewer, at(0)).deliveries), [endpoint(1)]);
    assert_eq!(take(&mut agenda, PLENTY, PLENTY, 0).len(), 200);
}

#[test]
fn bounds_follow_what_the_claimer_says() {
    let mut agenda = crowd_and_single(1..=2, 20);
    let of = |taken: &[(Lease, Handed)], number| {
        taken.iter().filter(|(lease, _)| lease.delivery.endpoint == endpoint(number)).count()
    };
    let said = |wide: &[(u8, usize)]| Room {
        wide: wide.iter().map(|(number, bound)| (endpoint(*number), *bound)).collect(),
        ..room(PLENTY, 2)
    };
    for (wide, first, second) in [
        (&[][..], 2, 2),
        (&[(1, 4)][..], 2, 0),
        (&[(1, 4), (2, 3)][..], 0, 1),
        (&[(2, 6)][..], 0, 3),
        (&[(1, 5)][..], 1, 0),
        (&[(1, 5), (2, 1)][..], 0, 0),
        (&[(1, 6)][..], 1, 0),
    ] {
        let taken = agenda.take(&said(wide), at(0)).deliveries;
        assert_eq!((of(&taken, 1), of(&taken, 2)), (first, second), "{wide:?}");
    }
}

#[test]
fn lanes_in_memory_are_served_while_others_are_read() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for number in 1..=5 {
        agenda.add(on_disk(number, number, Part::First, 0, 10), at(0));
    }
    agenda.hand_over(in_application(9, handed(9, 1, 0)), false, at(0));
    let taken = agenda.take(&room(PLENTY, PLENTY), at(0));
    assert_eq!((endpoints(&taken.deliveries), taken.wanted.len()), (vec![endpoint(9)], 5));
    assert!(taken.reads);
    agenda.hand_over(in_application(9, handed(9, 2, 0)), false, at(0));
    assert_eq!(take(&mut agenda, PLENTY, PLENTY, 0).len(), 1);
}

/// A thousand lanes with a backlog: a message for somebody else is next, not after a round of them.
#[test]
fn a_fresh_message_goes_before_the_backlogs_of_others() {
    let mut agenda = crowd_and_single(1..=200, 5);
    take(&mut agenda, 500, PLENTY, 0);
    agenda.hand_over(in_application(3, handed(251, 1, 0)), false, at(0));
    assert_eq!(endpoints(&take(&mut agenda, 1, PLENTY, 0)), [endpoint(251)]);
    // Within an application too, when its turn has come.
    agenda.hand_over(in_application(1, handed(252, 1, 0)), false, at(0));
    assert!(endpoints(&take(&mut agenda, 2, PLENTY, 0)).contains(&endpoint(252)));
}

/// Whoever has been served is nobody new before the others had their turn.
#[test]
fn a_trickle_of_fresh_messages_keeps_no_backlog_waiting() {
    for same in [false, true] {
        let mut agenda = Agenda::new(100_000_000, 7);
        for message in 0..200 {
            agenda.hand_over(in_application(1, handed(1, message, 0)), false, at(0));
        }
        take(&mut agenda, 1, PLENTY, 0);
        let mut backlog = 0;
        for message in 0..40 {
            let application = if same { 1 } else { 2 };
            agenda.hand_over(in_application(application, handed(2, message, 0)), false, at(0));
            let taken = take(&mut agenda, 1, PLENTY, 0);
            backlog += taken.iter().filter(|(lease, _)| lease.delivery.endpoint == endpoint(1)).count();
        }
        assert!((19..=21).contains(&backlog), "{backlog} of 40");
    }
}

#[test]
fn retries_that_become_due_are_no_newcomers() {
    let mut agenda = crowd_and_single(1..=1, 5);
    take(&mut agenda, 1, PLENTY, 0);
    agenda.add(on_disk(3, 3, Part::Retries, 1, 5), at(0));
    let taken = agenda.take(&room(2, PLENTY), at(1));
    assert_eq!((taken.deliveries.len(), taken.wanted.len()), (2, 0), "it stands behind those two");
}

/// The writer waits while a claim looks around.
#[test]
fn one_claim_looks_at_a_bounded_number_of_lanes() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for number in 0..5000 {
        let found = OnDisk { endpoint: wide_endpoint(number), ..on_disk(0, 0, Part::Retries, 0, 1) };
        agenda.add(found, at(0));
        agenda.defer(Deferred::Endpoint(found.endpoint), at(10), at(0));
    }
    let mut claims = 0;
    let mut all = |agenda: &mut Agenda, now| loop {
        let taken = agenda.take(&room(PLENTY, PLENTY), at(now));
        claims += 1;
        if !taken.cut {
            return (taken.wanted.len(), taken.next_due, claims);
        }
        assert_eq!((taken.wanted.len(), taken.next_due.is_some_and(|due| due <= at(now))), (0, true));
    };
    assert_eq!(all(&mut agenda, 1), (0, Some(at(10)), 3), "they leave the ring");
    agenda.hand_over(handed(1, 1, 9), false, at(9));
    assert_eq!(take(&mut agenda, 1, PLENTY, 9).len(), 1);
    assert_eq!(agenda.oldest_due(at(10)), Some(at(0)), "woken or not");
    let taken = agenda.take(&room(PLENTY, PLENTY), at(10));
    assert_eq!((taken.wanted.len(), taken.next_due), (READINGS, Some(at(10))), "and come back");
}
