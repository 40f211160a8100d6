//! Loading what messages are matched and sent with: the endpoints of an application, their credentials opened.

use crate::{
    Shared, endpoint_rows,
    failure::{Failure, inconsistent},
    secrets::{self, EnvironmentKeys, Sealed, kind},
    values::{self, from_json, key},
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
    endpoints::AppScope,
    snapshot::{Credentials, SendSettings, SigningKey, Snapshot},
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

/// Headers as their column keeps them: names in order, with the values that are not sensitive.
pub(crate) type StoredHeaders = Vec<(String, Option<String>)>;

/// What the endpoint's row holds besides its configuration.
pub(crate) struct Attached {
    pub(crate) headers: Option<String>,
    pub(crate) oauth: Option<String>,
    pub(crate) oauth_version: u64,
}

/// The snapshot of an application, from memory in the usual case; `None` when there is no such application.
pub(crate) async fn current(
    shared: &Arc<Shared>,
    scope: &AppScope,
) -> Result<Option<Arc<Snapshot>>, Failure> {
    if let Some(snapshot) = shared.memory.snapshot(scope) {
        return Ok(Some(snapshot));
    }
    let version = shared.memory.version(scope.application);
    let (reading, scope) = (Arc::clone(shared), scope.clone());
    let kept = scope.clone();
    let snapshot = shared
        .hot_readers
        .read(move |connection| {
            let keys = secrets::keys_of(&reading, connection, &scope.environment);
            load(connection, &scope, version, reading.clock.now(), keys.as_ref().map(|keys| keys.as_deref()))
        })
        .await?
        .map(Arc::new);
    if let Some(snapshot) = &snapshot {
        shared.memory.keep_snapshot(kept, snapshot);
    }
    Ok(snapshot)
}

/// Reads the endpoints of an application. Credentials that cannot be opened, and rows that cannot be read, are noted with
/// each endpoint: its attempts show why they fail.
pub(crate) fn load(
    connection: &Connection,
    scope: &AppScope,
    version: u64,
    now: Timestamp,
    keys: Result<Option<&EnvironmentKeys>, &Failure>,
) -> Result<Option<Snapshot>, Failure> {
    let Some(defaults) = defaults(connection, scope)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {}, headers, oauth, oauth_version FROM endpoint
         WHERE application = ?1 AND deleted_at IS NULL ORDER BY id",
        endpoint_rows::COLUMNS
    ))?;
    let mut rows = statement.query([key(&scope.application)])?;
    let mut endpoints = Vec::new();
    while let Some(row) = rows.next()? {
        let endpoint = match endpoint_rows::read(row) {
            Ok(endpoint) => endpoint,
            Err(failure) => {
                endpoints.push(Arc::new(damaged(row, failure, defaults.throttle_rate)?));
                continue;
            }
        };
        let attached = Attached {
            headers: row.get(17)?,
            oauth: row.get(18)?,
            oauth_version: values::count(row.get(19)?),
        };
        let credentials = match keys {
            Ok(Some(keys)) => credentials(connection, scope, &endpoint, &attached, keys, now)
                .map_err(|failure| postrider_store::StoreError::from(failure).to_string()),
            Ok(None) => Err("the environment has no data key".to_owned()),
            Err(Failure::Store(error)) => Err(error.to_string()),
            Err(_) => Err("the environment's data key could not be read".to_owned()),
        };
        let throttle_rate = endpoint.throttle_rate.or(defaults.throttle_rate);
        endpoints.push(Arc::new(SendSettings { endpoint, credentials, throttle_rate }));
    }
    Ok(Some(Snapshot { version, endpoints }))
}

/// An endpoint whose row cannot be read: the others of its application go on without it.
fn damaged(row: &Row<'_>, failure: Failure, throttle_rate: Option<u16>) -> Result<SendSettings, Failure> {
    let endpoint = endpoint_rows::read_damaged(row)?;
    let error = postrider_store::StoreError::from(failure);
    tracing::error!(endpoint.id = %endpoint.id, %error, "an endpoint's configuration cannot be read");
    Ok(SendSettings { endpoint, credentials: Err(error.to_string()), throttle_rate })
}

/// What an application sets for each of its endpoints.
struct Defaults {
    throttle_rate: Option<u16>,
}

/// `None` when there is no such application.
fn defaults(connection: &Connection, scope: &AppScope) -> Result<Option<Defaults>, Failure> {
    let found = connection
        .prepare_cached(
            "SELECT throttle_rate FROM application WHERE id = ?1 AND environment = ?2 AND deleted_at IS NULL",
        )?
        .query_row(params![key(&scope.application), scope.environment.as_str()], |row| {
            Ok(Defaults { throttle_rate: row.get(0)? })
        })
        .optional()?;
    Ok(found)
}

fn credentials(
    connection: &Connection,
    scope: &AppScope,
    endpoint: &Endpoint,
    attached: &Attached,
    keys: &EnvironmentKeys,
    now: Timestamp,
) -> Result<Credentials, Failure> {
    let sealed = secrets::of_endpoint(connection, endpoint.id)?;
    let mut signing = Vec::new();
    for secret in sealed.iter().filter(|secret| is_signing(&secret.kind)) {
        if secret.valid_until.is_none_or(|until| until > now) {
            signing
                .push(SigningKey { secret: open_signing(keys, scope, secret)?, until: secret.valid_until });
        }
    }
    // The current one first: receivers find it at once.
    signing.sort_by_key(|key| key.until.is_some());
    let headers = headers(endpoint.id, attached.headers.as_deref(), &sealed, keys, scope)?;
    let oauth = match &attached.oauth {
        None => None,
        Some(json) => Some(OAuthCredential {
            settings: endpoint_rows::read_oauth(json, endpoint.id)?,
            client_secret: client_secret(endpoint.id, &sealed, keys, scope)?,
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
