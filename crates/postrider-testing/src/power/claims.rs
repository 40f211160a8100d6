//! The workers of the workload: claims, attempts and their results.

use super::{
    ledger::{Duty, Kind, serial_of},
    workload::{Life, STEPS},
};
use bytes::Bytes;
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::Trigger,
    id::AttemptId,
    outcome::Outcome,
    retry::{GiveUp, NextStep},
};
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, ClaimedDelivery, Recorded, Room},
};
use rand::{RngExt, rngs::StdRng};
use std::time::Duration;

/// Claims, attempts and records.
pub(super) async fn work(life: Life, mut random: StdRng) {
    let mut met = 0;
    for _ in 0..STEPS * 3 {
        let most = random.random_range(1..=12);
        let room = Room { total: most, per_endpoint: 20, ..Room::default() };
        let claimed = match life.store().claim(&room).await {
            Ok(claimed) => claimed.deliveries,
            Err(error) if life.met(&error, &mut met).await => return,
            Err(_) => continue,
        };
        if claimed.is_empty() {
            if life.disk.is_cut() {
                return;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
            continue;
        }
        if let Some(error) = attempt(&life, claimed, None, &mut random).await
            && life.met(&error, &mut met).await
        {
            return;
        }
    }
}

/// Attempts what was claimed, and records the same step for all or (`None`) any for each. The last error, if one failed.
pub(super) async fn attempt(
    life: &Life,
    claimed: Vec<ClaimedDelivery>,
    step: Option<NextStep>,
    random: &mut StdRng,
) -> Option<StoreError> {
    let late = life.failed.get();
    let mut records = Vec::new();
    let mut noted = Vec::new();
    for delivery in claimed {
        let serial = check(life, &delivery);
        let started = life.store().started(&delivery.lease, delivery.number, "https://example.com/hook");
        if random.random_bool(0.1) {
            life.notes.borrow_mut().look(&life.data);
        }
        let Some(serial) = serial else { continue };
        if let Some(duty) = life.ledger.borrow_mut().duty(serial, delivery.lease.delivery) {
            duty.started |= started;
        }
        if !started || (step.is_none() && random.random_range(0..20) == 0) {
            // Leases are memory: giving one back cannot fail on a disk.
            let _ = life.store().release(vec![delivery.lease]).await;
            continue;
        }
        let next = step.unwrap_or_else(|| any_step(random));
        let record = AttemptRecord { lease: delivery.lease, attempt: made(life, &delivery, next), next };
        if let Some(duty) = life.ledger.borrow_mut().duty(serial, delivery.lease.delivery) {
            duty.unanswered.insert(record.attempt.id, (delivery.number, kind_after(&delivery, next)));
        }
        noted.push((serial, delivery.lease.delivery, record.attempt.id));
        records.push(record);
    }
    let mut failure = None;
    for ((serial, delivery, id), result) in noted.into_iter().zip(life.store().record(records).await) {
        let mut ledger = life.ledger.borrow_mut();
        match result {
            Ok(recorded) => {
                ledger.recorded += 1;
                if let Some(duty) = ledger.duty(serial, delivery) {
                    answered(duty, id, recorded);
                }
                drop(ledger);
                life.acknowledged(late, "a result");
            }
            Err(error) => failure = Some(error),
        }
    }
    failure
}

/// A claimed delivery must be one that is owed, with the bytes that were sent. Returns the message's serial number.
fn check(life: &Life, claimed: &ClaimedDelivery) -> Option<u64> {
    let mut ledger = life.ledger.borrow_mut();
    let delivery = claimed.lease.delivery;
    let serial = ledger.serials.get(&delivery.message).copied().or_else(|| serial_of(&claimed.payload));
    let Some((serial, sent)) = serial.and_then(|serial| Some((serial, ledger.messages.get(&serial)?))) else {
        ledger.fail(format!("a delivery of a message that nobody sent was claimed: {}", delivery.message));
        return None;
    };
    let same = sent.payload == claimed.payload;
    let known = sent.duties.get(&(delivery.endpoint, delivery.generation));
    let over = known.is_some_and(|duty| duty.state != Kind::Pending && duty.unanswered.is_empty());
    let owed = ledger.audience(sent.event_type).contains(&delivery.endpoint);
    if !same {
        ledger.fail(format!("message {serial} was claimed with other bytes than were accepted"));
    }
    if over {
        ledger.fail(format!("message {serial} was claimed after its delivery had ended"));
    }
    if !owed && delivery.generation == 0 {
        ledger.fail(format!("message {serial} was claimed for an endpoint that it does not go to"));
    }
    Some(serial)
}

fn answered(duty: &mut Duty, id: AttemptId, recorded: Recorded) {
    let Some((number, _)) = duty.unanswered.remove(&id) else { return };
    if let Recorded::Stored(state) = recorded {
        duty.record(id, number, Kind::of(state));
    }
}

fn any_step(random: &mut StdRng) -> NextStep {
    match random.random_range(0..10) {
        0..=5 => NextStep::Delivered,
        6..=8 => NextStep::RetryAfter(Duration::from_millis(random.random_range(0..4))),
        _ => NextStep::GiveUp(GiveUp::Exhausted),
    }
}

fn kind_after(delivery: &ClaimedDelivery, next: NextStep) -> Kind {
    match next {
        NextStep::Delivered => Kind::Delivered,
        NextStep::RetryAfter(_) if delivery.trigger == Trigger::Scheduled => Kind::Pending,
        NextStep::RetryAfter(_) | NextStep::GiveUp(_) => Kind::Failed,
    }
}

fn made(life: &Life, delivery: &ClaimedDelivery, next: NextStep) -> Attempt {
    let started_at = life.store().clock().now();
    let succeeded = next == NextStep::Delivered;
    Attempt {
        id: life.store().ids().next(started_at),
        delivery: delivery.lease.delivery,
        number: delivery.number,
        trigger: delivery.trigger,
        url: "https://example.com/hook".to_owned(),
        started_at,
        duration: Duration::from_millis(3),
        outcome: if succeeded { Outcome::Succeeded } else { Outcome::HttpError },
        detail: String::new(),
        status: Some(if succeeded { 200 } else { 500 }),
        response: Response { body: Bytes::from_static(b"answer"), truncated: false, expunged: false },
        phases: Phases::default(),
    }
}
