//! Who the caller is, as its token says.

use crate::{
    auth::{Caller, Source},
    error::{ApiError, Errors},
};
use axum::Json;
use postrider_model::access::Scope;
use serde::Serialize;
use utoipa::ToSchema;

/// Where a caller's permissions come from. The names are those of the Svix API.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub enum PermissionSource {
    /// A token of svix-server.
    SvixJwt,
    /// An API key of this server.
    RegionalAuthToken,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoamiOut {
    /// The environment.
    env_id: String,
    /// The application, for tokens of one application.
    app_id: Option<String>,
    /// Where the permissions come from.
    permission_source: PermissionSource,
    /// Always `null` here.
    session_id: Option<String>,
}

/// Get the environment and application that the token is for.
#[utoipa::path(
    get,
    path = "/api/v1/auth/whoami",
    tag = "Authentication",
    operation_id = "v1.authentication.whoami",
    responses((status = 200, body = WhoamiOut), Errors),
)]
pub async fn whoami(Caller { identity, source }: Caller) -> Result<Json<WhoamiOut>, ApiError> {
    let application = match identity.scope {
        Scope::Environment => None,
        Scope::Application { id, .. } => Some(id),
        Scope::Publish { application } => application,
    };
    Ok(Json(WhoamiOut {
        env_id: identity.environment.to_string(),
        app_id: application.map(|id| id.to_string()),
        permission_source: match source {
            Source::ApiKey => PermissionSource::RegionalAuthToken,
            Source::Jwt => PermissionSource::SvixJwt,
        },
        session_id: None,
    }))
}
