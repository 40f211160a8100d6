//! The signing secret of an endpoint: get, rotate with overlap.

use super::credentials::generate_secret;
use crate::{
    error::{ApiError, Errors, Problem},
    idempotency::{Idempotency, IdempotencyParams},
    json::OptionalJsonBody,
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State, response::IntoResponse};
use http::header;
use postrider_model::{limits, signature::SigningSecret};
use postrider_store::WriteError;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// How long the previous secret signs along unless the caller says otherwise.
const DEFAULT_OVERLAP_SECONDS: u32 = 24 * 3600;

/// What verifies an endpoint's messages.
#[derive(Serialize, ToSchema)]
pub struct EndpointSecretOut {
    /// The shared secret (`whsec_…`) or the public key (`whpk_…`).
    #[schema(format = Password, example = "example-not-a-secret")]
    key: String,
}

/// How to rotate.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSecretRotateIn {
    /// The new secret; generated when left out.
    #[serde(default)]
    #[schema(write_only, format = Password, example = "example-not-a-secret")]
    key: Option<String>,
    /// How long the previous secret signs along; 0 drops it at once.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    grace_period_seconds: Option<u32>,
}

/// Get the signing secret of an endpoint.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get-secret",
    params(EndpointPath),
    responses((status = 200, body = EndpointSecretOut), Errors),
)]
pub async fn get(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<impl IntoResponse, ApiError> {
    let secret =
        state.store.signing_secret(&scope, endpoint.id).await?.ok_or_else(ApiError::entity_not_found)?;
    Ok(shown(&secret))
}

/// Rotate the signing secret of an endpoint. During the overlap, messages carry a signature of each secret.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate",
    tag = "Endpoint",
    operation_id = "v1.endpoint.rotate-secret",
    params(EndpointPath, IdempotencyParams),
    request_body = EndpointSecretRotateIn,
    responses((status = 200, description = "The new secret.", body = EndpointSecretOut), Errors),
)]
pub async fn rotate(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
    Idempotency(idempotency): Idempotency,
    OptionalJsonBody(body): OptionalJsonBody<EndpointSecretRotateIn>,
) -> Result<impl IntoResponse, ApiError> {
    let overlap = Duration::from_secs(body.grace_period_seconds.unwrap_or(DEFAULT_OVERLAP_SECONDS).into());
    if overlap > limits::SECRET_OVERLAP {
        let most = limits::SECRET_OVERLAP.as_secs();
        return Err(Problem::body("gracePeriodSeconds", format!("expected 0 to {most} seconds")).into());
    }
    let new = match body.key {
        None => generate_secret(state.config.default_signature_type),
        Some(text) => SigningSecret::parse(&text).map_err(|reason| Problem::body("key", reason))?,
    };
    let rotated = state.store.rotate_signing_secret(&scope, endpoint.id, new, overlap, idempotency).await;
    let rotated = rotated.map_err(|error| match error {
        WriteError::Limit(_) => ApiError::bad_request(
            "limit_reached",
            format!(
                "You can only rotate a key {} times; wait until a previous one has expired, or rotate with a gracePeriodSeconds of 0.",
                limits::PREVIOUS_SECRETS
            ),
        ),
        other => other.into(),
    })?;
    Ok(shown(&rotated.item))
}

/// The public form, not to be kept by any cache on the way.
fn shown(secret: &SigningSecret) -> impl IntoResponse + use<> {
    let key = secret.verification_key().expose_secret().to_owned();
    ([(header::CACHE_CONTROL, "no-store")], Json(EndpointSecretOut { key }))
}
