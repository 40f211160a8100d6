//! Who calls: API keys of this server, and tokens of svix-server for migration. What a caller may do is asked of
//! [`Caller`]; which application or endpoint a path names is found in [`crate::scope`].

mod failures;
mod jwt;
mod known;

pub use failures::{ClientAddress, Failures};
pub use known::KnownEnvironments;

use crate::{error::ApiError, state::ApiState};
use axum::extract::FromRequestParts;
use http::{header, request::Parts};
use postrider_model::{
    access::{Caller as Identity, Scope},
    environment::EnvironmentId,
    id::ApplicationId,
};
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Also the answer to a request without a token; clients compare the text.
const INVALID_TOKEN: &str = "Invalid token";

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its environment and what it may do there.
    pub identity: Identity,
    /// What kind of token it showed.
    pub source: Source,
}

/// The kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An API key of this server.
    ApiKey,
    /// An HS256 token signed with `jwt_secret`.
    Jwt,
}

impl Caller {
    /// The environment, for operations on the environment itself: 403 for tokens of one application or for publishing.
    pub fn require_environment(&self) -> Result<&EnvironmentId, ApiError> {
        match self.identity.scope {
            Scope::Environment => Ok(&self.identity.environment),
            Scope::Application { .. } | Scope::Publish { .. } => Err(ApiError::forbidden()),
        }
    }

    /// The environment, for what every reader of configuration may see: 403 for tokens that only publish.
    pub fn require_reader(&self) -> Result<&EnvironmentId, ApiError> {
        match self.identity.scope {
            Scope::Environment | Scope::Application { .. } => Ok(&self.identity.environment),
            Scope::Publish { .. } => Err(ApiError::forbidden()),
        }
    }

    /// The environment, for publishing: 403 for tokens of one application.
    pub fn require_publisher(&self) -> Result<&EnvironmentId, ApiError> {
        match self.identity.scope {
            Scope::Environment | Scope::Publish { .. } => Ok(&self.identity.environment),
            Scope::Application { .. } => Err(ApiError::forbidden()),
        }
    }

    /// Does this application exist for the caller? (One of the same environment; tokens of one application see only it.)
    pub fn sees(&self, application: ApplicationId) -> bool {
        match &self.identity.scope {
            Scope::Environment | Scope::Publish { application: None } => true,
            Scope::Application { id, .. } | Scope::Publish { application: Some(id) } => *id == application,
        }
    }

    /// Which event types with feature flags it sees; `None` means all.
    pub fn feature_flags(&self) -> Option<&BTreeSet<String>> {
        match &self.identity.scope {
            Scope::Application { feature_flags, .. } => Some(feature_flags),
            Scope::Environment | Scope::Publish { .. } => None,
        }
    }

    /// Is it somebody other than the publisher? Such readers are not told the addresses behind a name.
    pub fn is_consumer(&self) -> bool {
        matches!(self.identity.scope, Scope::Application { .. })
    }
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        // An extractor of the path may have found out already.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let caller = Self::of(parts, state).await?;
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

impl Caller {
    /// Finds out who sent a request; 401, and 429 after too many of them.
    pub(crate) async fn of(parts: &Parts, state: &ApiState) -> Result<Self, ApiError> {
        let address = parts.extensions.get::<ClientAddress>().copied();
        let found = authenticate(parts, state).await;
        let refused = matches!(&found, Err(error) if error.status() == http::StatusCode::UNAUTHORIZED);
        if refused
            && let Some(ClientAddress(address)) = address
            && !state.failures.count(address, Instant::now())
        {
            return Err(failures::too_many());
        }
        found
    }
}

async fn authenticate(parts: &Parts, state: &ApiState) -> Result<Caller, ApiError> {
    let (token, environment) = bearer(parts).ok_or_else(|| ApiError::unauthorized(INVALID_TOKEN))?;
    let caller = match jwt::verify(token, &state.config, state.store.clock().now())? {
        Some(identity) => {
            state.known_environments.ensure(&*state.store, &identity.environment).await?;
            Caller { identity, source: Source::Jwt }
        }
        None => match state.store.authenticate(token).await? {
            Some(identity) => Caller { identity, source: Source::ApiKey },
            None => return Err(ApiError::unauthorized(INVALID_TOKEN)),
        },
    };
    // Terraform's provider names the environment it means behind the token.
    if environment.is_some_and(|environment| environment != caller.identity.environment.as_str()) {
        return Err(ApiError::forbidden());
    }
    Ok(caller)
}

/// The token of `Authorization: Bearer token` and the environment of `Bearer token|environment`.
fn bearer(parts: &Parts) -> Option<(&str, Option<&str>)> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let token = token.trim();
    Some(token.rsplit_once('|').map_or((token, None), |(token, environment)| (token, Some(environment))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(String, Option<String>)> {
        let (parts, ()) =
            http::Request::builder().header("authorization", value).body(()).unwrap().into_parts();
        bearer(&parts).map(|(token, environment)| (token.to_owned(), environment.map(str::to_owned)))
    }

    #[test]
    fn bearer_tokens_are_read_with_and_without_an_environment() {
        assert_eq!(read("Bearer abc"), Some(("abc".into(), None)));
        assert_eq!(read("bearer  abc "), Some(("abc".into(), None)));
        assert_eq!(read("Bearer a|b|org_x"), Some(("a|b".into(), Some("org_x".into()))));
        assert_eq!(read("Basic abc"), None);
        assert_eq!(read("Bearer"), None);
    }
}
