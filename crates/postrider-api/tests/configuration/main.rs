//! The configuration routes of the API over the embedded store, without sockets: requests go straight to the router.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod applications;
mod authentication;
mod credentials;
mod endpoints;
mod event_types;
mod harness;
mod transport;
