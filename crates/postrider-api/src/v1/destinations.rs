//! Where messages stand: the endpoints of a message, the messages of an endpoint, and sending one again.

use super::{
    history::{self, Asked, HistoryParams},
    in_message::{InMessage, MessageEndpointPath, MessagePath, NO_MESSAGE},
    message_out::MessageOut,
    messages::ContentQuery,
    spelling,
    status::{self, Status, StatusOut},
};
use crate::{
    error::{ApiError, Errors, Problems},
    idempotency::{Idempotency, IdempotencyParams},
    paging::{self, ListResponse, PageParams},
    query::Query,
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    id::{EndpointId, MessageKind},
    message::Channel,
    time::Timestamp,
};
use postrider_store::{
    deliveries::{Destination, EndpointMessage, ResendError},
    page::Order,
};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

/// An endpoint and how a message stands there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageEndpointOut {
    /// The endpoint's id.
    #[serde(serialize_with = "spelling::text")]
    #[schema(value_type = String, example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: EndpointId,
    #[serde(flatten)]
    status: StatusOut,
    /// When the next attempt is due.
    #[serde(serialize_with = "spelling::instant_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt: Option<Timestamp>,
    /// Where messages go.
    url: String,
    /// Shown to people.
    description: String,
    /// The caller's own name for it.
    #[serde(serialize_with = "spelling::name_or_null")]
    #[schema(value_type = Option<String>)]
    uid: Option<Uid>,
    /// It gets nothing at present.
    disabled: bool,
    /// Only messages of these types; `null` for all.
    #[serde(serialize_with = "spelling::names_or_null")]
    #[schema(value_type = Option<Vec<String>>)]
    event_types: BTreeSet<EventTypeName>,
    /// The name of `eventTypes` for clients of the first generation.
    #[serde(serialize_with = "spelling::names_or_null")]
    #[schema(value_type = Option<Vec<String>>)]
    filter_types: BTreeSet<EventTypeName>,
    /// Only messages with one of these channels; `null` for all.
    #[serde(serialize_with = "spelling::names_or_null")]
    #[schema(value_type = Option<Vec<String>>)]
    channels: BTreeSet<Channel>,
    /// Messages per second.
    throttle_rate: Option<u16>,
    /// The name of `throttleRate` for clients of the first generation.
    rate_limit: Option<u16>,
    /// For clients of the first generation.
    version: u16,
    /// When it was created.
    #[serde(serialize_with = "spelling::instant")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[serde(serialize_with = "spelling::instant")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl MessageEndpointOut {
    fn new(destination: Destination, expanded: bool) -> Self {
        let Destination { endpoint, progress } = destination;
        Self {
            id: endpoint.id,
            status: StatusOut::new(Status::of_progress(&progress).shown(expanded)),
            next_attempt: status::next_attempt(&progress),
            url: endpoint.url.as_str().to_owned(),
            description: endpoint.description,
            uid: endpoint.uid,
            disabled: endpoint.disabled.is_some(),
            event_types: endpoint.filter.event_types.clone(),
            filter_types: endpoint.filter.event_types,
            channels: endpoint.filter.channels,
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            version: endpoint.legacy_version,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

/// How statuses are shown, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct ExpandedParam {
    /// Say `canceled` (4) where it is so; else 0 stands there.
    expanded_statuses: Option<bool>,
}

/// Restricts the messages of an endpoint, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct StandingParam {
    /// Only messages that stand like this: success 0, pending 1, fail 2, sending 3, canceled 4.
    #[param(minimum = 0, maximum = 4)]
    status: Option<u8>,
}

/// List the endpoints of a message
///
/// By endpoint id, deleted endpoints included.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-attempted-destinations",
    params(MessagePath, PageParams, ExpandedParam),
    responses((status = 200, description = "OK", body = ListResponse<MessageEndpointOut>), Errors),
)]
pub(crate) async fn of_message(
    State(state): State<ApiState>,
    message: InMessage,
    query: Query,
) -> Result<Json<ListResponse<MessageEndpointOut>>, ApiError> {
    let page = paging::request(&query, Order::Ascending)?;
    let expanded = query.flag("expanded_statuses")?;
    let page = state.store.destinations(message.scope(), message.id(), page).await?;
    Ok(Json(ListResponse::new(
        page,
        |destination| destination.endpoint.id.to_string(),
        |destination| MessageEndpointOut::new(destination, expanded),
    )))
}

/// A message and how it stands at an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointMessageOut {
    #[serde(flatten)]
    message: MessageOut<'static>,
    #[serde(flatten)]
    status: StatusOut,
    /// When the next attempt is due.
    #[serde(serialize_with = "spelling::instant_or_null")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt: Option<Timestamp>,
}

impl EndpointMessageOut {
    fn new(listed: EndpointMessage, with_content: bool, expanded: bool, now: Timestamp) -> Self {
        Self {
            message: MessageOut::of_stored(listed.message, with_content, now),
            status: StatusOut::new(Status::of_progress(&listed.progress).shown(expanded)),
            next_attempt: status::next_attempt(&listed.progress),
        }
    }
}

/// List the messages of an endpoint, newest first
///
/// With `status`: 0 for messages with a successful attempt, 1 for those without an attempt yet, 2 for those that failed
/// for good, 3 for those that will be tried again, 4 for those that were cancelled.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-attempted-messages",
    params(EndpointPath, HistoryParams, StandingParam, ContentQuery, ExpandedParam),
    responses((status = 200, description = "OK", body = ListResponse<EndpointMessageOut>), Errors),
)]
pub(crate) async fn of_endpoint(
    State(state): State<ApiState>,
    within: InEndpoint,
    query: Query,
) -> Result<Json<ListResponse<EndpointMessageOut>>, ApiError> {
    let now = state.store.clock().now();
    let mut problems = Problems::default();
    let asked = Asked::<MessageKind>::read(&query, now, &mut problems);
    let status = problems.check(history::status(&query));
    let with_content = problems.check(history::with_content(&query));
    let expanded = problems.check(query.flag("expanded_statuses"));
    let read = || Some((asked?, status?, with_content?, expanded?));
    let (asked, status, with_content, expanded) = history::complete(read(), problems)?;
    let kind = status.map(Status::kind);
    let page = state
        .store
        .endpoint_messages(&within.scope, within.endpoint.id, asked.filter, kind, with_content, asked.page)
        .await?;
    Ok(Json(ListResponse::new(
        page,
        |listed| listed.message.message.id.to_string(),
        |listed| EndpointMessageOut::new(listed, with_content, expanded, now),
    )))
}

/// An empty object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmptyResponse {}

/// Send a message to an endpoint again
///
/// One attempt, whatever the endpoint's filter, without retries; it shows in the history as manual. A disabled endpoint
/// gets it once it is enabled. The answer comes when this is on disk, before the attempt.
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend", tag = "Message Attempt",
    operation_id = "v1.message-attempt.resend",
    params(MessageEndpointPath, IdempotencyParams),
    responses((status = 202, description = "Accepted", body = EmptyResponse), Errors),
)]
pub(crate) async fn resend(
    State(state): State<ApiState>,
    message: InMessage,
    within: InEndpoint,
    Idempotency(key): Idempotency,
) -> Result<(StatusCode, Json<EmptyResponse>), ApiError> {
    match state.store.resend(&within.scope, message.id(), within.endpoint.id, key).await {
        // An object also here: clients parse the body of every answer but 204.
        Ok(_) => Ok((StatusCode::ACCEPTED, Json(EmptyResponse {}))),
        Err(ResendError::PayloadGone) => Err(ApiError::bad_request(
            "missing_payload",
            "Unable to resend message. Payload is missing (probably expired).",
        )),
        Err(ResendError::Missing) => Err(ApiError::not_found(NO_MESSAGE)),
        Err(ResendError::Store(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::message_out::samples::{self, AT};
    use postrider_model::{
        application::Metadata,
        delivery::{Progress, State as Delivery},
        endpoint::Endpoint,
        filter::Filter,
        id::ApplicationId,
        retry::{GiveUp, RetryOverride},
        url::EndpointUrl,
    };
    use serde_json::{Value, json};

    #[test]
    fn a_message_of_an_endpoint_has_every_member_that_clients_require() {
        let progress =
            Progress { state: Delivery::Pending { next_attempt_at: AT }, attempts: 1, held: false };
        let listed = EndpointMessage { message: samples::message(b"{\"n\": 1.0}"), progress };
        let text = serde_json::to_string(&EndpointMessageOut::new(listed, true, false, AT)).unwrap();
        assert!(text.contains(r#""payload":{"n": 1.0}"#), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        for member in ["eventType", "id", "payload", "status", "statusText", "timestamp"] {
            assert!(!value[member].is_null(), "{member}");
        }
        assert_eq!((&value["status"], &value["statusText"]), (&json!(3), &json!("sending")));
        assert_eq!(value["nextAttempt"], "2026-01-01T00:00:00.123456Z");
    }

    #[test]
    fn an_endpoint_of_a_message_has_every_member_that_clients_require() {
        let endpoint = Endpoint {
            id: EndpointId::floor(AT),
            application: ApplicationId::floor(AT),
            uid: None,
            url: EndpointUrl::from_stored("https://example.com/hook").unwrap(),
            description: String::new(),
            throttle_rate: Some(7),
            filter: Filter {
                event_types: EventTypeName::parse("a.b").into_iter().collect(),
                ..Filter::default()
            },
            disabled: None,
            metadata: Metadata::new(),
            retry: RetryOverride::default(),
            legacy_version: 1,
            version: 3,
            created_at: AT,
            updated_at: AT,
        };
        let progress = Progress { state: Delivery::Cancelled, attempts: 0, held: false };
        let shown = |expanded| {
            let destination = Destination { endpoint: endpoint.clone(), progress };
            serde_json::to_value(MessageEndpointOut::new(destination, expanded)).unwrap()
        };
        let value = shown(true);
        for member in
            ["createdAt", "description", "id", "status", "statusText", "updatedAt", "url", "version"]
        {
            assert!(!value[member].is_null(), "{member}");
        }
        assert_eq!((&value["status"], &value["statusText"]), (&json!(4), &json!("canceled")));
        assert_eq!((&shown(false)["status"], &shown(false)["statusText"]), (&json!(0), &json!("success")));
        assert_eq!((&value["eventTypes"], &value["filterTypes"]), (&json!(["a.b"]), &json!(["a.b"])));
        assert_eq!((&value["throttleRate"], &value["rateLimit"]), (&json!(7), &json!(7)));
        assert_eq!((&value["channels"], &value["nextAttempt"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn a_failed_message_has_no_next_attempt() {
        let progress = Progress { state: Delivery::Failed(GiveUp::Exhausted), attempts: 10, held: false };
        let listed = EndpointMessage { message: samples::message(b"{}"), progress };
        let value = serde_json::to_value(EndpointMessageOut::new(listed, false, false, AT)).unwrap();
        assert_eq!((&value["status"], &value["nextAttempt"]), (&json!(2), &Value::Null));
    }
}
