//! Applications.

use crate::{
    error::{StoreError, WriteError},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest},
};
use async_trait::async_trait;
use postrider_model::{
    application::{Application, Metadata, Ref, Uid},
    environment::EnvironmentId,
    id::ApplicationId,
};

/// What a caller says of an application, in full.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplicationFields {
    /// The caller's own name for it.
    pub uid: Option<Uid>,
    /// Shown to people.
    pub name: String,
    /// Messages per second and endpoint.
    pub throttle_rate: Option<u16>,
    /// The caller's own data.
    pub metadata: Metadata,
}

/// Restricts a list of applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplicationFilter {
    /// Leave out applications without endpoints.
    pub with_endpoints: bool,
    /// Leave out applications that have endpoints, all of them disabled.
    pub not_all_disabled: bool,
}

/// Applications.
#[async_trait]
pub trait Applications: Send + Sync + 'static {
    /// Creates an application (and, if need be, its environment). [`WriteError::Taken`] when the uid is in use.
    async fn create_application(
        &self,
        environment: &EnvironmentId,
        fields: ApplicationFields,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Application>, WriteError>;

    /// The application of this id or uid in this environment. Served from memory in the usual case: every request
    /// below an application begins with it.
    async fn application(
        &self,
        environment: &EnvironmentId,
        reference: &Ref<ApplicationId>,
    ) -> Result<Option<Application>, StoreError>;

    /// A page of applications by id.
    async fn applications(
        &self,
        environment: &EnvironmentId,
        filter: ApplicationFilter,
        page: PageRequest<ApplicationId>,
    ) -> Result<Page<Application>, StoreError>;

    /// Replaces every field if the application still has version `from`, else [`WriteError::Stale`].
    async fn replace_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
        from: u64,
        fields: ApplicationFields,
    ) -> Result<Application, WriteError>;

    /// Deletes an application with its endpoints and credentials; pending deliveries are cancelled, the uid is free
    /// again, history stays for its retention but cannot be read any more. `false` when there was none.
    async fn delete_application(
        &self,
        environment: &EnvironmentId,
        id: ApplicationId,
    ) -> Result<bool, StoreError>;
}
