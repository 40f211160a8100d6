//! What tests of the store are made of.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use postrider_model::{
    application::Metadata,
    attempt::{Attempt, Phases, Response},
    environment::EnvironmentId,
    event_type::EventTypeName,
    filter::Filter,
    headers::CustomHeaders,
    id::EndpointId,
    outcome::Outcome,
    retry::{NextStep, RetryOverride},
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    Store as _,
    applications::{ApplicationFields, Applications as _},
    deliveries::{AttemptRecord, ClaimedDelivery, Deliveries as _, Room},
    endpoints::{AppScope, EndpointFields, Endpoints as _, NewEndpoint},
    messages::{Audience, NewMessage},
};
use postrider_store_postgres::PostgresStore;
use std::{collections::BTreeSet, time::Duration};

pub(crate) const URL: &str = "https://example.com/hook";

pub(crate) async fn application(store: &PostgresStore) -> AppScope {
    let environment = EnvironmentId::parse("org_a").unwrap();
    let fields = ApplicationFields { name: "an application".to_owned(), ..ApplicationFields::default() };
    let application = store.create_application(&environment, fields, None).await.unwrap().item.id;
    AppScope { environment, application }
}

pub(crate) fn fields(disabled: bool) -> EndpointFields {
    EndpointFields {
        uid: None,
        url: EndpointUrl::parse(URL, &UrlRules::default()).unwrap(),
        description: String::new(),
        throttle_rate: None,
        filter: Filter::default(),
        disabled,
        metadata: Metadata::default(),
        retry: RetryOverride::default(),
        legacy_version: 1,
    }
}

pub(crate) async fn endpoint(store: &PostgresStore, scope: &AppScope) -> EndpointId {
    let secret = SigningSecret::hmac([7; 24]);
    let new = NewEndpoint { fields: fields(false), secret, headers: CustomHeaders::default() };
    store.create_endpoint(scope, new, None).await.unwrap().item.id
}

pub(crate) fn message(scope: &AppScope, audience: Audience) -> NewMessage {
    NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: EventTypeName::parse("a").unwrap(),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload: Bytes::from_static(b"{}"),
        payload_lifetime: None,
        deliver_at: None,
        audience,
        idempotency: None,
    }
}

pub(crate) async fn claim(store: &PostgresStore) -> Vec<ClaimedDelivery> {
    let room = Room { total: 1000, per_endpoint: 1000, ..Room::default() };
    store.claim(&room).await.unwrap().deliveries
}

pub(crate) fn success(store: &PostgresStore, claimed: &ClaimedDelivery) -> AttemptRecord {
    let started_at = store.clock().now();
    let attempt = Attempt {
        id: store.ids().next(started_at),
        delivery: claimed.lease.delivery,
        number: claimed.number,
        trigger: claimed.trigger,
        url: URL.to_owned(),
        started_at,
        duration: Duration::from_millis(3),
        outcome: Outcome::Succeeded,
        detail: String::new(),
        status: Some(200),
        response: Response::default(),
        phases: Phases::default(),
    };
    AttemptRecord { lease: claimed.lease, attempt, next: NextStep::Delivered }
}

/// To all, with this payload.
pub(crate) fn message_of(scope: &AppScope, payload: Bytes) -> NewMessage {
    NewMessage { payload, ..message(scope, Audience::Matching) }
}
