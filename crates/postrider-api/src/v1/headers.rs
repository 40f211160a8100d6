//! Custom headers of an endpoint: get, set, patch. Sensitive values go in and never come out.

use super::{
    credentials::{check_clear_text, check_headers, has_sensitive},
    endpoints::UPDATE_TRIES,
};
use crate::{
    error::{ApiError, Errors, Problem},
    json::{JsonBody, unique},
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use postrider_model::{
    application::Ref,
    endpoint::Endpoint,
    headers::{CustomHeader, CustomHeaders, is_sensitive_name},
};
use postrider_store::{WriteError, endpoints::AppScope};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// All custom headers.
#[derive(Deserialize, ToSchema)]
pub struct EndpointHeadersIn {
    /// Name to value; names keep their spelling and are unique whatever their case.
    #[serde(deserialize_with = "unique")]
    #[schema(write_only)]
    headers: BTreeMap<String, String>,
    /// Names among them whose values are never shown again. Those of well-known credentials always are.
    #[serde(default)]
    sensitive: Option<Vec<String>>,
}

/// Changes to custom headers.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHeadersPatchIn {
    /// Sets these; `null` deletes.
    #[serde(default, deserialize_with = "unique")]
    #[schema(write_only)]
    headers: BTreeMap<String, Option<String>>,
    /// Deletes these.
    #[serde(default)]
    delete_headers: Option<Vec<String>>,
    /// Names whose values are never shown again from now on; what is sensitive already stays so.
    #[serde(default)]
    sensitive: Option<Vec<String>>,
}

/// The custom headers that can be shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointHeadersOut {
    /// Name to value, without sensitive ones.
    headers: BTreeMap<String, String>,
    /// Names of headers whose values are not shown.
    sensitive: Vec<String>,
}

impl From<CustomHeaders> for EndpointHeadersOut {
    fn from(headers: CustomHeaders) -> Self {
        let (hidden, shown): (Vec<_>, Vec<_>) = headers.iter().partition(|header| header.sensitive);
        let shown =
            shown.into_iter().map(|header| (header.name.clone(), header.value.expose_secret().to_owned()));
        Self {
            headers: shown.collect(),
            sensitive: hidden.into_iter().map(|header| header.name.clone()).collect(),
        }
    }
}

/// Get the custom headers of an endpoint. Of sensitive ones, only the names.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get-headers",
    params(EndpointPath),
    responses((status = 200, body = EndpointHeadersOut), Errors),
)]
pub async fn get(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<Json<EndpointHeadersOut>, ApiError> {
    let headers = state.store.headers(&scope, endpoint.id).await?.ok_or_else(ApiError::entity_not_found)?;
    Ok(Json(headers.into()))
}

/// Replace all custom headers of an endpoint.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    tag = "Endpoint",
    operation_id = "v1.endpoint.set-headers",
    params(EndpointPath),
    request_body = EndpointHeadersIn,
    responses((status = 204, description = "Replaced."), Errors),
)]
pub async fn set(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
    JsonBody(body): JsonBody<EndpointHeadersIn>,
) -> Result<StatusCode, ApiError> {
    let mut entries: Vec<CustomHeader> =
        body.headers.into_iter().map(|(name, value)| entry(name, value)).collect();
    mark(&mut entries, &body.sensitive.unwrap_or_default())?;
    let headers = check_headers(entries)?;
    update(&state, &scope, endpoint, Change::Replace(headers)).await
}

/// Set and delete single custom headers of an endpoint.
#[utoipa::path(
    patch,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
    tag = "Endpoint",
    operation_id = "v1.endpoint.patch-headers",
    params(EndpointPath),
    request_body = EndpointHeadersPatchIn,
    responses((status = 204, description = "Changed."), Errors),
)]
pub async fn patch(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
    JsonBody(body): JsonBody<EndpointHeadersPatchIn>,
) -> Result<StatusCode, ApiError> {
    update(&state, &scope, endpoint, Change::Merge(body)).await
}

impl EndpointHeadersPatchIn {
    fn merge(&self, current: &CustomHeaders) -> Result<CustomHeaders, Problem> {
        let deleted = self.delete_headers.iter().flatten();
        let mut entries: Vec<CustomHeader> = current
            .iter()
            .filter(|header| !deleted.clone().any(|name| name.eq_ignore_ascii_case(&header.name)))
            .cloned()
            .collect();
        for (name, value) in &self.headers {
            let at = entries.iter().position(|header| header.name.eq_ignore_ascii_case(name));
            match (value, at) {
                (None, Some(at)) => drop(entries.remove(at)),
                (None, None) => {}
                (Some(value), None) => entries.push(entry(name.clone(), value.clone())),
                (Some(value), Some(at)) => {
                    let sensitive = entries[at].sensitive || is_sensitive_name(name);
                    entries[at] = CustomHeader { name: name.clone(), value: value.clone().into(), sensitive };
                }
            }
        }
        mark(&mut entries, self.sensitive.as_deref().unwrap_or_default())?;
        check_headers(entries)
    }
}

fn entry(name: String, value: String) -> CustomHeader {
    CustomHeader { sensitive: is_sensitive_name(&name), name, value: value.into() }
}

fn mark(entries: &mut [CustomHeader], names: &[String]) -> Result<(), Problem> {
    for name in names {
        let entry = entries.iter_mut().find(|header| header.name.eq_ignore_ascii_case(name));
        let entry = entry
            .ok_or_else(|| Problem::body("sensitive", "names a header that is not among the headers"))?;
        entry.sensitive = true;
    }
    Ok(())
}

/// A change of all headers or of some.
enum Change {
    /// These instead of all there are, also when those cannot be read: that is the way out for their owner.
    Replace(CustomHeaders),
    /// These together with those there are.
    Merge(EndpointHeadersPatchIn),
}

/// Stores what `change` makes of the headers as they stand, once more if something came in between.
async fn update(
    state: &ApiState,
    scope: &AppScope,
    mut endpoint: Endpoint,
    change: Change,
) -> Result<StatusCode, ApiError> {
    for _ in 0..UPDATE_TRIES {
        let headers = match &change {
            Change::Replace(headers) => headers.clone(),
            Change::Merge(patch) => {
                let current = state.store.headers(scope, endpoint.id).await?;
                patch.merge(&current.ok_or_else(ApiError::entity_not_found)?)?
            }
        };
        if has_sensitive(&headers) {
            check_clear_text(&endpoint.url, &state.config.url_rules, "headers")?;
        }
        if headers.get("authorization").is_some() && state.store.oauth(scope, endpoint.id).await?.is_some() {
            return Err(Problem::at(
                "body",
                &["headers", "Authorization"],
                "the endpoint's OAuth2 settings make this header: delete those first, or leave the header out",
            )
            .into());
        }
        match state.store.replace_headers(scope, endpoint.id, endpoint.version, headers).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(WriteError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
        endpoint = state
            .store
            .endpoint(scope, &Ref::Id(endpoint.id))
            .await?
            .ok_or_else(ApiError::entity_not_found)?;
    }
    Err(WriteError::Stale.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current() -> CustomHeaders {
        check_headers(vec![
            entry("X-Plain".into(), "1".into()),
            entry("Authorization".into(), "Bearer canary".into()),
            CustomHeader { name: "X-Mine".into(), value: "canary".to_owned().into(), sensitive: true },
        ])
        .unwrap()
    }

    fn patched(text: &str) -> Result<CustomHeaders, Problem> {
        crate::json::parse::<EndpointHeadersPatchIn>(text.as_bytes()).unwrap().merge(&current())
    }

    #[test]
    fn sensitive_values_are_not_shown() {
        let out = serde_json::to_string(&EndpointHeadersOut::from(current())).unwrap();
        assert_eq!(out, r#"{"headers":{"X-Plain":"1"},"sensitive":["Authorization","X-Mine"]}"#);
    }

    #[test]
    fn a_patch_sets_and_deletes_whatever_the_case() {
        let headers = patched(r#"{"headers":{"x-plain":"2","x-mine":"3","authorization":null}}"#).unwrap();
        let out = serde_json::to_string(&EndpointHeadersOut::from(headers)).unwrap();
        assert_eq!(out, r#"{"headers":{"x-plain":"2"},"sensitive":["x-mine"]}"#);
        let headers =
            patched(r#"{"headers":{},"deleteHeaders":["X-MINE","absent"],"sensitive":["X-Plain"]}"#).unwrap();
        let out = serde_json::to_string(&EndpointHeadersOut::from(headers)).unwrap();
        assert_eq!(out, r#"{"headers":{},"sensitive":["X-Plain","Authorization"]}"#);
    }

    #[test]
    fn forbidden_names_and_values_are_refused() {
        for text in [
            r#"{"headers":{"Host":"x"}}"#,
            r#"{"headers":{"webhook-id":"x"}}"#,
            r#"{"headers":{"X-A":"a\r\nb"}}"#,
            r#"{"headers":{},"sensitive":["absent"]}"#,
        ] {
            assert!(patched(text).is_err(), "{text}");
        }
    }
}
