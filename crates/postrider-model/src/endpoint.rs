//! An endpoint: a webhook configuration. Its secrets are kept apart from it.

use crate::{
    application::{Metadata, Uid},
    filter::Filter,
    id::{ApplicationId, EndpointId},
    retry::RetryOverride,
    time::Timestamp,
    url::EndpointUrl,
};

/// An endpoint as it stands, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The application that owns it.
    pub application: ApplicationId,
    /// The caller's own name for it, unique in the application.
    pub uid: Option<Uid>,
    /// Where messages go.
    pub url: EndpointUrl,
    /// Shown to people.
    pub description: String,
    /// Messages per second; the application's value counts when absent.
    pub throttle_rate: Option<u16>,
    /// Which messages it gets.
    pub filter: Filter,
    /// Why it gets nothing at present; `None` when it is enabled.
    pub disabled: Option<Disabled>,
    /// The caller's own data.
    pub metadata: Metadata,
    /// What it sets of its own about retries.
    pub retry: RetryOverride,
    /// Kept and returned for clients of the first API generation; without meaning here.
    pub legacy_version: u16,
    /// Grows with every change; an update names the one it was made from.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Why and since when an endpoint is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Who or what did it.
    pub reason: DisabledReason,
    /// Since when.
    pub at: Timestamp,
}

/// Who or what disabled an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisabledReason {
    /// A call to the API.
    Requested,
    /// The endpoint answered 410 Gone.
    Gone,
}

impl DisabledReason {
    /// Stable name in the API and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
        }
    }

    /// Back from [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Requested, Self::Gone].into_iter().find(|reason| reason.name() == name)
    }

    /// One sentence for a person, with the way out.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Requested => "disabled through the API; set `disabled` to false to enable it",
            Self::Gone => {
                "the endpoint answered 410 Gone; set `disabled` to false once it takes messages again"
            }
        }
    }
}
