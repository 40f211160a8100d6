//! Storing what came of attempts: the attempt's row and the delivery's new state in one commit.

use crate::{
    Shared, attempt_rows, endpoint_rows,
    failure::Failure,
    progress::{self, code},
    values::{id_at, instant_at, key},
    writer::{self, Isolation, Scope},
};
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    endpoint::{Disabled, DisabledReason, Endpoint},
    retry::{GiveUp, NextStep},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    deliveries::{AttemptRecord, Lease, Recorded},
};
use rusqlite::params;
use std::sync::Arc;

/// A delivery as it stands before its attempt is recorded.
struct Before {
    state: State,
    attempts: u32,
    deadline_at: Timestamp,
    trigger: Trigger,
}

/// Stores results, each for itself; they share commits with whatever else waits.
pub(crate) async fn all(
    shared: &Arc<Shared>,
    records: Vec<AttemptRecord>,
) -> Vec<Result<Recorded, StoreError>> {
    let mut begun = Vec::with_capacity(records.len());
    for record in records {
        begun.push(writer::submit(shared, Isolation::Shared, move |work| store(work, &record)).await);
    }
    let mut results = Vec::with_capacity(begun.len());
    for answer in begun {
        results.push(match answer {
            Ok(answer) => writer::answered(answer).await.map_err(StoreError::from),
            Err(error) => Err(error),
        });
    }
    results
}

fn store(work: &mut Scope<'_>, record: &AttemptRecord) -> Result<Recorded, Failure> {
    let (lease, delivery, now) = (record.lease, record.lease.delivery, work.now);
    if !work.shared.agenda().holds(&lease) || work.is_recorded(&lease) {
        return Ok(Recorded::Superseded);
    }
    if settles(record) && delivered(work, record)? {
        attempt_rows::insert(work.connection, &record.attempt)?;
        ends(work, lease, true, None);
        return Ok(Recorded::Stored(State::Delivered));
    }
    let Some(before) = before(work, delivery)? else { return Ok(Recorded::Superseded) };
    let pending = matches!(before.state, State::Pending { .. });
    let state = if pending { after(&before, record.next, now) } else { before.state };
    // Read before the first write: what does not read fails this result alone.
    let gone = record.next == NextStep::GiveUp(GiveUp::Gone);
    let disabled = if gone { to_disable(work, delivery)? } else { None };
    attempt_rows::insert(work.connection, &record.attempt)?;
    update(work, delivery, state, before.attempts.max(record.attempt.number))?;
    if record.next == NextStep::Delivered && before.trigger == Trigger::Manual {
        settle_others(work, delivery)?;
    }
    if let Some(endpoint) = disabled {
        disable(work, endpoint)?;
    }
    let next = match state {
        State::Pending { next_attempt_at } => Some(next_attempt_at),
        _ => None,
    };
    ends(work, lease, pending, next);
    Ok(Recorded::Stored(state))
}

/// The usual end: nothing but this delivery is concerned.
fn settles(record: &AttemptRecord) -> bool {
    record.next == NextStep::Delivered && record.attempt.trigger == Trigger::Scheduled
}

/// Marks a pending delivery as delivered, without reading it first. `false`, with nothing written, when it is not pending.
fn delivered(work: &Scope<'_>, record: &AttemptRecord) -> Result<bool, Failure> {
    let delivery = record.lease.delivery;
    let changed = work
        .connection
        .prepare_cached(
            "UPDATE delivery SET state = 1, attempts = MAX(attempts, ?4)
             WHERE message = ?1 AND endpoint = ?2 AND generation = ?3 AND state = 0",
        )?
        .execute(params![
            key(&delivery.message),
            key(&delivery.endpoint),
            delivery.generation,
            record.attempt.number
        ])?;
    Ok(changed > 0)
}

/// Once the result is durable its lease ends, and its slot is free; `pending`: the delivery was until now.
fn ends(work: &mut Scope<'_>, lease: Lease, pending: bool, next: Option<Timestamp>) {
    let now = work.now;
    work.recorded(lease);
    work.after_commit(move |shared| {
        let mut agenda = shared.agenda();
        let slot =
            if pending { agenda.recorded(&lease, next, now) } else { agenda.recorded_late(&lease, now) };
        drop(agenda);
        if let Some(slot) = slot {
            shared.in_flight.recorded(slot);
        }
        shared.claimable.notify_one();
    });
}

fn before(work: &Scope<'_>, delivery: DeliveryId) -> Result<Option<Before>, Failure> {
    let mut statement = work.connection.prepare_cached(
        "SELECT state, reason, next_attempt_at, attempts, deadline_at, cause FROM delivery
         WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
    )?;
    let mut rows =
        statement.query(params![key(&delivery.message), key(&delivery.endpoint), delivery.generation])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let reason = row.get_ref(1)?.as_str_or_null().ok().flatten();
    Ok(Some(Before {
        state: progress::state(row.get(0)?, reason, instant_at(row, 2)?, delivery.message)?,
        attempts: row.get(3)?,
        deadline_at: instant_at(row, 4)?,
        trigger: Trigger::from_code(row.get(5)?).unwrap_or(Trigger::Scheduled),
    }))
}

/// The state that follows: the decision, bounded by this store's clock and the delivery's deadline.
fn after(before: &Before, next: NextStep, now: Timestamp) -> State {
    match next {
        NextStep::Delivered => State::Delivered,
        NextStep::GiveUp(reason) => State::Failed(reason),
        // A manual delivery has one attempt.
        NextStep::RetryAfter(_) if before.trigger == Trigger::Manual => State::Failed(GiveUp::Exhausted),
        NextStep::RetryAfter(wait) => {
            let next_attempt_at = now.plus(wait);
            if next_attempt_at > before.deadline_at {
                State::Failed(GiveUp::Expired)
            } else {
                State::Pending { next_attempt_at }
            }
        }
    }
}

fn update(work: &Scope<'_>, delivery: DeliveryId, state: State, attempts: u32) -> Result<(), Failure> {
    let (message, endpoint) = (key(&delivery.message), key(&delivery.endpoint));
    if let State::Pending { next_attempt_at } = state {
        work.connection
            .prepare_cached(
                "UPDATE delivery SET next_attempt_at = ?4, attempts = ?5
                 WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
            )?
            .execute(params![
                message,
                endpoint,
                delivery.generation,
                next_attempt_at.as_micros(),
                attempts
            ])?;
    } else {
        let (code, reason) = progress::columns(state);
        work.connection
            .prepare_cached(
                "UPDATE delivery SET state = ?4, reason = ?5, attempts = ?6
                 WHERE message = ?1 AND endpoint = ?2 AND generation = ?3",
            )?
            .execute(params![message, endpoint, delivery.generation, code, reason, attempts])?;
    }
    Ok(())
}

/// The success of a manual delivery settles what is pending between the same two.
fn settle_others(work: &mut Scope<'_>, delivery: DeliveryId) -> Result<(), Failure> {
    let settled: Vec<DeliveryId> = work
        .connection
        .prepare_cached(
            "UPDATE delivery SET state = ?3 WHERE message = ?1 AND endpoint = ?2 AND state = ?4
             RETURNING message, endpoint, generation",
        )?
        .query_map(
            params![key(&delivery.message), key(&delivery.endpoint), code::DELIVERED, code::PENDING],
            |row| {
                Ok(DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: row.get(2)? })
            },
        )?
        .collect::<Result<_, _>>()?;
    let now = work.now;
    for other in settled {
        work.after_commit(move |shared| shared.agenda().settled(other, now));
    }
    Ok(())
}

/// The endpoint of a delivery, unless it is disabled or deleted already.
fn to_disable(work: &Scope<'_>, delivery: DeliveryId) -> Result<Option<Endpoint>, Failure> {
    work.connection
        .prepare_cached(&format!(
            "SELECT {} FROM endpoint WHERE id = ?1 AND deleted_at IS NULL AND disabled_at IS NULL",
            endpoint_rows::COLUMNS
        ))?
        .query_map([key(&delivery.endpoint)], |row| Ok(endpoint_rows::read(row)))?
        .next()
        .transpose()?
        .transpose()
}

/// The endpoint answered that it is gone for good: nothing is sent there until somebody enables it.
fn disable(work: &mut Scope<'_>, mut endpoint: Endpoint) -> Result<(), Failure> {
    let (id, now) = (endpoint.id, work.now);
    endpoint.disabled = Some(Disabled { reason: DisabledReason::Gone, at: now });
    endpoint.version += 1;
    endpoint.updated_at = now;
    endpoint_rows::update(work.connection, &endpoint)?;
    work.application_changes(endpoint.application);
    work.after_commit(move |shared| shared.agenda().hold(id, true, now));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_deadline_and_the_trigger_bound_what_was_decided() {
        let at = Timestamp::from_micros;
        let before = |trigger| Before {
            state: State::Pending { next_attempt_at: at(0) },
            attempts: 1,
            deadline_at: at(10_000_000),
            trigger,
        };
        let retry = |seconds| NextStep::RetryAfter(Duration::from_secs(seconds));
        for (trigger, next, expected) in [
            (Trigger::Scheduled, NextStep::Delivered, State::Delivered),
            (Trigger::Scheduled, NextStep::GiveUp(GiveUp::Gone), State::Failed(GiveUp::Gone)),
            (Trigger::Scheduled, retry(9), State::Pending { next_attempt_at: at(10_000_000) }),
            (Trigger::Scheduled, retry(10), State::Failed(GiveUp::Expired)),
            (Trigger::Manual, retry(1), State::Failed(GiveUp::Exhausted)),
            (Trigger::Manual, NextStep::Delivered, State::Delivered),
        ] {
            assert_eq!(after(&before(trigger), next, at(1_000_000)), expected, "{trigger:?} {next:?}");
        }
    }
}
