//! The table of contents: every route of the API, by group. Paths stand at the handlers.

use crate::{openapi, state::ApiState, transport};
use axum::Router;
use utoipa_axum::router::OpenApiRouter;

/// The whole API, ready to be served.
pub fn router(state: ApiState) -> Router {
    let (routes, document) = operations().split_for_parts();
    transport::wrap(routes.merge(openapi::routes(document)), state)
}

/// All operations and their description.
pub fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(access())
        .merge(configuration())
        .merge(publishing())
        .merge(history())
        .merge(operating())
        .merge(not_built())
}

/// Who the caller is.
fn access() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}

/// What is configured: applications, endpoints with their credentials, event types.
fn configuration() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}

/// Messages, examples and tests.
fn publishing() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}

/// What happened: attempts, destinations, statistics, and sending again.
fn history() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}

/// For operators.
fn operating() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}

/// Operations of the Svix API that are answered with 501.
fn not_built() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
}
