//! Development only: a whole server in the test's process, scripted receivers, a clock that can be moved.
//!
//! The cast:
//! - [`TestServer`]: the real parts wired as the binary wires them, on a random port and a temporary database;
//! - [`Backend`]: SQLite or PostgreSQL below it; [`Way`]: the way to PostgreSQL, which can be cut;
//! - [`Client`]: a small JSON client for it;
//! - [`Receiver`]: a customer's endpoint that follows a [`Reply`] script and records what it got, spelling included;
//! - [`StubDns`]: names that lead where the test says;
//! - [`TestClock`]: moves the server's clock through every due time on the way;
//! - [`Attempts`]: the history of a message, oldest first;
//! - [`disk`]: a disk that loses its power, or reports errors; [`power`]: the rig that runs the store on it.
//!
//! ```no_run
//! # use postrider_testing::{TestServer, hours};
//! # use serde_json::json;
//! # async fn example() {
//! let server = TestServer::start().await;
//! let receiver = server.receiver([503, 503, 200]).await;
//! let message = server.send("invoice.paid", json!({"id": 1})).await;
//! server.clock.advance(hours(1)).await;
//! assert_eq!(server.attempts(&message).await.statuses(), [503, 503, 200]);
//! assert_eq!(receiver.requests().len(), 3);
//! # }
//! ```
//!
//! Everything here panics when something does not go as a test needs it: the message is for the reader of the test.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test helper fails by panicking")]

#[cfg(feature = "server")]
mod attempts;
#[cfg(feature = "server")]
mod backend;
#[cfg(feature = "server")]
mod certificate;
#[cfg(feature = "server")]
mod client;
#[cfg(feature = "server")]
mod clock;
pub mod disk;
#[cfg(feature = "server")]
mod dns;
pub mod power;
#[cfg(feature = "server")]
mod receiver;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod way;
#[cfg(feature = "server")]
mod wire;

#[cfg(feature = "server")]
pub use attempts::{Attempts, MessageRef};
#[cfg(feature = "server")]
pub use backend::{Backend, execute};
#[cfg(feature = "server")]
pub use certificate::Certificate;
#[cfg(feature = "server")]
pub use client::{Answer, Client};
#[cfg(feature = "server")]
pub use clock::TestClock;
#[cfg(feature = "server")]
pub use dns::StubDns;
#[cfg(feature = "server")]
pub use receiver::{Received, Receiver, Reply};
#[cfg(feature = "server")]
pub use server::{App, Endpoint, TestServer};
#[cfg(feature = "server")]
pub use way::{Traffic, Way};

use std::time::Duration;

/// So many seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many minutes.
pub const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// So many hours.
pub const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// So many days.
pub const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}
