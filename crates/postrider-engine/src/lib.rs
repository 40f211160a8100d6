//! Turns due deliveries into attempts: it knows neither HTTP routes nor SQL.
//!
//! The cast, in the order in which a delivery meets it:
//! - `scheduler`: the loop that claims due deliveries, only as many as can start now, and waits for the next reason to;
//! - `lanes`: who runs: the bounds in all, for one endpoint and for slow endpoints, which leases are out, and which
//!   endpoints are left alone (circuit breakers) or sent to at a limited rate;
//! - `dispatch`: one claimed delivery from its claim to its record, in a task of its own that survives a panic;
//! - `attempt`: one attempt as a list of steps: `request` builds and signs, `authorisation` has the access token,
//!   `redaction` keeps secrets out of the history, `verdict` decides what follows;
//! - `promptness`: whether deliveries keep up, for those who publish;
//! - `recorder`: keeps the result until the store has it; `leases`: what ends without one gives its lease back;
//! - `ports`: what comes from outside besides the store: the network and randomness;
//! - `retention`: deletes what is too old, in small batches;
//! - `supervise` and `backoff`: a loop that fails goes on, at a bounded pace;
//! - [`Config`] and [`Metrics`]: what an operator sets and sees.
//!
//! Guaranteed: nothing is sent that could not be claimed durably, nothing is forgotten that was sent (the result is kept
//! until it is stored, or the delivery is repeated), no endpoint can take the room of the others, and no failure of the
//! store or of a delivery ends a loop. The state that matters lives in the store; everything here may be lost.

mod attempt;
mod authorisation;
mod backoff;
mod config;
mod dispatch;
mod lanes;
mod leases;
mod metrics;
mod ports;
mod promptness;
mod recorder;
mod redaction;
mod request;
mod retention;
#[cfg(test)]
mod samples;
mod scheduler;
mod supervise;
mod verdict;

pub use config::{Config, RetentionConfig};
pub use lanes::Standing;
pub use metrics::Metrics;
pub use ports::{Ports, Sender};

use dispatch::Dispatch;
use futures_util::FutureExt;
use lanes::Lanes;
use postrider_model::id::EndpointId;
use postrider_outbound::Outbound;
use postrider_store::Store;
use scheduler::{Pulse, Scheduler};
use std::{sync::Arc, time::Duration};
use tokio::sync::OnceCell;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a drain allows beyond an attempt's own deadline, to store the last results.
const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// What a drain waits for the store to take back leases: it may be the reason why the drain took so long.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Live state of this node's engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Live {
    /// Deliveries that are claimed and not yet recorded.
    pub in_flight: usize,
    /// Time since the scheduler last went round; `None` while it has not yet. Idle, it goes round every few seconds:
    /// half a minute without one means that nothing is being claimed.
    pub since_last_round: Option<Duration>,
    /// First attempts of fresh messages that were answered well, since the start.
    pub first_attempts: u64,
    /// How many of a thousand of the last ones began late: deliveries do not keep up.
    pub late_permille: u32,
}

/// The running engine. Dropping it stops nothing: [`drain`](Self::drain) does.
pub struct Engine {
    lanes: Arc<Lanes>,
    pulse: Arc<Pulse>,
    dispatch: Arc<Dispatch>,
    tasks: TaskTracker,
    stop: Stop,
    drain_time: Duration,
    drained: OnceCell<()>,
}

/// The two ways of ending: claim no more, and leave everything at once.
#[derive(Debug, Clone, Default)]
struct Stop {
    draining: CancellationToken,
    abandoned: CancellationToken,
}

impl Engine {
    /// Starts scheduler and retention on the current tokio runtime. `config` must have passed [`Config::check`].
    pub fn start(store: Arc<dyn Store>, outbound: Outbound, config: Config, metrics: Metrics) -> Self {
        Self::start_with(store, Ports::of_server(outbound), config, metrics)
    }

    /// The same with ports of the caller's choice: nothing then opens a socket or draws a random number.
    pub fn start_with(store: Arc<dyn Store>, ports: Ports, config: Config, metrics: Metrics) -> Self {
        let stop = Stop::default();
        let tasks = TaskTracker::new();
        let lanes = Arc::new(Lanes::new(config.lane_limits(), Arc::clone(&store), metrics.clone()));
        let pulse = Arc::new(Pulse::default());
        let drain_time = config.total_deadline() + DRAIN_GRACE;
        let retention = config.retention.clone();
        let dispatch =
            Dispatch::new(Arc::clone(&store), ports, config, metrics.clone(), (tasks.clone(), stop.clone()));
        let dispatch = Arc::new(dispatch);

        let scheduler = Arc::new(Scheduler {
            store: Arc::clone(&store),
            lanes: Arc::clone(&lanes),
            dispatch: Arc::clone(&dispatch),
            pulse: Arc::clone(&pulse),
            tasks: tasks.clone(),
            draining: stop.draining.clone(),
            metrics: metrics.clone(),
        });
        let scheduling = move || Arc::clone(&scheduler).run();
        tasks.spawn(supervise::supervise("scheduler", stop.draining.clone(), metrics.clone(), scheduling));

        let (swept, draining) = (store, stop.draining.clone());
        let counted = metrics.clone();
        let sweeping = move || {
            let sweeps = retention::run(Arc::clone(&swept), retention.clone(), counted.clone());
            draining.clone().run_until_cancelled_owned(sweeps).map(drop)
        };
        tasks.spawn(supervise::supervise("retention", stop.draining.clone(), metrics, sweeping));

        Self { lanes, pulse, dispatch, tasks, stop, drain_time, drained: OnceCell::new() }
    }

    /// Live state, for `health`.
    pub fn live(&self) -> Live {
        let (first_attempts, late_permille) = self.dispatch.promptness().read();
        Live {
            in_flight: self.lanes.in_flight(),
            since_last_round: self.pulse.since_last(),
            first_attempts,
            late_permille,
        }
    }

    /// How this node treats an endpoint at present.
    pub fn standing(&self, endpoint: EndpointId) -> Standing {
        self.lanes.standing(endpoint)
    }

    /// Stops claiming, lets running attempts finish and be recorded, and gives back as due
    /// what was not sent yet; what was sent and could not be recorded is found as interrupted. Ends within the
    /// attempts' total deadline and a few seconds. Calls after the first wait for the same drain.
    pub async fn drain(&self) {
        self.drained.get_or_init(|| self.drain_once()).await;
    }

    async fn drain_once(&self) {
        self.stop.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.drain_time, self.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            deliveries = self.lanes.leases().len(),
            "drain ran out of time: these deliveries will be attempted again"
        );
        self.stop.abandoned.cancel();
        if tokio::time::timeout(RELEASE_TIME, self.tasks.wait()).await.is_err() {
            tracing::warn!("leases could not be given back in time; they end by themselves");
        }
    }
}
