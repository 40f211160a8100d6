//! An attempt: one HTTP request of a delivery and what came back. It never changes, but its response can be expunged.

use crate::{
    delivery::{DeliveryId, Trigger},
    id::AttemptId,
    outcome::Outcome,
    time::Timestamp,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long each phase of a request took; `None` when it did not happen (a reused connection has no DNS phase).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Getting an `OAuth2` access token; `None` when none was needed, (near) zero when it was cached.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<Duration>,
    /// Resolving the host name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dns: Option<Duration>,
    /// Opening the TCP connection.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connect: Option<Duration>,
    /// The TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<Duration>,
    /// From the start of writing the request to the complete response head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_byte: Option<Duration>,
}

/// One attempt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Made from the instant the attempt started.
    pub id: AttemptId,
    /// The delivery it belongs to.
    pub delivery: DeliveryId,
    /// 1 for the first attempt of the delivery.
    pub number: u32,
    /// Why it was made.
    pub trigger: Trigger,
    /// The URL that was actually used.
    pub url: String,
    /// When it started, just before the first step.
    pub started_at: Timestamp,
    /// How long it took in all.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// One sentence for a person: what happened, and where there is one, the way out. Empty on success. No secrets.
    pub detail: String,
    /// HTTP status, when a status line arrived.
    pub status: Option<u16>,
    /// What was kept of the response body, secrets of this attempt redacted.
    pub response: Response,
    /// Where the time went.
    pub phases: Phases,
}

/// What was kept of a response body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The first bytes of the body, at most [`RESPONSE_BODY_BYTES`](crate::limits::RESPONSE_BODY_BYTES).
    pub body: Bytes,
    /// The body was longer, or did not end in time.
    pub truncated: bool,
    /// The body was deleted on request.
    pub expunged: bool,
}
