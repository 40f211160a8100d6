//! What behaviours are made of: environments, applications, endpoints, messages, and a claimer's steps.

use crate::{
    Store,
    applications::ApplicationFields,
    deliveries::{AttemptRecord, Claimed, ClaimedDelivery, Recorded, Room},
    endpoints::{AppScope, EndpointFields, NewEndpoint},
    error::WriteError,
    idempotency::IdempotencyKey,
    messages::{Accepted, Audience, NewMessage},
    page::{Order, PageRequest},
};
use bytes::Bytes;
use postrider_model::{
    application::{Metadata, Ref, Uid},
    attempt::{Attempt, Phases, Response},
    delivery::Progress,
    endpoint::Endpoint,
    environment::EnvironmentId,
    event_type::EventTypeName,
    filter::Filter,
    headers::CustomHeaders,
    id::{EndpointId, MessageId},
    message::{Channel, Message, Tag},
    outcome::Outcome,
    retry::{GiveUp, NextStep, RetryOverride},
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use secrecy::ExposeSecret as _;
use std::{collections::BTreeSet, time::Duration};

/// Room that no behaviour fills.
pub(super) const PLENTY: usize = 10_000;
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
/// The step of a failed attempt that is tried again after a minute.
pub(super) const RETRY: NextStep = NextStep::RetryAfter(MINUTE);
/// The step of the last attempt of a schedule.
pub(super) const EXHAUSTED: NextStep = NextStep::GiveUp(GiveUp::Exhausted);

pub(super) fn environment(name: &str) -> EnvironmentId {
    EnvironmentId::parse(&format!("org_{name}")).unwrap()
}

/// A new application in `org_a`.
pub(super) async fn application(store: &dyn Store) -> AppScope {
    application_in(store, "a").await
}

pub(super) async fn application_in(store: &dyn Store, environment_name: &str) -> AppScope {
    let environment = environment(environment_name);
    let fields = ApplicationFields { name: "an application".to_owned(), ..ApplicationFields::default() };
    let created = store.create_application(&environment, fields, None).await.unwrap();
    AppScope { environment, application: created.item.id }
}

pub(super) fn url(text: &str) -> EndpointUrl {
    EndpointUrl::parse(text, &UrlRules::default()).unwrap()
}

pub(super) fn uid(text: &str) -> Uid {
    Uid::parse(text, "none_").unwrap()
}

pub(super) fn metadata(entries: &[(&str, &str)]) -> Metadata {
    entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn event_type(name: &str) -> EventTypeName {
    EventTypeName::parse(name).unwrap()
}

pub(super) fn channels(names: &[&str]) -> BTreeSet<Channel> {
    names.iter().map(|name| Channel::parse(name).unwrap()).collect()
}

pub(super) fn tags(names: &[&str]) -> BTreeSet<Tag> {
    names.iter().map(|name| Tag::parse(name).unwrap()).collect()
}

pub(super) fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new("POST", "/somewhere", text)
}

pub(super) fn secret(seed: u8) -> SigningSecret {
    SigningSecret::hmac([seed; 24])
}

pub(super) fn text_of(secret: &SigningSecret) -> String {
    secret.to_text().expose_secret().to_owned()
}

/// An enabled endpoint that gets everything, retried after minutes for a day.
pub(super) fn fields() -> EndpointFields {
    EndpointFields {
        uid: None,
        url: url("https://example.com/hook"),
        description: String::new(),
        throttle_rate: None,
        filter: Filter::default(),
        disabled: false,
        metadata: Metadata::default(),
        retry: RetryOverride { waits: Some(vec![MINUTE; 5]), deadline: Some(DAY) },
        legacy_version: 1,
    }
}

pub(super) fn new_endpoint(fields: EndpointFields) -> NewEndpoint {
    NewEndpoint { fields, secret: secret(1), headers: CustomHeaders::default() }
}

pub(super) async fn endpoint(store: &dyn Store, scope: &AppScope) -> EndpointId {
    endpoint_with(store, scope, |_| ()).await.id
}

pub(super) async fn endpoint_with(
    store: &dyn Store,
    scope: &AppScope,
    change: impl FnOnce(&mut EndpointFields),
) -> Endpoint {
    let mut fields = fields();
    change(&mut fields);
    store.create_endpoint(scope, new_endpoint(fields), None).await.unwrap().item
}

pub(super) async fn read_endpoint(store: &dyn Store, scope: &AppScope, id: EndpointId) -> Endpoint {
    store.endpoint(scope, &Ref::Id(id)).await.unwrap().expect("the endpoint exists")
}

pub(super) fn fields_of(endpoint: &Endpoint) -> EndpointFields {
    EndpointFields {
        uid: endpoint.uid.clone(),
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        throttle_rate: endpoint.throttle_rate,
        filter: endpoint.filter.clone(),
        disabled: endpoint.disabled.is_some(),
        metadata: endpoint.metadata.clone(),
        retry: endpoint.retry.clone(),
        legacy_version: endpoint.legacy_version,
    }
}

/// Reads, changes and replaces.
pub(super) async fn change_endpoint(
    store: &dyn Store,
    scope: &AppScope,
    id: EndpointId,
    change: impl FnOnce(&mut EndpointFields),
) -> Endpoint {
    let current = read_endpoint(store, scope, id).await;
    let mut fields = fields_of(&current);
    change(&mut fields);
    store.replace_endpoint(scope, id, current.version, fields).await.unwrap()
}

pub(super) async fn disable(store: &dyn Store, scope: &AppScope, id: EndpointId) -> Endpoint {
    change_endpoint(store, scope, id, |fields| fields.disabled = true).await
}

pub(super) async fn enable(store: &dyn Store, scope: &AppScope, id: EndpointId) -> Endpoint {
    change_endpoint(store, scope, id, |fields| fields.disabled = false).await
}

/// A plain message for all matching endpoints.
pub(super) fn message(scope: &AppScope) -> NewMessage {
    NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: event_type("document.processed"),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload: Bytes::from_static(br#"{ "document": 42, "result": 1.0 }"#),
        payload_lifetime: None,
        deliver_at: None,
        audience: Audience::Matching,
        idempotency: None,
    }
}

pub(super) async fn try_publish(store: &dyn Store, message: NewMessage) -> Result<Accepted, WriteError> {
    let mut results = store.accept(vec![message]).await;
    assert_eq!(results.len(), 1, "one result per item");
    results.remove(0)
}

pub(super) async fn publish(store: &dyn Store, message: NewMessage) -> Message {
    try_publish(store, message).await.unwrap().message
}

pub(super) async fn claim_with(store: &dyn Store, total: usize, per_endpoint: usize) -> Claimed {
    store.claim(&Room { total, per_endpoint, ..Room::default() }).await.unwrap()
}

/// Everything that is due.
pub(super) async fn claim(store: &dyn Store) -> Vec<ClaimedDelivery> {
    claim_up_to(store, PLENTY).await
}

/// So many of what is due: a single claim may bring less than there is.
pub(super) async fn claim_up_to(store: &dyn Store, total: usize) -> Vec<ClaimedDelivery> {
    let mut all = Vec::new();
    loop {
        let Claimed { deliveries, next_due } = claim_with(store, total - all.len(), PLENTY).await;
        let through = deliveries.is_empty() || next_due.is_none_or(|due| due > store.clock().now());
        all.extend(deliveries);
        if through || all.len() == total {
            return all;
        }
    }
}

/// The one delivery that is due.
pub(super) async fn claim_one(store: &dyn Store) -> ClaimedDelivery {
    let mut claimed = claim(store).await;
    assert_eq!(claimed.len(), 1, "exactly one delivery is due");
    claimed.remove(0)
}

/// An attempt that fits the step: a success for `Delivered`, else a 500 (410 for `Gone`).
pub(super) fn attempt(store: &dyn Store, claimed: &ClaimedDelivery, next: NextStep) -> Attempt {
    let (outcome, status) = match next {
        NextStep::Delivered => (Outcome::Succeeded, Some(200)),
        NextStep::GiveUp(GiveUp::Gone) => (Outcome::HttpError, Some(410)),
        _ => (Outcome::HttpError, Some(500)),
    };
    attempt_with(store, claimed, outcome, status)
}

pub(super) fn attempt_with(
    store: &dyn Store,
    claimed: &ClaimedDelivery,
    outcome: Outcome,
    status: Option<u16>,
) -> Attempt {
    let started_at = store.clock().now();
    Attempt {
        id: store.ids().next(started_at),
        delivery: claimed.lease.delivery,
        number: claimed.number,
        trigger: claimed.trigger,
        url: "https://example.com/hook".to_owned(),
        started_at,
        duration: Duration::from_micros(12_345),
        outcome,
        detail: if outcome == Outcome::Succeeded { String::new() } else { "it did not work".to_owned() },
        status,
        response: Response { body: Bytes::from_static(b"\xff answer"), truncated: true, expunged: false },
        phases: Phases { dns: Some(Duration::from_millis(2)), ..Phases::default() },
    }
}

pub(super) async fn record_attempt(
    store: &dyn Store,
    claimed: &ClaimedDelivery,
    attempt: Attempt,
    next: NextStep,
) -> Recorded {
    let mut results = store.record(vec![AttemptRecord { lease: claimed.lease, attempt, next }]).await;
    assert_eq!(results.len(), 1, "one result per item");
    results.remove(0).unwrap()
}

pub(super) async fn record(store: &dyn Store, claimed: &ClaimedDelivery, next: NextStep) -> Recorded {
    record_attempt(store, claimed, attempt(store, claimed, next), next).await
}

/// Claims all that is due and records the same step for each.
pub(super) async fn settle(store: &dyn Store, next: NextStep) {
    for claimed in claim(store).await {
        assert!(matches!(record(store, &claimed, next).await, Recorded::Stored(_)));
    }
}

pub(super) fn first<C>(limit: usize) -> PageRequest<C> {
    PageRequest { limit, order: Order::Ascending, cursor: None, backward: false }
}

pub(super) fn newest<C>(limit: usize) -> PageRequest<C> {
    PageRequest { limit, order: Order::Descending, cursor: None, backward: false }
}

/// How a message stands with an endpoint; `None` when it was never to be delivered there.
pub(super) async fn find_progress(
    store: &dyn Store,
    scope: &AppScope,
    message: MessageId,
    endpoint: EndpointId,
) -> Option<Progress> {
    let page = store.destinations(scope, message, first(250)).await.unwrap();
    assert!(page.done, "behaviours have few destinations");
    page.items.into_iter().find(|item| item.endpoint.id == endpoint).map(|item| item.progress)
}

pub(super) async fn progress(
    store: &dyn Store,
    scope: &AppScope,
    message: MessageId,
    endpoint: EndpointId,
) -> Progress {
    find_progress(store, scope, message, endpoint).await.expect("there is a delivery")
}
