//! One request from start to outcome, under one deadline.

use bytes::Bytes;
use postrider_model::{attempt::Phases, environment::EnvironmentId, id::ApplicationId, outcome::Outcome, url::EndpointUrl};
use secrecy::SecretString;
use std::{borrow::Cow, time::Duration};
use tokio::time::Instant;

/// A POST to make.
#[derive(Debug)]
pub struct Request {
    /// Connections are never shared between environments or applications.
    pub environment: EnvironmentId,
    /// See `environment`.
    pub application: ApplicationId,
    /// Where to.
    pub url: EndpointUrl,
    /// Headers after `Host` and before `Content-Length`, both of which are the client's, in this order and spelling.
    /// Checked once more before anything is written.
    pub headers: Vec<Header>,
    /// The body, sent as it is.
    pub body: Bytes,
}

/// One header of a request.
#[derive(Debug)]
pub struct Header {
    /// The name as it is spelled on the wire.
    pub name: Cow<'static, str>,
    /// The value.
    pub value: HeaderValue,
}

/// A header's value.
#[derive(Debug)]
pub enum HeaderValue {
    /// Of ours, or not secret.
    Plain(String),
    /// A user's value or a credential.
    Secret(SecretString),
}

/// What came of a request.
#[derive(Debug)]
pub struct Exchange {
    /// How it ended. A 401 is [`Outcome::HttpError`] here.
    pub outcome: Outcome,
    /// One sentence for a person; empty on success. No secrets, no paths.
    pub detail: String,
    /// The status, once a status line arrived.
    pub status: Option<u16>,
    /// The value of `Retry-After`, unread.
    pub retry_after: Option<Vec<u8>>,
    /// The start of the body.
    pub body: Bytes,
    /// The body was longer, or did not end in time.
    pub truncated: bool,
    /// Where the time went; `token` is not set here.
    pub phases: Phases,
    /// At least one byte of the request was written.
    pub sent: bool,
}

/// Everything that outgoing requests share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {}

impl Outbound {
    /// Sends a request and reads its answer. Never fails: what went wrong is in the [`Exchange`]. Everything, DNS and
    /// the body of the answer included, ends by `deadline`.
    pub async fn send(&self, _request: &Request, _deadline: Instant) -> Exchange {
        let _: Duration;
        todo!()
    }
}
