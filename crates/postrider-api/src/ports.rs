//! What the API asks of the engine and of the binary, wired there: they do not know each other.

use postrider_model::{breaker::Breaker, id::EndpointId, time::Timestamp};
use std::time::Duration;

/// Live state of the engine of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Attempts that run now.
    pub in_flight: usize,
    /// Time since the scheduler last went round; `None` while it has not yet.
    pub since_last_round: Option<Duration>,
    /// First attempts of fresh messages that were answered well, since the start.
    pub first_attempts: u64,
    /// How many of a thousand of the last ones began late: deliveries do not keep up.
    pub late_permille: u32,
}

/// How the engine of this node treats an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// Deliveries of it that may run at the same time.
    pub places: usize,
    /// Since when its rate limit has held deliveries back.
    pub throttled_since: Option<Timestamp>,
}

/// Live state of the engine of this node.
pub trait Pulse: Send + Sync + 'static {
    /// The state now.
    fn live(&self) -> Live;

    /// How an endpoint is treated now; `None` on a node that delivers nothing.
    fn standing(&self, _endpoint: EndpointId) -> Option<Standing> {
        None
    }
}

/// The metrics of this node, for `/metrics`.
#[async_trait::async_trait]
pub trait Metrics: Send + Sync + 'static {
    /// All metrics in the OpenMetrics text format.
    async fn render(&self) -> String;

    /// A message has been made durable: a new one, not one that a repeated request got again.
    fn accepted(&self);
}
