//! Whose turn it is: applications in a ring, each with a ring of its lanes that have something due.
//!
//! Deficit round robin where every delivery costs the same: an application's turn is worth a number of deliveries, shared
//! by its lanes in turn; what a claim leaves of it for want of room is there at the next. An application with a thousand
//! busy endpoints has as many turns as one with a single endpoint.
//!
//! Who comes with a fresh message after a pause goes before those with a backlog, once: after its turn it stands in the
//! ring like any other, with or without work, and until it has been round it is nobody new. So a backlog delays live
//! traffic by no round of the ring, and whoever always has something small does not keep a backlog waiting.

use super::{Agenda, deferrals::Who, ids::IdMap, lane::Standing};
use postrider_model::{
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use std::collections::VecDeque;

/// Lanes that are looked at for the oldest due delivery.
const LOOKED_AT: usize = 10_000;

/// See above. An application is known here while it stands in the ring or has lanes in its own.
#[derive(Debug, Default)]
pub(super) struct Turns {
    applications: IdMap<ApplicationId, Application>,
    ring: Ring<ApplicationId>,
    /// Lanes in all rings.
    lanes: usize,
}

#[derive(Debug, Default)]
struct Application {
    ring: Ring<EndpointId>,
    in_ring: bool,
    /// It is deferred, and looked at again then.
    in_future: Option<Timestamp>,
    /// Deliveries that are left of its turn.
    credit: usize,
}

/// A ring with a front part for newcomers.
#[derive(Debug)]
struct Ring<T> {
    new: VecDeque<T>,
    round: VecDeque<T>,
}

/// Where one enters a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Before those with a backlog.
    New,
    /// At the end.
    Last,
}

/// What a look for the next turn found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    Turn(Turn),
    /// Nobody has anything due.
    Nobody,
    /// So many had to leave the ring that others may want to go on first.
    Later,
}

/// What a turn may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) application: ApplicationId,
    pub(super) endpoint: EndpointId,
    /// Deliveries.
    pub(super) most: usize,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { new: VecDeque::new(), round: VecDeque::new() }
    }
}

impl<T: Copy> Ring<T> {
    fn len(&self) -> usize {
        self.new.len() + self.round.len()
    }

    fn front(&self) -> Option<T> {
        self.new.front().or(self.round.front()).copied()
    }

    fn pop_front(&mut self) -> Option<T> {
        self.new.pop_front().or_else(|| self.round.pop_front())
    }

    fn push(&mut self, item: T, entry: Entry) {
        match entry {
            Entry::New => self.new.push_back(item),
            Entry::Last => self.round.push_back(item),
        }
    }

    /// The one in front goes to the end.
    fn pass_on(&mut self) {
        if let Some(item) = self.pop_front() {
            self.round.push_back(item);
        }
    }
}

impl Turns {
    /// Applications in the ring.
    pub(super) fn applications(&self) -> usize {
        self.ring.len()
    }

    /// Lanes in the rings of all applications, those of deferred ones too.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// The lane in front has had its turn and used so much of its application's.
    pub(super) fn had_turn(&mut self, turn: Turn, used: usize) {
        let Some(application) = self.applications.get_mut(&turn.application) else { return };
        application.ring.pass_on();
        application.credit = application.credit.saturating_sub(used);
        if application.credit == 0 {
            self.ring.pass_on();
        }
    }

    /// The lane in front has used so much and is not through: it stays.
    pub(super) fn stay(&mut self, turn: Turn, used: usize) {
        if let Some(application) = self.applications.get_mut(&turn.application) {
            // Something is left, else another turn would begin.
            application.credit = application.credit.saturating_sub(used).max(1);
        }
    }
}

impl Agenda {
    /// The lane has something due: it enters its application's ring.
    pub(super) fn enter_ring(
        &mut self,
        application: ApplicationId,
        endpoint: EndpointId,
        entry: Entry,
        now: Timestamp,
    ) {
        let known = self.turns.applications.entry(application).or_default();
        known.ring.push(endpoint, entry);
        self.turns.lanes += 1;
        if !known.in_ring {
            self.settle_application(application, entry, now);
        }
    }

    /// Puts an application where it belongs: into the ring, into the future when it is deferred, or away when none of its
    /// lanes has anything due.
    pub(super) fn settle_application(&mut self, id: ApplicationId, entry: Entry, now: Timestamp) {
        let Some(application) = self.turns.applications.get_mut(&id) else { return };
        let who = Who::Application(id);
        if let Some(until) = application.in_future.take() {
            self.future.remove(&(until, who));
        }
        // One in the ring that is deferred leaves it when its turn comes.
        if application.in_ring {
            return;
        }
        if application.ring.len() == 0 {
            self.turns.applications.remove(&id);
            return;
        }
        match self.deferrals.of(who) {
            Some(until) if until > now => {
                application.in_future = Some(until);
                self.future.insert((until, who));
            }
            _ => {
                application.in_ring = true;
                application.credit = 0;
                self.turns.ring.push(id, entry);
            }
        }
    }

    /// The next turn; an application that begins one gets `quantum`. Who stands in front and cannot take a turn leaves the
    /// ring here, once for each time that it entered; `looks` bounds how many.
    pub(super) fn next_turn(&mut self, quantum: usize, looks: &mut usize, now: Timestamp) -> Next {
        while let Some(id) = self.turns.ring.front() {
            let deferred = self.deferrals.of(Who::Application(id)).is_some_and(|until| until > now);
            let first = if deferred { None } else { self.first_lane(id, looks, now, now) };
            if *looks == 0 {
                return Next::Later;
            }
            *looks -= 1;
            let Some(application) = self.turns.applications.get_mut(&id) else {
                self.turns.ring.pop_front();
                continue;
            };
            if let Some(endpoint) = first {
                if application.credit == 0 || application.credit > quantum {
                    application.credit = quantum;
                }
                let share = (quantum / application.ring.len()).max(1);
                let most = application.credit.min(share);
                return Next::Turn(Turn { application: id, endpoint, most });
            }
            application.credit = 0;
            // A newcomer without work goes round once all the same.
            if !deferred && !self.turns.ring.new.is_empty() {
                self.turns.ring.pass_on();
                continue;
            }
            application.in_ring = false;
            self.turns.ring.pop_front();
            self.settle_application(id, Entry::Last, now);
        }
        Next::Nobody
    }

    /// The first lane of an application's ring that can be claimed from at `at`. Those before it leave, as long as there
    /// are looks left.
    pub(super) fn first_lane(
        &mut self,
        id: ApplicationId,
        looks: &mut usize,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<EndpointId> {
        while *looks > 0 {
            let endpoint = self.turns.applications.get(&id)?.ring.front()?;
            if self.standing(endpoint, at) == Standing::Due {
                return Some(endpoint);
            }
            *looks -= 1;
            self.turns.applications.get_mut(&id)?.ring.pop_front();
            self.turns.lanes -= 1;
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.in_ring = false;
            }
            self.settle(endpoint, Entry::Last, now);
        }
        None
    }

    /// Lanes that may have something due: those in the rings of applications that have turns, and those that have become
    /// due since the last claim or are being read.
    fn perhaps_due(&self, now: Timestamp) -> impl Iterator<Item = EndpointId> {
        let of = |id: &ApplicationId| {
            let ring = self.turns.applications.get(id).map(|application| &application.ring);
            ring.into_iter().flat_map(|ring| ring.new.iter().chain(&ring.round)).copied()
        };
        let in_turn = self.turns.ring.new.iter().chain(&self.turns.ring.round).flat_map(of);
        let woken = self.future.iter().take_while(move |(due, _)| *due <= now);
        let woken = woken.flat_map(move |(_, who)| {
            let (lane, lanes) = match who {
                Who::Endpoint(endpoint) => (Some(*endpoint), None),
                Who::Application(application) => (None, Some(of(application))),
            };
            lane.into_iter().chain(lanes.into_iter().flatten())
        });
        in_turn.chain(woken).chain(self.readings.iter().map(|(endpoint, _)| *endpoint))
    }

    /// When the earliest due delivery became due that could be claimed but is not. Of more than 10,000 lanes that have
    /// something due, those are looked at whose turn comes first.
    pub fn oldest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let claimable = |endpoint: EndpointId| {
            let lane = self.lanes.get(&endpoint)?;
            let may = !lane.held
                && lane.leased.len() < self.bounds.of(endpoint)
                && self.deferred(endpoint, lane).is_none_or(|until| until <= now);
            lane.next_due().filter(|_| may)
        };
        self.perhaps_due(now).take(LOOKED_AT).filter_map(claimable).min().filter(|due| *due <= now)
    }
}
