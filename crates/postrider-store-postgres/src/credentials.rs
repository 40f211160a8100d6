//! The credentials of an endpoint: custom headers, signing secrets, OAuth2.

use crate::{
    Shared,
    connection::Connection,
    endpoint_rows, endpoints,
    failure::{Failure, Refusal},
    idempotency::{self, Kind},
    secrets::{self, EnvironmentKeys, Plain, kind},
    snapshots::{self, StoredHeaders},
    values::{at, key, to_json},
    work::Work,
};
use postrider_model::{
    headers::CustomHeaders,
    id::{ApplicationId, EndpointId},
    limits,
    oauth::OAuthSettings,
    signature::SigningSecret,
};
use postrider_store::{
    StoreError,
    endpoints::{AppScope, OAuthChange},
    idempotency::{Created, IdempotencyKey},
};
use secrecy::ExposeSecret;
use std::{sync::Arc, time::Duration};

/// The one id of an endpoint's signing secrets; versions tell them apart.
const SIGNING: &str = "signing";
/// The one id of an endpoint's OAuth2 client secret.
const OAUTH: &str = "oauth";

/// Custom headers, sensitive values opened.
pub(crate) async fn headers(
    shared: &Shared,
    scope: &AppScope,
    id: EndpointId,
) -> Result<Option<CustomHeaders>, StoreError> {
    let connection = shared.reader_of(&scope.environment).await?;
    let text = "SELECT headers FROM endpoint WHERE id = $1 AND application = $2 AND deleted_at IS NULL";
    let row = connection.first_row(text, &[&key(&id), &key(&scope.application)]).await?;
    let Some(row) = row else { return Ok(None) };
    let keys = keys_that_exist(shared, &connection, scope).await?;
    let sealed = secrets::of_endpoint(&connection, id).await?;
    Ok(Some(snapshots::headers(id, at(&row, 0)?, &sealed, &keys, scope)?))
}

/// The current signing secret.
pub(crate) async fn signing_secret(
    shared: &Shared,
    scope: &AppScope,
    id: EndpointId,
) -> Result<Option<SigningSecret>, StoreError> {
    let connection = shared.reader_of(&scope.environment).await?;
    if endpoint_rows::of_id(&connection, scope.application, id).await?.is_none() {
        return Ok(None);
    }
    let keys = keys_that_exist(shared, &connection, scope).await?;
    Ok(current(&connection, &keys, scope, id).await?)
}

async fn keys_that_exist(
    shared: &Shared,
    connection: &Connection,
    scope: &AppScope,
) -> Result<Arc<EnvironmentKeys>, Failure> {
    let keys = secrets::keys_of(shared, connection, &scope.environment).await?;
    keys.ok_or_else(|| secrets::no_key(&scope.environment))
}

async fn current(
    connection: &Connection,
    keys: &EnvironmentKeys,
    scope: &AppScope,
    id: EndpointId,
) -> Result<Option<SigningSecret>, Failure> {
    let sealed = secrets::of_endpoint(connection, id).await?;
    let current =
        sealed.iter().find(|secret| snapshots::is_signing(&secret.kind) && secret.valid_until.is_none());
    current.map(|secret| snapshots::open_signing(keys, scope, secret)).transpose()
}

/// The credentials of a new endpoint.
pub(crate) async fn write_first(
    work: &Work,
    scope: &AppScope,
    id: EndpointId,
    secret: &SigningSecret,
    headers: &CustomHeaders,
) -> Result<(), Failure> {
    let keys =
        secrets::keys_for_writing(&work.shared, &work.connection, &scope.environment, work.now).await?;
    put_signing(work, &keys, scope, id, secret, 1).await?;
    put_headers(work, &keys, scope, id, headers).await
}

async fn put_signing(
    work: &Work,
    keys: &EnvironmentKeys,
    scope: &AppScope,
    id: EndpointId,
    secret: &SigningSecret,
    version: u32,
) -> Result<(), Failure> {
    let value = secret.to_text();
    let asymmetric = value.expose_secret().starts_with("whsk_");
    let kind = if asymmetric { kind::SIGNING_ED25519 } else { kind::SIGNING_HMAC };
    let plain = Plain { owner: id, kind, id: SIGNING, version, value: &value };
    secrets::put(&work.connection, keys, scope, &plain, work.now).await
}

async fn put_headers(
    work: &Work,
    keys: &EnvironmentKeys,
    scope: &AppScope,
    id: EndpointId,
    headers: &CustomHeaders,
) -> Result<(), Failure> {
    secrets::delete_kind(&work.connection, id, kind::HEADER).await?;
    let mut stored = StoredHeaders::new();
    for header in headers {
        let open = (!header.sensitive).then(|| header.value.expose_secret().to_owned());
        stored.push((header.name.clone(), open));
        if header.sensitive {
            let name = header.name.to_ascii_lowercase();
            let plain = Plain { owner: id, kind: kind::HEADER, id: &name, version: 1, value: &header.value };
            secrets::put(&work.connection, keys, scope, &plain, work.now).await?;
        }
    }
    let json = (!stored.is_empty()).then(|| to_json(&stored));
    work.connection.execute("UPDATE endpoint SET headers = $2 WHERE id = $1", &[&key(&id), &json]).await?;
    Ok(())
}

/// Counts a change of an endpoint.
async fn touch(work: &mut Work, scope: &AppScope, id: EndpointId) -> Result<(), Failure> {
    let text = "UPDATE endpoint SET version = version + 1, updated_at = $2 WHERE id = $1";
    work.connection.execute(text, &[&key(&id), &work.now.as_micros()]).await?;
    endpoints::may_be_mended(work, id);
    work.application_changes(scope.application).await
}

/// Replaces all custom headers.
pub(crate) async fn replace_headers(
    work: &mut Work,
    scope: &AppScope,
    id: EndpointId,
    from: u64,
    headers: &CustomHeaders,
) -> Result<(), Failure> {
    endpoint_rows::to_change(&work.connection, scope.application, id, from).await?;
    let keys =
        secrets::keys_for_writing(&work.shared, &work.connection, &scope.environment, work.now).await?;
    put_headers(work, &keys, scope, id, headers).await?;
    touch(work, scope, id).await
}

/// Makes `new` the current signing secret.
pub(crate) async fn rotate(
    work: &mut Work,
    scope: &AppScope,
    id: EndpointId,
    new: &SigningSecret,
    overlap: Duration,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<SigningSecret>, Failure> {
    let (connection, now) = (&work.connection, work.now);
    let environment = &scope.environment;
    endpoint_rows::of_id(connection, scope.application, id).await?.ok_or(Refusal::Missing)?;
    let keys = secrets::keys_for_writing(&work.shared, connection, environment, now).await?;
    if idempotency::recall(connection, environment, idempotency, Kind::Rotation, now).await?.as_deref()
        == Some(key(&id))
        && let Some(item) = current(connection, &keys, scope, id).await?
    {
        return Ok(Created { item, replayed: true });
    }
    let sealed = secrets::of_endpoint(connection, id).await?;
    let signing = sealed.iter().filter(|secret| snapshots::is_signing(&secret.kind));
    let overlapping =
        signing.clone().filter(|secret| secret.valid_until.is_some_and(|until| until > now)).count();
    // Without overlap no previous one is added: a secret that leaked can be replaced at any time.
    if !overlap.is_zero() && overlapping >= limits::PREVIOUS_SECRETS {
        let most = limits::PREVIOUS_SECRETS;
        return Err(Refusal::Limit(format!(
            "{most} previous signing secrets are still valid; wait for one to end"
        ))
        .into());
    }
    let version = signing.map(|secret| secret.version).max().unwrap_or(0) + 1;
    let ending = if overlap.is_zero() {
        "DELETE FROM secret WHERE owner = $1 AND id = $2 AND valid_until IS NULL AND $3::bigint IS NOT NULL"
    } else {
        "UPDATE secret SET valid_until = $3 WHERE owner = $1 AND id = $2 AND valid_until IS NULL"
    };
    let until = now.plus(overlap.min(limits::SECRET_OVERLAP));
    connection.execute(ending, &[&key(&id), &SIGNING, &until.as_micros()]).await?;
    put_signing(work, &keys, scope, id, new, version).await?;
    idempotency::remember(connection, environment, idempotency, Kind::Rotation, key(&id), now).await?;
    touch(work, scope, id).await?;
    Ok(Created { item: new.clone(), replayed: false })
}

/// The OAuth2 settings.
pub(crate) async fn oauth(
    connection: &Connection,
    application: ApplicationId,
    id: EndpointId,
) -> Result<Option<OAuthSettings>, Failure> {
    let text = "SELECT oauth FROM endpoint WHERE id = $1 AND application = $2 AND deleted_at IS NULL";
    let row = connection.first_row(text, &[&key(&id), &key(&application)]).await?;
    let stored: Option<Option<String>> = row.map(|row| at(&row, 0)).transpose()?;
    stored.flatten().map(|json| endpoint_rows::read_oauth(&json, id)).transpose()
}

/// Sets or removes the OAuth2 configuration.
pub(crate) async fn replace_oauth(
    work: &mut Work,
    scope: &AppScope,
    id: EndpointId,
    from: u64,
    change: Option<OAuthChange>,
) -> Result<(), Failure> {
    let connection = &work.connection;
    endpoint_rows::to_change(connection, scope.application, id, from).await?;
    let keys = secrets::keys_for_writing(&work.shared, connection, &scope.environment, work.now).await?;
    let json = change.as_ref().map(|change| endpoint_rows::write_oauth(&change.settings));
    let text = "UPDATE endpoint SET oauth = $2, oauth_version = oauth_version + 1 WHERE id = $1";
    connection.execute(text, &[&key(&id), &json]).await?;
    match change {
        None => secrets::delete_kind(connection, id, kind::OAUTH).await?,
        Some(OAuthChange { client_secret: Some(value), .. }) => {
            let plain = Plain { owner: id, kind: kind::OAUTH, id: OAUTH, version: 1, value: &value };
            secrets::put(connection, &keys, scope, &plain, work.now).await?;
        }
        Some(OAuthChange { client_secret: None, .. }) => {
            let stored = secrets::of_endpoint(connection, id).await?;
            if !stored.iter().any(|secret| secret.kind == kind::OAUTH) {
                return Err(Refusal::Missing.into());
            }
        }
    }
    touch(work, scope, id).await
}
