//! Configuration in memory: applications, snapshots of their endpoints, data keys, API keys. All bounded.
//!
//! Each application has a number that grows with every change at or below it that this process made or heard of. What
//! was read is kept under the number that held *before* the reading: a change that the reader may have missed has made
//! it stale already. A change of another node that was not heard of yet is found out when a message is committed, which
//! compares with the database's version; and for what is sent, within a second.

use crate::{recent::Recent, secrets::EnvironmentKeys};
use postrider_model::{
    access::ApiKey,
    application::{Application, Ref, Uid},
    environment::EnvironmentId,
    id::{ApiKeyId, ApplicationId},
};
use postrider_store::{endpoints::AppScope, snapshot::Snapshot};
use postrider_vault::api_key::Verifier;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Applications whose change is remembered one by one; beyond that all count as changed.
const VERSIONS: usize = 100_000;
/// Applications kept for look-up.
const APPLICATIONS: usize = 50_000;
/// Environments whose data keys are kept open.
const ENVIRONMENTS: usize = 1_000;
/// API keys kept for authentication.
const API_KEYS: usize = 10_000;

/// What is kept of an API key.
#[derive(Debug)]
pub(crate) struct StoredKey {
    pub(crate) key: ApiKey,
    pub(crate) verifier: Verifier,
}

/// The memory.
pub(crate) struct Memory {
    inner: Mutex<Inner>,
}

struct Inner {
    versions: HashMap<ApplicationId, u64>,
    /// The version of every application that is not in the map.
    floor: u64,
    changes: u64,
    snapshots: Recent<AppScope, (u64, Arc<Snapshot>)>,
    applications: Recent<ApplicationId, (u64, Arc<Application>)>,
    uids: Recent<(EnvironmentId, Uid), ApplicationId>,
    environments: Recent<EnvironmentId, Arc<EnvironmentKeys>>,
    api_keys: Recent<ApiKeyId, Arc<StoredKey>>,
    api_key_changes: u64,
}

impl Memory {
    /// Empty.
    pub(crate) fn new(cached_endpoints: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                versions: HashMap::new(),
                floor: 1,
                changes: 1,
                snapshots: Recent::new(cached_endpoints),
                applications: Recent::new(APPLICATIONS),
                uids: Recent::new(APPLICATIONS),
                environments: Recent::new(ENVIRONMENTS),
                api_keys: Recent::new(API_KEYS),
                api_key_changes: 0,
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The application or something below it has changed; the change is durable.
    pub(crate) fn changed(&self, application: ApplicationId) {
        self.with(|inner| {
            inner.changes += 1;
            if inner.versions.len() >= VERSIONS {
                inner.versions.clear();
                inner.floor = inner.changes;
            }
            inner.versions.insert(application, inner.changes);
            inner.applications.remove(&application);
        });
    }

    /// Anything may have changed: wake-ups were missed.
    pub(crate) fn all_changed(&self) {
        self.with(|inner| {
            inner.changes += 1;
            inner.versions.clear();
            inner.floor = inner.changes;
            inner.api_key_changes += 1;
            inner.api_keys.clear();
        });
    }

    /// The number of the application's configuration, for [`Self::keep_snapshot`].
    pub(crate) fn version(&self, application: ApplicationId) -> u64 {
        self.with(|inner| inner.version(application))
    }

    /// The snapshot of the application's endpoints, if it is here and current.
    pub(crate) fn snapshot(&self, scope: &AppScope) -> Option<Arc<Snapshot>> {
        self.with(|inner| {
            let (version, snapshot) = inner.snapshots.get(scope)?;
            (version == inner.version(scope.application)).then_some(snapshot)
        })
    }

    /// Keeps a snapshot that was read after `version`, weighed by its endpoints.
    pub(crate) fn keep_snapshot(&self, scope: AppScope, version: u64, snapshot: &Arc<Snapshot>) {
        let weight = 1 + snapshot.endpoints.len();
        self.with(|inner| {
            if inner.version(scope.application) == version {
                inner.snapshots.insert(scope, (version, Arc::clone(snapshot)), weight);
            }
        });
    }

    /// The application, if it is here and current.
    pub(crate) fn application(
        &self,
        environment: &EnvironmentId,
        reference: &Ref<ApplicationId>,
    ) -> Option<Arc<Application>> {
        self.with(|inner| {
            let id = match reference {
                Ref::Id(id) => *id,
                Ref::Uid(uid) => inner.uids.get(&(environment.clone(), uid.clone()))?,
            };
            let (version, application) = inner.applications.get(&id)?;
            let named = match reference {
                Ref::Id(_) => true,
                Ref::Uid(uid) => application.uid.as_ref() == Some(uid),
            };
            (named && version == inner.version(id) && application.environment == *environment)
                .then_some(application)
        })
    }

    /// A moment before a reading, for [`Self::keep_application`] and [`Self::changed_since`].
    pub(crate) fn changes(&self) -> u64 {
        self.with(|inner| inner.changes)
    }

    /// Has the configuration at or below this application changed after that moment? Then whoever changed it has told, or
    /// will tell, what holds; what was read since that moment may be older.
    pub(crate) fn changed_since(&self, application: ApplicationId, changes: u64) -> bool {
        self.version(application) > changes
    }

    /// Keeps an application that was read after `changes`.
    pub(crate) fn keep_application(&self, application: &Arc<Application>, changes: u64) {
        self.with(|inner| {
            let version = inner.version(application.id);
            if version > changes {
                return;
            }
            if let Some(uid) = &application.uid {
                inner.uids.insert((application.environment.clone(), uid.clone()), application.id, 1);
            }
            inner.applications.insert(application.id, (version, Arc::clone(application)), 1);
        });
    }

    /// The open data keys of an environment.
    pub(crate) fn environment(&self, environment: &EnvironmentId) -> Option<Arc<EnvironmentKeys>> {
        self.with(|inner| inner.environments.get(environment))
    }

    /// Keeps data keys that are durable.
    pub(crate) fn keep_environment(&self, environment: &EnvironmentId, keys: Arc<EnvironmentKeys>) {
        self.with(|inner| inner.environments.insert(environment.clone(), keys, 1));
    }

    /// An API key, with the number of changes so far.
    pub(crate) fn api_key(&self, id: ApiKeyId) -> (Option<Arc<StoredKey>>, u64) {
        self.with(|inner| (inner.api_keys.get(&id), inner.api_key_changes))
    }

    /// Keeps an API key that was read when there had been so many changes.
    pub(crate) fn keep_api_key(&self, key: Arc<StoredKey>, changes: u64) {
        self.with(|inner| {
            if inner.api_key_changes == changes {
                inner.api_keys.insert(key.key.id, key, 1);
            }
        });
    }

    /// An API key was revoked; the change is durable.
    pub(crate) fn api_key_changed(&self, id: ApiKeyId) {
        self.with(|inner| {
            inner.api_key_changes += 1;
            inner.api_keys.remove(&id);
        });
    }
}

impl Inner {
    fn version(&self, application: ApplicationId) -> u64 {
        self.versions.get(&application).copied().unwrap_or(self.floor)
    }
}
