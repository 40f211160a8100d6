//! Applications: create, list, get, replace, patch, delete.

use super::{endpoints::UPDATE_TRIES, fields};
use crate::{
    auth::Caller,
    error::{ApiError, Errors, Problems},
    idempotency::Idempotency,
    json::{JsonBody, unique_or_null},
    paging::{self, ListResponse, OrderedPageParams},
    patch::Patch,
    query::Query,
    scope::{AppPath, InApplication},
    state::ApiState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use postrider_model::{
    application::{Application, Metadata, Ref},
    environment::EnvironmentId,
    id::{ApplicationKind, Kind},
};
use postrider_store::{
    WriteError,
    applications::{ApplicationFields, ApplicationFilter},
    page::Order,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An application as a caller describes it in full.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationIn {
    /// Shown to people.
    #[schema(min_length = 1, max_length = 4096)]
    name: String,
    /// Your own name for it, unique in the environment; usable wherever its id is.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, pattern = r"^[a-zA-Z0-9\-_.]+$")]
    uid: Option<String>,
    /// Messages per second for each of its endpoints.
    #[serde(default)]
    #[schema(minimum = 1)]
    throttle_rate: Option<u16>,
    /// Older name of `throttleRate`.
    #[serde(default)]
    #[schema(minimum = 1, deprecated)]
    rate_limit: Option<u16>,
    /// Your own data, at most 4096 bytes as JSON.
    #[serde(default, deserialize_with = "unique_or_null")]
    metadata: Option<Metadata>,
}

/// Changes to an application: what is left out stays, `null` clears.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationPatch {
    /// Shown to people.
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1)]
    name: Patch<String>,
    /// Your own name for it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    uid: Patch<String>,
    /// Messages per second for each of its endpoints.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    throttle_rate: Patch<u16>,
    /// Older name of `throttleRate`.
    #[serde(default)]
    #[schema(value_type = Option<u16>, deprecated)]
    rate_limit: Patch<u16>,
    /// Replaces all metadata.
    #[serde(default, deserialize_with = "super::fields::patch_map")]
    #[schema(value_type = Metadata, required = false)]
    metadata: Patch<Metadata>,
}

/// An application as it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationOut {
    /// Its id.
    #[schema(pattern = "^app_[A-Za-z0-9]{27}$")]
    id: String,
    /// Your own name for it.
    uid: Option<String>,
    /// Shown to people.
    name: String,
    /// Messages per second for each of its endpoints.
    throttle_rate: Option<u16>,
    /// Older name of `throttleRate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(deprecated)]
    rate_limit: Option<u16>,
    /// Your own data.
    metadata: Metadata,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<Application> for ApplicationOut {
    fn from(application: Application) -> Self {
        Self {
            id: application.id.to_string(),
            uid: application.uid.map(|uid| uid.as_str().to_owned()),
            name: application.name,
            throttle_rate: application.throttle_rate,
            rate_limit: application.throttle_rate,
            metadata: application.metadata,
            created_at: application.created_at.to_rfc3339(),
            updated_at: application.updated_at.to_rfc3339(),
        }
    }
}

impl ApplicationIn {
    /// Its uid as given.
    pub(crate) fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    /// Checked.
    pub(crate) fn check(self) -> Result<ApplicationFields, Problems> {
        let mut problems = Problems::default();
        let name = problems.check(fields::name(self.name));
        let uid = self.uid.and_then(|uid| problems.check(fields::uid("uid", &uid, ApplicationKind::PREFIX)));
        let throttle_rate = problems.check(fields::throttle(self.throttle_rate, self.rate_limit));
        let metadata = problems.check(fields::metadata(self.metadata.unwrap_or_default()));
        match (name, throttle_rate, metadata) {
            (Some(name), Some(throttle_rate), Some(metadata)) if problems.is_empty() => {
                Ok(ApplicationFields { uid, name, throttle_rate, metadata })
            }
            _ => Err(problems),
        }
    }
}

impl ApplicationPatch {
    fn merge(self, current: Application) -> Result<ApplicationFields, ApiError> {
        let uid = match self.uid {
            Patch::Absent => current.uid,
            Patch::Null => None,
            Patch::Set(uid) => Some(fields::uid("uid", &uid, ApplicationKind::PREFIX)?),
        };
        Ok(ApplicationFields {
            uid,
            name: fields::name(fields::not_null("name", self.name, current.name)?)?,
            throttle_rate: fields::patch_throttle(
                self.throttle_rate,
                self.rate_limit,
                current.throttle_rate,
            )?,
            metadata: fields::metadata(fields::not_null("metadata", self.metadata, current.metadata)?)?,
        })
    }
}

fn refuse(error: WriteError) -> ApiError {
    match error {
        WriteError::Taken => {
            ApiError::conflict("conflict", "An application with that id or uid already exists")
        }
        WriteError::Missing => ApiError::not_found("Application not found"),
        other => other.into(),
    }
}

/// List applications, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/app",
    tag = "Application",
    operation_id = "v1.application.list",
    params(
        ("exclude_apps_with_no_endpoints" = Option<bool>, Query, description = "Leave out applications without endpoints."),
        ("exclude_apps_with_disabled_endpoints" = Option<bool>, Query, description = "Leave out applications all of whose endpoints are disabled."),
        ("exclude_apps_with_svix_play_endpoints" = Option<bool>, Query, description = "Accepted for compatibility; without effect."),
        OrderedPageParams,
    ),
    responses((status = 200, body = ListResponse<ApplicationOut>), Errors),
)]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    query: Query,
) -> Result<Json<ListResponse<ApplicationOut>>, ApiError> {
    let environment = caller.require_environment()?;
    let filter = ApplicationFilter {
        with_endpoints: query.flag("exclude_apps_with_no_endpoints")?,
        not_all_disabled: query.flag("exclude_apps_with_disabled_endpoints")?,
    };
    query.flag("exclude_apps_with_svix_play_endpoints")?;
    let page = paging::ordered_request(&query, Order::Ascending)?;
    let page = state.store.applications(environment, filter, page).await?;
    Ok(Json(ListResponse::new(page, |application| application.id.to_string(), ApplicationOut::from)))
}

/// Whether `create` may answer with what exists.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CreateParams {
    /// Answer 200 with the application of this uid, unchanged, when there is one.
    pub get_if_exists: Option<bool>,
}

/// Create an application.
#[utoipa::path(
    post,
    path = "/api/v1/app",
    tag = "Application",
    operation_id = "v1.application.create",
    params(CreateParams, crate::idempotency::IdempotencyParams),
    request_body = ApplicationIn,
    responses(
        (status = 201, description = "Created.", body = ApplicationOut),
        (status = 200, description = "It exists, and `get_if_exists` was set.", body = ApplicationOut),
        Errors,
    ),
)]
pub async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    query: Query,
    Idempotency(idempotency): Idempotency,
    JsonBody(body): JsonBody<ApplicationIn>,
) -> Result<(StatusCode, Json<ApplicationOut>), ApiError> {
    let environment = caller.require_environment()?;
    let get_if_exists = query.flag("get_if_exists")?;
    let fields = body.check().map_err(Problems::into_error)?;
    let uid = fields.uid.clone();
    // Creating first and reading on conflict: of two callers at the same time, one creates and one reads.
    let taken = match state.store.create_application(environment, fields, idempotency).await {
        Ok(created) => return Ok((StatusCode::CREATED, Json(created.item.into()))),
        Err(error) => error,
    };
    if let (WriteError::Taken, true, Some(uid)) = (&taken, get_if_exists, uid)
        && let Some(application) = state.store.application(environment, &Ref::Uid(uid)).await?
    {
        return Ok((StatusCode::OK, Json(application.into())));
    }
    Err(refuse(taken))
}

/// Get an application by id or uid.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}",
    tag = "Application",
    operation_id = "v1.application.get",
    params(AppPath),
    responses((status = 200, body = ApplicationOut), Errors),
)]
pub async fn get(InApplication { application, .. }: InApplication) -> Json<ApplicationOut> {
    Json(application.into())
}

/// Replace an application, or create one when there is none of this id or uid. What is left out is cleared; a new
/// application has the uid of the body, not of the path.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}",
    tag = "Application",
    operation_id = "v1.application.upsert",
    params(AppPath),
    request_body = ApplicationIn,
    responses(
        (status = 200, description = "Replaced.", body = ApplicationOut),
        (status = 201, description = "Created.", body = ApplicationOut),
        Errors,
    ),
)]
pub async fn upsert(
    State(state): State<ApiState>,
    caller: Caller,
    params: axum::extract::RawPathParams,
    JsonBody(body): JsonBody<ApplicationIn>,
) -> Result<(StatusCode, Json<ApplicationOut>), ApiError> {
    let environment = caller.require_environment()?;
    let fields = body.check().map_err(Problems::into_error)?;
    let reference = params.iter().find(|(name, _)| *name == "app_id").and_then(|(_, text)| Ref::parse(text));
    for _ in 0..UPDATE_TRIES {
        let found = match &reference {
            Some(reference) => state.store.application(environment, reference).await?,
            None => None,
        };
        if let Some(application) = found {
            match replace(&state, environment, &application, fields.clone()).await? {
                Some(application) => return Ok((StatusCode::OK, Json(application.into()))),
                // Perhaps deleted in between: then there is none, and one is created.
                None => continue,
            }
        }
        match state.store.create_application(environment, fields.clone(), None).await {
            Ok(created) => return Ok((StatusCode::CREATED, Json(created.item.into()))),
            // Another caller has just created the application that both name: now it is there to be replaced.
            Err(WriteError::Taken) if reference.as_ref().and_then(Ref::uid) == fields.uid.as_ref() => {}
            Err(error) => return Err(refuse(error)),
        }
    }
    Err(WriteError::Stale.into())
}

/// Change members of an application.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}",
    tag = "Application",
    operation_id = "v1.application.patch",
    params(AppPath),
    request_body = ApplicationPatch,
    responses((status = 200, body = ApplicationOut), Errors),
)]
pub async fn patch(
    State(state): State<ApiState>,
    caller: Caller,
    target: Result<InApplication, ApiError>,
    JsonBody(body): JsonBody<ApplicationPatch>,
) -> Result<Json<ApplicationOut>, ApiError> {
    let environment = caller.require_environment()?;
    let mut current = target?.application;
    let id = Ref::Id(current.id);
    for _ in 0..UPDATE_TRIES {
        let fields = body.clone().merge(current.clone())?;
        if let Some(application) = replace(&state, environment, &current, fields).await? {
            return Ok(Json(application.into()));
        }
        let found = state.store.application(environment, &id).await?;
        current = found.ok_or_else(|| refuse(WriteError::Missing))?;
    }
    Err(WriteError::Stale.into())
}

/// Replaces the application as it was read; `None` when it was changed or deleted since, so that the caller looks again.
async fn replace(
    state: &ApiState,
    environment: &EnvironmentId,
    current: &Application,
    fields: ApplicationFields,
) -> Result<Option<Application>, ApiError> {
    match state.store.replace_application(environment, current.id, current.version, fields).await {
        Ok(application) => Ok(Some(application)),
        Err(WriteError::Stale | WriteError::Missing) => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}

/// Delete an application with its endpoints. Nothing more is sent; its uid can be used again.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}",
    tag = "Application",
    operation_id = "v1.application.delete",
    params(AppPath),
    responses((status = 204, description = "Deleted."), Errors),
)]
pub async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    target: Result<InApplication, ApiError>,
) -> Result<StatusCode, ApiError> {
    let environment = caller.require_environment()?;
    let id = target?.application.id;
    if !state.store.delete_application(environment, id).await? {
        return Err(ApiError::not_found("Application not found"));
    }
    Ok(StatusCode::NO_CONTENT)
}
