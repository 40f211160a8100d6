//! The table of contents: every route of the API, by group. Paths stand at the handlers.

use crate::{openapi, state::ApiState, transport::Api, v1};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The whole API, ready to be served.
pub fn router(state: ApiState) -> Api {
    let (routes, document) = operations().split_for_parts();
    Api::new(routes.merge(openapi::routes(&document)), state)
}

/// Health and metrics alone: what a node answers that serves no API.
pub fn operating_router(state: ApiState) -> Api {
    let (routes, _) = operating().split_for_parts();
    Api::without_api(routes, state)
}

/// All operations and their description.
pub fn operations() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(access())
        .merge(configuration())
        .merge(publishing())
        .merge(history())
        .merge(standing())
        .merge(operating())
        .merge(not_built())
}

/// Who the caller is.
fn access() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(v1::whoami::whoami))
}

/// What is configured: applications, endpoints with their credentials, event types.
fn configuration() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(v1::applications::list, v1::applications::create))
        .routes(routes!(
            v1::applications::get,
            v1::applications::upsert,
            v1::applications::patch,
            v1::applications::delete
        ))
        .routes(routes!(v1::endpoints::list, v1::endpoints::create))
        .routes(routes!(
            v1::endpoints::get,
            v1::endpoints::upsert,
            v1::endpoints::patch,
            v1::endpoints::delete
        ))
        .routes(routes!(v1::headers::get, v1::headers::set, v1::headers::patch))
        .routes(routes!(v1::secrets::get))
        .routes(routes!(v1::secrets::rotate))
        .routes(routes!(v1::oauth::get, v1::oauth::set, v1::oauth::delete))
        .routes(routes!(v1::oauth::get_config))
        .routes(routes!(v1::event_types::list, v1::event_types::create))
        .routes(routes!(
            v1::event_types::get,
            v1::event_types::upsert,
            v1::event_types::patch,
            v1::event_types::delete
        ))
}

/// Messages, examples and tests.
fn publishing() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(v1::messages::list, v1::messages::create))
        .routes(routes!(v1::messages::get))
        .routes(routes!(v1::messages::raw))
        .routes(routes!(v1::messages::expunge))
        .routes(routes!(v1::messages::bulk_expunge))
        .routes(routes!(v1::messages::precheck))
        .routes(routes!(v1::examples::send))
        .routes(routes!(v1::test_send::send))
}

/// What happened: attempts, destinations, statistics, and sending again.
#[expect(deprecated, reason = "clients of the first generation call the older lists")]
fn history() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(v1::attempts::by_endpoint))
        .routes(routes!(v1::attempts::by_message))
        .routes(routes!(v1::attempts::by_message_legacy))
        .routes(routes!(v1::attempts::by_message_and_endpoint_legacy))
        .routes(routes!(v1::attempts::get))
        .routes(routes!(v1::attempts::expunge))
        .routes(routes!(v1::destinations::of_message))
        .routes(routes!(v1::destinations::of_endpoint))
        .routes(routes!(v1::destinations::resend))
        .routes(routes!(v1::stats::get))
        .routes(routes!(v1::stats::attempts))
}

/// How endpoints are treated at present.
fn standing() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(v1::breaker::get)).routes(routes!(v1::throttle::get))
}

/// For operators.
fn operating() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(v1::health::get))
        .routes(routes!(v1::health::ping))
        .routes(routes!(v1::metrics::get))
}

/// Operations of the Svix API that are answered with 501.
fn not_built() -> OpenApiRouter<ApiState> {
    v1::not_built::routes().into()
}
