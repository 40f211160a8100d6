//! A receiver on loopback: `/<n>/500/200` answers 500 first, then 200, and keeps what arrived.

use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;

/// One request that arrived.
#[derive(Clone)]
pub(crate) struct Arrived {
    path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Arrived {
    /// By two independent implementations.
    pub(crate) fn verify(&self, secret: &str) -> Result<()> {
        svix::webhooks::Webhook::new(secret)?.verify(&self.body, &self.headers)?;
        Ok(standardwebhooks::Webhook::new(secret)?.verify(&self.body, &self.headers)?)
    }
}

#[derive(Default)]
struct Seen {
    arrived: Vec<Arrived>,
    turns: HashMap<String, usize>,
    urls: usize,
}

/// The receiver.
pub(crate) struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let router = Router::new().fallback(receive).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, seen })
    }

    /// A new URL that answers with these statuses in turn, the last one for ever.
    pub(crate) fn url(&self, statuses: &str) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.urls += 1;
        format!("http://{}/{}/{statuses}", self.address, seen.urls)
    }

    /// What arrived at a URL, in order.
    pub(crate) fn arrived(&self, url: &str) -> Vec<Arrived> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.arrived.iter().filter(|request| url.ends_with(&request.path)).cloned().collect()
    }
}

async fn receive(
    State(seen): State<Arc<Mutex<Seen>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let path = uri.path().to_owned();
    let turn = seen.turns.entry(path.clone()).or_default();
    let statuses: Vec<u16> = path.split('/').skip(2).filter_map(|part| part.parse().ok()).collect();
    let status = statuses.get(*turn).or(statuses.last()).copied().unwrap_or(200);
    *turn += 1;
    seen.arrived.push(Arrived { path, headers, body });
    (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), "{\"seen\":true}")
}
