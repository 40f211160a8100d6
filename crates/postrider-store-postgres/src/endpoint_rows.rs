//! The endpoint table: reading and writing its rows, without credentials.

use crate::{
    connection::Connection,
    failure::{Failure, Refusal, inconsistent},
    values::{self, at, from_json, id_at, instant_at, instant_or_null, join, key, split, to_json},
};
use postrider_model::{
    application::Uid,
    endpoint::{Disabled, DisabledReason, Endpoint},
    event_type::EventTypeName,
    filter::Filter,
    id::{ApplicationId, EndpointId},
    message::Channel,
    oauth::{AuthMethod, OAuthSettings},
    retry::RetryOverride,
    url::EndpointUrl,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::{Row, types::ToSql};

/// The columns that [`read`] expects, from 0.
pub(crate) const COLUMNS: &str = "id, application, uid, url, description, throttle_rate, event_types, channels, \
     disabled_reason, disabled_at, metadata, retry, legacy_version, version, created_at, updated_at, deleted_at";

/// What stands in the history for a URL that cannot be read; a name that never resolves (RFC 6761, section 6.4).
const UNREADABLE_URL: &str = "https://unreadable.invalid/";

/// What an endpoint sets of its own about retries, as it is kept; NULL when it sets nothing.
#[derive(Serialize, Deserialize)]
struct StoredRetry {
    waits_micros: Option<Vec<i64>>,
    deadline_micros: Option<i64>,
}

/// OAuth2 settings as they are kept; the secret lies apart, sealed.
#[derive(Serialize, Deserialize)]
struct StoredOAuth {
    post: bool,
    client_id: String,
    token_url: String,
    scopes: Vec<String>,
    extra_params: BTreeMap<String, String>,
    extra_headers: BTreeMap<String, String>,
}

/// An endpoint of a row of [`COLUMNS`].
pub(crate) fn read(row: &Row) -> Result<Endpoint, Failure> {
    let id: EndpointId = id_at(row, 0)?;
    let bad = |column| inconsistent("endpoint", column, id);
    let text = |column| at::<Option<&str>>(row, column);
    let uid: Option<String> = at(row, 2)?;
    let url: &str = at(row, 3)?;
    let event_types = split(text(6)?, EventTypeName::parse).ok_or_else(|| bad("event_types"))?;
    let channels = split(text(7)?, Channel::parse).ok_or_else(|| bad("channels"))?;
    let disabled = match (text(8)?, instant_or_null(row, 9)?) {
        (Some(reason), Some(at)) => {
            let reason = DisabledReason::from_name(reason).ok_or_else(|| bad("disabled_reason"))?;
            Some(Disabled { reason, at })
        }
        _ => None,
    };
    Ok(Endpoint {
        id,
        application: id_at(row, 1)?,
        uid: uid.map(|uid| Uid::parse(&uid, "ep_").ok_or_else(|| bad("uid"))).transpose()?,
        url: EndpointUrl::from_stored(url).ok_or_else(|| bad("url"))?,
        description: at(row, 4)?,
        throttle_rate: small(row, 5)?,
        filter: Filter { event_types, channels },
        disabled,
        metadata: from_json(text(10)?.unwrap_or("{}"), "endpoint", "metadata", id)?,
        retry: text(11)?.map(|json| read_retry(json, id)).transpose()?.unwrap_or_default(),
        legacy_version: small(row, 12)?.unwrap_or(1),
        version: values::count(at(row, 13)?),
        created_at: instant_at(row, 14)?,
        updated_at: instant_at(row, 15)?,
    })
}

/// The endpoint of a row that [`read`] refuses, with whatever of it can be read: so that its messages are kept and fail
/// where its owner sees it, and nobody else's do. Nothing may be sent by it. What cannot be read of the filter lets
/// everything through: a message too many can be ignored, one too few is lost.
pub(crate) fn read_damaged(row: &Row) -> Result<Endpoint, Failure> {
    let id: EndpointId = id_at(row, 0)?;
    let text = |column| at::<Option<&str>>(row, column);
    let url =
        text(3)?.and_then(EndpointUrl::from_stored).or_else(|| EndpointUrl::from_stored(UNREADABLE_URL));
    let disabled_at = instant_or_null(row, 9)?;
    let reason = text(8)?.and_then(DisabledReason::from_name).unwrap_or(DisabledReason::Requested);
    Ok(Endpoint {
        id,
        application: id_at(row, 1)?,
        uid: None,
        url: url.ok_or_else(|| inconsistent("endpoint", "url", id))?,
        description: String::new(),
        throttle_rate: None,
        filter: Filter {
            event_types: split(text(6)?, EventTypeName::parse).unwrap_or_default(),
            channels: split(text(7)?, Channel::parse).unwrap_or_default(),
        },
        disabled: disabled_at.map(|at| Disabled { reason, at }),
        metadata: BTreeMap::new(),
        retry: RetryOverride::default(),
        legacy_version: 1,
        version: values::count(at(row, 13)?),
        created_at: instant_at(row, 14)?,
        updated_at: instant_at(row, 15)?,
    })
}

fn small(row: &Row, column: usize) -> Result<Option<u16>, Failure> {
    Ok(at::<Option<i32>>(row, column)?.and_then(|value| u16::try_from(value).ok()))
}

/// The endpoint of this id in this application, deleted ones left out.
pub(crate) async fn of_id(
    connection: &Connection,
    application: ApplicationId,
    id: EndpointId,
) -> Result<Option<Endpoint>, Failure> {
    let text =
        format!("SELECT {COLUMNS} FROM endpoint WHERE id = $1 AND application = $2 AND deleted_at IS NULL");
    let row = connection.first_row(&text, &[&key(&id), &key(&application)]).await?;
    row.map(|row| read(&row)).transpose()
}

/// The endpoint of this uid in this application.
pub(crate) async fn of_uid(
    connection: &Connection,
    application: ApplicationId,
    uid: &Uid,
) -> Result<Option<Endpoint>, Failure> {
    let text =
        format!("SELECT {COLUMNS} FROM endpoint WHERE application = $1 AND uid = $2 AND deleted_at IS NULL");
    let row = connection.first_row(&text, &[&key(&application), &uid.as_str()]).await?;
    row.map(|row| read(&row)).transpose()
}

/// The endpoint for a change that was made from version `from`.
pub(crate) async fn to_change(
    connection: &Connection,
    application: ApplicationId,
    id: EndpointId,
    from: u64,
) -> Result<Endpoint, Failure> {
    let endpoint = of_id(connection, application, id).await?.ok_or(Refusal::Missing)?;
    if endpoint.version != from {
        return Err(Refusal::Stale.into());
    }
    Ok(endpoint)
}

/// Writes a new endpoint.
pub(crate) async fn insert(connection: &Connection, endpoint: &Endpoint) -> Result<(), Failure> {
    let text = "INSERT INTO endpoint (id, uid, url, description, throttle_rate, event_types, channels, disabled_reason,
            disabled_at, metadata, retry, legacy_version, version, updated_at, application, created_at, oauth_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 0)";
    let (application, created_at) = (key(&endpoint.application), endpoint.created_at.as_micros());
    write(connection, text, endpoint, &[&application, &created_at]).await
}

/// Writes every field of a changed endpoint.
pub(crate) async fn update(connection: &Connection, endpoint: &Endpoint) -> Result<(), Failure> {
    let text = "UPDATE endpoint SET uid = $2, url = $3, description = $4, throttle_rate = $5, event_types = $6,
            channels = $7, disabled_reason = $8, disabled_at = $9, metadata = $10, retry = $11, legacy_version = $12,
            version = $13, updated_at = $14
         WHERE id = $1";
    write(connection, text, endpoint, &[]).await
}

async fn write(
    connection: &Connection,
    text: &str,
    endpoint: &Endpoint,
    more: &[&(dyn ToSql + Sync)],
) -> Result<(), Failure> {
    let (id, uid) = (key(&endpoint.id), endpoint.uid.as_ref().map(Uid::as_str));
    let throttle_rate = endpoint.throttle_rate.map(i32::from);
    let event_types = join(endpoint.filter.event_types.iter().map(EventTypeName::as_str));
    let channels = join(endpoint.filter.channels.iter().map(Channel::as_str));
    let reason = endpoint.disabled.as_ref().map(|disabled| disabled.reason.name());
    let disabled_at = endpoint.disabled.as_ref().map(|disabled| disabled.at.as_micros());
    let (metadata, retry) = (to_json(&endpoint.metadata), write_retry(&endpoint.retry));
    let (legacy, version) = (i32::from(endpoint.legacy_version), values::version(endpoint.version));
    let (url, updated_at) = (endpoint.url.as_str(), endpoint.updated_at.as_micros());
    let mut all: Vec<&(dyn ToSql + Sync)> = vec![
        &id,
        &uid,
        &url,
        &endpoint.description,
        &throttle_rate,
        &event_types,
        &channels,
        &reason,
        &disabled_at,
        &metadata,
        &retry,
        &legacy,
        &version,
        &updated_at,
    ];
    all.extend(more);
    connection.execute(text, &all).await.map_err(Failure::taken_on_conflict)?;
    Ok(())
}

fn write_retry(own: &RetryOverride) -> Option<String> {
    let kept = || StoredRetry {
        waits_micros: own.waits.as_ref().map(|waits| waits.iter().copied().map(values::micros).collect()),
        deadline_micros: own.deadline.map(values::micros),
    };
    (*own != RetryOverride::default()).then(|| to_json(&kept()))
}

fn read_retry(json: &str, id: EndpointId) -> Result<RetryOverride, Failure> {
    let stored: StoredRetry = from_json(json, "endpoint", "retry", id)?;
    Ok(RetryOverride {
        waits: stored.waits_micros.map(|waits| waits.into_iter().map(values::duration).collect()),
        deadline: stored.deadline_micros.map(values::duration),
    })
}

/// OAuth2 settings as their column keeps them.
pub(crate) fn write_oauth(settings: &OAuthSettings) -> String {
    to_json(&StoredOAuth {
        post: settings.auth_method == AuthMethod::ClientSecretPost,
        client_id: settings.client_id.clone(),
        token_url: settings.token_url.as_str().to_owned(),
        scopes: settings.scopes.clone(),
        extra_params: settings.extra_params.clone(),
        extra_headers: settings.extra_headers.clone(),
    })
}

/// OAuth2 settings of their column.
pub(crate) fn read_oauth(json: &str, id: EndpointId) -> Result<OAuthSettings, Failure> {
    let stored: StoredOAuth = from_json(json, "endpoint", "oauth", id)?;
    Ok(OAuthSettings {
        auth_method: if stored.post { AuthMethod::ClientSecretPost } else { AuthMethod::ClientSecretBasic },
        client_id: stored.client_id,
        token_url: EndpointUrl::from_stored(&stored.token_url)
            .ok_or_else(|| inconsistent("endpoint", "oauth", id))?,
        scopes: stored.scopes,
        extra_params: stored.extra_params,
        extra_headers: stored.extra_headers,
    })
}

/// Age at which deliveries of this endpoint expire.
pub(crate) fn delivery_age(endpoint: &Endpoint, server_seconds: u64) -> Duration {
    endpoint.retry.deadline(Duration::from_secs(server_seconds))
}
