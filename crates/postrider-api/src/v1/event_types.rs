//! Event types: create, list, get, replace, patch, archive or delete.

use super::event_type_in::{EventTypeIn, EventTypePatch, NAME_FORM};
use crate::{
    auth::Caller,
    error::{ApiError, Errors, Problem},
    idempotency::{Idempotency, IdempotencyParams},
    json::JsonBody,
    paging::{self, ListResponse, OrderedPageParams},
    query::Query,
    state::ApiState,
};
use axum::{
    Json,
    extract::{RawPathParams, State},
};
use http::StatusCode;
use postrider_model::event_type::{EventType, EventTypeName};
use postrider_store::{WriteError, event_types::EventTypeFilter, page::Order};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use utoipa::{IntoParams, ToSchema};

/// The parameter of paths of an event type, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct EventTypePath {
    /// The event type's name.
    pub event_type_name: String,
}

/// An event type as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeOut {
    /// Its name.
    name: String,
    /// Shown to people.
    description: String,
    /// No longer offered.
    archived: bool,
    /// Still sent, no longer to be chosen.
    deprecated: bool,
    /// JSON Schema of the payload by version; lists have it only `with_content`.
    #[schema(value_type = Option<Object>)]
    schemas: Option<Box<RawValue>>,
    /// Only tokens of applications with one of these flags see the type.
    feature_flags: Option<BTreeSet<String>>,
    /// Older form of `featureFlags`: the flag, when there is exactly one.
    #[schema(deprecated)]
    feature_flag: Option<String>,
    /// Groups types for people.
    group_name: Option<String>,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl EventTypeOut {
    fn new(found: EventType, with_content: bool) -> Self {
        let flags = found.feature_flags;
        // What is stored was checked when it came in.
        let schemas =
            found.schemas.filter(|_| with_content).and_then(|text| RawValue::from_string(text).ok());
        Self {
            name: found.name.as_str().to_owned(),
            description: found.description,
            archived: found.archived,
            deprecated: found.deprecated,
            schemas,
            feature_flag: flags.first().filter(|_| flags.len() == 1).cloned(),
            feature_flags: (!flags.is_empty()).then_some(flags),
            group_name: found.group_name,
            created_at: found.created_at.to_rfc3339(),
            updated_at: found.updated_at.to_rfc3339(),
        }
    }
}

/// Does a reader with these flags see the type? `None` sees all.
pub(crate) fn is_visible(found: &EventType, flags: Option<&BTreeSet<String>>) -> bool {
    flags.is_none_or(|flags| found.feature_flags.is_empty() || !found.feature_flags.is_disjoint(flags))
}

fn path_name(params: &RawPathParams) -> Option<EventTypeName> {
    params.iter().find(|(key, _)| *key == "event_type_name").and_then(|(_, text)| EventTypeName::parse(text))
}

/// What the list of event types shows.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Archived types too.
    pub include_archived: Option<bool>,
    /// With schemas.
    pub with_content: Option<bool>,
}

/// List event types by name.
#[utoipa::path(
    get,
    path = "/api/v1/event-type",
    tag = "Event Type",
    operation_id = "v1.event-type.list",
    params(ListParams, OrderedPageParams),
    responses((status = 200, body = ListResponse<EventTypeOut>), Errors),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    query: Query,
) -> Result<Json<ListResponse<EventTypeOut>>, ApiError> {
    let environment = caller.require_reader()?;
    let with_content = query.flag("with_content")?;
    let filter = EventTypeFilter {
        include_archived: query.flag("include_archived")?,
        visible_with: caller.feature_flags().cloned(),
    };
    let page = paging::ordered_request(&query, Order::Ascending)?;
    let page = state.store.event_types(environment, filter, page).await?;
    let output = |found| EventTypeOut::new(found, with_content);
    Ok(Json(ListResponse::new(page, |found: &EventType| found.name.as_str().to_owned(), output)))
}

/// Create an event type, or revive an archived one.
#[utoipa::path(
    post,
    path = "/api/v1/event-type",
    tag = "Event Type",
    operation_id = "v1.event-type.create",
    params(IdempotencyParams),
    request_body = EventTypeIn,
    responses((status = 201, description = "Created.", body = EventTypeOut), Errors),
)]
pub async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    Idempotency(idempotency): Idempotency,
    JsonBody(body): JsonBody<EventTypeIn>,
) -> Result<(StatusCode, Json<EventTypeOut>), ApiError> {
    let environment = caller.require_environment()?;
    let name = body.name.as_deref().ok_or_else(|| Problem::json(vec!["name".to_owned()], "is required"))?;
    let name = EventTypeName::parse(name).ok_or_else(|| Problem::body("name", NAME_FORM))?;
    let fields = body.check()?;
    let created = state.store.create_event_type(environment, name, fields, idempotency).await;
    let created = created.map_err(|error| match error {
        WriteError::Taken => {
            ApiError::conflict("event_type_exists", "An event_type with this name already exists")
        }
        other => other.into(),
    })?;
    Ok((StatusCode::CREATED, Json(EventTypeOut::new(created.item, true))))
}

/// Get an event type, archived or not.
#[utoipa::path(
    get,
    path = "/api/v1/event-type/{event_type_name}",
    tag = "Event Type",
    operation_id = "v1.event-type.get",
    params(EventTypePath),
    responses((status = 200, body = EventTypeOut), Errors),
)]
pub async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    params: RawPathParams,
) -> Result<Json<EventTypeOut>, ApiError> {
    let environment = caller.require_reader()?;
    let name = path_name(&params).ok_or_else(ApiError::entity_not_found)?;
    let found = state.store.event_type(environment, &name).await?;
    let found = found.filter(|found| is_visible(found, caller.feature_flags()));
    found.map(|found| Json(EventTypeOut::new(found, true))).ok_or_else(ApiError::entity_not_found)
}

/// Replace an event type, or create it. What is left out is cleared.
#[utoipa::path(
    put,
    path = "/api/v1/event-type/{event_type_name}",
    tag = "Event Type",
    operation_id = "v1.event-type.upsert",
    params(EventTypePath),
    request_body = EventTypeIn,
    responses(
        (status = 200, description = "Replaced.", body = EventTypeOut),
        (status = 201, description = "Created.", body = EventTypeOut),
        Errors,
    ),
)]
pub async fn upsert(
    State(state): State<ApiState>,
    caller: Caller,
    params: RawPathParams,
    JsonBody(body): JsonBody<EventTypeIn>,
) -> Result<(StatusCode, Json<EventTypeOut>), ApiError> {
    let environment = caller.require_environment()?;
    let name = path_name(&params).ok_or_else(|| Problem::at("path", &["event_type_name"], NAME_FORM))?;
    let (found, created) = state.store.put_event_type(environment, name, body.check()?).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(EventTypeOut::new(found, true))))
}

/// Change members of an event type.
#[utoipa::path(
    patch,
    path = "/api/v1/event-type/{event_type_name}",
    tag = "Event Type",
    operation_id = "v1.event-type.patch",
    params(EventTypePath),
    request_body = EventTypePatch,
    responses((status = 200, body = EventTypeOut), Errors),
)]
pub async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    params: RawPathParams,
    JsonBody(body): JsonBody<EventTypePatch>,
) -> Result<Json<EventTypeOut>, ApiError> {
    let environment = caller.require_environment()?;
    let name = path_name(&params).ok_or_else(ApiError::entity_not_found)?;
    let current = state.store.event_type(environment, &name).await?.ok_or_else(ApiError::entity_not_found)?;
    let (found, _) = state.store.put_event_type(environment, name, body.merge(current)?).await?;
    Ok(Json(EventTypeOut::new(found, true)))
}

/// Archive an event type: it stays in the history, and endpoints can no longer choose it.
#[utoipa::path(
    delete,
    path = "/api/v1/event-type/{event_type_name}",
    tag = "Event Type",
    operation_id = "v1.event-type.delete",
    params(EventTypePath, ("expunge" = Option<bool>, Query, description = "Delete it for good.")),
    responses((status = 204, description = "Archived or deleted."), Errors),
)]
pub async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    params: RawPathParams,
    query: Query,
) -> Result<StatusCode, ApiError> {
    let environment = caller.require_environment()?;
    let expunge = query.flag("expunge")?;
    let name = path_name(&params).ok_or_else(ApiError::entity_not_found)?;
    if state.store.delete_event_type(environment, &name, expunge).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::entity_not_found())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_with_flags_are_seen_by_those_who_have_one() {
        let mut found = EventType {
            name: EventTypeName::parse("a").unwrap(),
            description: String::new(),
            archived: false,
            deprecated: false,
            schemas: None,
            feature_flags: ["beta".to_owned()].into(),
            group_name: None,
            created_at: postrider_model::time::Timestamp::default(),
            updated_at: postrider_model::time::Timestamp::default(),
        };
        let (none, beta) = (BTreeSet::new(), ["beta".to_owned()].into());
        assert!(
            is_visible(&found, None) && is_visible(&found, Some(&beta)) && !is_visible(&found, Some(&none))
        );
        found.feature_flags.clear();
        assert!(is_visible(&found, Some(&none)));
    }
}
