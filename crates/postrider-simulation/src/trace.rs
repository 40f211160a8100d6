//! What happened, in order: a hash over all of it, which is the same whenever the same seed runs, and the last entries,
//! which a failure shows.

use postrider_model::{delivery::DeliveryId, id::MessageId, outcome::Outcome};
use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    /// A node came up, or went away.
    Node(&'static str),
    /// Something was done to the node, its disk or its clock.
    Fault(&'static str, u64),
    /// Somebody changed the configuration of an endpoint.
    Changed(&'static str, usize),
    /// A publication was answered: the message, or nothing.
    Published(u64, Option<MessageId>),
    /// A claim was answered with so many, while so many leases were out.
    Claimed(usize, usize),
    /// An attempt began.
    Started(DeliveryId, u32),
    /// A request arrived at an endpoint.
    Arrived(usize, DeliveryId),
    /// An answer came, or none.
    Answered(DeliveryId, Outcome, Option<u16>),
    /// A result was stored, or dropped.
    Recorded(DeliveryId, u32, bool),
    /// A lease was given back.
    Released(DeliveryId),
}

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Fnv,
    entries: u64,
    /// How many of the last entries are kept.
    kept: usize,
    tail: VecDeque<(Duration, Entry)>,
}

impl Trace {
    pub(crate) fn keeping(kept: usize) -> Self {
        Self { hash: Fnv::default(), entries: 0, kept, tail: VecDeque::new() }
    }

    /// Notes what happened so long after the start.
    pub(crate) fn note(&mut self, at: Duration, entry: Entry) {
        at.hash(&mut self.hash);
        entry.hash(&mut self.hash);
        self.entries += 1;
        if self.tail.len() >= self.kept {
            self.tail.pop_front();
        }
        self.tail.push_back((at, entry));
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, entry) in &self.tail {
            writeln!(formatter, "{:>12.3} s  {entry}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(what) => write!(formatter, "NODE {what}"),
            Self::Fault(what, size) => write!(formatter, "FAULT {what} {size}"),
            Self::Changed(what, number) => write!(formatter, "owner of endpoint {number}: {what}"),
            Self::Published(number, None) => write!(formatter, "publication {number} given up"),
            Self::Published(number, Some(message)) => {
                write!(formatter, "publication {number} acknowledged: {}", end(&message.to_string()))
            }
            Self::Claimed(count, out) => write!(formatter, "claimed {count}, {out} leases out"),
            Self::Started(delivery, number) => write!(formatter, "started {} #{number}", name(*delivery)),
            Self::Arrived(number, delivery) => {
                write!(formatter, "arrived {} at endpoint {number}", name(*delivery))
            }
            Self::Answered(delivery, outcome, status) => {
                let status = status.map(|status| format!(" {status}")).unwrap_or_default();
                write!(formatter, "answered {} {}{status}", name(*delivery), outcome.name())
            }
            Self::Recorded(delivery, number, true) => {
                write!(formatter, "recorded {} #{number}", name(*delivery))
            }
            Self::Recorded(delivery, number, false) => {
                write!(formatter, "superseded {} #{number}", name(*delivery))
            }
            Self::Released(delivery) => write!(formatter, "released {}", name(*delivery)),
        }
    }
}

/// A delivery, as short as it can be told from others.
pub(crate) fn name(delivery: DeliveryId) -> String {
    let DeliveryId { message, endpoint, generation } = delivery;
    format!("{}>{}/{generation}", end(&message.to_string()), end(&endpoint.to_string()))
}

/// The last characters of an id.
fn end(id: &str) -> &str {
    &id[id.len().saturating_sub(5)..]
}

/// FNV-1a: the same in every process, unlike the hasher of maps.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
