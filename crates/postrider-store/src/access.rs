//! Environments and API keys.

use crate::error::{StoreError, WriteError};
use async_trait::async_trait;
use postrider_model::{
    access::{ApiKey, Caller},
    environment::EnvironmentId,
    id::ApiKeyId,
    time::Timestamp,
};
use secrecy::SecretString;

/// An API key to make.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// What it is valid for.
    pub caller: Caller,
    /// Shown to people.
    pub name: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// Environments and API keys.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Creates the environment if it does not exist, with its data key. Cheap when it does.
    async fn ensure_environment(&self, environment: &EnvironmentId) -> Result<(), StoreError>;

    /// All environments, in order of their ids.
    async fn environments(&self) -> Result<Vec<EnvironmentId>, StoreError>;

    /// Makes a key in an existing or new environment. The token is returned once and kept only as a keyed MAC.
    async fn create_api_key(&self, key: NewApiKey) -> Result<(ApiKey, SecretString), WriteError>;

    /// The keys of an environment, newest first, revoked ones included.
    async fn api_keys(&self, environment: &EnvironmentId) -> Result<Vec<ApiKey>, StoreError>;

    /// Revokes a key at once on this node; other nodes follow within 5 s. `Missing` when there is no such key there.
    /// Revoking again keeps the first time.
    async fn revoke_api_key(&self, environment: &EnvironmentId, id: ApiKeyId) -> Result<ApiKey, WriteError>;

    /// Who a token is. `None` for anything that is not a valid, unexpired, unrevoked token; taking the same time
    /// whether the id or the secret is wrong. Served from memory in the usual case.
    async fn authenticate(&self, token: &str) -> Result<Option<Caller>, StoreError>;
}
