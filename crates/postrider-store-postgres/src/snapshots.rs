//! Loading what messages are matched and sent with: the endpoints of an application, their credentials opened.

use crate::{
    Shared,
    connection::Connection,
    endpoint_rows,
    failure::{Failure, inconsistent},
    secrets::{self, EnvironmentKeys, Sealed, kind},
    values::{at, count, from_json, key},
};
use postrider_model::{
    endpoint::Endpoint,
    headers::{CustomHeader, CustomHeaders},
    id::EndpointId,
    oauth::OAuthCredential,
    signature::SigningSecret,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    endpoints::AppScope,
    snapshot::{Credentials, SendSettings, SigningKey, Snapshot},
};
use secrecy::{ExposeSecret, SecretString};
use std::{collections::HashMap, sync::Arc};
use tokio_postgres::Row;

/// Headers as their column keeps them: names in order, with the values that are not sensitive.
pub(crate) type StoredHeaders = Vec<(String, Option<String>)>;

/// What the endpoint's row holds besides its configuration.
struct Attached {
    headers: Option<String>,
    oauth: Option<String>,
    oauth_version: u64,
}

/// The snapshot of an application, from memory in the usual case; `None` when there is no such application.
pub(crate) async fn current(shared: &Shared, scope: &AppScope) -> Result<Option<Arc<Snapshot>>, Failure> {
    if let Some(snapshot) = shared.memory.snapshot(scope) {
        return Ok(Some(snapshot));
    }
    let version = shared.memory.version(scope.application);
    let mut connection = shared.hot_pool.get().await?;
    connection.see(scope.environment.as_str());
    // One moment of the database: version, endpoints and credentials belong together.
    connection.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let loaded = load(shared, &connection, scope, shared.clock.now()).await;
    connection.end(true).await?;
    let snapshot = loaded?.map(Arc::new);
    if let Some(snapshot) = &snapshot {
        shared.memory.keep_snapshot(scope.clone(), version, snapshot);
    }
    Ok(snapshot)
}

/// Reads the endpoints of an application. Credentials that cannot be opened, and rows that cannot be read, are noted with
/// each endpoint: its attempts show why they fail.
async fn load(
    shared: &Shared,
    connection: &Connection,
    scope: &AppScope,
    now: Timestamp,
) -> Result<Option<Snapshot>, Failure> {
    let application = key(&scope.application);
    let row = connection
        .first_row(
            "SELECT config_version, throttle_rate FROM application WHERE id = $1 AND environment = $2 AND deleted_at IS NULL",
            &[&application, &scope.environment.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let version: i64 = at(&row, 0)?;
    let rate = at::<Option<i32>>(&row, 1)?.and_then(|rate| u16::try_from(rate).ok());
    let text = format!(
        "SELECT {}, headers, oauth, oauth_version FROM endpoint
         WHERE application = $1 AND deleted_at IS NULL ORDER BY id",
        endpoint_rows::COLUMNS
    );
    let rows = connection.query(&text, &[&application]).await?;
    let text = format!(
        "SELECT {} FROM secret WHERE application = $1 ORDER BY owner, kind, version DESC, id",
        secrets::COLUMNS
    );
    let mut sealed: HashMap<EndpointId, Vec<Sealed>> = HashMap::new();
    for row in connection.query(&text, &[&application]).await? {
        let secret = secrets::read(&row)?;
        sealed.entry(secret.owner).or_default().push(secret);
    }
    let keys = secrets::keys_of(shared, connection, &scope.environment).await;
    let keys = match &keys {
        Ok(Some(keys)) => Ok(&**keys),
        Ok(None) => Err("the environment has no data key".to_owned()),
        Err(Failure::Store(error)) => Err(error.to_string()),
        Err(_) => Err("the environment's data key could not be read".to_owned()),
    };
    let mut endpoints = Vec::with_capacity(rows.len());
    for row in &rows {
        endpoints.push(Arc::new(settings(row, scope, &sealed, &keys, rate, now)?));
    }
    Ok(Some(Snapshot { version: count(version), endpoints }))
}

fn settings(
    row: &Row,
    scope: &AppScope,
    sealed: &HashMap<EndpointId, Vec<Sealed>>,
    keys: &Result<&EnvironmentKeys, String>,
    of_application: Option<u16>,
    now: Timestamp,
) -> Result<SendSettings, Failure> {
    let endpoint = match endpoint_rows::read(row) {
        Ok(endpoint) => endpoint,
        Err(failure) => return damaged(row, failure, of_application),
    };
    let attached =
        Attached { headers: at(row, 17)?, oauth: at(row, 18)?, oauth_version: count(at(row, 19)?) };
    let none = Vec::new();
    let sealed = sealed.get(&endpoint.id).unwrap_or(&none);
    let credentials = match keys {
        Ok(keys) => credentials(scope, &endpoint, &attached, sealed, keys, now)
            .map_err(|failure| StoreError::from(failure).to_string()),
        Err(why) => Err(why.clone()),
    };
    let throttle_rate = endpoint.throttle_rate.or(of_application);
    Ok(SendSettings { endpoint, credentials, throttle_rate })
}

/// An endpoint whose row cannot be read: the others of its application go on without it.
fn damaged(row: &Row, failure: Failure, throttle_rate: Option<u16>) -> Result<SendSettings, Failure> {
    let endpoint = endpoint_rows::read_damaged(row)?;
    let error = StoreError::from(failure);
    tracing::error!(endpoint.id = %endpoint.id, %error, "an endpoint's configuration cannot be read");
    Ok(SendSettings { endpoint, credentials: Err(error.to_string()), throttle_rate })
}

fn credentials(
    scope: &AppScope,
    endpoint: &Endpoint,
    attached: &Attached,
    sealed: &[Sealed],
    keys: &EnvironmentKeys,
    now: Timestamp,
) -> Result<Credentials, Failure> {
    let mut signing = Vec::new();
    for secret in sealed.iter().filter(|secret| is_signing(&secret.kind)) {
        if secret.valid_until.is_none_or(|until| until > now) {
            signing
                .push(SigningKey { secret: open_signing(keys, scope, secret)?, until: secret.valid_until });
        }
    }
    // The current one first: receivers find it at once.
    signing.sort_by_key(|key| key.until.is_some());
    let headers = headers(endpoint.id, attached.headers.as_deref(), sealed, keys, scope)?;
    let oauth = match &attached.oauth {
        None => None,
        Some(json) => Some(OAuthCredential {
            settings: endpoint_rows::read_oauth(json, endpoint.id)?,
            client_secret: client_secret(endpoint.id, sealed, keys, scope)?,
            version: attached.oauth_version,
        }),
    };
    Ok(Credentials { signing, headers, oauth })
}

/// Is this the kind of a signing secret?
pub(crate) fn is_signing(name: &str) -> bool {
    name == kind::SIGNING_HMAC || name == kind::SIGNING_ED25519
}

/// Opens a signing secret.
pub(crate) fn open_signing(
    keys: &EnvironmentKeys,
    scope: &AppScope,
    sealed: &Sealed,
) -> Result<SigningSecret, Failure> {
    let text = keys.open(scope, sealed)?;
    SigningSecret::parse(text.expose_secret()).map_err(|_| inconsistent("secret", "sealed", sealed.owner))
}

fn client_secret(
    endpoint: EndpointId,
    sealed: &[Sealed],
    keys: &EnvironmentKeys,
    scope: &AppScope,
) -> Result<SecretString, Failure> {
    let secret = sealed.iter().find(|secret| secret.kind == kind::OAUTH);
    keys.open(scope, secret.ok_or_else(|| inconsistent("secret", "kind", endpoint))?)
}

/// Custom headers in their order, sensitive values opened.
pub(crate) fn headers(
    endpoint: EndpointId,
    stored: Option<&str>,
    sealed: &[Sealed],
    keys: &EnvironmentKeys,
    scope: &AppScope,
) -> Result<CustomHeaders, Failure> {
    let stored: StoredHeaders = match stored {
        Some(json) => from_json(json, "endpoint", "headers", endpoint)?,
        None => Vec::new(),
    };
    let mut entries = Vec::with_capacity(stored.len());
    for (name, value) in stored {
        let sensitive = value.is_none();
        let value = if let Some(value) = value {
            SecretString::from(value)
        } else {
            let id = name.to_ascii_lowercase();
            let secret = sealed.iter().find(|secret| secret.kind == kind::HEADER && secret.id == id);
            keys.open(scope, secret.ok_or_else(|| inconsistent("secret", "id", endpoint))?)?
        };
        entries.push(CustomHeader { name, value, sensitive });
    }
    Ok(CustomHeaders::from_stored(entries))
}
