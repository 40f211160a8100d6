//! What the agenda costs, in nanoseconds; run by hand:
//! `cargo test --release -p postrider-store-sqlite --lib costs -- --ignored --nocapture`.

use super::*;
use tokio::time::Instant;

const DELIVERIES: u32 = 1_000_000;

fn wide_application(number: u32) -> ApplicationId {
    ApplicationId::new(*wide_endpoint(number).ksuid())
}

fn to(endpoints: u32, message: u32) -> Handed {
    let number = message % endpoints;
    let mut handed = handed(1, message, 0);
    handed.delivery.endpoint = wide_endpoint(number);
    handed.scope.application = wide_application(number / 10);
    handed
}

/// Accepted, claimed and recorded, some at a time; returns nanoseconds for each.
fn through(agenda: &mut Agenda, endpoints: u32, at_a_time: u32, prepared: Vec<Handed>) -> f64 {
    let room = room(at_a_time as usize, 100);
    let begun = Instant::now();
    let mut taken = Vec::new();
    for (number, handed) in (0..).zip(prepared) {
        agenda.hand_over(handed, false, at(1));
        if number % at_a_time == at_a_time - 1 {
            taken.extend(agenda.take(&room, at(1)).deliveries);
            for (lease, _) in taken.drain(..) {
                assert!(agenda.holds(&lease) && agenda.may_start(&lease));
                agenda.recorded(&lease, None, at(1));
            }
        }
    }
    let nanos = begun.elapsed().as_secs_f64() * 1e9 / f64::from(DELIVERIES);
    println!("{endpoints} endpoints, {at_a_time} at a time: {nanos:.0} ns for each delivery");
    nanos
}

#[test]
#[ignore = "a measurement, for release builds"]
fn costs() {
    for (endpoints, at_a_time) in [(1, 1), (1, 64), (10, 64), (1_000, 64), (100_000, 64)] {
        let prepared = (0..DELIVERIES).map(|message| to(endpoints, message)).collect();
        through(&mut Agenda::new(64 << 20, 7), endpoints, at_a_time, prepared);
    }
    let mut agenda = Agenda::new(64 << 20, 7);
    let begun = Instant::now();
    for number in 0..100_000 {
        let endpoint = wide_endpoint(1_000_000 + number);
        let application = wide_application(1_000_000 + number);
        let found = OnDisk { application, endpoint, part: Part::Retries, held: false, due: at(0), count: 10 };
        agenda.add(found, at(1));
        agenda.defer(Deferred::Endpoint(endpoint), at(1000), at(1));
    }
    println!("100,000 lanes made and deferred in {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    assert!(agenda.take(&room(64, 100), at(1)).wanted.is_empty());
    println!("the claim that meets them: {} ms", begun.elapsed().as_millis());
    for at_a_time in [1, 64] {
        let prepared = (0..DELIVERIES).map(|message| to(10, message)).collect();
        println!("beside them:");
        through(&mut agenda, 10, at_a_time, prepared);
    }
    let begun = Instant::now();
    let oldest = agenda.oldest_due(at(1));
    println!("the oldest that is due: {} µs, {oldest:?}", begun.elapsed().as_micros());
    let begun = Instant::now();
    agenda.take(&room(64, 100), at(1000));
    println!("the claim when they are due again: {} ms", begun.elapsed().as_millis());
    let begun = Instant::now();
    assert!(agenda.oldest_due(at(1000)).is_some());
    println!("the oldest that is due then: {} µs", begun.elapsed().as_micros());
}
