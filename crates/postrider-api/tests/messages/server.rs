//! The router over an embedded store in a temporary directory, called in process, and a stand-in for the engine that
//! records attempts as the tests want them.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use postrider_api::{
    ApiState, Config,
    ports::{Live, Metrics, Pulse, Standing},
};
use postrider_model::{
    access::{Caller, Scope},
    attempt::{Attempt, Phases, Response},
    breaker::Breaker,
    environment::EnvironmentId,
    id::{ApplicationId, EndpointId},
    outcome::Outcome,
    retry::NextStep,
};
use postrider_store::{
    Store,
    access::NewApiKey,
    deliveries::{AttemptRecord, ClaimedDelivery, Room},
};
use postrider_store_sqlite::SqliteStore;
use postrider_vault::keyring::Keyring;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tower::ServiceExt;

/// An API without a network.
#[derive(Clone)]
pub(crate) struct Server {
    router: postrider_api::Api,
    pub(crate) store: Arc<dyn Store>,
    _folder: Arc<TempDir>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` when there is none.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }

    /// The body as JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// An environment with its token, one application and one endpoint.
pub(crate) struct Tenant {
    pub(crate) environment: EnvironmentId,
    pub(crate) token: String,
    pub(crate) app: String,
    pub(crate) endpoint: String,
}

struct Quiet;

#[async_trait::async_trait]
impl Pulse for Quiet {
    fn live(&self) -> Live {
        Live::default()
    }

    async fn standing(&self, _: EndpointId) -> Option<Standing> {
        Some(Standing::of(Breaker::default(), 10, None))
    }
}

#[async_trait::async_trait]
impl Metrics for Quiet {
    async fn render(&self) -> String {
        String::new()
    }

    fn accepted(&self) {}
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
        let settings =
            postrider_store_sqlite::Config { data_dir: folder.path().join("data"), ..Default::default() };
        std::fs::create_dir_all(&settings.data_dir).unwrap();
        let store: Arc<dyn Store> = SqliteStore::open(settings, keyring).unwrap();
        let state =
            ApiState::new(Arc::clone(&store), Arc::new(Quiet), Arc::new(Quiet), Arc::new(Config::default()));
        Self { router: postrider_api::router(state), store, _folder: Arc::new(folder) }
    }

    /// A token of this scope.
    pub(crate) async fn token(&self, environment: &EnvironmentId, scope: Scope) -> String {
        let caller = Caller { environment: environment.clone(), scope };
        let key = NewApiKey { caller, name: "test".to_owned(), expires_at: None };
        self.store.create_api_key(key).await.unwrap().1.expose_secret().to_owned()
    }

    /// A token of one application.
    pub(crate) async fn token_of_app(&self, tenant: &Tenant, app: &str) -> String {
        let id = ApplicationId::parse(app).unwrap();
        self.token(&tenant.environment, Scope::Application { id, feature_flags: [].into() }).await
    }

    /// A new environment with an application and an endpoint.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let environment = EnvironmentId::parse(&format!("org_{name}")).unwrap();
        let token = self.token(&environment, Scope::Environment).await;
        let mut tenant = Tenant { environment, token, app: String::new(), endpoint: String::new() };
        tenant.app = self.app(&tenant, name).await;
        tenant.endpoint = self.endpoint(&tenant, &tenant.app).await;
        tenant
    }

    /// A new application's id.
    pub(crate) async fn app(&self, tenant: &Tenant, name: &str) -> String {
        let answer = self.post(&tenant.token, "/api/v1/app", json!({"name": name})).await.expect(201);
        answer["id"].as_str().unwrap().to_owned()
    }

    /// A new endpoint's id.
    pub(crate) async fn endpoint(&self, tenant: &Tenant, app: &str) -> String {
        let body = json!({"url": "https://example.com/hook"});
        let answer = self.post(&tenant.token, &format!("/api/v1/app/{app}/endpoint"), body).await.expect(201);
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Publishes to the tenant's application; the message's id.
    pub(crate) async fn publish(&self, tenant: &Tenant, event_type: &str) -> String {
        let body = json!({"eventType": event_type, "payload": {"n": 1}});
        let path = format!("/api/v1/app/{}/msg", tenant.app);
        self.post(&tenant.token, &path, body).await.expect(202)["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::GET, path, None, Bytes::new()).await
    }

    pub(crate) async fn delete(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::DELETE, path, None, Bytes::new()).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::POST, path, None, body.to_string().into()).await
    }

    /// Any request.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        idempotency_key: Option<&str>,
        body: Bytes,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = response.status();
        let content_type = response.headers().get("content-type");
        let content_type = content_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, content_type, body }
    }

    /// Attempts everything that is due once, with this result; how many attempts that were.
    pub(crate) async fn attempt_all(&self, outcome: Outcome, status: Option<u16>, next: NextStep) -> usize {
        let room = Room { total: 100, per_endpoint: 100, ..Room::default() };
        let claimed = self.store.claim(&room).await.unwrap().deliveries;
        let count = claimed.len();
        let records = claimed.into_iter().map(|delivery| self.record_of(&delivery, outcome, status, next));
        for recorded in self.store.record(records.collect()).await {
            recorded.unwrap();
        }
        count
    }

    fn record_of(
        &self,
        delivery: &ClaimedDelivery,
        outcome: Outcome,
        status: Option<u16>,
        next: NextStep,
    ) -> AttemptRecord {
        let now = self.store.clock().now();
        let url = "https://example.com/hook".to_owned();
        assert!(self.store.started(&delivery.lease, delivery.number, &url));
        let attempt = Attempt {
            id: self.store.ids().next(now),
            delivery: delivery.lease.delivery,
            number: delivery.number,
            trigger: delivery.trigger,
            url,
            started_at: now,
            duration: Duration::from_millis(7),
            outcome,
            detail: format!("It ended as {} (192.0.2.7).", outcome.name()),
            status,
            response: Response { body: Bytes::from_static(b"answer"), truncated: false, expunged: false },
            phases: Phases { dns: Some(Duration::from_millis(1)), ..Phases::default() },
        };
        AttemptRecord { lease: delivery.lease, attempt, next }
    }
}

/// The ids of a list's items.
pub(crate) fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}
