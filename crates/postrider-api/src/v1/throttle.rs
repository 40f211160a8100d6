//! Whether an endpoint's rate limit holds deliveries back at present, on the node that serves it.

use super::breaker::standing;
use crate::{
    error::{ApiError, Errors},
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use postrider_model::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Does the rate limit hold deliveries back? The names are those of the Svix API.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) enum EndpointRateLimitStatus {
    /// No.
    Ok,
    /// Yes.
    RateLimited,
}

/// What the rate limit of an endpoint does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointThrottleRateStatusOut {
    /// Does it hold deliveries back?
    status: EndpointRateLimitStatus,
    /// Since when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    throttled_since: Option<String>,
}

/// Get what the rate limit of an endpoint does
///
/// `RateLimited` while deliveries to the endpoint have to wait for its `throttleRate`, or for that of its application. This
/// is the state on the node that serves the endpoint, whichever is asked. 503 when it does not answer.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/rate-limit-status", tag = "Endpoint",
    operation_id = "v1.endpoint.get-throttling-status",
    params(EndpointPath),
    responses((status = 200, description = "OK", body = EndpointThrottleRateStatusOut), Errors),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    within: InEndpoint,
) -> Result<Json<EndpointThrottleRateStatusOut>, ApiError> {
    let since = standing(&state, within.endpoint.id).await?.throttled_since;
    Ok(Json(EndpointThrottleRateStatusOut {
        status: match since {
            Some(_) => EndpointRateLimitStatus::RateLimited,
            None => EndpointRateLimitStatus::Ok,
        },
        throttled_since: since.map(Timestamp::to_rfc3339),
    }))
}
