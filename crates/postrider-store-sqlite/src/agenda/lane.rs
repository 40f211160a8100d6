//! The lane of one endpoint.

use super::{Handed, LANE_QUEUE, earlier};
use postrider_model::{
    delivery::DeliveryId,
    id::{ApplicationId, MessageId},
    time::Timestamp,
};
use std::collections::{HashSet, VecDeque};

/// Where a lane belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Into the ring: something is due, and it may be claimed.
    Due,
    /// Into the future.
    Later(Timestamp),
    /// Nowhere: nothing is to be done before something else changes.
    Nowhere,
}

/// See [the agenda](super).
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) application: ApplicationId,
    /// The endpoint is disabled.
    pub(super) held: bool,
    /// Complete in memory, in the order in which they are served.
    pub(super) queue: VecDeque<Handed>,
    /// Bytes of the queue.
    pub(super) queued_bytes: usize,
    /// No delivery that lies only in the database is due earlier.
    pub(super) disk_due: Option<Timestamp>,
    pub(super) leased: HashSet<DeliveryId>,
    /// The youngest message that a reader found.
    newest_found: Option<MessageId>,
    /// A reader is looking for due deliveries.
    pub(super) reading: Option<Reading>,
    pub(super) in_ring: bool,
    pub(super) in_future: Option<Timestamp>,
}

/// What a running reader may not have seen.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The earliest due time that came since.
    pub(super) added: Option<Timestamp>,
    /// Deliveries that ended or were leased back since.
    pub(super) ended: HashSet<DeliveryId>,
}

impl Lane {
    pub(super) fn new(application: ApplicationId) -> Self {
        Self {
            application,
            held: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            disk_due: None,
            leased: HashSet::new(),
            newest_found: None,
            reading: None,
            in_ring: false,
            in_future: None,
        }
    }

    /// Where it belongs when `bound` leases may be out and it is deferred until then.
    pub(super) fn standing(&self, bound: usize, deferred: Option<Timestamp>, now: Timestamp) -> Standing {
        if self.held || self.reading.is_some() || self.leased.len() >= bound {
            return Standing::Nowhere;
        }
        match self.next_due().map(|due| deferred.map_or(due, |until| due.max(until))) {
            None => Standing::Nowhere,
            Some(due) if due > now => Standing::Later(due),
            Some(_) => Standing::Due,
        }
    }

    /// Can a delivery that is due at `due` go into the queue? Not past older ones that lie in the database.
    pub(super) fn takes(&self, due: Timestamp, now: Timestamp) -> bool {
        !self.held
            && self.reading.is_none()
            && due <= now
            && self.disk_due.is_none_or(|disk| disk > now)
            && self.queue.len() < LANE_QUEUE
    }

    /// To the end of the queue.
    pub(super) fn push(&mut self, handed: Handed) {
        self.queued_bytes += handed.size();
        self.queue.push_back(handed);
    }

    /// To the end of the queue, from the database.
    pub(super) fn found(&mut self, handed: Handed) {
        self.newest_found = self.newest_found.max(Some(handed.delivery.message));
        self.push(handed);
    }

    /// Is the delivery queued or leased already? Only a reader can have been quicker than the hand-over, so that the
    /// usual case needs no look.
    pub(super) fn knows(&self, delivery: &DeliveryId) -> bool {
        self.newest_found >= Some(delivery.message)
            && (self.leased.contains(delivery)
                || self.queue.iter().any(|handed| handed.delivery == *delivery))
    }

    /// From the front of the queue.
    pub(super) fn pop(&mut self) -> Option<Handed> {
        let handed = self.queue.pop_front()?;
        self.queued_bytes -= handed.size();
        Some(handed)
    }

    /// Takes a delivery out of the queue, wherever it stands; returns its bytes.
    pub(super) fn take_out(&mut self, delivery: DeliveryId) -> usize {
        let found = self.queue.iter().position(|handed| handed.delivery == delivery);
        let bytes = found.and_then(|at| self.queue.remove(at)).map_or(0, |handed| handed.size());
        self.queued_bytes -= bytes;
        bytes
    }

    /// Forgets what is complete in memory; it lies in the database too.
    pub(super) fn queue_to_disk(&mut self) {
        while let Some(handed) = self.pop() {
            self.lies_on_disk(handed.due_at);
        }
    }

    /// Something due then lies in the database only.
    pub(super) fn lies_on_disk(&mut self, due: Timestamp) {
        self.disk_due = earlier(self.disk_due, Some(due));
        if let Some(reading) = &mut self.reading {
            reading.added = earlier(reading.added, Some(due));
        }
    }

    /// A delivery is no longer what a running reader may take it for.
    pub(super) fn ended(&mut self, delivery: DeliveryId) {
        if let Some(reading) = &mut self.reading {
            reading.ended.insert(delivery);
        }
    }

    /// Nothing in memory, but something due in the database.
    pub(super) fn must_be_read(&self, now: Timestamp) -> bool {
        !self.held
            && self.queue.is_empty()
            && self.reading.is_none()
            && self.disk_due.is_some_and(|due| due <= now)
    }

    /// Starts a reading; stands nowhere for its time.
    pub(super) fn begin_reading(&mut self) {
        self.reading = Some(Reading::default());
    }

    /// When the next delivery that no lease covers is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        earlier(self.queue.front().map(|handed| handed.due_at), self.disk_due)
    }

    /// Nothing left to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.disk_due.is_none() && self.leased.is_empty() && self.reading.is_none()
    }
}
