//! The synchronous test send: accepts a message for one endpoint and answers with its attempt.
//!
//! It waits for the attempt by reading the store. The attempt may be made by another node than the one that was called,
//! so a signal inside this process would not do; the store is what all nodes share. The waits grow, so a slow receiver
//! costs a few reads a second.

use super::{
    attempt_out::{AttemptView, MessageAttemptOut},
    attempts,
    message_in::{MessageIn, Publication},
    messages,
};
use crate::{
    error::{ApiError, Errors, Problem},
    idempotency::{Idempotency, IdempotencyParams},
    json,
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{
    Json,
    extract::{Request, State},
};
use http::StatusCode;
use postrider_model::{id::MessageId, limits};
use postrider_store::{
    attempts::{AttemptFilter, AttemptsOf, ListedAttempt},
    messages::Audience,
    page::{Order, PageRequest},
};
use std::time::Duration;
use tokio::time::Instant;

/// How long the attempt is waited for: the longest that an answer of this API may take, less time to write it. It covers
/// the total deadline of an attempt (15 s by default) and the moment until one is claimed.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Send a test message to an endpoint and wait for its attempt
///
/// One attempt, whatever the endpoint's filter, without retries; it stands in the history like any other. 504 when no
/// attempt was made in time: the message is accepted all the same, and the detail says where its attempt will appear.
#[utoipa::path(
    post, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg/test-attempt", tag = "Endpoint",
    operation_id = "v1.message.test-attempt",
    params(EndpointPath, IdempotencyParams),
    request_body = MessageIn,
    responses(
        (status = 201, description = "The attempt, successful or not", body = MessageAttemptOut),
        (status = 504, description = "Accepted, but not attempted in time", body = crate::error::ErrorBody),
        Errors
    ),
)]
pub(crate) async fn send(
    State(state): State<ApiState>,
    within: InEndpoint,
    Idempotency(key): Idempotency,
    request: Request,
) -> Result<(StatusCode, Json<MessageAttemptOut>), ApiError> {
    let body = json::read(request, limits::REQUEST_BODY_BYTES).await?;
    let publication = Publication::read(&body, state.store.clock().now())?;
    if publication.is_delayed() {
        return Err(Problem::body("deliverAt", "cannot be given for a test, which is sent at once").into());
    }
    if let Some(disabled) = &within.endpoint.disabled {
        let reason = disabled.reason.explanation();
        return Err(ApiError::bad_request("endpoint_disabled", format!("The endpoint is {reason}")));
    }
    let audience = Audience::Only(within.endpoint.id);
    let message = publication.into_message(within.scope.clone(), audience, key);
    let accepted = messages::accept(&state, message).await?;
    let listed = wait(&state, &within, accepted.message.id).await?;
    let view = AttemptView { reader: attempts::reader(&within.caller), with_content: true };
    Ok((StatusCode::CREATED, Json(MessageAttemptOut::new(listed, view))))
}

/// The attempt of the message, as soon as it is recorded.
async fn wait(state: &ApiState, within: &InEndpoint, message: MessageId) -> Result<ListedAttempt, ApiError> {
    let of = AttemptsOf::MessageToEndpoint(message, within.endpoint.id);
    let newest = PageRequest { limit: 1, order: Order::Descending, cursor: None, backward: false };
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_WAIT;
    loop {
        let page =
            state.store.attempts(&within.scope, of, AttemptFilter::default(), false, newest.clone()).await?;
        if let Some(listed) = page.items.into_iter().next() {
            return Ok(listed);
        }
        if Instant::now() + pause > deadline {
            return Err(not_attempted(within, message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_WAIT);
    }
}

fn not_attempted(within: &InEndpoint, message: MessageId) -> ApiError {
    let application = within.scope.application;
    ApiError::no_result_yet(
        "not_attempted_yet",
        format!(
            "The message {message} was accepted but not attempted within {} seconds. Its attempt will appear under \
             GET /api/v1/app/{application}/attempt/msg/{message}; GET /api/v1/health tells whether deliveries run.",
            PATIENCE.as_secs(),
        ),
    )
}
