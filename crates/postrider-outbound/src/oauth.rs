//! OAuth2 access tokens (client credentials): fetched once for many waiters, cached, renewed early, and after a 401.

use crate::Outbound;
use postrider_model::{environment::EnvironmentId, id::{ApplicationId, EndpointId}, oauth::OAuthCredential, outcome::Outcome};
use secrecy::SecretString;
use tokio::time::Instant;

/// Whose credential: part of every cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenOwner {
    /// The environment.
    pub environment: EnvironmentId,
    /// The application.
    pub application: ApplicationId,
    /// The endpoint.
    pub endpoint: EndpointId,
}

/// An access token.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token, for `Authorization: Bearer`.
    pub value: SecretString,
    /// It came from the cache (it was not fetched during this call).
    pub cached: bool,
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub struct TokenFailure {
    /// `TokenUnavailable`, `TokenRejected` or `TokenInvalid`.
    pub outcome: Outcome,
    /// One sentence for a person. Contains neither `error_description` nor anything of the answer but a registered
    /// error code.
    pub detail: String,
}

impl Outbound {
    /// A usable token: from the cache, or fetched. Concurrent callers of one credential share one request and its
    /// result, also when it fails.
    pub async fn token(
        &self,
        _owner: &TokenOwner,
        _credential: &OAuthCredential,
        _deadline: Instant,
    ) -> Result<Token, TokenFailure> {
        todo!()
    }

    /// The endpoint answered 401 to this token. Forgets it and returns a newly fetched one, or `None` when no refresh
    /// is allowed now (the token was not cached, or the credential was refreshed this way within the last minute).
    pub async fn replace_token(
        &self,
        _owner: &TokenOwner,
        _credential: &OAuthCredential,
        _rejected: &Token,
        _deadline: Instant,
    ) -> Option<Result<Token, TokenFailure>> {
        todo!()
    }
}
