//! The wire's statuses, derived from how deliveries and attempts stand. They are never stored.

use postrider_model::{
    delivery::{Progress, State},
    time::Timestamp,
};
use postrider_store::deliveries::ProgressKind;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Status of a message at an endpoint, or of an attempt: success 0, pending 1, fail 2, sending 3, canceled 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Delivered; of an attempt: a 2xx answer.
    Success,
    /// Accepted, no attempt yet.
    Pending,
    /// Failed for good; of an attempt: anything but a 2xx answer.
    Fail,
    /// Tried and failed, to be tried again.
    Sending,
    /// Deleted before it was delivered.
    Canceled,
}

impl Status {
    /// The number on the wire.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Pending => 1,
            Self::Fail => 2,
            Self::Sending => 3,
            Self::Canceled => 4,
        }
    }

    /// The word on the wire.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Pending => "pending",
            Self::Fail => "fail",
            Self::Sending => "sending",
            Self::Canceled => "canceled",
        }
    }

    /// Reads a filter's value: the number or the word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "0" | "success" => Self::Success,
            "1" | "pending" => Self::Pending,
            "2" | "fail" | "failed" => Self::Fail,
            "3" | "sending" => Self::Sending,
            "4" | "canceled" => Self::Canceled,
            _ => return None,
        })
    }

    /// How a message stands at an endpoint.
    pub(crate) const fn of_progress(progress: &Progress) -> Self {
        match progress.state {
            State::Delivered => Self::Success,
            State::Pending { .. } if progress.attempts == 0 => Self::Pending,
            State::Pending { .. } => Self::Sending,
            State::Failed(_) => Self::Fail,
            State::Cancelled => Self::Canceled,
        }
    }

    /// An attempt has succeeded or failed, nothing else: `sending` is said of messages only.
    pub(crate) const fn of_attempt(succeeded: bool) -> Self {
        if succeeded { Self::Success } else { Self::Fail }
    }

    /// What a client that does not know `canceled` sees: closed enumerations of older clients end at 3, and hosted
    /// servers show 0 there.
    #[must_use]
    pub(crate) const fn shown(self, expanded: bool) -> Self {
        match self {
            Self::Canceled if !expanded => Self::Success,
            other => other,
        }
    }

    /// The deliveries that a list filtered by this status holds.
    pub(crate) const fn kind(self) -> ProgressKind {
        match self {
            Self::Success => ProgressKind::Delivered,
            Self::Pending => ProgressKind::Waiting,
            Self::Fail => ProgressKind::Failed,
            Self::Sending => ProgressKind::Retrying,
            Self::Canceled => ProgressKind::Cancelled,
        }
    }
}

/// When the next attempt will be made: nothing is due while the endpoint is disabled.
pub(crate) const fn next_attempt(progress: &Progress) -> Option<Timestamp> {
    match progress.state {
        State::Pending { next_attempt_at } if !progress.held => Some(next_attempt_at),
        _ => None,
    }
}

/// The number and the word of a status, as two members of an answer.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusOut {
    /// Success 0, pending 1, fail 2, sending 3, canceled 4 (the last only with `expanded_statuses=true`, else 0).
    #[serde(serialize_with = "code")]
    #[schema(value_type = u8, minimum = 0, maximum = 4)]
    status: Status,
    /// `success`, `pending`, `fail`, `sending` or `canceled`.
    #[serde(serialize_with = "word")]
    #[schema(value_type = String)]
    status_text: Status,
}

impl StatusOut {
    /// Both members of one status.
    pub(crate) const fn new(status: Status) -> Self {
        Self { status, status_text: status }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn code<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(status.code())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn word<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.word())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::retry::GiveUp;

    const AT: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
    const DUE: State = State::Pending { next_attempt_at: AT };

    #[test]
    fn statuses_follow_from_how_a_delivery_stands() {
        for (state, attempts, held, status, next) in [
            (State::Delivered, 3, false, Status::Success, None),
            (DUE, 0, false, Status::Pending, Some(AT)),
            (DUE, 2, false, Status::Sending, Some(AT)),
            (DUE, 2, true, Status::Sending, None),
            (State::Failed(GiveUp::Exhausted), 10, false, Status::Fail, None),
            (State::Cancelled, 1, false, Status::Canceled, None),
        ] {
            let progress = Progress { state, attempts, held };
            assert_eq!(Status::of_progress(&progress), status, "{progress:?}");
            assert_eq!(next_attempt(&progress), next, "{progress:?}");
        }
    }

    #[test]
    fn canceled_is_shown_as_success_to_clients_that_do_not_know_it() {
        assert_eq!(Status::Canceled.shown(false), Status::Success);
        assert_eq!(Status::Canceled.shown(true), Status::Canceled);
        assert_eq!(Status::Fail.shown(false), Status::Fail);
    }

    #[test]
    fn a_filter_takes_numbers_and_words() {
        for status in [Status::Success, Status::Pending, Status::Fail, Status::Sending, Status::Canceled] {
            assert_eq!(Status::parse(&status.code().to_string()), Some(status));
            assert_eq!(Status::parse(status.word()), Some(status));
        }
        assert_eq!(Status::parse("failed"), Some(Status::Fail));
        assert_eq!(Status::parse("5"), None);
    }
}
