//! The access token of an attempt: had before the request is sent, replaced once when the endpoint refuses it.

use crate::ports::Sender;
use postrider_model::oauth::OAuthCredential;
use postrider_outbound::oauth::{Token, TokenFailure, TokenOwner};
use std::time::Duration;
use tokio::time::Instant;

/// An attempt's access token and what is needed for another one.
pub(crate) struct Authorisation<'a> {
    sender: &'a dyn Sender,
    owner: TokenOwner,
    credential: &'a OAuthCredential,
    deadline: Instant,
    /// The tokens of this attempt, the newest last: at most two.
    tokens: Vec<Token>,
    took: Duration,
}

impl<'a> Authorisation<'a> {
    /// Has a token for `owner`, from the cache or fetched. On failure also the time that it took.
    pub(crate) async fn fetch(
        sender: &'a dyn Sender,
        owner: TokenOwner,
        credential: &'a OAuthCredential,
        deadline: Instant,
    ) -> Result<Self, (TokenFailure, Duration)> {
        let begun = Instant::now();
        let fetched = sender.token(&owner, credential, deadline).await;
        let took = begun.elapsed();
        let token = fetched.map_err(|failure| (failure, took))?;
        Ok(Self { sender, owner, credential, deadline, tokens: vec![token], took })
    }

    /// The endpoint answered 401: a new token, or `None` when none may be fetched now.
    pub(crate) async fn renew(&mut self) -> Option<Result<(), TokenFailure>> {
        let begun = Instant::now();
        let rejected = self.tokens.last()?;
        let renewed = self.sender.replace_token(&self.owner, self.credential, rejected, self.deadline).await;
        self.took += begun.elapsed();
        Some(renewed?.map(|token| self.tokens.push(token)))
    }

    /// The token to send.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.tokens.last()
    }

    /// The token to send was fetched for this attempt.
    pub(crate) fn is_fresh(&self) -> bool {
        self.token().is_some_and(|token| !token.cached)
    }

    /// Every token that was sent: what must not be stored when the endpoint echoes it.
    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Time spent on tokens.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }
}
