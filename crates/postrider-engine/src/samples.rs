//! Things that the unit tests of this crate need: one delivery, one endpoint, its credentials, and a store that answers
//! to records as it is told.

use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{DeliveryId, Trigger},
    endpoint::Endpoint,
    environment::EnvironmentId,
    headers::{CustomHeader, CustomHeaders},
    id::{AttemptId, EndpointId, Id, Ksuid, MessageId},
    outcome::Outcome,
    retry::{NextStep, RetryOverride},
    signature::SigningSecret,
    time::Timestamp,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    StoreError,
    deliveries::{
        AttemptRecord, Claimed, ClaimedDelivery, Deferred, Deliveries, Destination, EndpointMessage, Lease,
        ProgressKind, Recorded, ResendError, Room,
    },
    endpoints::AppScope,
    idempotency::{Created, IdempotencyKey},
    messages::MessageFilter,
    page::{Page, PageRequest},
    snapshot::{Credentials, SigningKey},
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

pub(crate) const URL: &str = "https://example.com/hooks/secret-path?tenant=7";
pub(crate) const PAYLOAD: &[u8] = b"{\"b\": 1,  \"a\": 1.0}";

pub(crate) fn claimed() -> ClaimedDelivery {
    let delivery = DeliveryId {
        message: Id::new(Ksuid::from_bytes([7; 20])),
        endpoint: Id::new(Ksuid::from_bytes([8; 20])),
        generation: 0,
    };
    ClaimedDelivery {
        lease: Lease { delivery, epoch: 1 },
        scope: AppScope {
            environment: EnvironmentId::parse("org_1").expect("an environment"),
            application: Id::new(Ksuid::from_bytes([9; 20])),
        },
        number: 1,
        trigger: Trigger::Scheduled,
        payload: Bytes::from_static(PAYLOAD),
        content_type: None,
        accepted_at: at(),
        due_at: at(),
        deaths: 0,
    }
}

pub(crate) fn at() -> Timestamp {
    Timestamp::parse("2026-01-01T00:00:00.5Z").expect("a date")
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    let url = EndpointUrl::parse(url, &UrlRules { dev: true, ..UrlRules::default() }).expect("a URL");
    Endpoint {
        id: claimed().lease.delivery.endpoint,
        application: claimed().scope.application,
        uid: None,
        url,
        description: String::new(),
        throttle_rate: None,
        filter: postrider_model::filter::Filter::default(),
        disabled: None,
        metadata: postrider_model::application::Metadata::default(),
        retry: RetryOverride::default(),
        legacy_version: 1,
        version: 1,
        created_at: at(),
        updated_at: at(),
    }
}

pub(crate) fn credentials(headers: &[(&str, &str, bool)]) -> Credentials {
    let headers = headers.iter().map(|(name, value, sensitive)| CustomHeader {
        name: (*name).to_owned(),
        value: (*value).into(),
        sensitive: *sensitive,
    });
    Credentials {
        signing: vec![SigningKey { secret: SigningSecret::hmac([1; 24]), until: None }],
        headers: CustomHeaders::from_stored(headers.collect()),
        oauth: None,
    }
}

pub(crate) fn record(outcome: Outcome) -> AttemptRecord {
    let claimed = claimed();
    let attempt = Attempt {
        id: Id::new(Ksuid::from_bytes([6; 20])),
        delivery: claimed.lease.delivery,
        number: claimed.number,
        trigger: claimed.trigger,
        url: URL.to_owned(),
        started_at: at(),
        duration: Duration::from_millis(12),
        outcome,
        detail: String::new(),
        status: None,
        response: Response::default(),
        phases: Phases::default(),
    };
    AttemptRecord { lease: claimed.lease, attempt, next: NextStep::Delivered }
}

/// Answers to records and releases as it is told, and can do nothing else.
#[derive(Default)]
pub(crate) struct Records {
    answers: Mutex<VecDeque<Result<Recorded, StoreError>>>,
    taken: Mutex<Vec<AttemptId>>,
    refusals: Mutex<VecDeque<Result<(), StoreError>>>,
    released: Mutex<Vec<Lease>>,
    claimable: Notify,
}

impl Records {
    pub(crate) fn answering(answers: Vec<Result<Recorded, StoreError>>) -> Self {
        Self { answers: Mutex::new(answers.into()), ..Self::default() }
    }

    /// Answers releases so first, then takes them.
    pub(crate) fn refusing_releases(refusals: Vec<Result<(), StoreError>>) -> Self {
        Self { refusals: Mutex::new(refusals.into()), ..Self::default() }
    }

    /// One more answer to a record; without one it panics.
    pub(crate) fn answer(&self, answer: Result<Recorded, StoreError>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    /// Every lease that was given back, refused or not.
    pub(crate) fn released(&self) -> Vec<Lease> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The attempts whose records were given to it, in order.
    pub(crate) fn taken(&self) -> Vec<AttemptId> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Deliveries for Records {
    async fn record(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(records.iter().map(|one| one.attempt.id));
        records.iter().map(|_| answers.pop_front().expect("an answer")).collect()
    }

    fn claimable(&self) -> &Notify {
        &self.claimable
    }

    async fn claim(&self, _: &Room) -> Result<Claimed, StoreError> {
        unimplemented!("only records")
    }

    fn defer(&self, _: Deferred, _: Timestamp) {
        unimplemented!("only records")
    }

    fn started(&self, _: &Lease, _: u32, _: &str) -> bool {
        unimplemented!("only records")
    }

    async fn release(&self, leases: Vec<Lease>) -> Result<(), StoreError> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).extend(leases);
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(()))
    }

    async fn resend(
        &self,
        _: &AppScope,
        _: MessageId,
        _: EndpointId,
        _: Option<IdempotencyKey>,
    ) -> Result<Created<DeliveryId>, ResendError> {
        unimplemented!("only records")
    }

    async fn destinations(
        &self,
        _: &AppScope,
        _: MessageId,
        _: PageRequest<EndpointId>,
    ) -> Result<Page<Destination>, StoreError> {
        unimplemented!("only records")
    }

    async fn endpoint_messages(
        &self,
        _: &AppScope,
        _: EndpointId,
        _: MessageFilter,
        _: Option<ProgressKind>,
        _: bool,
        _: PageRequest<MessageId>,
    ) -> Result<Page<EndpointMessage>, StoreError> {
        unimplemented!("only records")
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        unimplemented!("only records")
    }
}
