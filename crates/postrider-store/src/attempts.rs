//! Attempts: the history as it can be read.

use crate::{
    endpoints::AppScope,
    error::StoreError,
    messages::MessageFilter,
    page::{Page, PageRequest, Window},
};
use async_trait::async_trait;
use postrider_model::{
    attempt::Attempt,
    delivery::Progress,
    id::{AttemptId, EndpointId, MessageId},
    message::Message,
};

/// Which attempts: of an endpoint, of a message, or of a message to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptsOf {
    /// All attempts to an endpoint.
    Endpoint(EndpointId),
    /// All attempts of a message.
    Message(MessageId),
    /// Both.
    MessageToEndpoint(MessageId, EndpointId),
}

/// Restricts a list of attempts; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttemptFilter {
    /// Only successful (`true`) or only failed (`false`) ones.
    pub succeeded: Option<bool>,
    /// HTTP status class: 0 (no status line), 1 to 5.
    pub status_class: Option<u8>,
    /// Of messages like this; its window applies to the attempts.
    pub message: MessageFilter,
}

/// An attempt as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAttempt {
    /// The attempt.
    pub attempt: Attempt,
    /// How its delivery stands now.
    pub progress: Progress,
    /// It is the newest attempt of its message and endpoint.
    pub latest: bool,
    /// Its message, when asked for; never with its payload, of which a page could hold hundreds of mebibytes.
    pub message: Option<Message>,
}

/// Numbers of an endpoint in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointStats {
    /// Successful attempts.
    pub succeeded: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Deliveries without an attempt yet.
    pub waiting: u64,
    /// Deliveries between two attempts.
    pub retrying: u64,
    /// Cancelled deliveries.
    pub cancelled: u64,
}

/// Attempts.
#[async_trait]
pub trait Attempts: Send + Sync + 'static {
    /// A page of attempts by id, newest first unless the page says otherwise; `with_message` adds the message of each,
    /// without its payload.
    async fn attempts(
        &self,
        scope: &AppScope,
        of: AttemptsOf,
        filter: AttemptFilter,
        with_message: bool,
        page: PageRequest<AttemptId>,
    ) -> Result<Page<ListedAttempt>, StoreError>;

    /// One attempt of a message.
    async fn attempt(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<Option<ListedAttempt>, StoreError>;

    /// Deletes what was kept of the response. `false` when there is no such attempt.
    async fn expunge_response(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<bool, StoreError>;

    /// Numbers of an endpoint, over attempts and deliveries made in the window.
    async fn endpoint_stats(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        window: Window,
    ) -> Result<EndpointStats, StoreError>;
}
