//! What goes into the agenda and comes out of it.

use crate::{deliveries::Lease, endpoints::AppScope};
use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};

/// A part of a lane: retries do not keep first attempts waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Nothing was attempted yet.
    First,
    /// Something was.
    Retries,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::First, Self::Retries];

    /// That of a delivery with so many attempts.
    pub fn of(attempts: u32) -> Self {
        if attempts == 0 { Self::First } else { Self::Retries }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Retries,
            Self::Retries => Self::First,
        }
    }
}

/// A delivery with everything that an attempt needs.
#[derive(Debug, Clone)]
pub struct Handed {
    /// Which.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub scope: AppScope,
    /// Attempts recorded so far.
    pub attempts: u32,
    /// Why it is made.
    pub trigger: Trigger,
    /// `None`: the payload is gone, and the delivery cannot be made.
    pub payload: Option<Bytes>,
    /// `None` means `application/json`.
    pub content_type: Option<String>,
    /// When the message was accepted.
    pub accepted_at: Timestamp,
    /// When it is due.
    pub due_at: Timestamp,
    /// When it expires.
    pub deadline_at: Timestamp,
    /// How often the process died during an attempt of it.
    pub deaths: u32,
}

impl Handed {
    /// Bytes that it keeps in memory: small payloads count by their frame.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.payload_bytes()
    }

    /// The part of its lane that it stands in.
    pub fn part(&self) -> Part {
        Part::of(self.attempts)
    }

    /// Bytes of its payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}

/// Pending deliveries of one part of a lane that lie in the database.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk {
    /// The application that the endpoint belongs to.
    pub application: ApplicationId,
    /// Where they go.
    pub endpoint: EndpointId,
    /// Of which part.
    pub part: Part,
    /// The endpoint is disabled.
    pub held: bool,
    /// When the earliest is due.
    pub due: Timestamp,
    /// How many.
    pub count: u64,
}

/// A part of a lane to be read from the database.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose lane.
    pub endpoint: EndpointId,
    /// Which part of it.
    pub part: Part,
    /// Deliveries of use.
    pub most: usize,
    /// These are under a lease.
    pub leased: Vec<DeliveryId>,
}

/// What a reading found: due deliveries without those leased, and when the next one is due that was not read.
#[derive(Debug)]
pub struct Found {
    /// Whose lane.
    pub endpoint: EndpointId,
    /// Which part of it.
    pub part: Part,
    /// What is due, the earliest first.
    pub deliveries: Vec<Handed>,
    /// When the next one is due.
    pub next: Option<Timestamp>,
}

/// What a claim takes.
#[derive(Debug, Default)]
pub struct Taken {
    /// What to attempt.
    pub deliveries: Vec<(Lease, Handed)>,
    /// Past their deadline or without a payload: leased too, to be settled without an attempt.
    pub dead: Vec<(Lease, Handed)>,
    /// What to read; each is answered once.
    pub wanted: Vec<Wanted>,
    /// Lanes are being read, these or others: what they have due is not known yet.
    pub reads: bool,
    /// There was more to look at than one claim looks at: the next one goes on.
    pub cut: bool,
    /// When more is due.
    pub next_due: Option<Timestamp>,
}
