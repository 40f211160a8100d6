//! Environments that are known to exist: a token of svix-server may name any, and is the first that anyone hears of it.

use postrider_model::environment::EnvironmentId;
use postrider_store::{Store, StoreError};
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Environments that are remembered; the store answers for the rest.
const ENVIRONMENTS: usize = 10_000;

/// Environments that are known to exist.
#[derive(Debug, Default)]
pub struct KnownEnvironments(Mutex<HashSet<EnvironmentId>>);

impl KnownEnvironments {
    /// Creates the environment if it is not known to exist.
    pub async fn ensure(&self, store: &dyn Store, environment: &EnvironmentId) -> Result<(), StoreError> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(environment) {
            return Ok(());
        }
        store.ensure_environment(environment).await?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ENVIRONMENTS {
            known.clear();
        }
        known.insert(environment.clone());
        Ok(())
    }
}
