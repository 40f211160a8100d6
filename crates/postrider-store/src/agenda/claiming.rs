//! Claims against the agenda: what is leased, one turn after the other, which lanes are to be read, and what they gave.

use super::{
    Agenda, Found, LOOKS, Leased, Part, READ_AHEAD, READ_ROWS, READINGS, TURN, Taken, Wanted,
    bounds::Grown,
    deferrals::Who,
    lane::Unknown,
    turns::{Entry, Next, Turn},
};
use crate::deliveries::{Lease, Room};
use postrider_model::{id::EndpointId, time::Timestamp};

impl Agenda {
    /// Leases what there is room for of what memory has, one turn after the other. Lanes that have more in the database are
    /// to be read; they stand nowhere until [`Self::found`] or [`Self::not_found`].
    pub fn take(&mut self, room: &Room, now: Timestamp) -> Taken {
        self.hear(room, now);
        self.wake(now);
        let mut taken = Taken::default();
        let mut bytes = room.bytes;
        let quantum = room.total.checked_div(self.turns.applications()).unwrap_or(0).clamp(1, TURN);
        let rows = READ_ROWS.checked_div(self.turns.lanes()).unwrap_or(0);
        let rows = rows.clamp(*READ_AHEAD.start(), *READ_AHEAD.end());
        let mut looks = LOOKS;
        loop {
            let turn = match self.next_turn(quantum, &mut looks, now) {
                Next::Turn(turn) => turn,
                Next::Nobody => break,
                Next::Later => {
                    taken.cut = true;
                    taken.next_due = Some(now);
                    break;
                }
            };
            if taken.deliveries.len() >= room.total || self.readings.len() >= READINGS {
                taken.next_due = Some(now);
                break;
            }
            let turn = Turn { most: turn.most.min(room.total - taken.deliveries.len()), ..turn };
            let (used, too_large) = self.take_from(turn, &mut bytes, now, &mut taken);
            if too_large {
                self.turns.stay(turn, used);
                taken.next_due = Some(now);
                break;
            }
            self.read_ahead(turn.endpoint, rows, now, &mut taken);
            self.turns.had_turn(turn, used);
        }
        if taken.next_due.is_none() {
            taken.next_due = self.next_in_future(now);
            taken.cut = taken.next_due.is_some_and(|due| due <= now);
        }
        taken.reads = !self.readings.is_empty();
        taken
    }

    /// Returns how much of the turn was used, and whether the next delivery is too large for what is left of the claim.
    fn take_from(
        &mut self,
        turn: Turn,
        bytes: &mut usize,
        now: Timestamp,
        taken: &mut Taken,
    ) -> (usize, bool) {
        let bound = self.bounds.of(turn.endpoint);
        let Some(lane) = self.lanes.get_mut(&turn.endpoint) else { return (0, false) };
        let mut used = 0;
        while used < turn.most
            && lane.leased.len() < bound
            && let Some(next) = lane.peek()
        {
            if next.payload_bytes() > *bytes && !taken.deliveries.is_empty() {
                return (used, true);
            }
            let Some(handed) = lane.pop() else { break };
            self.queued_bytes -= handed.size();
            self.epoch += 1;
            let lease = Lease { delivery: handed.delivery, epoch: self.epoch };
            lane.leased.insert(handed.delivery);
            let (due_at, part) = (handed.due_at, handed.part());
            let leased = Leased { epoch: self.epoch, due_at, slot: None, part, void: false };
            self.leases.insert(handed.delivery, leased);
            if handed.payload.is_none() || handed.deadline_at < now {
                taken.dead.push((lease, handed));
            } else {
                *bytes = bytes.saturating_sub(handed.payload_bytes());
                taken.deliveries.push((lease, handed));
                used += 1;
            }
        }
        (used, false)
    }

    /// Has a lane read whose memory is used up, in time for its next turn.
    fn read_ahead(&mut self, endpoint: EndpointId, rows: usize, now: Timestamp, taken: &mut Taken) {
        let bound = self.bounds.of(endpoint);
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let places = bound.saturating_sub(lane.leased.len());
        if places == 0 {
            return;
        }
        // More than has a place now is read while there is memory for it: one reading serves many claims.
        let most = if self.queued_bytes < self.queue_budget / 2 { rows } else { rows.min(places) };
        for part in Part::ALL {
            if lane.must_be_read(part, now) {
                lane.begin_reading(part);
                self.readings.insert((endpoint, part));
                taken.wanted.push(Wanted {
                    endpoint,
                    part,
                    most,
                    leased: lane.leased.iter().copied().collect(),
                });
            }
        }
    }

    /// A part of a lane was read.
    pub fn found(&mut self, found: Found, now: Timestamp) {
        let Found { endpoint, part, deliveries, next } = found;
        self.readings.remove(&(endpoint, part));
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && let Some(ended) = lane.end_reading(part, Ok(next))
        {
            for handed in deliveries {
                if ended.contains(&handed.delivery) || lane.leased.contains(&handed.delivery) {
                    continue;
                }
                if lane.held {
                    lane.lies_on_disk(part, handed.due_at);
                } else {
                    self.queued_bytes += handed.size();
                    lane.found(handed);
                }
            }
        }
        self.settle(endpoint, Entry::Last, now);
    }

    /// A part of a lane could not be read: it stands as before.
    pub fn not_found(&mut self, endpoint: EndpointId, part: Part, now: Timestamp) {
        self.readings.remove(&(endpoint, part));
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.end_reading(part, Err(Unknown));
        }
        self.settle(endpoint, Entry::Last, now);
    }

    /// What the claimer says of its room counts from now on.
    fn hear(&mut self, room: &Room, now: Timestamp) {
        let grown = match self.bounds.heard(room) {
            Grown::These(endpoints) => endpoints,
            Grown::All => self.lanes.keys().copied().collect(),
        };
        for endpoint in grown {
            self.settle(endpoint, Entry::Last, now);
        }
    }

    /// What has become due takes its place in the ring.
    fn wake(&mut self, now: Timestamp) {
        self.deferrals.forget_ended(now);
        for _ in 0..LOOKS {
            let Some((_, who)) = self.future.first().copied().filter(|(due, _)| *due <= now) else { break };
            self.future.pop_first();
            self.settle_anyone(who, now);
        }
    }

    /// When somebody is due next. A lane that is due before its application's deferral ends joins the ring of its
    /// application early, where it is not in the way.
    fn next_in_future(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut looks = LOOKS;
        while let Some((due, who)) = self.future.first().copied() {
            if looks == 0 || due <= now {
                return Some(due);
            }
            looks -= 1;
            match who {
                Who::Endpoint(endpoint) => {
                    let Some(lane) = self.lanes.get_mut(&endpoint) else { return Some(due) };
                    let application = lane.application;
                    if self.deferrals.of(Who::Application(application)).is_none_or(|until| until <= due) {
                        return Some(due);
                    }
                    self.future.pop_first();
                    lane.in_future = None;
                    lane.in_ring = true;
                    self.enter_ring(application, endpoint, Entry::Last, now);
                }
                Who::Application(application) => {
                    if self.first_lane(application, &mut looks, due, now).is_some() {
                        return Some(due);
                    }
                    self.settle_application(application, Entry::Last, now);
                }
            }
        }
        None
    }
}
