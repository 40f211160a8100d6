//! A data directory for a test, and the little that lies in it.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use postrider_model::{
    application::Metadata,
    attempt::{Attempt, Phases, Response},
    environment::EnvironmentId,
    event_type::EventTypeName,
    filter::Filter,
    headers::{CustomHeader, CustomHeaders},
    id::EndpointId,
    oauth::{AuthMethod, OAuthSettings},
    outcome::Outcome,
    retry::{NextStep, RetryOverride},
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    Store, WriteError,
    applications::ApplicationFields,
    deliveries::{AttemptRecord, ClaimedDelivery, Room},
    endpoints::{AppScope, EndpointFields, NewEndpoint, OAuthChange},
    messages::{Accepted, Audience, NewMessage},
};
use postrider_store_sqlite::{Config, SqliteStore};
use postrider_vault::keyring::Keyring;
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Keyring::create(&folder.path().join("keyring.toml")).unwrap();
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> Config {
        Config { data_dir: self.folder.path().join("data"), readers: 2, ..Config::default() }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.config().data_dir.join("postrider.db")
    }

    pub(crate) fn keyring(&self) -> Keyring {
        Keyring::load(&self.folder.path().join("keyring.toml")).unwrap()
    }

    pub(crate) fn open(&self) -> Arc<SqliteStore> {
        SqliteStore::open(self.config(), self.keyring()).unwrap()
    }

    /// The file itself, past the store.
    pub(crate) fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.database()).unwrap()
    }
}

/// An application with one endpoint that gets everything.
pub(crate) async fn world(store: &dyn Store) -> AppScope {
    let environment = EnvironmentId::parse("org_a").unwrap();
    let fields = ApplicationFields { name: "an application".to_owned(), ..ApplicationFields::default() };
    let application = store.create_application(&environment, fields, None).await.unwrap().item.id;
    let scope = AppScope { environment, application };
    endpoint(store, &scope, CustomHeaders::default()).await;
    scope
}

pub(crate) async fn endpoint(store: &dyn Store, scope: &AppScope, headers: CustomHeaders) -> EndpointId {
    let fields = EndpointFields {
        uid: None,
        url: EndpointUrl::parse("https://example.com/hook", &UrlRules::default()).unwrap(),
        description: String::new(),
        throttle_rate: None,
        filter: Filter::default(),
        disabled: false,
        metadata: Metadata::default(),
        retry: RetryOverride::default(),
        legacy_version: 1,
    };
    let new = NewEndpoint { fields, secret: SigningSecret::hmac([7; 24]), headers };
    store.create_endpoint(scope, new, None).await.unwrap().item.id
}

pub(crate) async fn endpoint_with_secrets(
    store: &dyn Store,
    scope: &AppScope,
    header: &str,
    client_secret: &str,
) -> EndpointId {
    let header =
        CustomHeader { name: "X-Key".to_owned(), value: SecretString::from(header), sensitive: true };
    let id = endpoint(store, scope, CustomHeaders::new(vec![header]).unwrap()).await;
    let settings = OAuthSettings {
        auth_method: AuthMethod::ClientSecretBasic,
        client_id: "client".to_owned(),
        token_url: EndpointUrl::parse("https://example.com/token", &UrlRules::default()).unwrap(),
        scopes: vec![],
        extra_params: BTreeMap::new(),
        extra_headers: BTreeMap::new(),
    };
    let change = OAuthChange { settings, client_secret: Some(SecretString::from(client_secret)) };
    store.replace_oauth(scope, id, 1, Some(change)).await.unwrap();
    id
}

pub(crate) fn message(scope: &AppScope, payload: Bytes) -> NewMessage {
    NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: EventTypeName::parse("document.processed").unwrap(),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload,
        payload_lifetime: None,
        deliver_at: None,
        audience: Audience::Matching,
        idempotency: None,
    }
}

pub(crate) async fn publish(
    store: &dyn Store,
    scope: &AppScope,
    bytes: usize,
) -> Result<Accepted, WriteError> {
    store.accept(vec![message(scope, Bytes::from(vec![b'x'; bytes]))]).await.remove(0)
}

pub(crate) async fn claim(store: &dyn Store, total: usize) -> Vec<ClaimedDelivery> {
    store.claim(&Room { total, per_endpoint: total, ..Room::default() }).await.unwrap().deliveries
}

pub(crate) fn success(store: &dyn Store, claimed: &ClaimedDelivery) -> AttemptRecord {
    let started_at = store.clock().now();
    let attempt = Attempt {
        id: store.ids().next(started_at),
        delivery: claimed.lease.delivery,
        number: claimed.number,
        trigger: claimed.trigger,
        url: "https://example.com/hook".to_owned(),
        started_at,
        duration: Duration::from_millis(3),
        outcome: Outcome::Succeeded,
        detail: String::new(),
        status: Some(200),
        response: Response { body: Bytes::from_static(b"ok"), truncated: false, expunged: false },
        phases: Phases { first_byte: Some(Duration::from_millis(2)), ..Phases::default() },
    };
    AttemptRecord { lease: claimed.lease, attempt, next: NextStep::Delivered }
}
