//! Lanes that come to this node and leave it: a node serves the endpoints of its shards only.

use super::{Agenda, Entry, Lane, Part};
use postrider_model::{
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};

impl Agenda {
    /// The database has something for this endpoint, counted or not: what wake-ups and looks around bring. Without
    /// `held` it is held as before.
    pub fn lies_in_database(
        &mut self,
        application: ApplicationId,
        endpoint: EndpointId,
        part: Part,
        held: Option<bool>,
        due: Timestamp,
        now: Timestamp,
    ) {
        let lane = self.lanes.entry(endpoint).or_insert_with(|| Box::new(Lane::new(application)));
        lane.held = held.unwrap_or(lane.held);
        lane.lies_on_disk(part, due);
        self.settle(endpoint, Entry::Last, now);
    }

    /// Counted anew.
    pub fn count(&mut self, pending: u64) {
        self.pending = pending;
    }

    /// So many more pending deliveries, which others accepted.
    pub fn counted(&mut self, more: u64) {
        self.pending += more;
    }

    /// No new lease of these endpoints: they leave.
    pub fn leave(&mut self, of: impl Fn(EndpointId) -> bool, now: Timestamp) {
        for endpoint in self.endpoints() {
            if of(endpoint) {
                self.hold(endpoint, true, now);
            }
        }
    }

    /// Leases of these endpoints that are out.
    pub fn leases_of(&self, of: impl Fn(EndpointId) -> bool) -> usize {
        self.leases.keys().filter(|delivery| of(delivery.endpoint)).count()
    }

    /// These endpoints have left.
    pub fn forget(&mut self, of: impl Fn(EndpointId) -> bool) {
        for endpoint in self.endpoints() {
            if of(endpoint) {
                self.drop_lane(endpoint);
            }
        }
        self.leases.retain(|delivery, _| !of(delivery.endpoint));
    }
}
