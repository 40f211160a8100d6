//! Behaviours of deliveries.
