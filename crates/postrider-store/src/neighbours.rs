//! What one process asks of another that shares the database: how it treats an endpoint that it serves. Live state, never
//! stored; opaque to the store, which only carries it.

use async_trait::async_trait;
use postrider_model::id::EndpointId;
use std::sync::Arc;

/// Longest answer, in bytes: it shares a wake-up with others.
pub const ANSWER_BYTES: usize = 500;

/// Says what this process knows of an endpoint that it serves: text without white space, of [`ANSWER_BYTES`] at most.
pub type Teller = Arc<dyn Fn(EndpointId) -> Option<String> + Send + Sync>;

/// Processes that share a database. By default there is only this one.
#[async_trait]
pub trait Neighbours: Send + Sync + 'static {
    /// Does this process serve the endpoint, so that what it knows of it is what there is to know?
    fn serves(&self, _endpoint: EndpointId) -> bool {
        true
    }

    /// What answers when another process asks; the first one counts.
    fn tell_with(&self, _teller: Teller) {}

    /// What the process says that serves the endpoint; `None` when none answers within a second or so.
    async fn ask(&self, _endpoint: EndpointId) -> Option<String> {
        None
    }
}
