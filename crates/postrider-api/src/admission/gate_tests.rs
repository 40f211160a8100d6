//! Going in, waiting, going away, and what must hold whatever order these happen in.

use super::*;
use std::{sync::Arc, time::Duration};

const LIMITS: Limits = Limits {
    waiting: 1000,
    line: 500,
    burst: Duration::from_secs(10),
    lasting: Duration::from_millis(20),
    short: 0,
};
const PATIENCE: Duration = Duration::from_secs(1);

fn gate(most: u64, share: u64) -> Gate {
    Gate::new(most, share, PATIENCE, LIMITS)
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_waits_for_a_turn_and_not_for_ever() {
    let gate = gate(2, 2);
    let first = gate.enter(1, 1).await.unwrap();
    let _second = gate.enter(1, 1).await.unwrap();
    let started = Instant::now();
    assert_eq!(gate.enter(2, 1).await.unwrap_err(), Blame::Server, "no turn was given at all");
    assert_eq!(started.elapsed(), PATIENCE);
    let leaving = async {
        tokio::time::sleep(PATIENCE / 2).await;
        drop(first);
    };
    let (third, ()) = tokio::join!(gate.enter(2, 1), leaving);
    assert!(third.is_ok());
    assert_eq!((gate.inside(), gate.waiting()), (2, 0));
    drop(third);
    assert_eq!(gate.inside(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_key_has_its_share_and_another_gets_in_at_once() {
    let gate = gate(8, 4);
    let _large = gate.enter(1, 3).await.unwrap();
    let waits = gate.enter(1, 2);
    tokio::pin!(waits);
    assert!(tokio::time::timeout(PATIENCE / 2, &mut waits).await.is_err());
    let started = Instant::now();
    let other = gate.enter(2, 4).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!((gate.inside(), gate.waiting()), (7, 1));
    drop(other);
    assert_eq!(waits.await.unwrap_err(), Blame::Line, "its own share is what it waited for");
    assert_eq!(gate.inside(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_reserved_too_much_serves_the_next() {
    let gate = gate(10, 10);
    let mut large = gate.enter(1, 25).await.unwrap();
    assert_eq!(gate.inside(), 10, "more than there is counts as all");
    let shrinking = async {
        tokio::time::sleep(PATIENCE / 2).await;
        large.shrink(4);
    };
    let (next, ()) = tokio::join!(gate.enter(2, 6), shrinking);
    assert!(next.is_ok());
    assert_eq!(gate.inside(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_made_wider_serves_who_waits_and_a_narrower_one_lets_nobody_in() {
    let gate = gate(4, 4);
    let passes = [gate.enter(1, 1).await.unwrap(), gate.enter(1, 1).await.unwrap()];
    gate.set_most(1);
    assert!(gate.enter(1, 1).await.is_err());
    let widening = async {
        tokio::time::sleep(PATIENCE / 2).await;
        gate.set_most(3);
    };
    let (third, ()) = tokio::join!(gate.enter(1, 1), widening);
    assert!(third.is_ok());
    assert_eq!((gate.inside(), gate.most(), gate.waiting()), (3, 3, 0));
    drop((passes, third));
    assert_eq!(gate.inside(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_gives_its_turn_to_the_next() {
    let gate = gate(1, 1);
    let first = gate.enter(1, 1).await.unwrap();
    let mut gone = Box::pin(gate.enter(1, 1));
    let mut next = Box::pin(gate.enter(2, 1));
    let short = PATIENCE / 10;
    assert!(tokio::time::timeout(short, &mut gone).await.is_err());
    assert!(tokio::time::timeout(short, &mut next).await.is_err());
    assert_eq!(gate.waiting(), 2);
    // The turn is given to the first in line, which goes away before it takes it.
    drop(first);
    drop(gone);
    assert!(tokio::time::timeout(short, next).await.unwrap().is_ok());
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nobody_forgotten_however_they_come_and_go() {
    let gate = Arc::new(gate(3, 2));
    let tasks: Vec<_> = (0..64_u64)
        .map(|task| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                for round in 0..200_u64 {
                    let entering = gate.enter(task % 5, 1 + round % 2);
                    // Some give up, at times in the very moment in which their turn comes.
                    let patience = Duration::from_micros(if round % 3 == 0 { 50 } else { 5_000_000 });
                    if let Ok(Ok(pass)) = tokio::time::timeout(patience, entering).await {
                        assert!(gate.inside() <= 3);
                        tokio::task::yield_now().await;
                        drop(pass);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_mins(1), task).await.expect("nobody waits for ever").unwrap();
    }
    drop(gate.enter(9, 2).await.unwrap());
    assert_eq!(gate.inside(), 0);
    assert!(gate.shares.iter().all(|share| share.load(SeqCst) == 0));
}
