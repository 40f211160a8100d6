//! How a request ends without an answer, and how far it came.

use postrider_model::{attempt::Phases, outcome::Outcome};

/// A request that got no answer: what an [`Exchange`](crate::Exchange) says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Never `Succeeded`.
    pub(crate) outcome: Outcome,
    /// One sentence for a person.
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into() }
    }
}

/// How far a request came; read when the deadline ends it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Times of the phases that ended.
    pub(crate) phases: Phases,
    /// What is being done now.
    pub(crate) step: Step,
    /// At least one byte of the request was written.
    pub(crate) sent: bool,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Step {
    #[default]
    Resolving,
    Connecting,
    Handshaking,
    Writing,
    Waiting,
    ReadingHead,
}

impl Step {
    /// To follow "while".
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Resolving => "resolving the host name",
            Self::Connecting => "opening the connection",
            Self::Handshaking => "in the TLS handshake",
            Self::Writing => "sending the request",
            Self::Waiting => "waiting for the answer",
            Self::ReadingHead => "reading the head of the answer",
        }
    }
}
