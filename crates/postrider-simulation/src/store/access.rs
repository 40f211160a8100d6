//! Environments and API keys. Tokens lie open: nobody steals from a model.

use super::{Call, ModelStore, disk::StoredKey, store_error};
use async_trait::async_trait;
use postrider_model::{
    access::{ApiKey, Caller},
    environment::EnvironmentId,
    id::{ApiKeyId, Id, MessageKind},
};
use postrider_store::{
    StoreError, WriteError,
    access::{Access, NewApiKey},
};
use secrecy::{ExposeSecret, SecretString};

#[async_trait]
impl Access for ModelStore {
    async fn ensure_environment(&self, environment: &EnvironmentId) -> Result<(), StoreError> {
        self.write(Call::Write, |disk, _, _| {
            disk.environments.insert(environment.clone());
            Ok(())
        })
        .await
    }

    async fn environments(&self) -> Result<Vec<EnvironmentId>, StoreError> {
        self.read(|disk| disk.environments.iter().cloned().collect()).await
    }

    async fn create_api_key(&self, new: NewApiKey) -> Result<(ApiKey, SecretString), WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let id: ApiKeyId = self.ids.next(now);
            let (one, two): (Id<MessageKind>, Id<MessageKind>) = (self.ids.next(now), self.ids.next(now));
            let token = SecretString::from(format!("prk_{}{}{}", id.ksuid(), one.ksuid(), two.ksuid()));
            let NewApiKey { caller, name, expires_at } = new;
            disk.environments.insert(caller.environment.clone());
            let key = ApiKey { id, caller, name, created_at: now, expires_at, revoked_at: None };
            disk.api_keys.insert(id, StoredKey { key: key.clone(), token: token.clone() });
            Ok((key, token))
        })
        .await
    }

    async fn api_keys(&self, environment: &EnvironmentId) -> Result<Vec<ApiKey>, StoreError> {
        let mine = |stored: &&StoredKey| stored.key.caller.environment == *environment;
        self.read(|disk| disk.api_keys.values().rev().filter(mine).map(|stored| stored.key.clone()).collect())
            .await
    }

    async fn revoke_api_key(&self, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, WriteError> {
        self.write(Call::Write, |disk, _, now| {
            let stored = disk.api_keys.get_mut(&id).filter(|one| one.key.caller.environment == *environment);
            let key = &mut stored.ok_or(WriteError::Missing)?.key;
            key.revoked_at = key.revoked_at.or(Some(now));
            Ok(key.clone())
        })
        .await
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let now = self.clock.now();
        let valid = |stored: &&StoredKey| {
            stored.token.expose_secret() == token
                && stored.key.revoked_at.is_none()
                && stored.key.expires_at.is_none_or(|at| at > now)
        };
        self.read(|disk| disk.api_keys.values().find(valid).map(|stored| stored.key.caller.clone())).await
    }
}

impl ModelStore {
    /// A write that only the store can fail.
    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(&mut super::Disk, postrider_model::time::Timestamp) -> T,
    ) -> Result<T, StoreError> {
        self.write(Call::Write, |disk, _, now| Ok(change(disk, now))).await.map_err(store_error)
    }
}
