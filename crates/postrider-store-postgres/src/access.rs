//! Environments and API keys.

use crate::{
    PostgresStore,
    connection::Connection,
    failure::{Failure, Refusal, inconsistent},
    memory::StoredKey,
    secrets,
    values::{at, from_json, id_at, instant_at, instant_or_null, key, to_json},
    work::Work,
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
use postrider_vault::api_key::{self, Verifier};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};
use tokio_postgres::Row;

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
impl Access for PostgresStore {
    async fn ensure_environment(&self, environment: &EnvironmentId) -> Result<(), StoreError> {
        if self.shared.memory.environment(environment).is_some() {
            return Ok(());
        }
        let connection = self.shared.reader_of(environment).await?;
        if secrets::keys_of(&self.shared, &connection, environment).await?.is_some() {
            return Ok(());
        }
        drop(connection);
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move {
                let (shared, connection) = (&work.shared, &work.connection);
                secrets::keys_for_writing(shared, connection, &environment, work.now).await.map(|_| ())
            })
        });
        Ok(change.await?)
    }

    async fn environments(&self) -> Result<Vec<EnvironmentId>, StoreError> {
        let connection = self.shared.reader().await?;
        let rows = connection.query("SELECT id FROM environment ORDER BY id", &[]).await?;
        let read = |row| {
            let name: &str = at(row, 0)?;
            EnvironmentId::parse(name).ok_or_else(|| inconsistent("environment", "id", name))
        };
        Ok(rows.iter().map(read).collect::<Result<_, Failure>>()?)
    }

    async fn create_api_key(&self, new: NewApiKey) -> Result<(ApiKey, SecretString), WriteError> {
        let environment = new.caller.environment.clone();
        let change = self
            .shared
            .change_in(environment, None, move |work| Box::pin(async move { create(work, new).await }));
        Ok(change.await?)
    }

    async fn api_keys(&self, environment: &EnvironmentId) -> Result<Vec<ApiKey>, StoreError> {
        let connection = self.shared.reader_of(environment).await?;
        let text = format!("SELECT {COLUMNS} FROM api_key WHERE environment = $1 ORDER BY id DESC");
        let rows = connection.query(&text, &[&environment.as_str()]).await?;
        Ok(rows.iter().map(|row| Ok(read(row)?.key)).collect::<Result<_, Failure>>()?)
    }

    async fn revoke_api_key(&self, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, WriteError> {
        let environment = environment.clone();
        let change = self.shared.change_in(environment.clone(), None, move |work| {
            Box::pin(async move { revoke(work, &environment, id).await })
        });
        Ok(change.await?)
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
        let row = canonical(&stored.key.caller, stored.key.expires_at);
        let genuine = api_key::verify(keyring, token, &row, Some(&stored.verifier));
        let now = self.shared.clock.now();
        let live = stored.key.revoked_at.is_none() && stored.key.expires_at.is_none_or(|at| at > now);
        Ok((genuine && live).then(|| stored.key.caller.clone()))
    }
}

impl PostgresStore {
    async fn stored_key(&self, id: ApiKeyId) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let (known, changes) = self.shared.memory.api_key(id);
        if known.is_some() {
            return Ok(known);
        }
        let found = of_id(&*self.shared.reader().await?, id).await?.map(Arc::new);
        if let Some(found) = &found {
            self.shared.memory.keep_api_key(Arc::clone(found), changes);
        }
        Ok(found)
    }
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

fn read(row: &Row) -> Result<StoredKey, Failure> {
    let id: ApiKeyId = id_at(row, 0)?;
    let (environment, scope): (&str, &str) = (at(row, 1)?, at(row, 2)?);
    let caller = Caller {
        environment: EnvironmentId::parse(environment)
            .ok_or_else(|| inconsistent("api_key", "environment", id))?,
        scope: read_scope(scope, id)?,
    };
    let key = ApiKey {
        id,
        caller,
        name: at(row, 3)?,
        created_at: instant_at(row, 4)?,
        expires_at: instant_or_null(row, 5)?,
        revoked_at: instant_or_null(row, 6)?,
    };
    Ok(StoredKey {
        key,
        verifier: Verifier { kek: at(row, 7)?, secret_mac: mac(row, 8, id)?, row_mac: mac(row, 9, id)? },
    })
}

fn mac(row: &Row, column: usize, id: ApiKeyId) -> Result<[u8; 32], Failure> {
    <[u8; 32]>::try_from(at::<&[u8]>(row, column)?).map_err(|_| inconsistent("api_key", "mac", id))
}

async fn of_id(connection: &Connection, id: ApiKeyId) -> Result<Option<StoredKey>, Failure> {
    let text = format!("SELECT {COLUMNS} FROM api_key WHERE id = $1");
    let row = connection.first_row(&text, &[&key(&id)]).await?;
    row.map(|row| read(&row)).transpose()
}

async fn create(work: &mut Work, new: NewApiKey) -> Result<(ApiKey, SecretString), Failure> {
    let now = work.now;
    secrets::keys_for_writing(&work.shared, &work.connection, &new.caller.environment, now).await?;
    let id = work.shared.ids.next(now);
    let row = canonical(&new.caller, new.expires_at);
    let (token, verifier) = api_key::mint(&work.shared.keyring, id, &row);
    work.connection
        .execute(
            "INSERT INTO api_key (id, environment, scope, name, created_at, expires_at, kek, secret_mac, row_mac)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[
                &key(&id),
                &new.caller.environment.as_str(),
                &to_json(&stored_scope(&new.caller.scope)),
                &new.name,
                &now.as_micros(),
                &new.expires_at.map(Timestamp::as_micros),
                &verifier.kek,
                &&verifier.secret_mac[..],
                &&verifier.row_mac[..],
            ],
        )
        .await?;
    let NewApiKey { caller, name, expires_at } = new;
    Ok((ApiKey { id, caller, name, created_at: now, expires_at, revoked_at: None }, token))
}

/// The MACs go too: who can write rows still cannot bring a revoked key back.
async fn revoke(work: &mut Work, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, Failure> {
    let stored = of_id(&work.connection, id).await?;
    let stored = stored.filter(|stored| stored.key.caller.environment == *environment);
    let mut revoked = stored.ok_or(Refusal::Missing)?.key;
    if revoked.revoked_at.is_none() {
        let nothing = [0_u8; 32];
        let text = "UPDATE api_key SET revoked_at = $2, secret_mac = $3, row_mac = $3 WHERE id = $1";
        work.connection.execute(text, &[&key(&id), &work.now.as_micros(), &&nothing[..]]).await?;
        revoked.revoked_at = Some(work.now);
        work.after_commit(move |shared| {
            shared.memory.api_key_changed(id);
            shared.hints.revoked(id);
        });
    }
    Ok(revoked)
}
