//! The lane of one endpoint: first attempts and retries, each with a queue of their own.

use super::{Handed, LANE_QUEUE, Part, earlier, ids::IdSet};
use crate::hold;
use postrider_model::{
    delivery::DeliveryId,
    id::{ApplicationId, MessageId},
    time::Timestamp,
};
use std::collections::VecDeque;

/// Places that an empty queue keeps, some 200 bytes each.
const KEPT_PLACES: usize = 8;

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
    first: Half,
    retries: Half,
    /// Whose turn it is when both have something.
    next: Part,
    /// Bytes of the queues.
    pub(super) queued_bytes: usize,
    pub(super) leased: IdSet<DeliveryId>,
    /// The youngest message that a reader found.
    newest_found: Option<MessageId>,
    pub(super) in_ring: bool,
    pub(super) in_future: Option<Timestamp>,
}

/// Either part of a lane.
#[derive(Debug, Default)]
struct Half {
    /// Complete in memory, in the order in which they are served.
    queue: VecDeque<Handed>,
    /// No delivery that lies only in the database is due earlier.
    disk_due: Option<Timestamp>,
    /// A reader is looking for due deliveries: then the queue is empty.
    reading: Option<Box<Reading>>,
}

/// What a running reader may not have seen.
#[derive(Debug, Default)]
struct Reading {
    /// The earliest due time that came since.
    added: Option<Timestamp>,
    /// Deliveries that ended or were leased back since.
    ended: IdSet<DeliveryId>,
}

impl Half {
    fn next_due(&self) -> Option<Timestamp> {
        earlier(self.queue.front().map(|handed| handed.due_at), self.disk_due)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.disk_due.is_none() && self.reading.is_none()
    }

    fn lies_on_disk(&mut self, due: Timestamp) {
        // What is on hold is nothing to come back for.
        if hold::is_on(due) {
            return;
        }
        self.disk_due = earlier(self.disk_due, Some(due));
        if let Some(reading) = &mut self.reading {
            reading.added = earlier(reading.added, Some(due));
        }
    }
}

impl Lane {
    pub(super) fn new(application: ApplicationId) -> Self {
        Self {
            application,
            held: false,
            first: Half::default(),
            retries: Half::default(),
            next: Part::First,
            queued_bytes: 0,
            leased: IdSet::default(),
            newest_found: None,
            in_ring: false,
            in_future: None,
        }
    }

    fn half(&self, part: Part) -> &Half {
        match part {
            Part::First => &self.first,
            Part::Retries => &self.retries,
        }
    }

    fn half_mut(&mut self, part: Part) -> &mut Half {
        match part {
            Part::First => &mut self.first,
            Part::Retries => &mut self.retries,
        }
    }

    fn halves_mut(&mut self) -> [&mut Half; 2] {
        [&mut self.first, &mut self.retries]
    }

    /// Where it belongs when `bound` leases may be out and it is deferred until then.
    pub(super) fn standing(&self, bound: usize, deferred: Option<Timestamp>, now: Timestamp) -> Standing {
        if self.held || self.leased.len() >= bound {
            return Standing::Nowhere;
        }
        // What a reader is at is known when it is done.
        let due = |half: &Half| half.next_due().filter(|_| half.reading.is_none());
        match earlier(due(&self.first), due(&self.retries)) {
            None => Standing::Nowhere,
            Some(due) => match deferred.map_or(due, |until| due.max(until)) {
                due if due > now => Standing::Later(due),
                _ => Standing::Due,
            },
        }
    }

    /// Can a delivery that is due at `due` go into the queue? Not past older ones of its part that lie in the database.
    pub(super) fn takes(&self, part: Part, due: Timestamp, now: Timestamp) -> bool {
        let half = self.half(part);
        !self.held
            && half.reading.is_none()
            && due <= now
            && half.disk_due.is_none_or(|disk| disk > now)
            && half.queue.len() < LANE_QUEUE
    }

    /// The same for one that somebody waits for: it goes past the others, in memory and in the database.
    pub(super) fn takes_first(&self, part: Part, due: Timestamp, now: Timestamp) -> bool {
        let half = self.half(part);
        !self.held && half.reading.is_none() && due <= now && half.queue.len() < 2 * LANE_QUEUE
    }

    /// To the front of the queue.
    pub(super) fn push_first(&mut self, handed: Handed) {
        self.queued_bytes += handed.size();
        self.half_mut(handed.part()).queue.push_front(handed);
    }

    /// To the end of the queue.
    pub(super) fn push(&mut self, handed: Handed) {
        self.queued_bytes += handed.size();
        self.half_mut(handed.part()).queue.push_back(handed);
    }

    /// To the end of the queue, from the database.
    pub(super) fn found(&mut self, handed: Handed) {
        self.newest_found = self.newest_found.max(Some(handed.delivery.message));
        self.push(handed);
    }

    /// Is the delivery queued or leased already? Only a reader can have been quicker than the hand-over, so that the
    /// usual case needs no look.
    pub(super) fn knows(&self, delivery: &DeliveryId) -> bool {
        let queued = |half: &Half| half.queue.iter().any(|handed| handed.delivery == *delivery);
        self.newest_found >= Some(delivery.message)
            && (self.leased.contains(delivery) || queued(&self.first) || queued(&self.retries))
    }

    /// The part that the next delivery comes from: in turn, where both have one in memory.
    fn serves(&self) -> Part {
        if self.half(self.next).queue.is_empty() { self.next.other() } else { self.next }
    }

    /// What would be served next.
    pub(super) fn peek(&self) -> Option<&Handed> {
        self.half(self.serves()).queue.front()
    }

    /// Serves the next one.
    pub(super) fn pop(&mut self) -> Option<Handed> {
        let part = self.serves();
        let queue = &mut self.half_mut(part).queue;
        let handed = queue.pop_front()?;
        // A burst of long ago takes no memory: the lane stays as long as it has retries.
        if queue.is_empty() {
            queue.shrink_to(KEPT_PLACES);
        }
        self.next = part.other();
        self.queued_bytes -= handed.size();
        Some(handed)
    }

    /// Takes a delivery out of the queue, wherever it stands; returns its bytes.
    pub(super) fn take_out(&mut self, delivery: DeliveryId) -> usize {
        let mut bytes = 0;
        for half in self.halves_mut() {
            let found = half.queue.iter().position(|handed| handed.delivery == delivery);
            bytes += found.and_then(|at| half.queue.remove(at)).map_or(0, |handed| handed.size());
        }
        self.queued_bytes -= bytes;
        bytes
    }

    /// Forgets what is complete in memory; it lies in the database too.
    pub(super) fn queue_to_disk(&mut self) {
        for half in self.halves_mut() {
            for handed in std::mem::take(&mut half.queue) {
                half.lies_on_disk(handed.due_at);
            }
        }
        self.queued_bytes = 0;
    }

    /// Something due then lies in the database only.
    pub(super) fn lies_on_disk(&mut self, part: Part, due: Timestamp) {
        self.half_mut(part).lies_on_disk(due);
    }

    /// A delivery is no longer what a running reader may take it for.
    pub(super) fn ended(&mut self, delivery: DeliveryId) {
        for half in self.halves_mut() {
            if let Some(reading) = &mut half.reading {
                reading.ended.insert(delivery);
            }
        }
    }

    /// Nothing of this part in memory, but something due in the database.
    pub(super) fn must_be_read(&self, part: Part, now: Timestamp) -> bool {
        let half = self.half(part);
        !self.held
            && half.queue.is_empty()
            && half.reading.is_none()
            && half.disk_due.is_some_and(|due| due <= now)
    }

    /// Starts a reading; what is due of this part is not known for its time.
    pub(super) fn begin_reading(&mut self, part: Part) {
        self.half_mut(part).reading = Some(Box::default());
    }

    /// A reading ended with the earliest due time of what it left, if it knows. Returns what ended meanwhile; `None` when
    /// this lane is not the one that was read.
    pub(super) fn end_reading(
        &mut self,
        part: Part,
        left: Result<Option<Timestamp>, Unknown>,
    ) -> Option<IdSet<DeliveryId>> {
        let half = self.half_mut(part);
        let reading = half.reading.take()?;
        let left = left.unwrap_or(half.disk_due).filter(|due| !hold::is_on(*due));
        half.disk_due = earlier(left, reading.added);
        Some(reading.ended)
    }

    /// When the next delivery that no lease covers is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        earlier(self.first.next_due(), self.retries.next_due())
    }

    /// Nothing left to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.retries.is_empty() && self.leased.is_empty()
    }
}

/// A reading that told nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unknown;
