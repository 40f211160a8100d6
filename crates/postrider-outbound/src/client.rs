//! One request from start to outcome, under one deadline.

use crate::{
    body::{Body, BodyState},
    config::Config,
    connect::{Dialer, place, seconds},
    failure::{Failure, Progress},
    http::{self, Broken, Outgoing},
    oauth::Tokens,
    pool::{Connection, OriginRef, Pool},
    request_head,
    resolver::{NoDnsServers, Resolve, SystemResolver},
    response_head::Head,
    tls::TlsSetupError,
};
use bytes::Bytes;
use postrider_model::{
    attempt::Phases, environment::EnvironmentId, id::ApplicationId, limits, outcome::Outcome,
    url::EndpointUrl,
};
use secrecy::SecretString;
use std::{borrow::Cow, fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// A reused connection that breaks within this time without an answer was closed by the other side while it was idle;
/// the request goes once more over a new connection. Later, the receiver more likely died of the request.
const STALE: Duration = Duration::from_secs(1);

/// A POST to make.
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

/// Without the body: a payload, or a form with a client secret.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { environment, application, url, headers, body } = self;
        formatter
            .debug_struct("Request")
            .field("environment", environment)
            .field("application", application)
            .field("url", url)
            .field("headers", headers)
            .field("body_bytes", &body.len())
            .finish()
    }
}

/// Without the body: it may repeat secrets of the request, or be an access token.
impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, detail, status, retry_after: _, body, truncated, phases, sent } = self;
        formatter
            .debug_struct("Exchange")
            .field("outcome", outcome)
            .field("detail", detail)
            .field("status", status)
            .field("body_bytes", &body.len())
            .field("truncated", truncated)
            .field("phases", phases)
            .field("sent", sent)
            .finish_non_exhaustive()
    }
}

/// Everything that outgoing requests share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    pub(crate) shared: Arc<Shared>,
}

/// What lives as long as the process.
#[derive(Debug)]
pub(crate) struct Shared {
    config: Config,
    dialer: Dialer,
    pool: Arc<Pool>,
    pub(crate) tokens: Tokens,
}

/// Why outgoing requests cannot be set up; each says the setting to change.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Certificate authorities.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// No DNS server is known.
    #[error(transparent)]
    Dns(#[from] NoDnsServers),
}

/// How much of a body is read, and for how long after the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyCaps {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

const DELIVERY_BODY: BodyCaps =
    BodyCaps { bytes: limits::RESPONSE_BODY_BYTES, time: limits::RESPONSE_BODY_TIME };

/// The head of an answer and the connection it came on.
#[derive(Debug)]
struct Answered {
    head: Head,
    connection: Connection,
    /// The whole request was written.
    complete: bool,
}

impl Outbound {
    /// With a resolver of the caller's choice. Reads `ca_file`.
    pub fn new(config: Config, resolver: Arc<dyn Resolve>) -> Result<Self, SetupError> {
        let dialer = Dialer::new(&config, resolver)?;
        let pool = Arc::new(Pool::new(&config));
        let shared = Shared { config, dialer, pool, tokens: Tokens::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// With DNS as the configuration or the system says.
    pub fn with_system_resolver(config: Config) -> Result<Self, SetupError> {
        let resolver = SystemResolver::new(&config)?;
        Self::new(config, Arc::new(resolver))
    }

    /// The settings it was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Sends a request and reads its answer. Never fails: what went wrong is in the [`Exchange`]. Everything, DNS and
    /// the body of the answer included, ends by `deadline`.
    pub async fn send(&self, request: &Request, deadline: Instant) -> Exchange {
        self.shared.send(request, deadline, DELIVERY_BODY).await.0
    }
}

impl Shared {
    /// Also says whether the answer calls itself JSON.
    pub(crate) async fn send(
        &self,
        request: &Request,
        deadline: Instant,
        caps: BodyCaps,
    ) -> (Exchange, bool) {
        let started = Instant::now();
        let mut progress = Progress::default();
        match timeout_at(deadline, self.answer(request, &mut progress)).await {
            Ok(Ok(answered)) => self.finish(answered, request, deadline, caps, progress).await,
            Ok(Err(failure)) => (failed(failure, &progress), false),
            Err(_) => {
                let detail = format!(
                    "no answer from {} within {}: the time ended while {}",
                    place(&request.url),
                    seconds(deadline.duration_since(started)),
                    progress.step.describe(),
                );
                (failed(Failure::new(Outcome::Timeout, detail), &progress), false)
            }
        }
    }

    pub(crate) fn is_dev(&self) -> bool {
        self.dialer.is_dev()
    }

    /// An answer's head, over an idle connection if there is one.
    async fn answer(&self, request: &Request, progress: &mut Progress) -> Result<Answered, Failure> {
        let Request { environment, application, url, .. } = request;
        let origin = OriginRef { environment, application, url };
        if let Some(mut connection) = self.pool.take(origin).await {
            request_head::write(request, self.is_dev(), &mut connection.head)?;
            match ask(connection, request, progress).await {
                Err(broken) if broken.nothing_came() && broken.after() < STALE => {}
                other => return other.map_err(|broken| broken.into_failure(url)),
            }
        }
        // Rarer and much larger than what stands above: apart, to keep the future of the usual case small.
        Box::pin(self.answer_anew(request, origin, progress)).await
    }

    /// An answer's head, over a new connection.
    async fn answer_anew(
        &self,
        request: &Request,
        origin: OriginRef<'_>,
        progress: &mut Progress,
    ) -> Result<Answered, Failure> {
        let mut head = Vec::with_capacity(1024);
        request_head::write(request, self.is_dev(), &mut head)?;
        let stream = self.dialer.dial(&request.url, progress).await?;
        let mut connection = Connection::new(stream, origin.to_owned());
        connection.head = head;
        ask(connection, request, progress).await.map_err(|broken| broken.into_failure(&request.url))
    }

    /// Reads the body, gives the connection back, judges. The status line has decided: nothing here turns it around.
    async fn finish(
        &self,
        answered: Answered,
        request: &Request,
        deadline: Instant,
        caps: BodyCaps,
        progress: Progress,
    ) -> (Exchange, bool) {
        let Answered { head, mut connection, complete } = answered;
        let mut body = Body::new(head.framing, caps.bytes);
        let mut state = http::take_arrived(&mut connection.inbox, &mut body);
        if state == BodyState::Open {
            let until = deadline.min(Instant::now() + caps.time);
            let reading = http::read_body(&mut connection.stream, &mut connection.inbox, &mut body);
            state = timeout_at(until, reading).await.unwrap_or(BodyState::Overlong);
        }
        if state == BodyState::Ended && head.keep_alive && complete && connection.inbox.is_empty() {
            self.pool.put(connection);
        }
        let (outcome, detail) = judge(head.status, &request.url);
        let exchange = Exchange {
            outcome,
            detail,
            status: Some(head.status),
            retry_after: head.retry_after,
            body: http::kept(body),
            truncated: state != BodyState::Ended,
            phases: progress.phases,
            sent: progress.sent,
        };
        (exchange, head.is_json)
    }
}

async fn ask(
    mut connection: Connection,
    request: &Request,
    progress: &mut Progress,
) -> Result<Answered, Broken> {
    let Connection { stream, inbox, head, .. } = &mut connection;
    let outgoing = Outgoing::new(head, &request.body);
    let (head, complete) = http::exchange(stream, inbox, outgoing, progress).await?;
    Ok(Answered { head, connection, complete })
}

fn failed(failure: Failure, progress: &Progress) -> Exchange {
    Exchange {
        outcome: failure.outcome,
        detail: failure.detail,
        status: None,
        retry_after: None,
        body: Bytes::new(),
        truncated: false,
        phases: progress.phases,
        sent: progress.sent,
    }
}

/// The outcome of a status and its sentence, with the way out where the status alone names one.
fn judge(status: u16, url: &EndpointUrl) -> (Outcome, String) {
    if (200..300).contains(&status) {
        return (Outcome::Succeeded, String::new());
    }
    let place = place(url);
    if (300..400).contains(&status) {
        let detail =
            format!("{place} answered {status}, a redirect, which is never followed: use the final URL");
        return (Outcome::RedirectNotFollowed, detail);
    }
    let meaning = match status {
        401 => " (unauthorized): check the credentials of the endpoint",
        403 => " (forbidden): the receiver does not let this server in",
        404 => " (not found): check the path of the URL",
        405 => " (method not allowed): the URL must accept POST",
        410 => " (gone): the receiver wants no more messages",
        413 => " (content too large): the receiver does not take messages of this size",
        415 => " (unsupported media type): the receiver does not take this content type",
        429 => " (too many requests): the receiver asks to slow down",
        500..=599 => ": a fault of the receiver",
        _ => "",
    };
    (Outcome::HttpError, format!("{place} answered {status}{meaning}"))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "destination_tests.rs"]
mod destination_tests;

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod reuse_tests;
