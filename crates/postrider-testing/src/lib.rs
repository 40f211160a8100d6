//! Development only: a whole server in the test's process, scripted receivers, a clock that can be moved.
//!
//! The cast:
//! - [`TestServer`]: the real parts wired as the binary wires them, on a random port and a temporary database;
//! - [`Client`]: a small JSON client for it;
//! - [`Receiver`]: a customer's endpoint that follows a [`Reply`] script and records what it got, spelling included;
//! - [`StubDns`]: names that lead where the test says;
//! - [`TestClock`]: moves the server's clock through every due time on the way;
//! - [`Attempts`]: the history of a message, oldest first.
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

mod attempts;
mod certificate;
mod client;
mod clock;
mod dns;
mod receiver;
mod server;
mod wire;

pub use attempts::{Attempts, MessageRef};
pub use certificate::Certificate;
pub use client::{Answer, Client};
pub use clock::TestClock;
pub use dns::StubDns;
pub use receiver::{Received, Receiver, Reply};
pub use server::{App, Endpoint, TestServer};

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
