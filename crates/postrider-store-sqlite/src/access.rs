//! Environments and API keys.

use crate::{
    SqliteStore,
    failure::{Failure, Refusal, inconsistent},
    memory::StoredKey,
    secrets,
    values::{from_json, id_at, instant_at, instant_or_null, key, to_json},
    writer::Scope as Work,
};
use async_trait::async_trait;
use postrider_model::{
    access::{ApiKey, Caller, Scope},
    environment::EnvironmentId,
    id::{ApiKeyId, ApplicationId},
    time::Timestamp,
};
use postrider_store::{
    StoreError, WriteError,
    access::{Access, NewApiKey},
};
use postrider_vault::{
    api_key::{self, Seen, Verifier},
    keyring::Keyring,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

const COLUMNS: &str =
    "id, environment, scope, name, created_at, expires_at, revoked_at, kek, secret_mac, row_mac";

/// A scope as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
enum StoredScope {
    Environment,
    Application { id: String, feature_flags: BTreeSet<String> },
    Publish { application: Option<String> },
}

#[async_trait]
impl Access for SqliteStore {
    async fn ensure_environment(&self, environment: &EnvironmentId) -> Result<(), StoreError> {
        if self.shared.memory.environment(environment).is_some() {
            return Ok(());
        }
        let (reading, wanted) = (Arc::clone(&self.shared), environment.clone());
        let known = self
            .shared
            .readers
            .read(move |connection| secrets::keys_of(&reading, connection, &wanted))
            .await?;
        if known.is_some() {
            return Ok(());
        }
        let environment = environment.clone();
        let create = move |work: &mut Work<'_>| {
            secrets::keys_for_writing(work.shared, work.connection, &environment, work.now).map(|_| ())
        };
        Ok(self.shared.change(create).await?)
    }

    async fn environments(&self) -> Result<Vec<EnvironmentId>, StoreError> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT id FROM environment ORDER BY id")?;
            let names = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            names
                .iter()
                .map(|name| EnvironmentId::parse(name).ok_or_else(|| inconsistent("environment", "id", name)))
                .collect()
        };
        Ok(self.shared.readers.read(read).await?)
    }

    async fn create_api_key(&self, new: NewApiKey) -> Result<(ApiKey, SecretString), WriteError> {
        Ok(self.shared.change(move |work| create(work, new)).await?)
    }

    async fn api_keys(&self, environment: &EnvironmentId) -> Result<Vec<ApiKey>, StoreError> {
        let environment = environment.clone();
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM api_key WHERE environment = ?1 ORDER BY id DESC"
            ))?;
            let mut rows = statement.query([environment.as_str()])?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next()? {
                keys.push(read(row)?.key);
            }
            Ok(keys)
        };
        Ok(self.shared.readers.read(read).await?)
    }

    async fn revoke_api_key(&self, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, WriteError> {
        let environment = environment.clone();
        Ok(self
            .shared
            .write(crate::writer::Isolation::Own, move |work| revoke(work, &environment, id))
            .await?)
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let stored = match api_key::key_id(token) {
            Some(id) => self.stored_key(id).await?,
            None => None,
        };
        let keyring = &self.shared.keyring;
        let Some(stored) = stored else {
            // The same work as for a key that exists.
            api_key::verify(keyring, token, "", None);
            return Ok(None);
        };
        let genuine = is_genuine(keyring, &stored, token);
        let now = self.shared.clock.now();
        let live = stored.key.revoked_at.is_none() && stored.key.expires_at.is_none_or(|at| at > now);
        Ok((genuine && live).then(|| stored.key.caller.clone()))
    }
}

impl SqliteStore {
    async fn stored_key(&self, id: ApiKeyId) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let (known, changes) = self.shared.memory.api_key(id);
        if known.is_some() {
            return Ok(known);
        }
        let found = self.shared.readers.read(move |connection| of_id(connection, id)).await?.map(Arc::new);
        if let Some(found) = &found {
            self.shared.memory.keep_api_key(Arc::clone(found), changes);
        }
        Ok(found)
    }
}

/// Does the token belong to the key? Asked in full once: the entry in memory goes with every change of the key.
fn is_genuine(keyring: &Keyring, stored: &StoredKey, token: &str) -> bool {
    if let Some(seen) = stored.seen.get() {
        return seen.is(token);
    }
    let row = canonical(&stored.key.caller, stored.key.expires_at);
    let genuine = api_key::verify(keyring, token, &row, Some(&stored.verifier));
    if genuine {
        stored.seen.get_or_init(|| Seen::of(token));
    }
    genuine
}

/// Everything that decides what a key may do, in one text: what its MAC covers.
fn canonical(caller: &Caller, expires_at: Option<Timestamp>) -> String {
    to_json(&(caller.environment.as_str(), stored_scope(&caller.scope), expires_at.map(Timestamp::as_micros)))
}

fn stored_scope(scope: &Scope) -> StoredScope {
    match scope {
        Scope::Environment => StoredScope::Environment,
        Scope::Application { id, feature_flags } => {
            StoredScope::Application { id: id.to_string(), feature_flags: feature_flags.clone() }
        }
        Scope::Publish { application } => {
            StoredScope::Publish { application: application.map(|id| id.to_string()) }
        }
    }
}

fn read_scope(json: &str, key: ApiKeyId) -> Result<Scope, Failure> {
    let bad = || inconsistent("api_key", "scope", key);
    let application = |text: String| ApplicationId::parse(&text).ok_or_else(bad);
    Ok(match from_json(json, "api_key", "scope", key)? {
        StoredScope::Environment => Scope::Environment,
        StoredScope::Application { id, feature_flags } => {
            Scope::Application { id: application(id)?, feature_flags }
        }
        StoredScope::Publish { application: id } => {
            Scope::Publish { application: id.map(application).transpose()? }
        }
    })
}

fn read(row: &Row<'_>) -> Result<StoredKey, Failure> {
    let id: ApiKeyId = id_at(row, 0)?;
    let (environment, scope): (String, String) = (row.get(1)?, row.get(2)?);
    let caller = Caller {
        environment: EnvironmentId::parse(&environment)
            .ok_or_else(|| inconsistent("api_key", "environment", id))?,
        scope: read_scope(&scope, id)?,
    };
    let key = ApiKey {
        id,
        caller,
        name: row.get(3)?,
        created_at: instant_at(row, 4)?,
        expires_at: instant_or_null(row, 5)?,
        revoked_at: instant_or_null(row, 6)?,
    };
    Ok(StoredKey {
        key,
        verifier: Verifier { kek: row.get(7)?, secret_mac: row.get(8)?, row_mac: row.get(9)? },
        seen: OnceLock::new(),
    })
}

fn of_id(connection: &Connection, id: ApiKeyId) -> Result<Option<StoredKey>, Failure> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM api_key WHERE id = ?1"))?
        .query_row([key(&id)], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

fn create(work: &mut Work<'_>, new: NewApiKey) -> Result<(ApiKey, SecretString), Failure> {
    let now = work.now;
    secrets::keys_for_writing(work.shared, work.connection, &new.caller.environment, now)?;
    let id = work.shared.ids.next(now);
    let row = canonical(&new.caller, new.expires_at);
    let (token, verifier) = api_key::mint(&work.shared.keyring, id, &row);
    work.connection.execute(
        "INSERT INTO api_key (id, environment, scope, name, created_at, expires_at, kek, secret_mac, row_mac)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            key(&id),
            new.caller.environment.as_str(),
            to_json(&stored_scope(&new.caller.scope)),
            new.name,
            now.as_micros(),
            new.expires_at.map(Timestamp::as_micros),
            verifier.kek,
            verifier.secret_mac,
            verifier.row_mac,
        ],
    )?;
    let NewApiKey { caller, name, expires_at } = new;
    Ok((ApiKey { id, caller, name, created_at: now, expires_at, revoked_at: None }, token))
}

/// The MACs go too: who can write rows still cannot bring a revoked key back.
fn revoke(work: &mut Work<'_>, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, Failure> {
    let stored = of_id(work.connection, id)?.filter(|stored| stored.key.caller.environment == *environment);
    let mut revoked = stored.ok_or(Refusal::Missing)?.key;
    if revoked.revoked_at.is_none() {
        work.connection.execute(
            "UPDATE api_key SET revoked_at = ?2, secret_mac = zeroblob(32), row_mac = zeroblob(32) WHERE id = ?1",
            params![key(&id), work.now.as_micros()],
        )?;
        revoked.revoked_at = Some(work.now);
        work.after_commit(move |shared| shared.memory.api_key_changed(id));
    }
    Ok(revoked)
}
