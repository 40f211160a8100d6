//! How many leases each lane may have out, as the last claim said.

use super::ids::{IdMap, IdSet};
use crate::deliveries::Room;
use postrider_model::id::EndpointId;

/// What the claimer said of its room. Kept, so that a lane that cannot start anything takes no turn, and compared with
/// what the next claim says: the usual one says the same, and costs nothing.
#[derive(Debug)]
pub(super) struct Bounds {
    per_endpoint: usize,
    /// Lanes with a bound of their own.
    wide: IdMap<EndpointId, usize>,
    /// Lanes that can start nothing.
    full: IdSet<EndpointId>,
    /// The same, as it was said.
    said_full: Vec<EndpointId>,
}

/// Whose bound may have grown: they may have a turn again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grown {
    /// Everybody's.
    All,
    /// Theirs.
    These(Vec<EndpointId>),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            per_endpoint: usize::MAX,
            wide: IdMap::default(),
            full: IdSet::default(),
            said_full: Vec::new(),
        }
    }
}

impl Bounds {
    /// How many leases a lane may have out.
    pub(super) fn of(&self, endpoint: EndpointId) -> usize {
        if self.full.contains(&endpoint) {
            return 0;
        }
        self.wide.get(&endpoint).copied().unwrap_or(self.per_endpoint)
    }

    /// What the claimer says now counts.
    pub(super) fn heard(&mut self, room: &Room) -> Grown {
        let mut grown = Vec::new();
        self.hear_full(room, &mut grown);
        self.hear_wide(room, &mut grown);
        if self.per_endpoint == room.per_endpoint {
            return Grown::These(grown);
        }
        self.per_endpoint = room.per_endpoint;
        Grown::All
    }

    fn hear_full(&mut self, room: &Room, grown: &mut Vec<EndpointId>) {
        if self.said_full == room.full {
            return;
        }
        let full: IdSet<EndpointId> = room.full.iter().copied().collect();
        grown.extend(self.full.difference(&full));
        self.full = full;
        self.said_full.clone_from(&room.full);
    }

    fn hear_wide(&mut self, room: &Room, grown: &mut Vec<EndpointId>) {
        for (endpoint, bound) in &room.wide {
            let before = self.wide.get(endpoint).copied();
            if before == Some(*bound) {
                continue;
            }
            self.wide.insert(*endpoint, *bound);
            if before.unwrap_or(self.per_endpoint) < *bound {
                grown.push(*endpoint);
            }
        }
        // All of `room.wide` are in: more can only be those that were said before.
        if self.wide.len() > room.wide.len() {
            self.wide.retain(|endpoint, bound| {
                let stays = room.wide.contains_key(endpoint);
                if !stays && *bound < self.per_endpoint {
                    grown.push(*endpoint);
                }
                stays
            });
        }
    }
}
