//! The message that a path names, found for the caller or 404.

use crate::{error::ApiError, scope::InApplication, scope::path_text, state::ApiState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use postrider_model::{
    application::Ref,
    id::{AttemptId, MessageId},
    message::MessageWithPayload,
};
use postrider_store::endpoints::AppScope;
use utoipa::IntoParams;

/// The answer when there is no such message, or it is somebody else's.
pub(crate) const NO_MESSAGE: &str = "Message not found";
/// The answer when there is no such attempt.
pub(crate) const NO_ATTEMPT: &str = "Message attempt not found";

/// The parameters of paths below a message, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct MessagePath {
    /// The application's id or uid.
    app_id: String,
    /// The message's id or event id.
    msg_id: String,
}

/// The parameters of paths below a message and an endpoint, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, clippy::struct_field_names, reason = "only its description is used")]
pub(crate) struct MessageEndpointPath {
    /// The application's id or uid.
    app_id: String,
    /// The message's id or event id.
    msg_id: String,
    /// The endpoint's id or uid.
    endpoint_id: String,
}

/// The parameters of paths below an attempt, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, clippy::struct_field_names, reason = "only its description is used")]
pub(crate) struct AttemptPath {
    /// The application's id or uid.
    app_id: String,
    /// The message's id or event id.
    msg_id: String,
    /// The attempt's id.
    attempt_id: String,
}

/// The message in the path, for callers that may read the application's history.
#[derive(Debug)]
pub(crate) struct InMessage {
    /// The application and who calls.
    pub(crate) within: InApplication,
    /// The message with its payload.
    pub(crate) stored: MessageWithPayload,
}

impl InMessage {
    /// The message's id.
    pub(crate) fn id(&self) -> MessageId {
        self.stored.message.id
    }

    /// The application, as the store's calls want it.
    pub(crate) fn scope(&self) -> &AppScope {
        &self.within.scope
    }
}

impl FromRequestParts<ApiState> for InMessage {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let within = InApplication::from_request_parts(parts, state).await?;
        let reference = path_text(parts, state, "msg_id").await?;
        let reference = Ref::parse(&reference).ok_or_else(|| ApiError::not_found(NO_MESSAGE))?;
        let stored = state.store.message(&within.scope, &reference).await?;
        let stored = stored.ok_or_else(|| ApiError::not_found(NO_MESSAGE))?;
        Ok(Self { within, stored })
    }
}

/// The attempt that a path names, not looked for yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedAttempt(pub(crate) AttemptId);

impl FromRequestParts<ApiState> for NamedAttempt {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let text = path_text(parts, state, "attempt_id").await?;
        crate::scope::parse_id(&text, NO_ATTEMPT).map(Self)
    }
}
