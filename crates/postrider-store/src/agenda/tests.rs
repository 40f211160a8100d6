//! What the agenda promises, step by step.

mod costs;
mod deferring;
mod fairness;
mod retries;

use super::*;
use crate::{
    deliveries::{Lease, Room},
    endpoints::AppScope,
};
use bytes::Bytes;
use postrider_model::{
    delivery::Trigger,
    environment::EnvironmentId,
    id::{ApplicationId, Ksuid, MessageId},
};

const PLENTY: usize = 1000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::new(Ksuid::from_bytes([number; 20]))
}

/// One of more than 256.
fn wide_endpoint(number: u32) -> EndpointId {
    let mut bytes = [7; 20];
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    EndpointId::new(Ksuid::from_bytes(bytes))
}

fn application(number: u8) -> ApplicationId {
    ApplicationId::new(Ksuid::from_bytes([number; 20]))
}

fn delivery(endpoint_number: u8, message: u32) -> DeliveryId {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&message.to_be_bytes());
    DeliveryId {
        message: MessageId::new(Ksuid::from_bytes(bytes)),
        endpoint: endpoint(endpoint_number),
        generation: 0,
    }
}

fn handed(endpoint_number: u8, message: u32, due: i64) -> Handed {
    Handed {
        delivery: delivery(endpoint_number, message),
        scope: AppScope { environment: EnvironmentId::parse("org_a").unwrap(), application: application(0) },
        attempts: 0,
        trigger: Trigger::Scheduled,
        payload: Some(Bytes::from_static(b"{}")),
        content_type: None,
        accepted_at: at(0),
        due_at: at(due),
        deadline_at: at(1_000_000),
        deaths: 0,
    }
}

fn in_application(number: u8, handed: Handed) -> Handed {
    Handed { scope: AppScope { application: application(number), ..handed.scope.clone() }, ..handed }
}

fn on_disk(application_number: u8, endpoint_number: u8, part: Part, due: i64, count: u64) -> OnDisk {
    let (application, endpoint) = (application(application_number), endpoint(endpoint_number));
    OnDisk { application, endpoint, part, held: false, due: at(due), count }
}

fn room(total: usize, per_endpoint: usize) -> Room {
    Room { total, per_endpoint, ..Room::default() }
}

fn take(agenda: &mut Agenda, total: usize, per_endpoint: usize, now: i64) -> Vec<(Lease, Handed)> {
    agenda.take(&room(total, per_endpoint), at(now)).deliveries
}

/// What a claim that has room for everything has read.
fn to_read(agenda: &mut Agenda, now: i64) -> Vec<Wanted> {
    let taken = agenda.take(&room(PLENTY, PLENTY), at(now));
    assert!(taken.deliveries.is_empty(), "nothing is in memory");
    taken.wanted
}

fn endpoints(taken: &[(Lease, Handed)]) -> Vec<EndpointId> {
    taken.iter().map(|(lease, _)| lease.delivery.endpoint).collect()
}

#[test]
fn what_was_handed_over_is_leased_once_and_counted_until_it_is_settled() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    assert_eq!(
        (agenda.pending(), agenda.oldest_due(at(5)), agenda.next_due()),
        (1, Some(at(0)), Some(at(0)))
    );
    let taken = take(&mut agenda, PLENTY, PLENTY, 0);
    assert_eq!(taken.len(), 1);
    assert!(agenda.holds(&taken[0].0));
    assert_eq!((agenda.pending(), agenda.oldest_due(at(5)), agenda.next_due()), (1, None, None));
    assert!(take(&mut agenda, PLENTY, PLENTY, 0).is_empty());
    agenda.recorded(&taken[0].0, None, at(1));
    assert!(!agenda.holds(&taken[0].0));
    assert_eq!((agenda.pending(), agenda.lanes.len(), agenda.queued_bytes), (0, 0, 0));
}

#[test]
fn a_claim_visits_lanes_in_turn() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 0..100 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
    }
    agenda.hand_over(handed(2, 1, 0), false, at(0));
    agenda.hand_over(handed(3, 1, 0), false, at(0));
    let taken = endpoints(&take(&mut agenda, 10, PLENTY, 0));
    assert_eq!(taken.len(), 10);
    assert!(taken.contains(&endpoint(2)) && taken.contains(&endpoint(3)));
    // With a room of one, each claim serves another lane.
    agenda.hand_over(handed(2, 2, 0), false, at(0));
    let one = endpoints(&take(&mut agenda, 1, PLENTY, 0));
    let two = endpoints(&take(&mut agenda, 1, PLENTY, 0));
    assert_ne!(one, two);
}

#[test]
fn a_lane_with_all_its_leases_out_takes_no_turn_until_one_comes_back() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 0..3 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
    }
    let taken = agenda.take(&room(PLENTY, 2), at(0));
    assert_eq!((taken.deliveries.len(), taken.next_due), (2, None), "a busy lane is not due");
    assert_eq!(agenda.oldest_due(at(9)), None);
    assert_eq!(agenda.next_due(), Some(at(0)));
    agenda.released(&taken.deliveries[0].0, at(0));
    assert_eq!(agenda.oldest_due(at(9)), Some(at(0)));
    assert_eq!(take(&mut agenda, PLENTY, 2, 0).len(), 1);
    let taken = agenda.take(&room(PLENTY, 3), at(0));
    assert_eq!((taken.deliveries.len(), taken.wanted.len()), (0, 1), "the released one lies on the disk");
}

#[test]
fn a_full_lane_is_passed_over_and_keeps_its_turn() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    agenda.hand_over(handed(2, 1, 0), false, at(0));
    let full = Room { total: PLENTY, per_endpoint: PLENTY, full: vec![endpoint(1)], ..Room::default() };
    let taken = agenda.take(&full, at(0));
    assert_eq!(endpoints(&taken.deliveries), [endpoint(2)]);
    assert_eq!(taken.next_due, None, "nothing that the caller has room for");
    assert_eq!(endpoints(&take(&mut agenda, PLENTY, PLENTY, 0)), [endpoint(1)]);
}

#[test]
fn older_work_in_the_database_comes_before_what_is_handed_over() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::First, 0, 5), at(0));
    agenda.hand_over(handed(1, 9, 1), false, at(1));
    assert_eq!(agenda.queued_bytes, 0, "it waits behind the others");
    let wanted = to_read(&mut agenda, 1);
    assert_eq!(wanted.len(), 1);
    assert!(to_read(&mut agenda, 1).is_empty(), "one reading at a time");
    let found = Found {
        endpoint: endpoint(1),
        part: Part::First,
        deliveries: vec![handed(1, 1, 0)],
        next: Some(at(7)),
    };
    agenda.found(found, at(1));
    assert_eq!(take(&mut agenda, PLENTY, PLENTY, 1).len(), 1);
    assert_eq!(agenda.next_due(), Some(at(7)));
    assert_eq!(agenda.take(&room(PLENTY, PLENTY), at(1)).next_due, Some(at(7)));
}

#[test]
fn what_changes_while_a_lane_is_read_is_not_undone_by_what_was_read() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    let running = take(&mut agenda, PLENTY, PLENTY, 0);
    agenda.add(on_disk(0, 1, Part::First, 0, 2), at(0));
    let wanted = to_read(&mut agenda, 0);
    assert_eq!(wanted[0].leased, [delivery(1, 1)]);
    // The reader sees all three as pending; meanwhile one is recorded, one cancelled, and one more is accepted.
    agenda.recorded(&running[0].0, None, at(0));
    agenda.settled(delivery(1, 2), at(0));
    agenda.hand_over(handed(1, 4, 0), false, at(0));
    let deliveries = vec![handed(1, 1, 0), handed(1, 2, 0), handed(1, 3, 0)];
    agenda.found(Found { endpoint: endpoint(1), part: Part::First, deliveries, next: None }, at(0));
    let taken = take(&mut agenda, PLENTY, PLENTY, 0);
    assert_eq!(taken.iter().map(|(lease, _)| lease.delivery).collect::<Vec<_>>(), [delivery(1, 3)]);
    assert_eq!(agenda.next_due(), Some(at(0)), "the accepted one is not forgotten");
}

#[test]
fn a_failed_reading_leaves_the_lane_due() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::First, 3, 1), at(0));
    assert!(to_read(&mut agenda, 2).is_empty());
    assert_eq!(to_read(&mut agenda, 3).len(), 1);
    agenda.not_found(endpoint(1), Part::First, at(3));
    assert_eq!(to_read(&mut agenda, 3).len(), 1);
}

#[test]
fn a_held_lane_waits_and_comes_back() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    agenda.hold(endpoint(1), true, at(0));
    assert_eq!((agenda.next_due(), agenda.oldest_due(at(9)), agenda.queued_bytes), (None, None, 0));
    assert_eq!((agenda.pending(), agenda.held()), (1, vec![endpoint(1)]));
    agenda.hand_over(handed(1, 2, 0), true, at(0));
    assert!(to_read(&mut agenda, 9).is_empty());
    agenda.hold(endpoint(1), false, at(9));
    assert_eq!(to_read(&mut agenda, 9).len(), 1);
}

#[test]
fn nothing_starts_under_a_lease_whose_delivery_or_endpoint_changed() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    let taken = take(&mut agenda, PLENTY, PLENTY, 0);
    agenda.hold(endpoint(1), true, at(0));
    assert!(!agenda.may_start(&taken[0].0) && agenda.holds(&taken[0].0));
    agenda.hold(endpoint(1), false, at(0));
    assert!(agenda.may_start(&taken[0].0));
    agenda.settled(delivery(1, 1), at(0));
    assert!(!agenda.may_start(&taken[0].0) && agenda.holds(&taken[0].0));
    agenda.released(&taken[0].0, at(0));
    assert_eq!((agenda.pending(), agenda.next_due(), agenda.lanes.len()), (0, None, 0));
}

#[test]
fn a_retry_comes_back_when_it_is_due() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    let taken = take(&mut agenda, PLENTY, PLENTY, 0);
    agenda.recorded(&taken[0].0, Some(at(60)), at(0));
    assert_eq!((agenda.pending(), agenda.next_due()), (1, Some(at(60))));
    assert!(to_read(&mut agenda, 59).is_empty());
    assert_eq!(to_read(&mut agenda, 60).len(), 1);
}

#[test]
fn what_is_past_its_deadline_or_without_payload_is_set_apart() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(Handed { deadline_at: at(1), ..handed(1, 1, 0) }, false, at(0));
    agenda.hand_over(Handed { payload: None, ..handed(1, 2, 0) }, false, at(0));
    agenda.hand_over(handed(1, 3, 0), false, at(0));
    let taken = agenda.take(&room(1, PLENTY), at(2));
    assert_eq!((taken.deliveries.len(), taken.dead.len()), (1, 2));
}

#[test]
fn a_deleted_endpoint_leaves_nothing_behind() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.hand_over(handed(1, 1, 0), false, at(0));
    agenda.hand_over(handed(1, 2, 50), false, at(0));
    let taken = take(&mut agenda, 1, PLENTY, 0);
    assert!(agenda.may_start(&taken[0].0));
    agenda.drop_lane(endpoint(1));
    agenda.cancelled(2);
    assert!(!agenda.may_start(&taken[0].0), "nothing may be sent any more");
    assert_eq!((agenda.pending(), agenda.next_due(), agenda.queued_bytes), (0, None, 0));
    assert_eq!(agenda.recorded_late(&taken[0].0, at(1)), None);
    assert!(!agenda.holds(&taken[0].0));
    assert_eq!((agenda.lanes.len(), agenda.future.len(), agenda.leases.len()), (0, 0, 0));
}

#[test]
fn memory_for_payloads_is_bounded_and_no_lane_fills_it_alone() {
    let each = handed(1, 0, 0).size();
    let mut agenda = Agenda::new(16 * each, 7);
    for message in 0..20 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
    }
    assert_eq!(agenda.queued_bytes, 2 * each, "an eighth");
    let taken = agenda.take(&room(PLENTY, PLENTY), at(0));
    assert_eq!((taken.deliveries.len(), taken.wanted.len()), (2, 1), "the others lie in the database");
    assert_eq!(agenda.pending(), 20);
    for lane in 2..30 {
        agenda.hand_over(handed(lane, 1, 0), false, at(0));
        agenda.hand_over(handed(lane, 2, 0), false, at(0));
    }
    assert_eq!(agenda.queued_bytes, 16 * each);
}

/// The commit is visible to readers a moment before it is handed over.
#[test]
fn what_a_reader_found_before_it_was_handed_over_is_leased_once() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::First, 0, 1), at(0));
    assert_eq!(to_read(&mut agenda, 1).len(), 1);
    let deliveries = vec![handed(1, 1, 0), handed(1, 2, 1), handed(1, 3, 1)];
    agenda.found(Found { endpoint: endpoint(1), part: Part::First, deliveries, next: None }, at(1));
    let early = take(&mut agenda, 2, PLENTY, 1);
    assert_eq!(early.len(), 2);
    agenda.hand_over(handed(1, 2, 1), false, at(1));
    agenda.hand_over(handed(1, 3, 1), false, at(1));
    let late = take(&mut agenda, PLENTY, PLENTY, 1);
    assert_eq!(late.len(), 1, "one was leased, one queued already");
    assert!(early.iter().chain(&late).all(|(lease, _)| agenda.holds(lease)));
    assert_eq!(agenda.pending(), 3);
}

#[test]
fn full_lanes_do_not_keep_those_behind_them_from_being_read() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for lane in 1..=5 {
        agenda.add(on_disk(0, lane, Part::First, 0, 1), at(0));
    }
    let full =
        Room { total: 1, per_endpoint: PLENTY, full: (1..=4).map(endpoint).collect(), ..Room::default() };
    let wanted = agenda.take(&full, at(1)).wanted;
    assert_eq!(wanted.iter().map(|wanted| wanted.endpoint).collect::<Vec<_>>(), [endpoint(5)]);
}

#[test]
fn a_lane_that_empties_before_its_turn_stands_in_the_ring_once() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 0..10 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
        agenda.settled(delivery(1, message), at(0));
    }
    assert_eq!((agenda.turns.lanes(), agenda.queued_bytes, agenda.pending()), (1, 0, 0));
    assert!(take(&mut agenda, PLENTY, PLENTY, 0).is_empty());
    assert_eq!((agenda.turns.lanes(), agenda.turns.applications(), agenda.lanes.len()), (0, 0, 0));
}

#[test]
fn what_the_clock_left_in_the_future_comes_back_queued_or_leased() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 1..=3 {
        agenda.hand_over(handed(1, message, 3600), false, at(3600));
    }
    let taken = take(&mut agenda, 1, PLENTY, 3600);
    // The clock is set back by an hour: what the table says is corrected first.
    agenda.pulled_in(endpoint(1), at(5), at(5));
    assert_eq!((agenda.next_due(), agenda.queued_bytes), (Some(at(5)), 0));
    let deliveries = vec![handed(1, 2, 5), handed(1, 3, 5)];
    assert_eq!(to_read(&mut agenda, 5).len(), 2, "nobody knows which part it is");
    agenda.found(Found { endpoint: endpoint(1), part: Part::First, deliveries, next: None }, at(5));
    agenda.found(Found { endpoint: endpoint(1), part: Part::Retries, deliveries: vec![], next: None }, at(5));
    assert_eq!(take(&mut agenda, PLENTY, PLENTY, 5).len(), 2);
    agenda.released(&taken[0].0, at(6));
    assert_eq!(agenda.next_due(), Some(at(5)), "not when the clock is there again");
}

#[test]
fn a_lane_whose_bound_shrank_below_its_leases_is_not_due_until_one_comes_back() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 0..4 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
    }
    agenda.hand_over(handed(2, 1, 0), false, at(0));
    let wide = Room { wide: [(endpoint(1), 5)].into(), ..room(PLENTY, 2) };
    let taken = agenda.take(&wide, at(0)).deliveries;
    assert_eq!(taken.len(), 5);
    agenda.add(on_disk(0, 1, Part::First, 0, 1), at(0));
    let narrow = agenda.take(&room(PLENTY, 2), at(0));
    assert_eq!((narrow.deliveries.len(), narrow.next_due), (0, None), "nobody has to look again");
    for (lease, _) in taken.iter().filter(|(lease, _)| lease.delivery.endpoint == endpoint(1)) {
        agenda.recorded(lease, None, at(1));
    }
    assert_eq!(agenda.take(&room(PLENTY, 2), at(1)).wanted.len(), 1);
}
