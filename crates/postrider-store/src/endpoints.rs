//! Endpoints: configuration, custom headers, signing secrets, OAuth2 settings.
//!
//! Every call names the application, and the application is one that [`Applications::application`] returned for the
//! caller's environment: that call is the tenancy check.
//!
//! [`Applications::application`]: crate::applications::Applications::application

use crate::{
    error::{StoreError, WriteError},
    idempotency::{Created, IdempotencyKey},
    page::{Page, PageRequest},
    snapshot::SendSettings,
};
use async_trait::async_trait;
use postrider_model::{
    application::{Metadata, Ref, Uid},
    endpoint::Endpoint,
    environment::EnvironmentId,
    filter::Filter,
    headers::CustomHeaders,
    id::{ApplicationId, EndpointId},
    oauth::OAuthSettings,
    retry::RetryOverride,
    signature::SigningSecret,
    url::EndpointUrl,
};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// The application below which a call happens, with its environment: what sealed values are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppScope {
    /// The environment that owns the application.
    pub environment: EnvironmentId,
    /// The application.
    pub application: ApplicationId,
}

/// What a caller says of an endpoint, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFields {
    /// The caller's own name for it.
    pub uid: Option<Uid>,
    /// Where messages go.
    pub url: EndpointUrl,
    /// Shown to people.
    pub description: String,
    /// Messages per second.
    pub throttle_rate: Option<u16>,
    /// Which messages it gets.
    pub filter: Filter,
    /// Gets nothing.
    pub disabled: bool,
    /// The caller's own data.
    pub metadata: Metadata,
    /// What it sets of its own about retries.
    pub retry: RetryOverride,
    /// See [`Endpoint::legacy_version`].
    pub legacy_version: u16,
}

/// An endpoint to create.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Its configuration.
    pub fields: EndpointFields,
    /// Its first signing secret.
    pub secret: SigningSecret,
    /// Its custom headers.
    pub headers: CustomHeaders,
}

/// Restricts a list of endpoints; all that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointFilter {
    /// Part of the URL, whatever the case.
    pub url_contains: Option<String>,
    /// Only disabled (`true`) or only enabled (`false`) ones.
    pub disabled: Option<bool>,
    /// Only those with these metadata values.
    pub metadata: Metadata,
}

/// An OAuth2 configuration to store.
#[derive(Debug, Clone)]
pub struct OAuthChange {
    /// The settings.
    pub settings: OAuthSettings,
    /// `None` keeps the stored secret.
    pub client_secret: Option<SecretString>,
}

/// Endpoints.
#[async_trait]
pub trait Endpoints: Send + Sync + 'static {
    /// Creates an endpoint. [`WriteError::Taken`] when the uid is in use, [`WriteError::Limit`] beyond
    /// [`ENDPOINTS_PER_APPLICATION`](postrider_model::limits::ENDPOINTS_PER_APPLICATION).
    async fn create_endpoint(
        &self,
        scope: &AppScope,
        endpoint: NewEndpoint,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<Endpoint>, WriteError>;

    /// The endpoint of this id or uid in this application; deleted ones are absent.
    async fn endpoint(
        &self,
        scope: &AppScope,
        reference: &Ref<EndpointId>,
    ) -> Result<Option<Endpoint>, StoreError>;

    /// A page of endpoints by id.
    async fn endpoints(
        &self,
        scope: &AppScope,
        filter: EndpointFilter,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Endpoint>, StoreError>;

    /// Replaces every field if the endpoint still has version `from`, else [`WriteError::Stale`]. Re-enabling makes held
    /// deliveries claimable. An endpoint that was disabled and stays so keeps its reason and since when.
    async fn replace_endpoint(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        fields: EndpointFields,
    ) -> Result<Endpoint, WriteError>;

    /// Deletes an endpoint and its credentials; its pending deliveries are cancelled, its history stays.
    async fn delete_endpoint(&self, scope: &AppScope, id: EndpointId) -> Result<bool, StoreError>;

    /// Its custom headers, sensitive values opened.
    async fn headers(&self, scope: &AppScope, id: EndpointId) -> Result<Option<CustomHeaders>, StoreError>;

    /// Replaces all custom headers if the endpoint still has version `from`.
    async fn replace_headers(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        headers: CustomHeaders,
    ) -> Result<(), WriteError>;

    /// The current signing secret.
    async fn signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<SigningSecret>, StoreError>;

    /// Makes `new` the current signing secret; the previous one signs along for `overlap` (zero drops it at once).
    /// [`WriteError::Limit`] when [`PREVIOUS_SECRETS`](postrider_model::limits::PREVIOUS_SECRETS) still sign and
    /// `overlap` is not zero.
    /// Returns the secret that is current afterwards.
    async fn rotate_signing_secret(
        &self,
        scope: &AppScope,
        id: EndpointId,
        new: SigningSecret,
        overlap: Duration,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<SigningSecret>, WriteError>;

    /// The OAuth2 settings; `None` when none are set (or there is no such endpoint).
    async fn oauth(&self, scope: &AppScope, id: EndpointId) -> Result<Option<OAuthSettings>, StoreError>;

    /// Sets or (`None`) removes the OAuth2 configuration, if the endpoint still has version `from`.
    /// [`WriteError::Missing`] when the stored secret is to be kept and there is none.
    async fn replace_oauth(
        &self,
        scope: &AppScope,
        id: EndpointId,
        from: u64,
        change: Option<OAuthChange>,
    ) -> Result<(), WriteError>;

    /// What an endpoint is sent with, as of now, from memory in the usual case. `None` once it is deleted.
    async fn send_settings(
        &self,
        scope: &AppScope,
        id: EndpointId,
    ) -> Result<Option<Arc<SendSettings>>, StoreError>;
}
