//! Credentials: sealing them into the one table, opening them, and the data keys of environments.
//!
//! Data keys are kept in memory only once they are durable: a value sealed with a key that a rollback took away could
//! never be opened again.

use crate::{
    Shared,
    connection::Connection,
    failure::Failure,
    values::{at, id_at, instant_or_null, key},
};
use postrider_model::{environment::EnvironmentId, id::EndpointId, time::Timestamp};
use postrider_store::{StoreError, endpoints::AppScope};
use postrider_vault::{
    keyring::Keyring,
    seal::{self, Binding, DataKey, VaultError, WrappedKey},
};
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc};
use tokio_postgres::Row;

/// Kinds of credentials of an endpoint.
pub(crate) mod kind {
    /// A signing secret, HMAC.
    pub(crate) const SIGNING_HMAC: &str = "signing.hmac";
    /// A signing secret, Ed25519.
    pub(crate) const SIGNING_ED25519: &str = "signing.ed25519";
    /// The value of a sensitive header; its id is the header's name in lower case.
    pub(crate) const HEADER: &str = "auth.header";
    /// The secret of an OAuth2 client.
    pub(crate) const OAUTH: &str = "oauth.client_secret";
}

const ENDPOINT: &str = "endpoint";

/// The data keys of an environment, open.
pub(crate) struct EnvironmentKeys {
    active: [u8; 8],
    keys: HashMap<[u8; 8], DataKey>,
}

/// A credential as it lies in the table.
pub(crate) struct Sealed {
    pub(crate) owner: EndpointId,
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) valid_until: Option<Timestamp>,
    blob: Vec<u8>,
}

/// The data keys of an environment.
pub(crate) const KEYS: &str = "SELECT id, kek, wrapped, active FROM data_key WHERE environment = $1";
/// What [`read`] expects.
pub(crate) const COLUMNS: &str = "owner, kind, id, version, valid_until, sealed";

fn key_id(bytes: &[u8]) -> Result<[u8; 8], Failure> {
    <[u8; 8]>::try_from(bytes).map_err(|_| crate::failure::inconsistent("data_key", "id", bytes.len()))
}

impl EnvironmentKeys {
    /// Unwraps the keys of an environment from rows of [`KEYS`]; `None` when it does not exist.
    pub(crate) fn of_rows(
        rows: &[Row],
        keyring: &Keyring,
        environment: &EnvironmentId,
    ) -> Result<Option<Self>, Failure> {
        let mut keys = HashMap::new();
        let mut active = None;
        for row in rows {
            let wrapped = WrappedKey { id: key_id(at(row, 0)?)?, kek: at(row, 1)?, blob: at(row, 2)? };
            let opened = DataKey::unwrap(keyring, environment.as_str(), &wrapped)
                .map_err(|error| unopened(&format!("the data key of {environment}"), &error))?;
            if at(row, 3)? {
                active = Some(wrapped.id);
            }
            keys.insert(wrapped.id, opened);
        }
        Ok(active.map(|active| Self { active, keys }))
    }

    /// Reads and unwraps the keys of an environment; `None` when it does not exist.
    pub(crate) async fn load(
        connection: &Connection,
        keyring: &Keyring,
        environment: &EnvironmentId,
    ) -> Result<Option<Self>, Failure> {
        let rows = connection.query(KEYS, &[&environment.as_str()]).await?;
        Self::of_rows(&rows, keyring, environment)
    }

    /// Opens a credential.
    pub(crate) fn open(&self, scope: &AppScope, sealed: &Sealed) -> Result<SecretString, Failure> {
        let what = || format!("{} of endpoint {}", sealed.kind, sealed.owner);
        let damaged = || unopened(&what(), &VaultError::Damaged);
        let id = seal::data_key_id(&sealed.blob).ok_or_else(damaged)?;
        let Some(data_key) = self.keys.get(&id) else {
            let id = format!("{:016x}", u64::from_be_bytes(id));
            return Err(unopened(&what(), &VaultError::OtherDataKey(id)));
        };
        let application = scope.application.to_string();
        let owner = sealed.owner.to_string();
        let binding = binding(scope, &application, &owner, &sealed.kind, &sealed.id, sealed.version);
        let opened = data_key.open(&binding, &sealed.blob).map_err(|error| unopened(&what(), &error))?;
        let text =
            std::str::from_utf8(secrecy::ExposeSecret::expose_secret(&opened)).map_err(|_| damaged())?;
        Ok(SecretString::from(text))
    }
}

fn binding<'a>(
    scope: &'a AppScope,
    application: &'a str,
    owner: &'a str,
    kind: &'a str,
    id: &'a str,
    version: u32,
) -> Binding<'a> {
    let environment = scope.environment.as_str();
    Binding { environment, application, kind, id, owner_table: ENDPOINT, owner_id: owner, version }
}

fn unopened(what: &str, error: &VaultError) -> Failure {
    Failure::Store(StoreError::Sealed { detail: format!("{what}: {error}") })
}

/// The open keys of an environment, from memory or from this connection, which sees only what is durable.
pub(crate) async fn keys_of(
    shared: &Shared,
    connection: &Connection,
    environment: &EnvironmentId,
) -> Result<Option<Arc<EnvironmentKeys>>, Failure> {
    if let Some(keys) = shared.memory.environment(environment) {
        return Ok(Some(keys));
    }
    let keys = EnvironmentKeys::load(connection, &shared.keyring, environment).await?.map(Arc::new);
    if let Some(keys) = &keys {
        shared.memory.keep_environment(environment, Arc::clone(keys));
    }
    Ok(keys)
}

/// The same in a transaction that writes: keys that may still be rolled back are not kept. Creates the environment when
/// it is new; of several that do so at the same time the first one counts, whose row the others wait for.
pub(crate) async fn keys_for_writing(
    shared: &Shared,
    connection: &Connection,
    environment: &EnvironmentId,
    now: Timestamp,
) -> Result<Arc<EnvironmentKeys>, Failure> {
    if let Some(keys) = shared.memory.environment(environment) {
        return Ok(keys);
    }
    let text = "INSERT INTO environment (id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let created = connection.execute(text, &[&environment.as_str(), &now.as_micros()]).await?;
    if created == 0 {
        let keys = EnvironmentKeys::load(connection, &shared.keyring, environment).await?;
        return keys.map(Arc::new).ok_or_else(|| no_key(environment));
    }
    let (data_key, wrapped) = DataKey::generate(&shared.keyring, environment.as_str());
    let text = "INSERT INTO data_key (environment, id, kek, wrapped, active, created_at) VALUES ($1, $2, $3, $4, true, $5)";
    let id = &wrapped.id[..];
    connection
        .execute(text, &[&environment.as_str(), &id, &wrapped.kek, &wrapped.blob, &now.as_micros()])
        .await?;
    Ok(Arc::new(EnvironmentKeys { active: wrapped.id, keys: HashMap::from([(wrapped.id, data_key)]) }))
}

/// An environment without a data key.
pub(crate) fn no_key(environment: &EnvironmentId) -> Failure {
    StoreError::Sealed { detail: format!("environment {environment} has no data key") }.into()
}

/// A credential of an endpoint to seal.
pub(crate) struct Plain<'a> {
    pub(crate) owner: EndpointId,
    pub(crate) kind: &'a str,
    pub(crate) id: &'a str,
    pub(crate) version: u32,
    pub(crate) value: &'a SecretString,
}

/// Seals a credential into its row.
pub(crate) async fn put(
    connection: &Connection,
    keys: &EnvironmentKeys,
    scope: &AppScope,
    plain: &Plain<'_>,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(data_key) = keys.keys.get(&keys.active) else {
        return Err(StoreError::Internal { detail: "the active data key is not open".to_owned() }.into());
    };
    let value = secrecy::ExposeSecret::expose_secret(plain.value).as_bytes();
    let application = scope.application.to_string();
    let owner = plain.owner.to_string();
    let binding = binding(scope, &application, &owner, plain.kind, plain.id, plain.version);
    let sealed = data_key.seal(&binding, value);
    let fingerprint = data_key.fingerprint(value);
    connection
        .execute(
            "INSERT INTO secret
                (owner, kind, id, version, environment, application, owner_table, sealed, fingerprint, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (owner, kind, id, version) DO UPDATE SET sealed = excluded.sealed,
                fingerprint = excluded.fingerprint, created_at = excluded.created_at, valid_until = NULL",
            &[
                &key(&plain.owner),
                &plain.kind,
                &plain.id,
                &i64::from(plain.version),
                &scope.environment.as_str(),
                &key(&scope.application),
                &ENDPOINT,
                &sealed,
                &&fingerprint[..],
                &now.as_micros(),
            ],
        )
        .await?;
    Ok(())
}

/// Deletes an endpoint's credentials of one kind.
pub(crate) async fn delete_kind(
    connection: &Connection,
    owner: EndpointId,
    kind: &str,
) -> Result<(), Failure> {
    connection.execute("DELETE FROM secret WHERE owner = $1 AND kind = $2", &[&key(&owner), &kind]).await?;
    Ok(())
}

/// Deletes all credentials of endpoints.
pub(crate) async fn delete_all(connection: &Connection, owners: &[EndpointId]) -> Result<(), Failure> {
    let owners: Vec<&[u8]> = owners.iter().map(key).collect();
    connection.execute("DELETE FROM secret WHERE owner = ANY ($1)", &[&owners]).await?;
    Ok(())
}

/// A credential of a row of [`COLUMNS`].
pub(crate) fn read(row: &Row) -> Result<Sealed, Failure> {
    Ok(Sealed {
        owner: id_at(row, 0)?,
        kind: at(row, 1)?,
        id: at(row, 2)?,
        version: u32::try_from(at::<i64>(row, 3)?).unwrap_or(0),
        valid_until: instant_or_null(row, 4)?,
        blob: at(row, 5)?,
    })
}

/// All credentials of an endpoint, the newest version first within a kind.
pub(crate) async fn of_endpoint(connection: &Connection, owner: EndpointId) -> Result<Vec<Sealed>, Failure> {
    let text = format!("SELECT {COLUMNS} FROM secret WHERE owner = $1 ORDER BY kind, version DESC, id");
    connection.query(&text, &[&key(&owner)]).await?.iter().map(read).collect()
}
