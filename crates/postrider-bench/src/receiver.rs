//! The receiver: answers 200 and notes how long each message took from being published (or meant to be) to arriving.

use crate::connection;
use anyhow::Result;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// What a payload begins with; the time of publication follows, in microseconds since the start of the run.
pub(crate) const SENT: &str = "{\"sent\":";
/// Longest latency that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;

/// What arrived.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    epoch: Instant,
    latencies: Arc<Mutex<Histogram<u64>>>,
}

impl Receiver {
    /// Starts it; times in payloads count from `epoch`.
    pub(crate) async fn start(epoch: Instant) -> Result<Self> {
        let latencies = Arc::new(Mutex::new(Histogram::new_with_max(LONGEST, 3)?));
        let seen = Arc::clone(&latencies);
        let address = connection::serve(move |request: Request<Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                if let Ok(body) = request.into_body().collect().await
                    && let Some(sent) = published_at(&body.to_bytes())
                {
                    let now = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.saturating_record(now.saturating_sub(sent));
                }
                Response::new(Full::default())
            }
        })
        .await?;
        Ok(Self { address, epoch, latencies })
    }

    /// Microseconds since the epoch of the run.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Messages that arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Latencies so far, in microseconds; starts anew.
    pub(crate) fn take(&self) -> Histogram<u64> {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = latencies.clone();
        latencies.reset();
        taken
    }
}

fn published_at(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(SENT.as_bytes())?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}
