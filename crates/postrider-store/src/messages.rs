//! Messages: accepting them, and reading what was accepted.

use crate::{
    endpoints::AppScope,
    error::{StoreError, WriteError},
    idempotency::IdempotencyKey,
    page::{Page, PageRequest, Window},
};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    application::{Ref, Uid},
    event_type::EventTypeName,
    id::{EndpointId, MessageId},
    message::{Channel, Message, MessageWithPayload, Tag},
    time::Timestamp,
};
use std::{collections::BTreeSet, time::Duration};

/// A message to accept; checked already.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Whose it is.
    pub scope: AppScope,
    /// The publisher's own id.
    pub event_id: Option<Uid>,
    /// Its kind.
    pub event_type: EventTypeName,
    /// Restricts its endpoints.
    pub channels: BTreeSet<Channel>,
    /// For finding it again.
    pub tags: BTreeSet<Tag>,
    /// `None` means `application/json`.
    pub content_type: Option<String>,
    /// The bytes to send.
    pub payload: Bytes,
    /// How long the payload is kept; `None` means the server's retention.
    pub payload_lifetime: Option<Duration>,
    /// Not before this instant.
    pub deliver_at: Option<Timestamp>,
    /// Which endpoints get it.
    pub audience: Audience,
    /// The request's key.
    pub idempotency: Option<IdempotencyKey>,
}

/// Which endpoints get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// All enabled ones whose filter matches.
    Matching,
    /// Exactly this one whatever its filter, with a manual delivery: one attempt, no retries.
    Only(EndpointId),
}

/// A message that is durable, with all its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The message; on a replay, the one that the first request made.
    pub message: Message,
    /// A request with the same idempotency key had made it before; nothing was done now.
    pub replayed: bool,
}

/// Restricts a list of messages; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageFilter {
    /// Has this channel.
    pub channel: Option<Channel>,
    /// Has this tag.
    pub tag: Option<Tag>,
    /// Is of one of these types; empty means any.
    pub event_types: BTreeSet<EventTypeName>,
    /// Was accepted in this window.
    pub window: Window,
}

/// Messages.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Accepts messages, each with its idempotency record and one delivery per matching endpoint in one durable commit
    /// that concurrent callers share. One result per item, in their order.
    ///
    /// [`WriteError::Taken`]: the event id is in use. [`WriteError::Missing`]: no such application or endpoint. A refused
    /// item leaves no idempotency record. A repeated key is looked at before anything else, so a replay is no conflict;
    /// once its lifetime is over it is a new key, whether or not its record is still there.
    async fn accept(&self, messages: Vec<NewMessage>) -> Vec<Result<Accepted, WriteError>>;

    /// The message of this id or event id.
    async fn message(
        &self,
        scope: &AppScope,
        reference: &Ref<MessageId>,
    ) -> Result<Option<MessageWithPayload>, StoreError>;

    /// A page of messages by id. Payloads are read only `with_payload`; else they are `None`. A page whose payloads get
    /// larger than [`PAGE_BYTES`](postrider_model::limits::PAGE_BYTES) may end there.
    async fn messages(
        &self,
        scope: &AppScope,
        filter: MessageFilter,
        with_payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<MessageWithPayload>, StoreError>;

    /// Deletes a payload now; pending deliveries of the message are cancelled. `false` when there is no such message.
    async fn expunge_payload(&self, scope: &AppScope, id: MessageId) -> Result<bool, StoreError>;

    /// Would any enabled endpoint get a message of this type and these channels?
    async fn any_match(
        &self,
        scope: &AppScope,
        event_type: &EventTypeName,
        channels: &BTreeSet<Channel>,
    ) -> Result<bool, StoreError>;
}
