//! What only the memory of a process knows, and a crash forgets.

use postrider_model::{
    delivery::DeliveryId,
    id::{ApplicationId, EndpointId},
    time::Timestamp,
};
use postrider_store::deliveries::{Deferred, Lease, Room};
use std::collections::{BTreeMap, HashMap};

/// The memory of a process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) closed: bool,
    /// Leases that are out, and how many of each endpoint.
    pub(super) leases: BTreeMap<DeliveryId, Lease>,
    leased_of: BTreeMap<EndpointId, usize>,
    /// Whose deliveries wait until when.
    pub(super) deferred: HashMap<Deferred, Timestamp>,
    /// What the last claim had room for.
    pub(super) room: Option<Room>,
    /// Turns so far, and the turn in which an application, an endpoint, an endpoint's retry was served last.
    pub(super) turn: u64,
    pub(super) served_applications: BTreeMap<ApplicationId, u64>,
    pub(super) served_endpoints: BTreeMap<EndpointId, u64>,
    pub(super) last_was_retry: BTreeMap<EndpointId, bool>,
    /// The latest time that anything was done at: later than now after the clock was set back.
    pub(super) latest: Timestamp,
}

impl Memory {
    /// Is this the claim of the delivery that counts?
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.delivery) == Some(lease)
    }

    /// Leases of an endpoint that are out.
    pub(super) fn leased_of(&self, endpoint: EndpointId) -> usize {
        self.leased_of.get(&endpoint).copied().unwrap_or(0)
    }

    /// A lease goes out.
    pub(super) fn give(&mut self, lease: Lease) {
        self.leases.insert(lease.delivery, lease);
        *self.leased_of.entry(lease.delivery.endpoint).or_default() += 1;
    }

    /// A lease comes back.
    pub(super) fn take_back(&mut self, lease: &Lease) {
        if self.leases.remove(&lease.delivery).is_some()
            && let Some(leased) = self.leased_of.get_mut(&lease.delivery.endpoint)
        {
            *leased -= 1;
        }
    }

    /// Nothing of the endpoint is claimed before this instant.
    pub(super) fn deferred_until(&self, endpoint: EndpointId, application: ApplicationId) -> Timestamp {
        let of = |whose| self.deferred.get(&whose).copied().unwrap_or_default();
        of(Deferred::Endpoint(endpoint)).max(of(Deferred::Application(application)))
    }
}

/// How many leases an endpoint may have out.
pub(super) fn places(room: &Room, endpoint: EndpointId) -> usize {
    if room.full.contains(&endpoint) {
        return 0;
    }
    room.wide.get(&endpoint).copied().unwrap_or(room.per_endpoint)
}
