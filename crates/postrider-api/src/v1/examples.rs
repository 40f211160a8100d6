//! Examples: sends an endpoint the example of an event type's schema, so that a receiver can be built against it.

use super::{
    message_in,
    message_out::{MessageOut, PayloadOut},
    messages,
};
use crate::{
    error::{ApiError, Errors},
    idempotency::{Idempotency, IdempotencyParams},
    json::JsonBody,
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use bytes::Bytes;
use http::StatusCode;
use postrider_model::{event_type::EventTypeName, payload};
use postrider_store::messages::{Audience, NewMessage};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// An event type that needs no schema: it proves that an endpoint can be reached.
const PING: &str = "svix.ping";
const PING_PAYLOAD: &[u8] = br#"{"success":true}"#;
/// The version of a schema whose examples are sent.
const VERSION: &str = "1";

/// Which example to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventExampleIn {
    /// An event type with a schema that has examples, or `svix.ping`.
    #[schema(example = "svix.ping")]
    event_type: String,
    /// Which of the schema's examples, from 0.
    #[serde(default)]
    example_index: Option<u64>,
}

/// Send an example to an endpoint
///
/// The first of `schemas["1"].examples` of the event type, or the one that is asked for. One attempt, whatever the
/// endpoint's filter, without retries.
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example", tag = "Endpoint",
    operation_id = "v1.endpoint.send-example",
    params(EndpointPath, IdempotencyParams),
    request_body = EventExampleIn,
    responses((status = 202, description = "Accepted", body = MessageOut), Errors),
)]
pub(crate) async fn send(
    State(state): State<ApiState>,
    within: InEndpoint,
    Idempotency(key): Idempotency,
    JsonBody(body): JsonBody<EventExampleIn>,
) -> Result<(StatusCode, Json<MessageOut<'static>>), ApiError> {
    let event_type = message_in::event_type(&body.event_type)?;
    let payload = if event_type.as_str() == PING {
        Bytes::from_static(PING_PAYLOAD)
    } else {
        let schemas = schemas(&state, &within, &event_type).await?;
        example(schemas.as_deref(), body.example_index.unwrap_or(0)).ok_or_else(no_example)?
    };
    let message = NewMessage {
        scope: within.scope.clone(),
        event_id: None,
        event_type,
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload: payload.clone(),
        payload_lifetime: None,
        deliver_at: None,
        audience: Audience::Only(within.endpoint.id),
        idempotency: key,
    };
    let accepted = messages::accept(&state, message).await?;
    Ok((StatusCode::ACCEPTED, Json(MessageOut::new(accepted.message, PayloadOut::Published(payload)))))
}

/// The schemas of a type that the caller can see.
async fn schemas(
    state: &ApiState,
    within: &InEndpoint,
    name: &EventTypeName,
) -> Result<Option<String>, ApiError> {
    let found = state.store.event_type(&within.scope.environment, name).await?;
    let visible = found.filter(|found| match within.caller.feature_flags() {
        Some(flags) => found.feature_flags.is_empty() || !found.feature_flags.is_disjoint(flags),
        None => true,
    });
    visible.map(|found| found.schemas).ok_or_else(ApiError::entity_not_found)
}

fn no_example() -> ApiError {
    ApiError::bad_request("invalid_scheme", "Unable to generate example message from event-type schema")
}

/// The example's bytes as they stand in the schema; `None` when there is none that could be a payload.
fn example(schemas: Option<&str>, index: u64) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Schema<'a> {
        #[serde(borrow, default)]
        examples: Vec<&'a RawValue>,
    }
    let versions: BTreeMap<String, &RawValue> = serde_json::from_str(schemas?).ok()?;
    let schema: Schema<'_> = serde_json::from_str(versions.get(VERSION)?.get()).ok()?;
    let example = schema.examples.get(usize::try_from(index).ok()?)?.get().as_bytes();
    payload::check(example).is_ok().then(|| Bytes::copy_from_slice(example))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_sent_as_it_stands_in_the_schema() {
        let schemas = r#"{"1": {"type": "object", "examples": [{"b": 1.0,  "a": 2}, {"c": 3}, 7]}, "2": {}}"#;
        assert_eq!(example(Some(schemas), 0).as_deref(), Some(&br#"{"b": 1.0,  "a": 2}"#[..]));
        assert_eq!(example(Some(schemas), 1).as_deref(), Some(&br#"{"c": 3}"#[..]));
        for index in [2, 3, u64::MAX] {
            assert_eq!(example(Some(schemas), index), None, "{index}");
        }
    }

    #[test]
    fn a_type_without_examples_has_none() {
        for schemas in
            [None, Some("{}"), Some(r#"{"2":{"examples":[{}]}}"#), Some(r#"{"1":true}"#), Some(r#"{"1":{}}"#)]
        {
            assert_eq!(example(schemas, 0), None, "{schemas:?}");
        }
    }
}
