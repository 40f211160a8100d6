//! Attempts: what was tried and what came back. The same rows that deliveries record; there is no second copy.

use super::{
    attempt_out::{AttemptView, MessageAttemptOut, Reader},
    history::{self, Asked, HistoryParams},
    in_message::{AttemptPath, InMessage, MessageEndpointPath, MessagePath, NO_ATTEMPT, NamedAttempt},
    messages::ContentQuery,
    status::Status,
};
use crate::{
    auth::Caller,
    error::{ApiError, Errors, Problems},
    paging::ListResponse,
    query::Query,
    scope::{EndpointPath, InEndpoint, find_endpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use postrider_model::{id::AttemptKind, time::Timestamp};
use postrider_store::{
    attempts::{AttemptFilter, AttemptsOf},
    endpoints::AppScope,
    page::Page,
};
use utoipa::IntoParams;

/// Filters on attempts, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct AttemptParams {
    /// Only successful (0) or only failed (2) attempts.
    #[param(minimum = 0, maximum = 4)]
    status: Option<u8>,
    /// HTTP status class: 0 (no HTTP response), 100, 200, 300, 400 or 500.
    status_code_class: Option<u16>,
    /// Show response bodies; else `{}`. True by default.
    with_content: Option<bool>,
    /// Taken for compatibility: an attempt is never canceled.
    expanded_statuses: Option<bool>,
}

/// Shows each attempt's message, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct WithMessageParam {
    /// Show each attempt's message, without its payload.
    with_msg: Option<bool>,
}

/// Restricts attempts of a message, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct OfEndpointParam {
    /// Only attempts to this endpoint, by id or uid.
    endpoint_id: Option<String>,
}

/// A list of attempts as it was asked for.
struct AskedAttempts {
    list: Asked<AttemptKind>,
    /// Only successful or failed ones.
    status: Option<Status>,
    status_class: Option<u8>,
    with_message: bool,
    view: AttemptView,
}

impl AskedAttempts {
    fn read(query: &Query, now: Timestamp, caller: &Caller) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let list = Asked::read(query, now, &mut problems);
        let status = problems.check(history::status(query));
        let status_class = problems.check(history::status_class(query));
        let with_content = problems.check(history::with_content(query));
        let with_message = problems.check(query.flag("with_msg"));
        problems.check(query.flag("expanded_statuses"));
        let read = || {
            let view = AttemptView { reader: reader(caller), with_content: with_content? };
            let (status, status_class, with_message) = (status?, status_class?, with_message?);
            Some(Self { list: list?, status, status_class, with_message, view })
        };
        history::complete(read(), problems)
    }

    /// `None` when no attempt can be as asked: attempts have succeeded or failed, nothing else.
    fn filter(&self) -> Option<AttemptFilter> {
        let succeeded = match self.status {
            None => None,
            Some(Status::Success) => Some(true),
            Some(Status::Fail) => Some(false),
            Some(Status::Pending | Status::Sending | Status::Canceled) => return None,
        };
        Some(AttemptFilter { succeeded, status_class: self.status_class, message: self.list.filter.clone() })
    }
}

/// What a caller is shown of outcomes.
pub(crate) fn reader(caller: &Caller) -> Reader {
    if caller.is_consumer() { Reader::Application } else { Reader::Environment }
}

async fn answer(
    state: &ApiState,
    scope: &AppScope,
    of: AttemptsOf,
    asked: AskedAttempts,
) -> Result<Json<ListResponse<MessageAttemptOut>>, ApiError> {
    let page = match asked.filter() {
        None => Page { items: Vec::new(), done: true },
        Some(filter) => state.store.attempts(scope, of, filter, asked.with_message, asked.list.page).await?,
    };
    Ok(Json(ListResponse::new(
        page,
        |listed| listed.attempt.id.to_string(),
        |listed| MessageAttemptOut::new(listed, asked.view),
    )))
}

/// List the attempts to an endpoint, newest first
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-endpoint",
    params(EndpointPath, HistoryParams, AttemptParams, WithMessageParam),
    responses((status = 200, description = "OK", body = ListResponse<MessageAttemptOut>), Errors),
)]
pub(crate) async fn by_endpoint(
    State(state): State<ApiState>,
    within: InEndpoint,
    query: Query,
) -> Result<Json<ListResponse<MessageAttemptOut>>, ApiError> {
    let asked = AskedAttempts::read(&query, state.store.clock().now(), &within.caller)?;
    answer(&state, &within.scope, AttemptsOf::Endpoint(within.endpoint.id), asked).await
}

/// List the attempts of a message, newest first
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/attempt/msg/{msg_id}", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-msg",
    params(MessagePath, HistoryParams, AttemptParams, OfEndpointParam),
    responses((status = 200, description = "OK", body = ListResponse<MessageAttemptOut>), Errors),
)]
pub(crate) async fn by_message(
    State(state): State<ApiState>,
    message: InMessage,
    query: Query,
) -> Result<Json<ListResponse<MessageAttemptOut>>, ApiError> {
    let mut asked = AskedAttempts::read(&query, state.store.clock().now(), &message.within.caller)?;
    asked.with_message = false;
    let of = match query.text("endpoint_id") {
        None => AttemptsOf::Message(message.id()),
        Some(reference) => {
            let endpoint = find_endpoint(&state, message.scope(), reference).await?;
            AttemptsOf::MessageToEndpoint(message.id(), endpoint.id)
        }
    };
    answer(&state, message.scope(), of, asked).await
}

/// List the attempts of a message (first generation of clients)
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-msg-deprecated",
    params(MessagePath, HistoryParams, AttemptParams, OfEndpointParam),
    responses((status = 200, description = "OK", body = ListResponse<MessageAttemptOut>), Errors),
)]
#[deprecated = "clients of the first generation call it"]
pub(crate) async fn by_message_legacy(
    state: State<ApiState>,
    message: InMessage,
    query: Query,
) -> Result<Json<ListResponse<MessageAttemptOut>>, ApiError> {
    by_message(state, message, query).await
}

/// List the attempts of a message to an endpoint (first generation of clients)
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/attempt", tag = "Message Attempt",
    operation_id = "v1.message-attempt.list-by-endpoint-deprecated",
    params(MessageEndpointPath, HistoryParams, AttemptParams),
    responses((status = 200, description = "OK", body = ListResponse<MessageAttemptOut>), Errors),
)]
#[deprecated = "clients of the first generation call it"]
pub(crate) async fn by_message_and_endpoint_legacy(
    State(state): State<ApiState>,
    message: InMessage,
    within: InEndpoint,
    query: Query,
) -> Result<Json<ListResponse<MessageAttemptOut>>, ApiError> {
    let asked = AskedAttempts::read(&query, state.store.clock().now(), &within.caller)?;
    let of = AttemptsOf::MessageToEndpoint(message.id(), within.endpoint.id);
    answer(&state, &within.scope, of, asked).await
}

/// Get an attempt
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}", tag = "Message Attempt",
    operation_id = "v1.message-attempt.get",
    params(AttemptPath, ContentQuery),
    responses((status = 200, description = "OK", body = MessageAttemptOut), Errors),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    message: InMessage,
    NamedAttempt(id): NamedAttempt,
    query: Query,
) -> Result<Json<MessageAttemptOut>, ApiError> {
    let view =
        AttemptView { reader: reader(&message.within.caller), with_content: history::with_content(&query)? };
    let found = state.store.attempt(message.scope(), message.id(), id).await?;
    let listed = found.ok_or_else(|| ApiError::not_found(NO_ATTEMPT))?;
    Ok(Json(MessageAttemptOut::new(listed, view)))
}

/// Delete the response body of an attempt
#[utoipa::path(
    delete, path = "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content", tag = "Message Attempt",
    operation_id = "v1.message-attempt.expunge-content",
    params(AttemptPath),
    responses((status = 204, description = "Deleted"), Errors),
)]
pub(crate) async fn expunge(
    State(state): State<ApiState>,
    message: InMessage,
    NamedAttempt(id): NamedAttempt,
) -> Result<StatusCode, ApiError> {
    message.within.require_environment()?;
    if state.store.expunge_response(message.scope(), message.id(), id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found(NO_ATTEMPT))
    }
}
