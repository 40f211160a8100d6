//! A delivery: the duty to bring one message to one endpoint.

use crate::{
    id::{EndpointId, MessageId},
    retry::GiveUp,
    time::Timestamp,
};

/// Names one delivery. The first of a message to an endpoint has generation 0; each resend makes the next generation
/// (terminal states are absorbing, so a new duty is a new delivery).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// 0 for the scheduled delivery, then one more per resend.
    pub generation: u32,
}

/// Why an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Because the message was published, or a retry was due.
    Scheduled,
    /// Because somebody asked: resend, recover, replay, test. Such a delivery gets exactly one attempt, passes the
    /// filter, and never ends the automatic chain by failing.
    Manual,
}

impl Trigger {
    /// The wire's number (`triggerType`), also what stores keep.
    pub const fn code(self) -> u8 {
        match self {
            Self::Scheduled => 0,
            Self::Manual => 1,
        }
    }

    /// Back from [`Self::code`].
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Scheduled),
            1 => Some(Self::Manual),
            _ => None,
        }
    }
}

/// State of a delivery. Everything but `Pending` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An attempt is due at `next_attempt_at` or runs. While the endpoint is disabled it is held: not attempted.
    Pending {
        /// When the next attempt is due.
        next_attempt_at: Timestamp,
    },
    /// The endpoint answered 2xx.
    Delivered,
    /// No further attempt will be made.
    Failed(GiveUp),
    /// The endpoint, application or payload was deleted first.
    Cancelled,
}

/// How the delivery of one message to one endpoint stands, over all generations, as lists show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Delivered in any generation counts as delivered; otherwise a pending one counts before a failed one.
    pub state: State,
    /// Attempts recorded so far.
    pub attempts: u32,
    /// The endpoint is disabled, so a pending delivery waits.
    pub held: bool,
}
