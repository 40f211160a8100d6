//! What the lanes' book-keeping answers: whether a delivery may enter, be attempted and be sent, and what its end changed.

use crate::metrics::Withheld;
use postrider_model::{breaker::Pause, time::Timestamp};

/// What a delivery holds of its lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ticket {
    pub(super) entered: u64,
    pub(super) bytes: usize,
    pub(super) version: Option<u64>,
    pub(super) probe: Option<u64>,
    pub(super) ended: bool,
}

/// Whether a delivery found a place.
#[derive(Debug)]
pub(super) enum Entered {
    In(Ticket),
    Full,
    /// Nor will another of its endpoint before this time.
    Later(Timestamp),
}

/// Whether a delivery may be attempted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// It may, and so may all others: the endpoint is configured anew.
    Mended,
    /// It may, and no other of its endpoint before this time.
    Probe(Timestamp),
    /// It may not, nor any other of its endpoint before this time.
    Shut(Timestamp, Withheld),
}

/// Whether a delivery keeps to its endpoint's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paced {
    Go,
    At(Timestamp),
    Shut(Timestamp),
}

/// What the end of an attempt changed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) earned: bool,
    pub(super) opened: Option<Pause>,
    pub(super) closed: bool,
    /// Nothing of the endpoint before this time; a time that has passed takes an earlier one back.
    pub(super) defer: Option<Timestamp>,
}

/// What a freed place changed.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) was_full: bool,
    /// As in [`Outcome`].
    pub(super) defer: Option<Timestamp>,
}
