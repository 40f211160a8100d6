//! The contract's suite on the model store: what is simulated on it holds for every backend that passes the same.

use postrider_model::retry::RetryPolicy;
use postrider_simulation::store::{Calm, ModelStore, Setup, SharedDisk};
use postrider_store::{Clock, Ids, Store, conformance::Harness, conformance_suite};
use std::sync::Arc;

struct Model {
    store: Arc<ModelStore>,
    clock: Arc<Clock>,
    ids: Arc<Ids>,
}

fn start(disk: SharedDisk, clock: &Arc<Clock>, ids: &Arc<Ids>) -> Arc<ModelStore> {
    let setup = Setup {
        clock: Arc::clone(clock),
        ids: Arc::clone(ids),
        weather: Arc::new(Calm),
        delivery_age: RetryPolicy::default().deadline(),
    };
    Arc::new(ModelStore::open(disk, setup))
}

async fn open() -> Model {
    let clock = Arc::new(Clock::default());
    let ids = Arc::new(Ids::default());
    Model { store: start(SharedDisk::default(), &clock, &ids), clock, ids }
}

#[async_trait::async_trait]
impl Harness for Model {
    fn store(&self) -> Arc<dyn Store> {
        let store: Arc<ModelStore> = Arc::clone(&self.store);
        store
    }

    async fn reopen(&mut self) {
        self.store = start(self.store.disk(), &self.clock, &self.ids);
    }
}

conformance_suite!(open);
