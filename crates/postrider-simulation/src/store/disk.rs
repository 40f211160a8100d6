//! What survives a crash of the model store: plain tables, and the few questions that several operations ask of them.

use bytes::Bytes;
use postrider_model::{
    access::ApiKey,
    application::Application,
    attempt::Attempt,
    delivery::{DeliveryId, Progress, State, Trigger},
    endpoint::Endpoint,
    environment::EnvironmentId,
    event_type::{EventType, EventTypeName},
    headers::CustomHeaders,
    id::{ApiKeyId, ApplicationId, AttemptId, EndpointId, MessageId},
    message::Message,
    oauth::{OAuthCredential, OAuthSettings},
    signature::SigningSecret,
    time::Timestamp,
};
use postrider_store::{
    WriteError,
    endpoints::AppScope,
    hold,
    idempotency::IdempotencyKey,
    snapshot::{Credentials, SendSettings, SigningKey, Snapshot},
};
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The tables. Every operation checks all that can be refused before its first change, under one lock: so each is a
/// transaction.
#[derive(Default)]
pub struct Disk {
    /// Which process owns the disk: the latest that opened it.
    pub(super) boot: u64,
    /// The last epoch of a lease.
    pub(super) epoch: u64,
    pub(super) environments: BTreeSet<EnvironmentId>,
    pub(super) api_keys: BTreeMap<ApiKeyId, StoredKey>,
    pub(super) idempotency: BTreeMap<(EnvironmentId, [u8; 32]), Remembered>,
    pub(super) applications: BTreeMap<ApplicationId, StoredApplication>,
    pub(super) endpoints: BTreeMap<EndpointId, StoredEndpoint>,
    pub(super) event_types: BTreeMap<(EnvironmentId, EventTypeName), EventType>,
    pub(super) messages: BTreeMap<MessageId, StoredMessage>,
    pub(super) deliveries: BTreeMap<DeliveryId, StoredDelivery>,
    /// The pending ones of `deliveries`, so that a claim need not look at history.
    pub(super) pending: BTreeSet<DeliveryId>,
    pub(super) attempts: BTreeMap<AttemptId, Attempt>,
    /// Attempts that had begun and were neither recorded nor released.
    pub(super) begun: BTreeMap<DeliveryId, Begun>,
    /// Since when deliveries are on hold, and why.
    pub(super) hold: Option<(Timestamp, String)>,
    /// Commits so far.
    pub(super) commits: u64,
}

pub(super) struct StoredKey {
    pub(super) key: ApiKey,
    pub(super) token: SecretString,
}

/// What a request with an idempotency key created.
pub(super) struct Remembered {
    pub(super) thing: Thing,
    pub(super) expires_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Thing {
    Application(ApplicationId),
    Endpoint(EndpointId),
    EventType(EventTypeName),
    Message(MessageId),
    Resend(u32),
    Rotation(EndpointId),
}

pub(super) struct StoredApplication {
    pub(super) application: Application,
    pub(super) deleted_at: Option<Timestamp>,
}

pub(super) struct StoredEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) headers: CustomHeaders,
    /// The current one has no end.
    pub(super) signing: Vec<(SigningSecret, Option<Timestamp>)>,
    pub(super) oauth: Option<OAuthSettings>,
    pub(super) client_secret: Option<SecretString>,
    pub(super) oauth_version: u64,
}

pub(super) struct StoredMessage {
    pub(super) message: Message,
    pub(super) environment: EnvironmentId,
    pub(super) payload: Option<Bytes>,
}

/// A delivery as it is kept.
#[derive(Debug, Clone)]
pub struct StoredDelivery {
    /// How it stands.
    pub state: State,
    /// Attempts so far, interrupted ones included.
    pub attempts: u32,
    /// When it expires.
    pub deadline_at: Timestamp,
    /// Why it is there.
    pub trigger: Trigger,
    /// Deaths of the process during its attempts.
    pub deaths: u32,
}

/// An attempt that had begun.
pub(super) struct Begun {
    pub(super) number: u32,
    pub(super) started_at: Timestamp,
    pub(super) url: String,
}

impl Disk {
    /// A delivery.
    pub fn delivery(&self, id: DeliveryId) -> Option<&StoredDelivery> {
        self.deliveries.get(&id)
    }

    /// All deliveries, with their history.
    pub fn deliveries(&self) -> impl Iterator<Item = (DeliveryId, &StoredDelivery)> {
        self.deliveries.iter().map(|(id, delivery)| (*id, delivery))
    }

    /// All attempts, interrupted ones included.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.values()
    }

    /// Deliveries that are pending.
    pub fn pending(&self) -> impl Iterator<Item = DeliveryId> {
        self.pending.iter().copied()
    }

    /// A message and whose it is, with its payload while that is kept.
    pub fn message(&self, id: MessageId) -> Option<(&Message, &EnvironmentId, Option<&Bytes>)> {
        self.messages.get(&id).map(|stored| (&stored.message, &stored.environment, stored.payload.as_ref()))
    }

    /// An endpoint that is not deleted.
    pub fn live_endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        let stored = self.endpoints.get(&id)?;
        stored.deleted_at.is_none().then_some(&stored.endpoint)
    }

    /// An application that is not deleted.
    pub fn live_application(&self, id: ApplicationId) -> Option<&Application> {
        let stored = self.applications.get(&id)?;
        stored.deleted_at.is_none().then_some(&stored.application)
    }

    /// The application of a call, unless it is deleted or another environment's.
    pub(super) fn application_in(&self, scope: &AppScope) -> Option<&Application> {
        self.live_application(scope.application).filter(|found| found.environment == scope.environment)
    }

    /// The endpoint of a call, unless it is deleted or another application's.
    pub(super) fn endpoint_in(&self, scope: &AppScope, id: EndpointId) -> Option<&StoredEndpoint> {
        self.endpoints
            .get(&id)
            .filter(|stored| stored.deleted_at.is_none() && stored.endpoint.application == scope.application)
    }

    /// The same, to be changed from the version that its caller saw.
    pub(super) fn endpoint_to_change(
        &mut self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
    ) -> Result<&mut StoredEndpoint, WriteError> {
        let version = self.endpoint_in(scope, id).ok_or(WriteError::Missing)?.endpoint.version;
        if version != from {
            return Err(WriteError::Stale);
        }
        self.endpoints.get_mut(&id).ok_or(WriteError::Missing)
    }

    /// The message of a call.
    pub(super) fn message_in(&self, scope: &AppScope, id: MessageId) -> Option<&StoredMessage> {
        self.messages.get(&id).filter(|stored| stored.message.application == scope.application)
    }

    /// What a request with this key created, unless that is too long ago.
    pub(super) fn recall(
        &self,
        environment: &EnvironmentId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
    ) -> Option<&Thing> {
        let found = self.idempotency.get(&(environment.clone(), key?.digest))?;
        (found.expires_at > now).then_some(&found.thing)
    }

    pub(super) fn remember(
        &mut self,
        environment: &EnvironmentId,
        key: Option<&IdempotencyKey>,
        thing: Thing,
        now: Timestamp,
    ) {
        if let Some(key) = key {
            let remembered = Remembered { thing, expires_at: now.plus(key.lifetime) };
            self.idempotency.insert((environment.clone(), key.digest), remembered);
        }
    }

    /// What messages of an application are matched and sent with; `None` when there is no such application.
    pub(super) fn snapshot(&self, scope: &AppScope, now: Timestamp) -> Option<Snapshot> {
        let application = self.application_in(scope)?;
        let mine = self
            .endpoints
            .values()
            .filter(|stored| stored.deleted_at.is_none() && stored.endpoint.application == scope.application);
        Some(Snapshot {
            version: 0,
            endpoints: mine.map(|stored| Arc::new(stored.settings(application, now))).collect(),
        })
    }

    /// A new pending delivery.
    pub(super) fn add_delivery(&mut self, id: DeliveryId, delivery: StoredDelivery) {
        self.deliveries.insert(id, delivery);
        self.pending.insert(id);
    }

    /// Ends or postpones a delivery.
    pub(super) fn set_state(&mut self, id: DeliveryId, state: State) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.state = state;
        }
        if !matches!(state, State::Pending { .. }) {
            self.pending.remove(&id);
        }
    }

    /// Ends all pending deliveries that `these` picks.
    pub(super) fn end_pending(&mut self, these: impl Fn(&DeliveryId) -> bool, state: State) {
        let picked: Vec<DeliveryId> = self.pending.iter().filter(|id| these(id)).copied().collect();
        for id in picked {
            self.set_state(id, state);
        }
    }

    /// The deliveries of a message to an endpoint, in order of their generations.
    pub(super) fn generations(
        &self,
        message: MessageId,
        endpoint: EndpointId,
    ) -> impl Iterator<Item = (u32, &StoredDelivery)> {
        let id = |generation| DeliveryId { message, endpoint, generation };
        self.deliveries.range(id(0)..=id(u32::MAX)).map(|(delivery, stored)| (delivery.generation, stored))
    }

    /// How a message stands with an endpoint; `None` when it never was to be delivered there.
    pub(super) fn progress(&self, message: MessageId, endpoint: EndpointId) -> Option<Progress> {
        let disabled = self.endpoints.get(&endpoint).is_some_and(|stored| stored.endpoint.disabled.is_some());
        let states: Vec<State> = self.generations(message, endpoint).map(|(_, one)| one.state).collect();
        let attempts = self.generations(message, endpoint).map(|(_, one)| one.attempts).sum();
        let state = prevailing(&states)?;
        Some(match state {
            State::Pending { next_attempt_at } => Progress {
                state: State::Pending { next_attempt_at: hold::taken_off(next_attempt_at) },
                attempts,
                held: disabled || hold::is_on(next_attempt_at),
            },
            _ => Progress { state, attempts, held: false },
        })
    }
}

/// Delivered in any generation counts as delivered, then the earliest pending one, then the latest that failed, then
/// cancelled.
fn prevailing(states: &[State]) -> Option<State> {
    let due = |state: &State| match state {
        State::Pending { next_attempt_at } => Some(*next_attempt_at),
        _ => None,
    };
    let delivered = states.contains(&State::Delivered).then_some(State::Delivered);
    let pending = || {
        let earliest = states.iter().filter_map(due).min()?;
        Some(State::Pending { next_attempt_at: earliest })
    };
    let failed = || states.iter().rev().find(|state| matches!(state, State::Failed(_))).copied();
    delivered.or_else(pending).or_else(failed).or_else(|| states.last().copied())
}

impl StoredEndpoint {
    /// The endpoint as it is sent to at `now`.
    pub(super) fn settings(&self, application: &Application, now: Timestamp) -> SendSettings {
        let lives = |until: &Option<Timestamp>| until.is_none_or(|until| until > now);
        let mut signing: Vec<SigningKey> = self
            .signing
            .iter()
            .filter(|(_, until)| lives(until))
            .map(|(secret, until)| SigningKey { secret: secret.clone(), until: *until })
            .collect();
        signing.sort_by_key(|key| key.until.is_some());
        let oauth = self.oauth.clone().zip(self.client_secret.clone());
        let oauth = oauth.map(|(settings, client_secret)| OAuthCredential {
            settings,
            client_secret,
            version: self.oauth_version,
        });
        SendSettings {
            endpoint: self.endpoint.clone(),
            credentials: Ok(Credentials { signing, headers: self.headers.clone(), oauth }),
            throttle_rate: self.endpoint.throttle_rate.or(application.throttle_rate),
        }
    }
}
