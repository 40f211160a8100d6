//! The router over a store in a temporary directory, and short ways to call it.

use axum::{body::Body, http::Request};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use postrider_api::{
    ApiState, Config,
    auth::ClientAddress,
    ports::{Live, Metrics, Pulse},
};
use postrider_model::{
    access::{Caller, Scope},
    environment::EnvironmentId,
};
use postrider_store::{Store, access::NewApiKey};
use postrider_store_sqlite::SqliteStore;
use postrider_vault::keyring::Keyring;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const METRICS_TOKEN: &str = "metrics-token";
const JWT_SECRET: &str = "a secret that is long enough for HS256";

/// The API with an environment and a key of it.
pub(crate) struct Api {
    router: postrider_api::Api,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) environment: EnvironmentId,
    pub(crate) token: String,
    engine: Arc<Engine>,
    _directory: TempDir,
}

#[derive(Default)]
struct Engine {
    stalled: AtomicBool,
}

impl Pulse for Engine {
    fn live(&self) -> Live {
        let since = if self.stalled.load(Ordering::Relaxed) { 3600 } else { 0 };
        Live { since_last_round: Some(Duration::from_secs(since)), ..Live::default() }
    }
}

#[async_trait::async_trait]
impl Metrics for Engine {
    async fn render(&self) -> String {
        assert!(!self.stalled.load(Ordering::Relaxed), "canary");
        "# EOF\n".to_owned()
    }

    fn accepted(&self) {}
}

/// What came back.
pub(crate) struct Answer {
    status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{:?}", self.bytes);
        if !self.bytes.is_empty()
            && self.headers["content-type"] != "application/openmetrics-text; version=1.0.0; charset=utf-8"
        {
            assert_eq!(self.headers["content-type"], "application/json");
        }
        self
    }

    pub(crate) fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("{member} in {}", self.body)).to_owned()
    }
}

/// An `authorization` header.
pub(crate) fn bearer(token: &str) -> (&'static str, &'static str) {
    ("authorization", Box::leak(format!("Bearer {token}").into_boxed_str()))
}

/// A token as svix-server signs them.
pub(crate) fn jwt(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config { jwt_secret: Some(JWT_SECRET.to_owned().into()), ..Config::default() }).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let directory = TempDir::new().unwrap();
        let store: Arc<dyn Store> = open(&directory);
        let environment = EnvironmentId::parse("org_tests").unwrap();
        store.ensure_environment(&environment).await.unwrap();
        let engine = Arc::new(Engine::default());
        let state = ApiState::new(Arc::clone(&store), engine.clone(), engine.clone(), Arc::new(config));
        let mut api = Self {
            router: postrider_api::router(state),
            store,
            environment,
            token: String::new(),
            engine,
            _directory: directory,
        };
        api.token = api.key(Scope::Environment).await;
        api
    }

    /// A key of this scope in the environment of the tests.
    pub(crate) async fn key(&self, scope: Scope) -> String {
        let caller = Caller { environment: self.environment.clone(), scope };
        let new = NewApiKey { caller, name: "test".to_owned(), expires_at: None };
        self.store.create_api_key(new).await.unwrap().1.expose_secret().to_owned()
    }

    /// From now on the engine's scheduler stands still, and its metrics panic.
    pub(crate) fn stall(&self) {
        self.engine.stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.finish(request.body(body.unwrap_or_default()).unwrap()).await
    }

    async fn finish(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: head.status.as_u16(), headers: head.headers, bytes, body }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(bearer(&self.token));
        let body = body.map(|body| Body::from(body.to_string()));
        self.raw(method, &format!("/api/v1{path}"), &headers, body).await
    }

    /// A call with another token.
    pub(crate) async fn with(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| Body::from(body.to_string()));
        self.raw(method, &format!("/api/v1{path}"), &[bearer(token)], body).await
    }

    /// A list of applications, asked for from this address.
    pub(crate) async fn from(&self, address: [u8; 4], token: &str) -> Answer {
        let (name, value) = bearer(token);
        let mut request =
            Request::builder().uri("/api/v1/app").header(name, value).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ClientAddress(address.into()));
        self.finish(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).await
    }

    /// The id of a new application with this uid.
    pub(crate) async fn app(&self, uid: &str) -> String {
        self.post("/app", serde_json::json!({"name": uid, "uid": uid})).await.is(201).text("id")
    }

    /// The path of a new endpoint in a new application.
    pub(crate) async fn endpoint(&self, url: &str) -> String {
        let app = self.app("app").await;
        let endpoint = self.post(&format!("/app/{app}/endpoint"), serde_json::json!({"url": url})).await;
        format!("/app/{app}/endpoint/{}", endpoint.is(201).text("id"))
    }

    pub(crate) async fn event_type(&self, name: &str) {
        self.post("/event-type", serde_json::json!({"name": name, "description": ""})).await.is(201);
    }
}

fn open(directory: &TempDir) -> Arc<dyn Store> {
    let keyring = Keyring::create(&directory.path().join("keyring.toml")).unwrap();
    let data_dir = directory.path().join("data");
    SqliteStore::open(postrider_store_sqlite::Config { data_dir, ..Default::default() }, keyring).unwrap()
}
