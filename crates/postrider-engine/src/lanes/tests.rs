//! Tests of the lanes' book-keeping.

use super::*;
use postrider_model::{
    delivery::DeliveryId,
    id::{Id, Ksuid},
};

const QUICK: Option<Duration> = Some(Duration::from_millis(3));
const SLOW: Option<Duration> = Some(Duration::from_secs(15));

fn lanes(total: usize) -> State {
    State::new(Limits {
        total,
        per_endpoint: 10,
        per_quick_endpoint: 12,
        per_slow_endpoint: 2,
        slow_after: Duration::from_secs(2),
    })
}

fn lease(endpoint: u8, message: u8) -> Lease {
    let delivery = DeliveryId {
        message: Id::new(Ksuid::from_bytes([message; 20])),
        endpoint: Id::new(Ksuid::from_bytes([endpoint; 20])),
        generation: 0,
    };
    Lease { delivery, epoch: 1 }
}

fn fill(lanes: &mut State, endpoint: u8, attempts: u8) -> usize {
    (0..attempts).filter(|message| lanes.enter(lease(endpoint, *message))).count()
}

#[test]
fn room_is_what_does_not_run() {
    let mut lanes = lanes(12);
    assert_eq!(lanes.room().total, 12);
    assert_eq!(fill(&mut lanes, 1, 10), 10);
    assert_eq!(fill(&mut lanes, 2, 1), 1);
    assert_eq!(lanes.room().total, 1);
    lanes.leave(&lease(1, 0), QUICK);
    assert_eq!(lanes.room().total, 2);
    assert!(lanes.enter(lease(1, 11)));
}

#[test]
fn quick_answers_of_a_full_lane_earn_it_places_up_to_a_bound() {
    let mut lanes = lanes(100);
    let endpoint = lease(1, 0).delivery.endpoint;
    fill(&mut lanes, 1, 9);
    lanes.leave(&lease(1, 0), QUICK);
    assert_eq!(lanes.room().wide.get(&endpoint), None, "nine did not fill it");
    fill(&mut lanes, 1, 10);
    for (answered, places) in [(1, 11), (2, 12), (3, 12)] {
        lanes.leave(&lease(1, answered), QUICK);
        assert_eq!(lanes.room().wide.get(&endpoint), Some(&places));
        while lanes.running_of(endpoint) < places {
            lanes.enter(lease(1, 100 + u8::try_from(lanes.running_of(endpoint)).unwrap() + answered * 20));
        }
    }
    lanes.leave(&lease(1, 4), SLOW);
    assert!(lanes.room().wide.is_empty(), "a slow answer costs all of them");
    assert_eq!(lanes.slow_running, 11);
}

#[test]
fn a_lease_is_counted_once_however_often_it_is_returned() {
    let mut lanes = lanes(5);
    assert!(lanes.enter(lease(1, 1)));
    assert!(!lanes.enter(lease(1, 1)));
    lanes.leave(&lease(1, 1), QUICK);
    lanes.leave(&lease(1, 1), QUICK);
    assert_eq!(lanes.room().total, 5);
    assert!(lanes.running.is_empty());
}

#[test]
fn a_suspect_that_waits_takes_no_room() {
    let mut lanes = lanes(10);
    let endpoint = lease(1, 0).delivery.endpoint;
    for message in 0..30 {
        assert!(lanes.wait(lease(1, message)));
    }
    assert_eq!(lanes.room().total, 10);
    assert_eq!(lanes.room().wide.get(&endpoint), Some(&40), "the store counts their leases");
    lanes.begin(&lease(1, 0));
    assert_eq!((lanes.room().total, lanes.running_of(endpoint)), (9, 1));
    for message in 0..30 {
        lanes.leave(&lease(1, message), None);
    }
    assert_eq!(lanes.room().total, 10);
    assert!(lanes.room().wide.is_empty() && lanes.running.is_empty());
}

#[test]
fn a_slow_endpoint_gets_two_places_until_it_is_quick_again() {
    let mut lanes = lanes(100);
    fill(&mut lanes, 1, 10);
    for message in 0..10 {
        lanes.leave(&lease(1, message), SLOW);
    }
    assert_eq!(lanes.room().full, []);
    assert_eq!(fill(&mut lanes, 1, 10), 2);
    assert_eq!(lanes.room().full, [lease(1, 0).delivery.endpoint]);
    assert_eq!(fill(&mut lanes, 2, 10), 10, "others keep their places");
    lanes.leave(&lease(1, 0), QUICK);
    assert_eq!(lanes.room().full, []);
    assert_eq!(fill(&mut lanes, 1, 10), 9);
    assert_eq!(lanes.slow_running, 0);
}

#[test]
fn slow_endpoints_together_never_take_more_than_half() {
    let mut lanes = lanes(20);
    for endpoint in 0..20 {
        fill(&mut lanes, endpoint, 1);
    }
    for endpoint in 0..20 {
        lanes.leave(&lease(endpoint, 0), SLOW);
    }
    let entered: usize = (0..20).map(|endpoint| fill(&mut lanes, endpoint, 10)).sum();
    assert_eq!(entered, 10);
    assert_eq!(lanes.room().full.len(), 20, "every slow lane is closed");
    assert_eq!(fill(&mut lanes, 21, 10), 10, "a quick one finds room");
}

#[test]
fn a_place_is_news_only_when_something_could_have_waited_for_it() {
    let mut lanes = lanes(12);
    fill(&mut lanes, 1, 10);
    assert!(lanes.leave(&lease(1, 0), QUICK), "its lane was full");
    assert!(!lanes.leave(&lease(1, 1), QUICK));
    fill(&mut lanes, 2, 4);
    assert!(lanes.leave(&lease(2, 0), QUICK), "all places were taken");
    assert!(!lanes.leave(&lease(2, 1), QUICK));
    fill(&mut lanes, 3, 1);
    lanes.leave(&lease(3, 0), SLOW);
    fill(&mut lanes, 3, 2);
    assert!(lanes.leave(&lease(3, 0), SLOW), "its lane was narrow and full");
}

#[test]
fn an_end_without_a_time_changes_no_judgement() {
    let mut lanes = lanes(100);
    fill(&mut lanes, 1, 1);
    lanes.leave(&lease(1, 0), SLOW);
    fill(&mut lanes, 1, 2);
    lanes.leave(&lease(1, 0), None);
    assert!(lanes.slow.contains(&lease(1, 0).delivery.endpoint));
    assert_eq!(lanes.slow_running, 1);
}
