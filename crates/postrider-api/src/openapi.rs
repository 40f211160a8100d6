//! The OpenAPI document, generated from the handlers, and the page that shows it.

use crate::state::ApiState;
use axum::Router;
use utoipa::openapi::OpenApi;

/// What the document says besides its operations.
pub fn base() -> OpenApi {
    OpenApi::default()
}

/// The document's own routes.
pub fn routes(_document: OpenApi) -> Router<ApiState> {
    Router::new()
}
