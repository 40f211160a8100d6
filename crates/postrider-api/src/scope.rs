//! What a path names: the application and endpoint, found for the caller or 404. One place decides what exists for whom.

use crate::{auth::Caller, error::ApiError, state::ApiState};
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use postrider_model::{
    access::Scope,
    application::{Application, Ref},
    endpoint::Endpoint,
    id::{Id, Kind},
};
use postrider_store::endpoints::AppScope;
use utoipa::IntoParams;

/// The parameter of paths below an application, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// The application's id or uid.
    pub app_id: String,
}

/// The parameters of paths below an endpoint, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct EndpointPath {
    /// The application's id or uid.
    pub app_id: String,
    /// The endpoint's id or uid.
    pub endpoint_id: String,
}

/// The application in the path, for callers that may configure it and read its history: those of the environment and
/// of this application.
#[derive(Debug, Clone)]
pub struct InApplication {
    /// Who calls.
    pub caller: Caller,
    /// The application.
    pub application: Application,
    /// The same as the store's calls want it.
    pub scope: AppScope,
}

/// The endpoint in the path, for the same callers.
#[derive(Debug, Clone)]
pub struct InEndpoint {
    /// Who calls.
    pub caller: Caller,
    /// The application.
    pub application: Application,
    /// The same as the store's calls want it.
    pub scope: AppScope,
    /// The endpoint.
    pub endpoint: Endpoint,
}

impl InApplication {
    /// 403 for tokens of one application, for operations that are the publisher's.
    pub fn require_environment(&self) -> Result<(), ApiError> {
        self.caller.require_environment().map(drop)
    }
}

/// The application of this id or uid as the caller sees it: `None` also for another application than the one that its
/// token is for.
pub async fn find_application(
    state: &ApiState,
    caller: &Caller,
    reference: &str,
) -> Result<Option<Application>, ApiError> {
    let Some(reference) = Ref::parse(reference) else { return Ok(None) };
    let found = state.store.application(&caller.identity.environment, &reference).await?;
    Ok(found.filter(|application| caller.sees(application.id)))
}

/// The endpoint of this id or uid in the application, or 404.
pub async fn find_endpoint(
    state: &ApiState,
    scope: &AppScope,
    reference: &str,
) -> Result<Endpoint, ApiError> {
    let reference = Ref::parse(reference).ok_or_else(ApiError::entity_not_found)?;
    state.store.endpoint(scope, &reference).await?.ok_or_else(ApiError::entity_not_found)
}

/// The text of a path parameter, percent-decoded; 404 when it is not UTF-8, since nothing has such a name.
pub async fn path_text(parts: &mut Parts, state: &ApiState, name: &str) -> Result<String, ApiError> {
    let params =
        RawPathParams::from_request_parts(parts, state).await.map_err(|_| ApiError::entity_not_found())?;
    let found = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(ApiError::entity_not_found)
}

/// A path parameter that only an id can name.
pub fn parse_id<K: Kind>(text: &str, absent: &'static str) -> Result<Id<K>, ApiError> {
    Id::parse(text).ok_or_else(|| ApiError::not_found(absent))
}

impl FromRequestParts<ApiState> for InApplication {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if matches!(caller.identity.scope, Scope::Publish { .. }) {
            return Err(ApiError::forbidden());
        }
        let reference = path_text(parts, state, "app_id").await?;
        let application = find_application(state, &caller, &reference)
            .await?
            .ok_or_else(|| ApiError::not_found("Application not found"))?;
        let scope =
            AppScope { environment: caller.identity.environment.clone(), application: application.id };
        Ok(Self { caller, application, scope })
    }
}

impl FromRequestParts<ApiState> for InEndpoint {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let InApplication { caller, application, scope } =
            InApplication::from_request_parts(parts, state).await?;
        let reference = path_text(parts, state, "endpoint_id").await?;
        let endpoint = find_endpoint(state, &scope, &reference).await?;
        Ok(Self { caller, application, scope, endpoint })
    }
}
