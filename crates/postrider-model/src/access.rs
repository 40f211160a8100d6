//! Who may call: API keys, what they cover, and the caller that a request turns out to be.

use crate::{
    environment::EnvironmentId,
    id::{ApiKeyId, ApplicationId},
    time::Timestamp,
};
use std::collections::BTreeSet;

/// What a caller may do inside its environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything in the environment.
    Environment,
    /// One application: its endpoints and history, no publishing, nothing of other applications.
    Application {
        /// The application.
        id: ApplicationId,
        /// Event types with flags are seen only by callers with one of them.
        feature_flags: BTreeSet<String>,
    },
    /// Publishing messages, in one application or in all of the environment; nothing else.
    Publish {
        /// `None`: every application of the environment.
        application: Option<ApplicationId>,
    },
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The environment it belongs to.
    pub environment: EnvironmentId,
    /// What it may do there.
    pub scope: Scope,
}

/// An API key as lists show it: never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id; part of the token.
    pub id: ApiKeyId,
    /// Where it is valid and for what.
    pub caller: Caller,
    /// Shown to people.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}
