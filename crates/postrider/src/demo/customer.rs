//! The customer's side of the tour: a receiver that is away at first, and an OAuth2 token endpoint.

use crate::inbox::{Arrival, Inbox};
use anyhow::{Context as _, Result};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;

/// Postrider's name at the token endpoint.
pub(super) const CLIENT_ID: &str = "postrider-for-acme";
/// Its secret there.
pub(super) const CLIENT_SECRET: &str = "s3cret-of-the-tour";
/// What the token endpoint gives out.
pub(super) const ACCESS_TOKEN: &str = "acme-access-token-1";

/// A running customer.
pub(super) struct Customer {
    pub(super) webhook_url: String,
    pub(super) token_url: String,
    inbox: Inbox,
    issued: Arc<AtomicUsize>,
}

impl Customer {
    pub(super) async fn start() -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let issued = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind(any).await.context("starting the token endpoint")?;
        let token_url = format!("http://{}/oauth/token", listener.local_addr()?);
        let router = Router::new().route("/oauth/token", post(issue)).with_state(Arc::clone(&issued));
        tokio::spawn(async move { axum::serve(listener, router).await });

        let seen = AtomicUsize::new(0);
        let judge = move |arrival: &Arrival| {
            let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
            if arrival.header("authorization") != format!("Bearer {ACCESS_TOKEN}") {
                StatusCode::UNAUTHORIZED
            } else if first {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            }
        };
        let inbox = Inbox::start(any, Box::new(judge)).await.context("starting the receiver")?;
        Ok(Self { webhook_url: inbox.url.clone(), token_url, inbox, issued })
    }

    /// The next webhook that arrives.
    pub(super) async fn next(&mut self) -> Result<Arrival> {
        let arrival = tokio::time::timeout(super::PATIENCE, self.inbox.arrivals.recv()).await;
        arrival.context("nothing arrived in time")?.context("the receiver ended")
    }

    /// How often the token endpoint gave a token out.
    pub(super) fn tokens_issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }
}

async fn issue(
    State(issued): State<Arc<AtomicUsize>>,
    headers: HeaderMap,
    form: String,
) -> impl IntoResponse {
    let expected = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    if headers.get("authorization").is_none_or(|given| given != expected.as_str()) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" })));
    }
    if form.split('&').all(|pair| pair != "grant_type=client_credentials") {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "unsupported_grant_type" })));
    }
    issued.fetch_add(1, Ordering::Relaxed);
    (
        StatusCode::OK,
        Json(json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600 })),
    )
}
