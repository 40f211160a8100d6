//! How a message stands with an endpoint, over all deliveries of the one to the other.

use crate::{
    connection::Connection,
    failure::{Failure, inconsistent},
    values::{at, code_at, id_at, instant_at, key, number_at},
};
use postrider_model::{
    delivery::{Progress, State},
    id::{EndpointId, MessageId},
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{deliveries::ProgressKind, hold};
use std::collections::HashMap;

/// States as the column keeps them; never renumbered. What is pending stands in a table of its own.
pub(crate) mod code {
    /// See the model's `State`.
    pub(crate) const PENDING: u8 = 0;
    /// See the model's `State`.
    pub(crate) const DELIVERED: u8 = 1;
    /// See the model's `State`.
    pub(crate) const FAILED: u8 = 2;
    /// See the model's `State`.
    pub(crate) const CANCELLED: u8 = 3;
}

/// A state and its reason as their columns keep them.
pub(crate) fn columns(state: State) -> (u8, Option<&'static str>) {
    match state {
        State::Pending { .. } => (code::PENDING, None),
        State::Delivered => (code::DELIVERED, None),
        State::Failed(reason) => (code::FAILED, Some(reason.name())),
        State::Cancelled => (code::CANCELLED, None),
    }
}

/// A state of its columns.
pub(crate) fn state(
    code: u8,
    reason: Option<&str>,
    next_attempt_at: Timestamp,
    message: MessageId,
) -> Result<State, Failure> {
    Ok(match code {
        code::PENDING => State::Pending { next_attempt_at },
        code::DELIVERED => State::Delivered,
        code::FAILED => {
            let reason = reason.and_then(GiveUp::from_name);
            State::Failed(reason.ok_or_else(|| inconsistent("delivery", "reason", message))?)
        }
        code::CANCELLED => State::Cancelled,
        _ => return Err(inconsistent("delivery", "state", message)),
    })
}

/// Which pairs of message and endpoint, in how many deliveries each.
pub(crate) const OF_PAIRS: &str = "WITH wanted AS (SELECT * FROM unnest($1::bytea[], $2::bytea[]) AS pair (message, endpoint))
     SELECT delivery.message, delivery.endpoint, delivery.generation, 0::smallint, NULL::text, due_at, attempts
     FROM wanted JOIN pending AS delivery USING (message, endpoint)
     UNION ALL
     SELECT delivery.message, delivery.endpoint, delivery.generation, state, reason, 0::bigint, attempts
     FROM wanted JOIN delivery USING (message, endpoint)
     ORDER BY 1, 2, 3";

/// How messages stand with endpoints; those pairs are missing that never were to be delivered. `held` is not known here.
pub(crate) async fn of_pairs(
    connection: &Connection,
    pairs: &[(MessageId, EndpointId)],
) -> Result<HashMap<(MessageId, EndpointId), Progress>, Failure> {
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    let messages: Vec<&[u8]> = pairs.iter().map(|(message, _)| key(message)).collect();
    let endpoints: Vec<&[u8]> = pairs.iter().map(|(_, endpoint)| key(endpoint)).collect();
    let mut all: HashMap<(MessageId, EndpointId), Progress> = HashMap::with_capacity(pairs.len());
    for row in connection.query(OF_PAIRS, &[&messages, &endpoints]).await? {
        let pair = (id_at(&row, 0)?, id_at(&row, 1)?);
        let state = state(code_at(&row, 3)?, at(&row, 4)?, instant_at(&row, 5)?, pair.0)?;
        let attempts = number_at(&row, 6)?;
        all.entry(pair)
            .and_modify(|before| {
                before.state = prevailing(before.state, state);
                before.attempts = before.attempts.saturating_add(attempts);
            })
            .or_insert(Progress { state, attempts, held: false });
    }
    Ok(all)
}

/// The same progress where the endpoint is disabled or not.
pub(crate) fn held(progress: Progress, disabled: bool) -> Progress {
    match progress.state {
        State::Pending { next_attempt_at } => Progress {
            held: disabled || hold::is_on(next_attempt_at),
            state: State::Pending { next_attempt_at: hold::taken_off(next_attempt_at) },
            ..progress
        },
        _ => progress,
    }
}

/// Delivered in any generation counts as delivered, then pending (the earliest), then failed (the latest).
fn prevailing(earlier: State, later: State) -> State {
    let rank = |state: &State| match state {
        State::Delivered => 3,
        State::Pending { .. } => 2,
        State::Failed(_) => 1,
        State::Cancelled => 0,
    };
    match (earlier, later) {
        (State::Pending { next_attempt_at: a }, State::Pending { next_attempt_at: b }) => {
            State::Pending { next_attempt_at: a.min(b) }
        }
        (earlier, later) if rank(&earlier) > rank(&later) => earlier,
        (_, later) => later,
    }
}

/// Under which name lists filter it.
pub(crate) fn kind(progress: &Progress) -> ProgressKind {
    match progress.state {
        State::Pending { .. } if progress.attempts == 0 => ProgressKind::Waiting,
        State::Pending { .. } => ProgressKind::Retrying,
        State::Delivered => ProgressKind::Delivered,
        State::Failed(_) => ProgressKind::Failed,
        State::Cancelled => ProgressKind::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_prevails_then_what_is_pending_then_the_latest_failure() {
        let pending = |micros| State::Pending { next_attempt_at: Timestamp::from_micros(micros) };
        for (earlier, later, expected) in [
            (State::Delivered, pending(1), State::Delivered),
            (State::Delivered, State::Failed(GiveUp::Exhausted), State::Delivered),
            (State::Failed(GiveUp::Expired), State::Delivered, State::Delivered),
            (pending(5), State::Failed(GiveUp::Exhausted), pending(5)),
            (pending(5), pending(3), pending(3)),
            (State::Failed(GiveUp::Expired), State::Failed(GiveUp::Gone), State::Failed(GiveUp::Gone)),
            (State::Failed(GiveUp::Expired), State::Cancelled, State::Failed(GiveUp::Expired)),
            (State::Cancelled, State::Failed(GiveUp::Gone), State::Failed(GiveUp::Gone)),
        ] {
            assert_eq!(prevailing(earlier, later), expected, "{earlier:?} then {later:?}");
        }
    }
}
