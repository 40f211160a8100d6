//! What the engine takes from outside besides the store: a way to send, and randomness. The server brings
//! [`Outbound`] and the process's random numbers; a simulation brings its own, and then the same seed makes the same run.

use postrider_model::oauth::OAuthCredential;
use postrider_outbound::{
    Exchange, Outbound, Request,
    oauth::{Token, TokenFailure, TokenOwner},
};
use std::sync::Arc;
use tokio::time::Instant;

/// What attempts need of the network. The contracts of the calls are those of [`Outbound`].
#[async_trait::async_trait]
pub trait Sender: Send + Sync + 'static {
    /// Sends a request and reads its answer, all by `deadline`. See [`Outbound::send`].
    async fn send(&self, request: &Request, deadline: Instant) -> Exchange;

    /// A usable access token. See [`Outbound::token`].
    async fn token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        deadline: Instant,
    ) -> Result<Token, TokenFailure>;

    /// A new access token in the place of one that the endpoint refused. See [`Outbound::replace_token`].
    async fn replace_token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        rejected: &Token,
        deadline: Instant,
    ) -> Option<Result<Token, TokenFailure>>;
}

#[async_trait::async_trait]
impl Sender for Outbound {
    async fn send(&self, request: &Request, deadline: Instant) -> Exchange {
        Outbound::send(self, request, deadline).await
    }

    async fn token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        deadline: Instant,
    ) -> Result<Token, TokenFailure> {
        Outbound::token(self, owner, credential, deadline).await
    }

    async fn replace_token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        rejected: &Token,
        deadline: Instant,
    ) -> Option<Result<Token, TokenFailure>> {
        Outbound::replace_token(self, owner, credential, rejected, deadline).await
    }
}

/// What an engine works with besides its store.
pub struct Ports {
    /// The network.
    pub sender: Arc<dyn Sender>,
    /// Uniform in `0.0..1.0`, anew at each call: how far a wait between attempts is stretched.
    pub jitter: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Ports {
    /// Those of a server.
    pub fn of_server(outbound: Outbound) -> Self {
        Self { sender: Arc::new(outbound), jitter: Box::new(rand::random::<f64>) }
    }
}
