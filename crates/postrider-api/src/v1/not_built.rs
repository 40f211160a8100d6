//! Operations of the Svix API that are not built yet: an authenticated caller gets 501 in JSON, so that a client library
//! tells its user what is missing. They are left out of the OpenAPI document, which shows what works. Products that will
//! not be built (streams, ingest, hosted administration) have no routes at all: 404.

use crate::{auth::Caller, error::ApiError, state::ApiState};
use axum::{Router, routing};

/// Paths of the Svix API that this server means to have one day.
const PATHS: &[&str] = &[
    // Portal access and sessions.
    "/api/v1/auth/app-portal-access/{app_id}",
    "/api/v1/auth/dashboard-access/{app_id}",
    "/api/v1/auth/logout",
    "/api/v1/auth/app/{app_id}/expire-all",
    "/api/v1/auth/one-time-token",
    "/api/v1/environment/settings",
    // Sending again in bulk, and the tasks that do it.
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/recover",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/cancel-msgs",
    "/api/v1/app/{app_id}/msg/expunge-all-contents",
    "/api/v1/background-task",
    "/api/v1/background-task/{task_id}",
    // Client certificates, own authorities, transformations.
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls-config",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/ca",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation",
    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation/simulate",
    // Details and numbers for dashboards.
    "/api/v1/app/stats/count-active",
    "/api/v1/app/{app_id}/stats/attempts",
    "/api/v1/app/{app_id}/events",
    "/api/v1/app/{app_id}/msg/search",
    "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}/count",
    "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/headers",
    "/api/v1/stats/usage/event-types",
    "/api/v1/stats/usage/app",
    "/api/v1/stats/endpoint/count",
    "/api/v1/stats/app/{app_id}/attempt",
    // Event types in bulk, and schedules of their own.
    "/api/v1/event-type/import/openapi",
    "/api/v1/event-type/export/openapi",
    "/api/v1/event-type/{event_type_name}/retry-schedule",
    // Environments and their tokens.
    "/api/v1/environment/export",
    "/api/v1/environment/import",
    "/api/v1/management/environment",
    "/api/v1/management/environment/{env_id}",
    "/api/v1/management/environment-settings",
    "/api/v1/management/authentication/{env_id}/api-token",
    "/api/v1/management/authentication/{env_id}/api-token/{key_id}",
    "/api/v1/management/authentication/{env_id}/api-token/{key_id}/expire",
    "/api/v1/auth/app/{app_id}/create-message-token",
    // Operational webhooks.
    "/api/v1/operational-webhook/endpoint",
    "/api/v1/operational-webhook/endpoint/{endpoint_id}",
    "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret",
    "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret/rotate",
    "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers",
    // Endpoints that are asked instead of called, connectors, broadcasts.
    "/api/v1/auth/app/{app_id}/poller/{endpoint_id}/token",
    "/api/v1/auth/app/{app_id}/poller/{endpoint_id}/token/rotate",
    "/api/v1/app/{app_id}/poller/{sink_id}",
    "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}",
    "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}/seek",
    "/api/v1/app/{app_id}/polling-endpoint/{sink_id}/consumer/{consumer_id}",
    "/api/v1/app/{app_id}/polling-endpoint/{sink_id}/consumer/{consumer_id}/commit",
    "/api/v1/connector",
    "/api/v1/connector/{connector_id}",
    "/api/v1/connector/simulate",
    "/api/v1/msg/broadcast",
];

/// The routes of all of them, whatever the method.
pub(crate) fn routes() -> Router<ApiState> {
    PATHS.iter().fold(Router::new(), |router, path| router.route(path, routing::any(refuse)))
}

async fn refuse(_caller: Caller) -> ApiError {
    ApiError::not_implemented()
}
