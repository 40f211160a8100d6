//! What the API asks of the engine and of the binary, wired there: they do not know each other.

use postrider_model::{
    breaker::{Breaker, Pause},
    id::EndpointId,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

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

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// Everything, a few deliveries at a time: the endpoint was in trouble a moment ago.
    Recovering,
    /// Nothing until the next probe.
    Open,
    /// One delivery is out, the probe.
    HalfOpen,
}

impl From<Breaker> for BreakerState {
    fn from(breaker: Breaker) -> Self {
        match breaker {
            Breaker::Open(_) => Self::Open,
            Breaker::HalfOpen(..) => Self::HalfOpen,
            Breaker::Closed(_) if breaker.is_recovering() => Self::Recovering,
            Breaker::Closed(_) => Self::Closed,
        }
    }
}

/// How the node that serves an endpoint treats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What its circuit breaker lets through.
    pub state: BreakerState,
    /// Why and until when nothing is sent, when nothing is.
    pub pause: Option<Pause>,
    /// Deliveries of it that may run at the same time.
    pub places: usize,
    /// Since when its rate limit has held deliveries back.
    pub throttled_since: Option<Timestamp>,
}

impl Standing {
    /// Of an endpoint with this breaker.
    pub fn of(breaker: Breaker, places: usize, throttled_since: Option<Timestamp>) -> Self {
        Self { state: breaker.into(), pause: breaker.pause(), places, throttled_since }
    }
}

/// Live state of the engine of this node.
#[async_trait::async_trait]
pub trait Pulse: Send + Sync + 'static {
    /// The state now.
    fn live(&self) -> Live;

    /// How an endpoint is treated now, whichever node serves it; `None` when that one does not say.
    async fn standing(&self, _endpoint: EndpointId) -> Option<Standing> {
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
