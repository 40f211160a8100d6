//! What handlers work with, brought by the binary.

use crate::{
    admission::Admission,
    auth::{Failures, KnownEnvironments},
    config::Config,
    ports::{Metrics, Pulse},
    v1::health::LastWrite,
};
use postrider_store::Store;
use std::{ops::Deref, sync::Arc};

/// What handlers work with; cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Parts>);

/// The parts of the state.
pub struct Parts {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Live state of the engine of this node.
    pub pulse: Arc<dyn Pulse>,
    /// The metrics of this node.
    pub metrics: Arc<dyn Metrics>,
    /// Settings.
    pub config: Arc<Config>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    pub(crate) failures: Failures,
    pub(crate) known_environments: KnownEnvironments,
    pub(crate) last_write: LastWrite,
}

impl ApiState {
    /// From the parts that the binary brings.
    pub fn new(
        store: Arc<dyn Store>,
        pulse: Arc<dyn Pulse>,
        metrics: Arc<dyn Metrics>,
        config: Arc<Config>,
    ) -> Self {
        Self(Arc::new(Parts {
            store,
            pulse,
            metrics,
            admission: Arc::new(Admission::new(&config.limits)),
            config,
            failures: Failures::default(),
            known_environments: KnownEnvironments::default(),
            last_write: LastWrite::default(),
        }))
    }
}

impl Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
