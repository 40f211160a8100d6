//! The administration of a database: API keys, health, backups and the hold on deliveries, as a small router over the
//! store.
//!
//! One implementation for both ways: a running server serves it on `<data_dir>/admin.sock`; without one, a command
//! opens the store itself and calls the router in process. There is never a second writer.

pub mod backups;
pub mod holding;

use crate::{
    failure::Failure,
    local::{self, Answer, Place},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use postrider_api::Api;
use postrider_model::{
    access::{ApiKey, Caller, Scope},
    environment::EnvironmentId,
    id::{ApiKeyId, ApplicationId},
};
use postrider_store::{Store, WriteError, access::NewApiKey};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tower::ServiceExt as _;

/// A key to create, as the command sends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateKey {
    /// `org_…`; created when it does not exist. `None`: the only one.
    pub environment: Option<String>,
    /// Shown in lists.
    pub name: String,
    /// Only this application.
    pub application: Option<String>,
    /// Only publishing.
    pub publish: bool,
    /// Ends by itself after so many days.
    pub days: Option<u32>,
}

/// Where the keys are; `None`: in the only environment.
#[derive(Debug, Deserialize)]
struct Whose {
    environment: Option<String>,
}

/// Most environments that a refusal lists.
const LISTED: usize = 20;

/// The routes. `api` answers `/health`.
pub fn router(store: Arc<dyn Store>, api: Option<Api>) -> Router {
    let keys = Router::new()
        .route("/api-keys", get(list).post(create))
        .route("/api-keys/{id}", delete(revoke))
        .with_state(Arc::clone(&store))
        .merge(holding::routes(Arc::clone(&store)))
        .merge(backups::routes(store));
    match api {
        Some(api) => keys.route("/health", get(move || health(api.clone()))),
        None => keys,
    }
}

async fn health(api: Api) -> Response {
    let mut request = Request::new(axum::body::Body::empty());
    *request.uri_mut() = http::Uri::from_static("/api/v1/health");
    api.answer(request).await
}

async fn create(State(store): State<Arc<dyn Store>>, Json(key): Json<CreateKey>) -> Response {
    let environment = match environment(store.as_ref(), key.environment.as_deref()).await {
        Ok(environment) => environment,
        Err(refusal) => return refusal,
    };
    let caller = match scope(&key) {
        Ok(scope) => Caller { environment, scope },
        Err(detail) => return refusal(StatusCode::UNPROCESSABLE_ENTITY, &detail),
    };
    let days = key.days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
    let expires_at = days.map(|days| store.clock().now().plus(days));
    match store.create_api_key(NewApiKey { caller, name: key.name, expires_at }).await {
        Ok((key, token)) => {
            let mut body = shown(&key);
            body["token"] = token.expose_secret().into();
            Json(body).into_response()
        }
        Err(error) => refused(&error),
    }
}

async fn list(State(store): State<Arc<dyn Store>>, Query(whose): Query<Whose>) -> Response {
    let environment = match environment(store.as_ref(), whose.environment.as_deref()).await {
        Ok(environment) => environment,
        Err(refusal) => return refusal,
    };
    match store.api_keys(&environment).await {
        Ok(keys) => Json(keys.iter().map(shown).collect::<Vec<_>>()).into_response(),
        Err(error) => refused(&error.into()),
    }
}

async fn revoke(
    State(store): State<Arc<dyn Store>>,
    Path(id): Path<String>,
    Query(whose): Query<Whose>,
) -> Response {
    let environment = match environment(store.as_ref(), whose.environment.as_deref()).await {
        Ok(environment) => environment,
        Err(refusal) => return refusal,
    };
    let Some(key) = ApiKeyId::parse(&id) else {
        return refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            &format!("`{id}` is not the id of an API key (`key_…`)"),
        );
    };
    match store.revoke_api_key(&environment, key).await {
        Ok(key) => Json(shown(&key)).into_response(),
        Err(WriteError::Missing) => refusal(
            StatusCode::NOT_FOUND,
            &format!("no API key {id} in {environment}: `postrider api-key list` shows its keys"),
        ),
        Err(error) => refused(&error),
    }
}

/// The named environment, or the only one that there is. A refusal lists those that can be named.
async fn environment(store: &dyn Store, named: Option<&str>) -> Result<EnvironmentId, Response> {
    let unclear = |detail: &str| refusal(StatusCode::UNPROCESSABLE_ENTITY, detail);
    if let Some(text) = named {
        return EnvironmentId::parse(text).ok_or_else(|| {
            unclear(&format!(
                "`{text}` is not an environment: `org_` and 1 to 60 letters, digits, `-` or `_`"
            ))
        });
    }
    let mut known = store.environments().await.map_err(|error| refused(&error.into()))?;
    match known.len() {
        0 => Err(unclear(
            "there is no environment yet: name the first one, for example `--environment org_production`",
        )),
        1 => Ok(known.remove(0)),
        number => {
            let names: Vec<_> = known.iter().take(LISTED).map(EnvironmentId::as_str).collect();
            let more = if number > LISTED { ", …" } else { "" };
            Err(unclear(&format!(
                "there are {number} environments: choose with `--environment`: {}{more}",
                names.join(", ")
            )))
        }
    }
}

fn scope(key: &CreateKey) -> Result<Scope, String> {
    let application = match &key.application {
        None => None,
        Some(text) => Some(
            ApplicationId::parse(text)
                .ok_or_else(|| format!("`{text}` is not an application id (`app_…`)"))?,
        ),
    };
    Ok(match (key.publish, application) {
        (true, application) => Scope::Publish { application },
        (false, Some(id)) => Scope::Application { id, feature_flags: BTreeSet::new() },
        (false, None) => Scope::Environment,
    })
}

fn shown(key: &ApiKey) -> Value {
    let (scope, application) = match &key.caller.scope {
        Scope::Environment => ("environment", None),
        Scope::Application { id, .. } => ("application", Some(id.to_string())),
        Scope::Publish { application } => ("publish", application.map(|id| id.to_string())),
    };
    json!({
        "id": key.id.to_string(),
        "environment": key.caller.environment.as_str(),
        "scope": scope,
        "application": application,
        "name": key.name,
        "createdAt": key.created_at.to_rfc3339(),
        "expiresAt": key.expires_at.map(postrider_model::time::Timestamp::to_rfc3339),
        "revokedAt": key.revoked_at.map(postrider_model::time::Timestamp::to_rfc3339),
    })
}

fn refused(error: &WriteError) -> Response {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

/// Where a command finds the administration.
pub enum Administration {
    /// A running server's socket.
    Running(Place),
    /// The store that the command itself has opened.
    Here(Router),
}

impl Administration {
    /// Sends a request; an answer other than 2xx becomes a failure with its detail.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let answer =
            self.send(method, path, body).await.map_err(|error| Failure::other(error.to_string()))?;
        let value = answer.json();
        if (200..300).contains(&answer.status) {
            return Ok(value);
        }
        let detail = value["detail"].as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(Failure::other(detail))
    }

    async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        let body = body.map_or_else(|| Ok(Bytes::new()), |body| serde_json::to_vec(body).map(Bytes::from))?;
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::new(body)).map_err(std::io::Error::other)?;
        match self {
            Self::Running(place) => local::request(place, request).await,
            Self::Here(router) => {
                let answer = router.clone().oneshot(request.map(axum::body::Body::new)).await;
                let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
                let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
                Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
            }
        }
    }
}
