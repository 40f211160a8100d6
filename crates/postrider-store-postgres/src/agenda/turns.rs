//! Whose turn it is: applications in a ring, each with a ring of its lanes that have something due.
//!
//! Deficit round robin where every delivery costs the same: an application's turn is worth a number of deliveries, shared
//! by its lanes in turn; what a claim leaves of it for want of room is there at the next. An application with a thousand busy endpoints has as many
//! turns as one with a single endpoint.

use super::{Agenda, deferrals::Who, lane::Standing};
use postrider_model::{
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use std::collections::{HashMap, VecDeque};

/// See above. An application is known here while it has lanes with something due.
#[derive(Debug, Default)]
pub(super) struct Turns {
    applications: HashMap<ApplicationId, Application>,
    ring: VecDeque<ApplicationId>,
    /// Lanes in all rings.
    lanes: usize,
}

#[derive(Debug, Default)]
struct Application {
    ring: VecDeque<EndpointId>,
    in_ring: bool,
    /// It is deferred, and looked at again then.
    in_future: Option<Timestamp>,
    /// Deliveries that are left of its turn.
    credit: usize,
}

/// What a turn may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) application: ApplicationId,
    pub(super) endpoint: EndpointId,
    /// Deliveries.
    pub(super) most: usize,
}

impl Turns {
    /// Applications that have a turn.
    pub(super) fn applications(&self) -> usize {
        self.ring.len()
    }

    /// Lanes that have a turn, those of deferred applications too.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// The lane in front has had its turn, or cannot take it: it leaves, and has used so much.
    pub(super) fn leave(&mut self, application: ApplicationId, used: usize) {
        let Some(application) = self.applications.get_mut(&application) else { return };
        application.credit = application.credit.saturating_sub(used);
        self.lanes -= usize::from(application.ring.pop_front().is_some());
    }

    /// The lane in front has used so much and is not through: it stays.
    pub(super) fn stay(&mut self, turn: Turn, used: usize) {
        if let Some(application) = self.applications.get_mut(&turn.application) {
            // Something is left, else another turn would begin.
            application.credit = application.credit.saturating_sub(used).max(1);
        }
    }

    /// The application in front has used its turn up: it goes to the end of the ring.
    pub(super) fn pass_on(&mut self, turn: Turn) {
        if let Some(application) = self.applications.get(&turn.application)
            && application.credit == 0
            && application.in_ring
            && self.ring.front() == Some(&turn.application)
        {
            self.ring.rotate_left(1);
        }
    }
}

impl Agenda {
    /// The lane has something due: it stands at the end of its application's ring.
    pub(super) fn enter_ring(&mut self, application: ApplicationId, endpoint: EndpointId, now: Timestamp) {
        let known = self.turns.applications.entry(application).or_default();
        known.ring.push_back(endpoint);
        self.turns.lanes += 1;
        if !known.in_ring {
            self.settle_application(application, now);
        }
    }

    /// Puts an application that has lanes with something due where it belongs: into the ring, or into the future when it
    /// is deferred.
    pub(super) fn settle_application(&mut self, id: ApplicationId, now: Timestamp) {
        let Some(application) = self.turns.applications.get_mut(&id) else { return };
        let who = Who::Application(id);
        if let Some(until) = application.in_future.take() {
            self.future.remove(&(until, who));
        }
        // One in the ring that is deferred leaves it when its turn comes.
        if application.in_ring {
            return;
        }
        if application.ring.is_empty() {
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
                self.turns.ring.push_back(id);
            }
        }
    }

    /// The next turn; an application that begins one gets `quantum`. Who stands in front and cannot take a turn leaves the
    /// ring here, once for each time that it entered.
    pub(super) fn next_turn(&mut self, quantum: usize, now: Timestamp) -> Option<Turn> {
        while let Some(id) = self.turns.ring.front().copied() {
            let deferred = self.deferrals.of(Who::Application(id)).is_some_and(|until| until > now);
            let first = if deferred { None } else { self.first_lane(id, now, now) };
            if let Some(endpoint) = first
                && let Some(application) = self.turns.applications.get_mut(&id)
            {
                if application.credit == 0 || application.credit > quantum {
                    application.credit = quantum;
                }
                let share = (quantum / application.ring.len()).max(1);
                return Some(Turn { application: id, endpoint, most: application.credit.min(share) });
            }
            self.turns.ring.pop_front();
            if let Some(application) = self.turns.applications.get_mut(&id) {
                application.in_ring = false;
            }
            self.settle_application(id, now);
        }
        None
    }

    /// The first lane of an application's ring that can be claimed from at `at`. Those before it leave.
    pub(super) fn first_lane(
        &mut self,
        id: ApplicationId,
        at: Timestamp,
        now: Timestamp,
    ) -> Option<EndpointId> {
        loop {
            let endpoint = *self.turns.applications.get(&id)?.ring.front()?;
            if self.standing(endpoint, at) == Standing::Due {
                return Some(endpoint);
            }
            self.turns.leave(id, 0);
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.in_ring = false;
            }
            self.settle(endpoint, now);
        }
    }
}
