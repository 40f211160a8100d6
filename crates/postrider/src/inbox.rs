//! A small receiver on loopback, for the demo and for `--dev`: takes webhooks, remembers or shows them, answers what it
//! is told to.

use axum::{Router, body::Bytes, extract::State, response::IntoResponse, routing::post};
use http::{HeaderMap, StatusCode};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::mpsc};

/// Webhooks that wait to be looked at; with more, the receiver answers 503 and they come again.
const WAITING: usize = 1000;

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its headers, names in lower case.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Arrival {
    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Decides the status of an answer.
pub type Judge = dyn Fn(&Arrival) -> StatusCode + Send + Sync;

/// The running receiver.
pub struct Inbox {
    /// Where webhooks go.
    pub url: String,
    /// What arrived, in order.
    pub arrivals: mpsc::Receiver<Arrival>,
}

struct Shared {
    judge: Box<Judge>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Inbox {
    /// Listens at `address`, and answers as `judge` says until the process ends.
    pub async fn start(address: SocketAddr, judge: Box<Judge>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}/webhooks", listener.local_addr()?);
        let (sender, arrivals) = mpsc::channel(WAITING);
        let router = Router::new()
            .route("/webhooks", post(take))
            .with_state(Arc::new(Shared { judge, arrivals: sender }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, arrivals })
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let arrival = Arrival { headers, body };
    let status = (shared.judge)(&arrival);
    if shared.arrivals.try_send(arrival).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "nobody looks at what arrives");
    }
    let text = if status.is_success() { "thank you" } else { "not now, please come again" };
    (status, text)
}
