//! The metrics of this node, for Prometheus.

use crate::{error::ApiError, state::ApiState};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of this node in the OpenMetrics format, for those who have `api.metrics_token`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Health",
    operation_id = "metrics",
    responses((status = 200, content_type = "application/openmetrics-text", body = String), crate::error::Errors),
)]
pub async fn get(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorise(&state, &headers)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.render().await).into_response())
}

fn authorise(state: &ApiState, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(expected) = &state.config.metrics_token else {
        return if state.config.dev {
            Ok(())
        } else {
            Err(ApiError::not_found(
                "Metrics are not served: set `api.metrics_token` in the configuration and send it as bearer token",
            ))
        };
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default();
    verify_slices_are_equal(given.as_bytes(), expected.expose().as_bytes())
        .map_err(|_| ApiError::unauthorized("Send `api.metrics_token` as bearer token"))
}
