//! The OAuth2 settings of an endpoint: get, set, delete. The client secret goes in and never comes out.

use super::credentials::check_clear_text;
use crate::{
    error::{ApiError, Errors, Problem},
    json::{JsonBody, unique_or_null},
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use http::StatusCode;
use postrider_model::{
    endpoint::Endpoint,
    limits,
    oauth::{AuthMethod, OAuthSettings},
    url::{EndpointUrl, UrlRules},
};
use postrider_store::endpoints::{AppScope, OAuthChange};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum GrantType {
    /// With the client's own credentials.
    ClientCredentials,
    /// Not built yet.
    RefreshToken,
}

/// How the client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientAuthMethod {
    /// `Authorization: Basic`.
    ClientSecretBasic,
    /// In the form body.
    ClientSecretPost,
    /// Not built yet.
    ClientSecretJwt,
}

/// The OAuth2 settings to store.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOauthConfigIn {
    /// How a token is asked for.
    grant_type: GrantType,
    /// How the client proves who it is.
    auth_method: ClientAuthMethod,
    /// The client id.
    #[schema(min_length = 1, max_length = 256)]
    client_id: String,
    /// The token endpoint.
    #[schema(format = "uri")]
    token_url: String,
    /// The client secret. Left out, the stored one is kept, as long as client id and origin of the token URL stay.
    #[serde(default)]
    #[schema(write_only, format = Password, example = "example-not-a-secret")]
    client_secret: Option<String>,
    /// Scopes to ask for.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// Further form fields of the token request, such as `audience`.
    #[serde(default, deserialize_with = "unique_or_null")]
    extra_params: Option<BTreeMap<String, String>>,
    /// Further headers of the token request.
    #[serde(default, deserialize_with = "unique_or_null")]
    extra_headers: Option<BTreeMap<String, String>>,
}

/// The OAuth2 settings, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOauthConfigOut {
    /// How a token is asked for.
    grant_type: GrantType,
    /// How the client proves who it is.
    auth_method: ClientAuthMethod,
    /// The client id.
    client_id: String,
    /// The token endpoint.
    token_url: String,
    /// Scopes that are asked for.
    scopes: Option<Vec<String>>,
    /// Further form fields of the token request.
    extra_params: Option<BTreeMap<String, String>>,
    /// Further headers of the token request.
    extra_headers: Option<BTreeMap<String, String>>,
}

/// The OAuth2 settings, if there are any.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointOauthOut {
    /// Are there any?
    enabled: bool,
    /// The settings.
    config: Option<EndpointOauthConfigOut>,
}

impl From<OAuthSettings> for EndpointOauthConfigOut {
    fn from(settings: OAuthSettings) -> Self {
        Self {
            grant_type: GrantType::ClientCredentials,
            auth_method: match settings.auth_method {
                AuthMethod::ClientSecretBasic => ClientAuthMethod::ClientSecretBasic,
                AuthMethod::ClientSecretPost => ClientAuthMethod::ClientSecretPost,
            },
            client_id: settings.client_id,
            token_url: settings.token_url.as_str().to_owned(),
            scopes: (!settings.scopes.is_empty()).then_some(settings.scopes),
            extra_params: (!settings.extra_params.is_empty()).then_some(settings.extra_params),
            extra_headers: (!settings.extra_headers.is_empty()).then_some(settings.extra_headers),
        }
    }
}

impl EndpointOauthConfigIn {
    /// Checked as far as it stands alone.
    fn check(self, rules: &UrlRules) -> Result<OAuthChange, Problem> {
        if self.grant_type == GrantType::RefreshToken {
            return Err(Problem::body("grantType", "refreshToken is not built yet: use clientCredentials"));
        }
        let auth_method = match self.auth_method {
            ClientAuthMethod::ClientSecretBasic => AuthMethod::ClientSecretBasic,
            ClientAuthMethod::ClientSecretPost => AuthMethod::ClientSecretPost,
            ClientAuthMethod::ClientSecretJwt => {
                return Err(Problem::body(
                    "authMethod",
                    "clientSecretJwt is not built yet: use clientSecretBasic or clientSecretPost",
                ));
            }
        };
        // Whatever endpoints may be, the place that gets the client secret is https (`--dev` aside).
        let rules = UrlRules { allow_http: false, ..rules.clone() };
        let token_url = EndpointUrl::parse(&self.token_url, &rules)
            .map_err(|refusal| Problem::body("tokenUrl", refusal.reason))?;
        let client_secret = self.client_secret.map(SecretString::from);
        if let Some(secret) = &client_secret {
            check_secret(secret)?;
        }
        let settings = OAuthSettings {
            auth_method,
            client_id: self.client_id,
            token_url,
            scopes: self.scopes.unwrap_or_default(),
            extra_params: self.extra_params.unwrap_or_default(),
            extra_headers: self.extra_headers.unwrap_or_default(),
        };
        settings.check().map_err(|refusal| Problem::body(refusal.field, refusal.reason))?;
        Ok(OAuthChange { settings, client_secret })
    }
}

fn check_secret(secret: &SecretString) -> Result<(), Problem> {
    use secrecy::ExposeSecret;
    if (1..=limits::HEADER_VALUE_BYTES).contains(&secret.expose_secret().len()) {
        return Ok(());
    }
    let most = limits::HEADER_VALUE_BYTES;
    Err(Problem::body(
        "clientSecret",
        format!("expected 1 to {most} bytes; leave it out to keep the stored one"),
    ))
}

/// A kept secret goes only to where it was entered for, as the client it was entered for.
fn check_kept_secret(current: Option<&OAuthSettings>, change: &OAuthChange) -> Result<(), Problem> {
    if change.client_secret.is_some() {
        return Ok(());
    }
    let Some(current) = current else {
        return Err(Problem::body("clientSecret", "is required: none is stored yet"));
    };
    let same_origin = current.token_url.origin() == change.settings.token_url.origin();
    if same_origin && current.client_id == change.settings.client_id {
        return Ok(());
    }
    Err(Problem::body(
        "clientSecret",
        "client id or origin of the token URL changes: send the client secret with it",
    )
    .kind("secret_reentry_required"))
}

/// Get the OAuth2 settings of an endpoint; 404 when there are none.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get-oauth",
    params(EndpointPath),
    responses((status = 200, body = EndpointOauthConfigOut), Errors),
)]
pub async fn get(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<Json<EndpointOauthConfigOut>, ApiError> {
    let settings = state.store.oauth(&scope, endpoint.id).await?;
    settings
        .map(|settings| Json(settings.into()))
        .ok_or_else(|| ApiError::not_found("The endpoint has no OAuth2 settings"))
}

/// Get the OAuth2 settings of an endpoint, if it has any.
#[utoipa::path(
    get,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth-config",
    tag = "Endpoint",
    operation_id = "v1.endpoint.get-oauth-2",
    params(EndpointPath),
    responses((status = 200, body = EndpointOauthOut), Errors),
)]
pub async fn get_config(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<Json<EndpointOauthOut>, ApiError> {
    let config = state.store.oauth(&scope, endpoint.id).await?.map(EndpointOauthConfigOut::from);
    Ok(Json(EndpointOauthOut { enabled: config.is_some(), config }))
}

/// Set the OAuth2 settings of an endpoint: its messages are sent with a token of this client.
#[utoipa::path(
    put,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    tag = "Endpoint",
    operation_id = "v1.endpoint.set-oauth-config",
    params(EndpointPath),
    request_body = EndpointOauthConfigIn,
    responses((status = 204, description = "Set."), Errors),
)]
pub async fn set(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
    JsonBody(body): JsonBody<EndpointOauthConfigIn>,
) -> Result<StatusCode, ApiError> {
    let change = body.check(&state.config.url_rules)?;
    check_clear_text(&endpoint.url, &state.config.url_rules, "tokenUrl")?;
    check_no_authorization(&state, &scope, &endpoint).await?;
    check_kept_secret(state.store.oauth(&scope, endpoint.id).await?.as_ref(), &change)?;
    // All checks were made against this version: another change in between is a 409.
    state.store.replace_oauth(&scope, endpoint.id, endpoint.version, Some(change)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check_no_authorization(
    state: &ApiState,
    scope: &AppScope,
    endpoint: &Endpoint,
) -> Result<(), ApiError> {
    let headers = state.store.headers(scope, endpoint.id).await?.unwrap_or_default();
    if headers.get("authorization").is_some() {
        return Err(Problem::at(
            "body",
            &["__all__"],
            "the endpoint has a custom `Authorization` header, which OAuth2 would make: delete it first (PATCH …/headers)",
        )
        .into());
    }
    Ok(())
}

/// Delete the OAuth2 settings of an endpoint; its messages are sent without a token.
#[utoipa::path(
    delete,
    path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth",
    tag = "Endpoint",
    operation_id = "v1.endpoint.delete-oauth-config",
    params(EndpointPath),
    responses((status = 204, description = "There are none now."), Errors),
)]
pub async fn delete(
    State(state): State<ApiState>,
    InEndpoint { scope, endpoint, .. }: InEndpoint,
) -> Result<StatusCode, ApiError> {
    if state.store.oauth(&scope, endpoint.id).await?.is_some() {
        state.store.replace_oauth(&scope, endpoint.id, endpoint.version, None).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(members: &str) -> Result<OAuthChange, Problem> {
        let text = format!(r#"{{"clientId":"me","tokenUrl":"https://idp.example.com/token",{members}}}"#);
        crate::json::parse::<EndpointOauthConfigIn>(text.as_bytes()).unwrap().check(&UrlRules::default())
    }

    const BASIC: &str = r#""grantType":"clientCredentials","authMethod":"clientSecretBasic""#;

    #[test]
    fn modes_that_are_not_built_yet_say_so() {
        for members in [
            r#""grantType":"refreshToken","authMethod":"clientSecretBasic","refreshToken":"x""#,
            r#""grantType":"clientCredentials","authMethod":"clientSecretJwt","jwtParams":{"a":1}"#,
        ] {
            assert!(format!("{:?}", change(members).unwrap_err()).contains("not built yet"), "{members}");
        }
    }

    /// O16.
    #[test]
    fn a_kept_secret_is_not_sent_elsewhere() {
        let current = change(BASIC).unwrap().settings;
        let kept = change(BASIC).unwrap();
        assert_eq!(check_kept_secret(Some(&current), &kept), Ok(()));
        let mut path = kept.clone();
        path.settings.token_url =
            EndpointUrl::parse("https://idp.example.com/v2", &UrlRules::default()).unwrap();
        assert_eq!(check_kept_secret(Some(&current), &path), Ok(()));
        let mut elsewhere = kept.clone();
        elsewhere.settings.token_url =
            EndpointUrl::parse("https://evil.example.com/token", &UrlRules::default()).unwrap();
        let refusal = format!("{:?}", check_kept_secret(Some(&current), &elsewhere).unwrap_err());
        assert!(refusal.contains("secret_reentry_required"), "{refusal}");
        let mut other_client = kept.clone();
        other_client.settings.client_id = "you".to_owned();
        assert!(check_kept_secret(Some(&current), &other_client).is_err());
        assert!(check_kept_secret(None, &kept).is_err());
    }

    /// O03, O17.
    #[test]
    fn token_urls_and_extra_parameters_are_checked() {
        let http = UrlRules { allow_http: true, ..UrlRules::default() };
        let text = format!(r#"{{"clientId":"me","tokenUrl":"http://idp.example.com/token",{BASIC}}}"#);
        assert!(crate::json::parse::<EndpointOauthConfigIn>(text.as_bytes()).unwrap().check(&http).is_err());
        for members in [
            r#""extraParams":{"client_id":"x"}"#,
            r#""extraParams":{"Grant_Type":"x"}"#,
            r#""clientSecret":"""#,
        ] {
            assert!(change(&format!("{BASIC},{members}")).is_err(), "{members}");
        }
    }
}
