//! Endpoints: create, list and search, get, replace, patch, delete.

pub use super::endpoint_out::EndpointOut;
use super::{
    credentials::{check_clear_text, generate_secret, has_sensitive},
    endpoint_in::{EndpointIn, EndpointPatch, require_event_types},
};
use crate::{
    error::{ApiError, Errors, Problem},
    idempotency::{Idempotency, IdempotencyParams},
    json::JsonBody,
    paging::{self, ListResponse, OrderedPageParams},
    query::Query,
    scope::{AppPath, EndpointPath, InApplication, InEndpoint},
    state::ApiState,
};
use axum::{
    Json,
    extract::{RawPathParams, State},
};
use http::StatusCode;
use postrider_model::{application::Ref, endpoint::Endpoint, limits, url::EndpointUrl};
use postrider_store::{
    WriteError,
    endpoints::{AppScope, EndpointFields, EndpointFilter, NewEndpoint},
    page::{Order, Page},
};
use utoipa::IntoParams;

/// How often an update is tried when another one came in between. Each round one of them wins, so this many callers can
/// change one endpoint at the same time and none is told of a conflict; clients do not try again after one.
pub(crate) const UPDATE_TRIES: usize = 64;

/// Restricts the list of endpoints; all that is given must hold.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParams {
    /// Part of the URL, whatever the case.
    pub url: Option<String>,
    /// Only disabled (`true`) or only enabled (`false`) ones.
    pub disabled: Option<bool>,
    /// The same as `enabled` or `disabled`.
    pub state: Option<String>,
    /// Only those with this metadata value: `metadata[team]=blue`.
    #[param(rename = "metadata[key]")]
    pub metadata: Option<String>,
}

/// List the endpoints of an application, newest first, or search them.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint",
    tag = "Endpoint",
    operation_id = "v1.endpoint.list",
    params(AppPath, SearchParams, OrderedPageParams),
    responses((status = 200, body = ListResponse<EndpointOut>), Errors),
)]
pub async fn list(
    State(state): State<ApiState>,
    InApplication { scope, .. }: InApplication,
    query: Query,
) -> Result<Json<ListResponse<EndpointOut>>, ApiError> {
    let filter = filter(&query)?;
    let page = paging::ordered_request(&query, Order::Descending)?;
    let page = state.store.endpoints(&scope, filter, page).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for endpoint in page.items {
        items.push((endpoint.id, shown(&state, &scope, endpoint).await?));
    }
    let page = Page { items, done: page.done };
    Ok(Json(ListResponse::new(page, |(id, _)| id.to_string(), |(_, endpoint)| endpoint)))
}

fn filter(query: &Query) -> Result<EndpointFilter, Problem> {
    let url_contains = query.text("url").filter(|text| !text.is_empty());
    if url_contains.is_some_and(|text| text.len() > limits::URL_BYTES) {
        return Err(Problem::query("url", format!("at most {} bytes are possible", limits::URL_BYTES)));
    }
    let state = query.read("state", "expected `enabled` or `disabled`", |text| match text {
        "enabled" => Some(false),
        "disabled" => Some(true),
        _ => None,
    })?;
    let disabled = query.boolean("disabled")?;
    if let (Some(state), Some(disabled)) = (state, disabled)
        && state != disabled
    {
        return Err(Problem::query("state", "contradicts `disabled`: give one of them"));
    }
    Ok(EndpointFilter {
        url_contains: url_contains.map(str::to_owned),
        disabled: disabled.or(state),
        metadata: query.map("metadata"),
    })
}

/// Create an endpoint.
#[utoipa::path(
    post,
    path = "/api/v1/app/{app_id}/endpoint",
    tag = "Endpoint",
    operation_id = "v1.endpoint.create",
    params(AppPath, IdempotencyParams),
    request_body = EndpointIn,
    responses((status = 201, description = "Created.", body = EndpointOut), Errors),
)]
pub async fn create(
    State(state): State<ApiState>,
    within: InApplication,
    Idempotency(idempotency): Idempotency,
    JsonBody(body): JsonBody<EndpointIn>,
) -> Result<(StatusCode, Json<EndpointOut>), ApiError> {
    let endpoint = body.check_new(&state.config)?;
    require_event_types(&state, &within.caller, &endpoint.fields.filter.event_types).await?;
    let created = state.store.create_endpoint(&within.scope, endpoint, idempotency).await.map_err(refuse)?;
    // A replay finds the endpoint as it stands, perhaps with settings made since.
    Ok((StatusCode::CREATED, Json(shown(&state, &within.scope, created.item).await?)))
}

/// Get an endpoint by id or uid.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get",
    params(EndpointPath),
    responses((status = 200, body = EndpointOut), Errors),
)]
pub async fn get(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<Json<EndpointOut>, ApiError> {
    Ok(Json(shown(&state, &scope, endpoint).await?))
}

/// Replace an endpoint, or create one when there is none of this id or uid. What is left out is cleared; signing
/// secret, custom headers and OAuth2 settings stay.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    tag = "Endpoint",
    operation_id = "v1.endpoint.upsert",
    params(EndpointPath),
    request_body = EndpointIn,
    responses(
        (status = 200, description = "Replaced.", body = EndpointOut),
        (status = 201, description = "Created.", body = EndpointOut),
        Errors,
    ),
)]
pub async fn upsert(
    State(state): State<ApiState>,
    within: InApplication,
    params: RawPathParams,
    JsonBody(body): JsonBody<EndpointIn>,
) -> Result<(StatusCode, Json<EndpointOut>), ApiError> {
    let fields = body.check(&state.config.url_rules)?;
    require_event_types(&state, &within.caller, &fields.filter.event_types).await?;
    let reference =
        params.iter().find(|(name, _)| *name == "endpoint_id").and_then(|(_, text)| Ref::parse(text));
    for _ in 0..UPDATE_TRIES {
        let Some(current) = find(&state, &within.scope, reference.as_ref()).await? else {
            let endpoint = NewEndpoint {
                fields: fields.clone(),
                secret: generate_secret(state.config.default_signature_type),
                headers: postrider_model::headers::CustomHeaders::default(),
            };
            let created = match state.store.create_endpoint(&within.scope, endpoint, None).await {
                // Another caller has just created the endpoint that both name: now it is there to be replaced.
                Err(WriteError::Taken) if reference.as_ref().and_then(Ref::uid) == fields.uid.as_ref() => {
                    continue;
                }
                created => created.map_err(refuse)?,
            };
            return Ok((StatusCode::CREATED, Json(EndpointOut::new(created.item, false))));
        };
        if let Some(endpoint) = replace(&state, &within.scope, &current, fields.clone()).await? {
            return Ok((StatusCode::OK, Json(shown(&state, &within.scope, endpoint).await?)));
        }
    }
    Err(WriteError::Stale.into())
}

/// Change members of an endpoint.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    tag = "Endpoint",
    operation_id = "v1.endpoint.patch",
    params(EndpointPath),
    request_body = EndpointPatch,
    responses((status = 200, body = EndpointOut), Errors),
)]
pub async fn patch(
    State(state): State<ApiState>,
    InEndpoint { caller, scope, endpoint, .. }: InEndpoint,
    JsonBody(body): JsonBody<EndpointPatch>,
) -> Result<Json<EndpointOut>, ApiError> {
    let id = Ref::Id(endpoint.id);
    let mut current = endpoint;
    for _ in 0..UPDATE_TRIES {
        let fields = body.clone().merge(current.clone(), &state.config.url_rules)?;
        if body.chooses_event_types() {
            require_event_types(&state, &caller, &fields.filter.event_types).await?;
        }
        if let Some(endpoint) = replace(&state, &scope, &current, fields).await? {
            return Ok(Json(shown(&state, &scope, endpoint).await?));
        }
        current = find(&state, &scope, Some(&id)).await?.ok_or_else(ApiError::entity_not_found)?;
    }
    Err(WriteError::Stale.into())
}

/// Delete an endpoint and its credentials. Nothing more is sent; its history stays.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}",
    tag = "Endpoint",
    operation_id = "v1.endpoint.delete",
    params(EndpointPath),
    responses((status = 204, description = "Deleted."), Errors),
)]
pub async fn delete(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<StatusCode, ApiError> {
    if state.store.delete_endpoint(&scope, endpoint.id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::entity_not_found())
    }
}

/// The endpoint with what its credentials tell; from memory in the usual case.
async fn shown(state: &ApiState, scope: &AppScope, endpoint: Endpoint) -> Result<EndpointOut, ApiError> {
    let settings = state.store.send_settings(scope, endpoint.id).await?;
    let has_oauth = match settings.as_deref().map(|settings| &settings.credentials) {
        Some(Ok(credentials)) => credentials.oauth.is_some(),
        // The settings can be read also when a secret cannot be opened.
        Some(Err(_)) => state.store.oauth(scope, endpoint.id).await?.is_some(),
        None => false,
    };
    Ok(EndpointOut::new(endpoint, has_oauth))
}

async fn find(
    state: &ApiState,
    scope: &AppScope,
    reference: Option<&Ref<postrider_model::id::EndpointId>>,
) -> Result<Option<Endpoint>, ApiError> {
    let Some(reference) = reference else { return Ok(None) };
    Ok(state.store.endpoint(scope, reference).await?)
}

/// Replaces the endpoint as it was read; `None` when it was changed or deleted since, so that the caller looks again.
async fn replace(
    state: &ApiState,
    scope: &AppScope,
    current: &Endpoint,
    fields: EndpointFields,
) -> Result<Option<Endpoint>, ApiError> {
    check_new_origin(state, scope, current, &fields.url).await?;
    match state.store.replace_endpoint(scope, current.id, current.version, fields).await {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(WriteError::Stale | WriteError::Missing) => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}

/// A credential goes only where it was entered for: whoever may change a URL must not get to see the sensitive headers by
/// sending them elsewhere.
async fn check_new_origin(
    state: &ApiState,
    scope: &AppScope,
    current: &Endpoint,
    url: &EndpointUrl,
) -> Result<(), ApiError> {
    if current.url.origin() == url.origin() {
        return Ok(());
    }
    let headers = state.store.headers(scope, current.id).await?.unwrap_or_default();
    if has_sensitive(&headers) {
        return Err(Problem::body(
            "url",
            "the endpoint has sensitive headers, which were entered for another scheme, host or port: delete them \
             (PATCH …/headers with deleteHeaders), change the URL, then set them again",
        )
        .kind("secret_reentry_required")
        .into());
    }
    if state.store.oauth(scope, current.id).await?.is_some() {
        check_clear_text(url, &state.config.url_rules, "url")?;
    }
    Ok(())
}

fn refuse(error: WriteError) -> ApiError {
    match error {
        WriteError::Taken => ApiError::conflict("conflict", "An endpoint with that id or uid already exists"),
        other => other.into(),
    }
}
