//! How a message stands with an endpoint, over all deliveries of the one to the other.

use crate::{
    failure::{Failure, inconsistent},
    values::{instant_at, key},
};
use postrider_model::{
    delivery::{Progress, State},
    id::{EndpointId, MessageId},
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{deliveries::ProgressKind, hold};
use rusqlite::{Connection, params};

/// States as the column keeps them; never renumbered. 0 stands in the conditions of indexes too.
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

/// How the message stands with the endpoint; `None` when it never was to be delivered there.
pub(crate) fn of(
    connection: &Connection,
    message: MessageId,
    endpoint: EndpointId,
    disabled: bool,
) -> Result<Option<Progress>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT state, reason, next_attempt_at, attempts FROM delivery WHERE message = ?1 AND endpoint = ?2
         ORDER BY generation",
    )?;
    let mut rows = statement.query(params![key(&message), key(&endpoint)])?;
    let mut all: Option<Progress> = None;
    while let Some(row) = rows.next()? {
        let reason = row.get_ref(1)?.as_str_or_null().ok().flatten();
        let state = state(row.get(0)?, reason, instant_at(row, 2)?, message)?;
        let attempts: u32 = row.get(3)?;
        all = Some(match all {
            None => Progress { state, attempts, held: false },
            Some(before) => Progress {
                state: prevailing(before.state, state),
                attempts: before.attempts.saturating_add(attempts),
                held: false,
            },
        });
    }
    Ok(all.map(|progress| match progress.state {
        State::Pending { next_attempt_at } => Progress {
            held: disabled || hold::is_on(next_attempt_at),
            state: State::Pending { next_attempt_at: hold::taken_off(next_attempt_at) },
            ..progress
        },
        _ => progress,
    }))
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
