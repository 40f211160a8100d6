//! Credentials: sealing them into the one table, opening them, and the data keys of environments.
//!
//! Data keys are kept in memory only once they are durable: a value sealed with a key that a rollback took away could
//! never be opened again.

use crate::{
    Shared,
    failure::Failure,
    values::{id_at, instant_or_null, key},
};
use postrider_model::{environment::EnvironmentId, id::EndpointId, time::Timestamp};
use postrider_store::{StoreError, endpoints::AppScope};
use postrider_vault::{
    keyring::Keyring,
    seal::{self, Binding, DataKey, VaultError, WrappedKey},
};
use rusqlite::{Connection, params};
use secrecy::SecretString;
use std::{collections::HashMap, sync::Arc};

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

impl EnvironmentKeys {
    /// Reads and unwraps the keys of an environment; `None` when it does not exist.
    pub(crate) fn load(
        connection: &Connection,
        keyring: &Keyring,
        environment: &EnvironmentId,
    ) -> Result<Option<Self>, Failure> {
        let mut statement = connection
            .prepare_cached("SELECT id, kek, wrapped, active FROM data_key WHERE environment = ?1")?;
        let mut rows = statement.query([environment.as_str()])?;
        let mut keys = HashMap::new();
        let mut active = None;
        while let Some(row) = rows.next()? {
            let wrapped = WrappedKey { id: row.get(0)?, kek: row.get(1)?, blob: row.get(2)? };
            let opened = DataKey::unwrap(keyring, environment.as_str(), &wrapped)
                .map_err(|error| unopened(&format!("the data key of {environment}"), &error))?;
            if row.get(3)? {
                active = Some(wrapped.id);
            }
            keys.insert(wrapped.id, opened);
        }
        Ok(active.map(|active| Self { active, keys }))
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

/// The open keys of an environment, from memory or from this connection; for readers, who see only what is durable.
pub(crate) fn keys_of(
    shared: &Shared,
    connection: &Connection,
    environment: &EnvironmentId,
) -> Result<Option<Arc<EnvironmentKeys>>, Failure> {
    if let Some(keys) = shared.memory.environment(environment) {
        return Ok(Some(keys));
    }
    let keys = EnvironmentKeys::load(connection, &shared.keyring, environment)?.map(Arc::new);
    if let Some(keys) = &keys {
        shared.memory.keep_environment(environment, Arc::clone(keys));
    }
    Ok(keys)
}

/// The same for the writer: keys that may still be rolled back are not kept. Creates the environment when it is new.
pub(crate) fn keys_for_writing(
    shared: &Shared,
    connection: &Connection,
    environment: &EnvironmentId,
    now: Timestamp,
) -> Result<Arc<EnvironmentKeys>, Failure> {
    if let Some(keys) = shared.memory.environment(environment) {
        return Ok(keys);
    }
    if let Some(keys) = EnvironmentKeys::load(connection, &shared.keyring, environment)? {
        return Ok(Arc::new(keys));
    }
    let (data_key, wrapped) = DataKey::generate(&shared.keyring, environment.as_str());
    connection.execute(
        "INSERT OR IGNORE INTO environment (id, created_at) VALUES (?1, ?2)",
        params![environment.as_str(), now.as_micros()],
    )?;
    connection.execute(
        "INSERT INTO data_key (environment, id, kek, wrapped, active, created_at) VALUES (?1, ?2, ?3, ?4, 1, ?5)",
        params![environment.as_str(), wrapped.id, wrapped.kek, wrapped.blob, now.as_micros()],
    )?;
    Ok(Arc::new(EnvironmentKeys { active: wrapped.id, keys: HashMap::from([(wrapped.id, data_key)]) }))
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
pub(crate) fn put(
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
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO secret
             (owner, kind, id, version, environment, application, owner_table, sealed, fingerprint, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            key(&plain.owner),
            plain.kind,
            plain.id,
            plain.version,
            scope.environment.as_str(),
            key(&scope.application),
            ENDPOINT,
            sealed,
            data_key.fingerprint(value),
            now.as_micros(),
        ])?;
    Ok(())
}

/// Deletes an endpoint's credentials of one kind.
pub(crate) fn delete_kind(connection: &Connection, owner: EndpointId, kind: &str) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM secret WHERE owner = ?1 AND kind = ?2")?
        .execute(params![key(&owner), kind])?;
    Ok(())
}

/// Deletes all credentials of an endpoint.
pub(crate) fn delete_all(connection: &Connection, owner: EndpointId) -> Result<(), Failure> {
    connection.prepare_cached("DELETE FROM secret WHERE owner = ?1")?.execute([key(&owner)])?;
    Ok(())
}

/// All credentials of an endpoint, the newest version first within a kind.
pub(crate) fn of_endpoint(connection: &Connection, owner: EndpointId) -> Result<Vec<Sealed>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT owner, kind, id, version, valid_until, sealed FROM secret WHERE owner = ?1
         ORDER BY kind, version DESC, id",
    )?;
    let rows = statement.query_map([key(&owner)], |row| {
        Ok(Sealed {
            owner: id_at(row, 0)?,
            kind: row.get(1)?,
            id: row.get(2)?,
            version: row.get(3)?,
            valid_until: instant_or_null(row, 4)?,
            blob: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
