//! The product as a whole, grouped by behaviour: the real parts, scripted receivers, a clock that is moved.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accepting;
mod authenticating;
mod blocking;
mod breaking;
mod canaries;
mod changing;
mod configuring;
mod connections;
mod damaged;
mod delivering;
mod disabling;
mod documents;
mod embedded;
mod history;
mod isolating;
mod oauth;
mod operating;
mod overload;
mod process;
mod requests;
mod retention;
mod retrying;
mod shared;
mod surviving;
mod tenancy;
mod throttling;
