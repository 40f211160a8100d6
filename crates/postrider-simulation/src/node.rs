//! A node: the real engine on a store of its own, which can die, stand still, and be stopped. A dead one goes on
//! computing, but nothing that it does reaches anything: its calls never return.

use crate::{
    network::Network,
    random::Random,
    store::{Call, Deed, ModelStore, Setup, Weather},
    trace::Entry,
    world::{Outage, World},
};
use async_trait::async_trait;
use postrider_engine::{Engine, Metrics, Ports};
use postrider_store::{Store, StoreError};
use prometheus_client::registry::Registry;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Calls of the store at one instant: more than all messages of a run could need.
const SPINS: u64 = 50_000;

/// Whether a node lives, and until when it stands still.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    dead: AtomicBool,
    still_until: Mutex<Option<Instant>>,
}

impl Gate {
    pub(crate) fn lives(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stand_still_until(&self, at: Instant) {
        *self.still_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Returns when the node runs; never, when it is dead.
    pub(crate) async fn pass(&self) {
        loop {
            if !self.lives() {
                std::future::pending::<()>().await;
            }
            let until = *self.still_until.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<ModelStore>,
    pub(crate) gate: Arc<Gate>,
    registry: Registry,
}

impl Node {
    /// Starts one on the disk; what owned the disk before can do nothing more.
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let gate = Arc::new(Gate::default());
        let weather = NodeWeather { world: Arc::clone(world), gate: Arc::clone(&gate) };
        let config = world.plan.config.clone();
        let setup = Setup {
            clock: Arc::clone(&world.clock),
            ids: Arc::clone(&world.ids),
            weather: Arc::new(weather),
            delivery_age: config.retry_policy().deadline(),
        };
        {
            let mut state = world.state();
            state.oracle.boots();
            state.receivers.iter_mut().for_each(|receiver| receiver.under_way = 0);
        }
        world.note(Entry::Node("up"));
        let store = Arc::new(ModelStore::open(Arc::clone(&world.disk), setup));
        let boots = world.state().random.number();
        let jitter = Mutex::new(Random::new(boots));
        let ports = Ports {
            sender: Arc::new(Network::new(Arc::clone(world), Arc::clone(&gate))),
            jitter: Box::new(move || jitter.lock().unwrap_or_else(PoisonError::into_inner).fraction()),
        };
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let contract: Arc<dyn Store> = Arc::<ModelStore>::clone(&store);
        let engine = Engine::start_with(contract, ports, config, metrics);
        world.set_up(Some(Arc::clone(&store)));
        Self { engine, store, gate, registry }
    }

    /// It dies: nothing of it reaches anything any more.
    pub(crate) fn die(self, world: &World) -> Result<(), String> {
        self.gate.kill();
        world.set_up(None);
        world.note(Entry::Node("dead"));
        self.check()
    }

    /// It is stopped as a server is: no new calls, a drain, the store closed.
    pub(crate) async fn stop(self, world: &World) -> Result<(), String> {
        world.set_up(None);
        let begun = Instant::now();
        self.engine.drain().await;
        let most = Duration::from_millis(world.plan.config.total_deadline_ms) + Duration::from_secs(5);
        let in_time = begun.elapsed() <= most || !self.gate.lives();
        self.store.close().await;
        self.gate.kill();
        world.note(Entry::Node("stopped"));
        self.check()?;
        if in_time { Ok(()) } else { Err(format!("a drain took {:?}", begun.elapsed())) }
    }

    /// Nothing panicked.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut text = String::new();
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        let panics = text.lines().find(|line| line.starts_with("postrider_engine_panics_total "));
        let panics = panics.and_then(|line| line.rsplit(' ').next()).unwrap_or("not counted");
        if written.is_ok() && panics == "0" { Ok(()) } else { Err(format!("panics in the engine: {panics}")) }
    }
}

/// What happens to the store of a node.
struct NodeWeather {
    world: Arc<World>,
    gate: Arc<Gate>,
}

/// What a call meets.
struct Met {
    delay: Duration,
    error: Option<StoreError>,
}

impl NodeWeather {
    /// A step of the node's work; the one that it was to die of is its last.
    fn step(&self) {
        let at = self.world.elapsed();
        let mut state = self.world.state();
        state.spin = if state.spin.0 == at { (at, state.spin.1 + 1) } else { (at, 1) };
        if state.spin.1 > SPINS {
            drop(state);
            self.gate.kill();
            return self.world.judge(|_, _| Err(format!("{SPINS} calls of the store without time going on")));
        }
        if let Some(left) = &mut state.steps_to_live {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.steps_to_live = None;
                self.gate.kill();
                self.world.alarm.notify_one();
            }
        }
    }

    fn before_call(&self, call: Call) -> Met {
        let mut state = self.world.state();
        let (weather, random) = (state.weather, &mut state.random);
        let most = weather.slow.unwrap_or(weather.plan.most);
        let delay = random.millis(0..=u64::try_from(most.as_millis()).unwrap_or(0));
        let fails = random.permille(weather.plan.fails_before);
        let error = match weather.outage {
            Some(Outage::Full) if call != Call::Read => Some(full()),
            Some(Outage::Away) => Some(away()),
            _ => fails.then(|| if random.permille(500) { away() } else { broken() }),
        };
        Met { delay, error }
    }

    fn after_call(&self, call: Call) -> Option<StoreError> {
        let mut state = self.world.state();
        let chance = state.weather.plan.fails_after;
        let fails = call != Call::Read && state.random.permille(chance);
        fails.then(|| if state.random.permille(500) { away() } else { broken() })
    }
}

#[async_trait]
impl Weather for NodeWeather {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        self.step();
        self.gate.pass().await;
        let met = self.before_call(call);
        if !met.delay.is_zero() {
            tokio::time::sleep(met.delay).await;
        }
        self.gate.pass().await;
        met.error.map_or(Ok(()), Err)
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        self.step();
        self.gate.pass().await;
        self.after_call(call).map_or(Ok(()), Err)
    }

    fn lives(&self) -> bool {
        self.gate.lives()
    }

    fn saw(&self, deed: Deed<'_>) {
        self.world.judge(|state, at| {
            let (entry, finding) = state.oracle.saw(&deed, at);
            state.trace.note(at, entry);
            finding
        });
    }
}

fn away() -> StoreError {
    StoreError::Unavailable { detail: "simulated".to_owned(), retry_after: Duration::from_secs(1) }
}

fn full() -> StoreError {
    StoreError::Full { detail: "simulated".to_owned() }
}

fn broken() -> StoreError {
    StoreError::Internal { detail: "simulated".to_owned() }
}
