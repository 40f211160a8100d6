//! What goes into the agenda and comes out of it.

use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use postrider_store::{deliveries::Lease, endpoints::AppScope};

/// A part of a lane: retries do not keep first attempts waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// Nothing was attempted yet.
    First,
    /// Something was.
    Retries,
}

impl Part {
    pub(crate) const ALL: [Self; 2] = [Self::First, Self::Retries];

    /// That of a delivery with so many attempts.
    pub(crate) fn of(attempts: u32) -> Self {
        if attempts == 0 { Self::First } else { Self::Retries }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Retries,
            Self::Retries => Self::First,
        }
    }
}

/// A delivery with everything that an attempt needs.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) delivery: DeliveryId,
    pub(crate) scope: AppScope,
    /// Attempts recorded so far.
    pub(crate) attempts: u32,
    pub(crate) trigger: Trigger,
    /// `None`: the payload is gone, and the delivery cannot be made.
    pub(crate) payload: Option<Bytes>,
    pub(crate) content_type: Option<String>,
    pub(crate) accepted_at: Timestamp,
    pub(crate) due_at: Timestamp,
    pub(crate) deadline_at: Timestamp,
    pub(crate) deaths: u32,
}

impl Handed {
    /// Bytes that it keeps in memory: small payloads count by their frame.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.payload_bytes()
    }

    pub(crate) fn part(&self) -> Part {
        Part::of(self.attempts)
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}

/// Pending deliveries of one part of a lane that lie in the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnDisk {
    pub(crate) application: ApplicationId,
    pub(crate) endpoint: EndpointId,
    pub(crate) part: Part,
    /// The endpoint is disabled.
    pub(crate) held: bool,
    /// When the earliest is due.
    pub(crate) due: Timestamp,
    pub(crate) count: u64,
}

/// A part of a lane to be read from the database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) endpoint: EndpointId,
    pub(crate) part: Part,
    /// Deliveries of use.
    pub(crate) most: usize,
    /// These are under a lease.
    pub(crate) leased: Vec<DeliveryId>,
}

/// What a reading found: due deliveries without those leased, and when the next one is due that was not read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) endpoint: EndpointId,
    pub(crate) part: Part,
    pub(crate) deliveries: Vec<Handed>,
    pub(crate) next: Option<Timestamp>,
}

/// What a claim takes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) deliveries: Vec<(Lease, Handed)>,
    /// Past their deadline or without a payload: leased too, to be settled without an attempt.
    pub(crate) dead: Vec<(Lease, Handed)>,
    /// What to read; each is answered once.
    pub(crate) wanted: Vec<Wanted>,
    /// Lanes are being read, these or others: what they have due is not known yet.
    pub(crate) reads: bool,
    /// There was more to look at than one claim looks at: the next one goes on.
    pub(crate) cut: bool,
    pub(crate) next_due: Option<Timestamp>,
}
