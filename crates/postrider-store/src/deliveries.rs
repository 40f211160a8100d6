//! Deliveries: claiming what is due, recording what came of it, and how things stand.
//!
//! A delivery changes state only in `accept`, `record`, `resend` and in deletions (endpoint, application, payload,
//! retention); final states are never left.

use crate::{
    endpoints::AppScope,
    error::StoreError,
    idempotency::{Created, IdempotencyKey},
    messages::MessageFilter,
    page::{Page, PageRequest},
};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    attempt::Attempt,
    delivery::{DeliveryId, Progress, State, Trigger},
    endpoint::Endpoint,
    id::{ApplicationId, EndpointId, MessageId},
    message::MessageWithPayload,
    retry::NextStep,
    time::Timestamp,
};
use std::collections::HashMap;
use tokio::sync::Notify;

/// What a claimer can start now.
#[derive(Debug, Clone)]
pub struct Room {
    /// Deliveries in all.
    pub total: usize,
    /// Bytes of their payloads in all, counted for each delivery. A claim ends before the delivery that would exceed
    /// them, and leaves it first in turn; the first delivery of a claim is handed out whatever its size.
    pub bytes: usize,
    /// Deliveries of one endpoint that may be claimed and not yet recorded or released at any time.
    pub per_endpoint: usize,
    /// Endpoints with a bound of their own in the place of `per_endpoint`: more because they answer quickly, or fewer
    /// because they are slow or were just down.
    pub wide: HashMap<EndpointId, usize>,
    /// Endpoints that can start nothing now, whatever `per_endpoint` says.
    pub full: Vec<EndpointId>,
}

impl Default for Room {
    /// None, but for payloads of any size.
    fn default() -> Self {
        Self { total: 0, bytes: usize::MAX, per_endpoint: 0, wide: HashMap::new(), full: Vec::new() }
    }
}

/// Whose deliveries wait, although they are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deferred {
    /// Those of one endpoint: its circuit breaker is open, or it had its share of this second.
    Endpoint(EndpointId),
    /// Those of all endpoints of one application: it had its share of this second.
    Application(ApplicationId),
}

/// What a claim found.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Deliveries that the caller now holds leases of, fair over applications and over the endpoints of each.
    pub deliveries: Vec<ClaimedDelivery>,
    /// When the next one is due that no lease covers; it may be in the past when room was short.
    pub next_due: Option<Timestamp>,
}

/// The right to work on a delivery. Opaque: only the backend that issued it reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which claim of it this is; a result under an older one changes nothing.
    pub epoch: u64,
}

/// A delivery to attempt now.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// The right to do so.
    pub lease: Lease,
    /// Whose it is.
    pub scope: AppScope,
    /// The number that this attempt will have, from 1.
    pub number: u32,
    /// Why it is made.
    pub trigger: Trigger,
    /// The bytes to send.
    pub payload: Bytes,
    /// `None` means `application/json`.
    pub content_type: Option<String>,
    /// When the message was accepted.
    pub accepted_at: Timestamp,
    /// When it was due: what lag is measured from.
    pub due_at: Timestamp,
    /// How often the process died during an attempt of it.
    pub deaths: u32,
}

/// An attempt that ended, and what follows.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The lease it ran under.
    pub lease: Lease,
    /// The attempt.
    pub attempt: Attempt,
    /// The decision; the store applies its own clock and the delivery's deadline.
    pub next: NextStep,
}

/// What a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Stored; the delivery is in this state.
    Stored(State),
    /// The lease was lost: nothing changed.
    Superseded,
}

/// How one message stands with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The endpoint as it stands, or as it was when it was deleted.
    pub endpoint: Endpoint,
    /// How the delivery stands.
    pub progress: Progress,
}

/// A message of an endpoint and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointMessage {
    /// The message.
    pub message: MessageWithPayload,
    /// How its delivery to the endpoint stands.
    pub progress: Progress,
}

/// How a delivery stands, as the wire's lists filter it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressKind {
    /// Delivered.
    Delivered,
    /// Pending, no attempt yet.
    Waiting,
    /// Pending, with attempts.
    Retrying,
    /// Failed for good.
    Failed,
    /// Cancelled.
    Cancelled,
}

/// Why a resend was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResendError {
    /// The payload has expired or was expunged.
    #[error("the payload is gone")]
    PayloadGone,
    /// No such message or endpoint.
    #[error("not found")]
    Missing,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deliveries.
#[async_trait]
pub trait Deliveries: Send + Sync + 'static {
    /// Takes due deliveries of enabled endpoints, no more than there is room for. Fair over applications, and over the
    /// endpoints of each, however many one has: one with a long backlog does not keep another's first delivery waiting. While
    /// an endpoint has both first attempts and retries due, they take turns, one by one: neither waits for the other's
    /// backlog. Empty while results cannot be stored.
    ///
    /// It may bring less than is due and there is room for; then `next_due` has passed, and the next call goes on. It brings
    /// nothing only when nothing could be claimed.
    ///
    /// A due delivery past its deadline is not handed out: soon after, it is `Failed(Expired)`.
    ///
    /// What an earlier call made due is found: an accepted message, a resend, a re-enabled endpoint. A delivery is not
    /// handed out again until its lease is recorded or released.
    async fn claim(&self, room: &Room) -> Result<Claimed, StoreError>;

    /// Nothing of this endpoint or application is claimed before `until`, by the store's clock, whether or not anything of
    /// it is pending now. The latest call for the same one counts; a time that has passed takes an earlier call back, and
    /// claimers are told. An endpoint waits for the later of its own and its application's. Leases that are out stay out,
    /// and no attempt is counted. [`Claimed::next_due`] and [`Self::next_due`] heed it. Cheap and synchronous.
    ///
    /// The store takes an endpoint's deferral back by itself when the endpoint or its credentials change (its owner may
    /// have mended it) and when something is resent to it or published for it alone (somebody waits for the answer). Its
    /// application's stays.
    ///
    /// Known to this process only, and no promise: a restart forgets it, a clock that is set back must, and of more than
    /// 100,000 those that end first may be forgotten. What is claimed all the same can be given back and deferred again.
    fn defer(&self, whose: Deferred, until: Timestamp);

    /// Notified when something may have become claimable before the last answer's `next_due`: a hint, losing it costs
    /// latency only.
    fn claimable(&self) -> &Notify;

    /// The attempt of this lease is about to send its first byte. If the process ends before the lease is recorded or
    /// released, the delivery has one more [`deaths`](ClaimedDelivery::deaths) and an attempt with the outcome
    /// `interrupted` at the next start; at [`POISON_DEATHS`](postrider_model::limits::POISON_DEATHS) it is
    /// `Failed(Quarantined)`. Cheap and synchronous. `false` when the lease is lost, the delivery was cancelled or settled
    /// meanwhile, or its endpoint is disabled: send nothing and release the lease.
    fn started(&self, lease: &Lease, number: u32, url: &str) -> bool;

    /// Stores attempts and their deliveries' new states in one commit, shared with other callers. One result per item.
    ///
    /// [`NextStep::Delivered`] of a manual delivery settles pending ones of the same message and endpoint too.
    /// `RetryAfter` beyond the deadline becomes `Failed(Expired)`: the age of the endpoint's retry policy, counted from
    /// when the delivery was first due. `RetryAfter` of a manual delivery becomes `Failed(Exhausted)`. `GiveUp(Gone)`
    /// disables the endpoint in the same commit. A delivery cancelled or settled meanwhile keeps its state; the attempt
    /// is stored all the same, and `Stored` tells the state that it keeps. A lease is good for one record.
    async fn record(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>>;

    /// Gives leases back without an attempt; the deliveries are due as before. Lost leases are passed over.
    async fn release(&self, leases: Vec<Lease>) -> Result<(), StoreError>;

    /// Makes a manual delivery of a message to an endpoint, due now: one attempt, no retries, whether or not the
    /// message ever went there and however that ended. A disabled endpoint holds it.
    async fn resend(
        &self,
        scope: &AppScope,
        message: MessageId,
        endpoint: EndpointId,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<DeliveryId>, ResendError>;

    /// The endpoints that a message was to be delivered to, deleted ones included, by endpoint id.
    async fn destinations(
        &self,
        scope: &AppScope,
        message: MessageId,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Destination>, StoreError>;

    /// The messages that were to be delivered to an endpoint, by message id. A page whose payloads get larger than
    /// [`PAGE_BYTES`](postrider_model::limits::PAGE_BYTES) may end there.
    async fn endpoint_messages(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        filter: MessageFilter,
        kind: Option<ProgressKind>,
        with_payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<EndpointMessage>, StoreError>;

    /// When the earliest delivery that could be claimed is due, leased ones left out. Tests step the clock by it.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;
}
