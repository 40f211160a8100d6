//! What all parts of a run share: the time, the plan, the receivers, the trace, the oracle, and which node lives.
//!
//! Locks are taken in the order disk, then world; nobody waits while holding one.

use crate::{
    oracle::Oracle,
    plan::{DiskPlan, Plan},
    random::Random,
    receiver::Script,
    store::{Disk, ModelStore, SharedDisk},
    trace::{Entry, Trace},
};
use postrider_model::time::Timestamp;
use postrider_store::{Clock, Ids};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// What the first clock shows: 2026-01-01T00:00:00Z.
const EPOCH: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// A run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<Clock>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) disk: SharedDisk,
    begun: Instant,
    state: Mutex<State>,
    /// Told when a node died of a planned step, or something forbidden happened.
    pub(crate) alarm: Notify,
    /// The store of the node that is up. Told by a `Notify`: a watch channel wakes those who wait in a random order.
    up: Mutex<Option<Arc<ModelStore>>>,
    turned: Notify,
}

/// What changes.
pub(crate) struct State {
    pub(crate) trace: Trace,
    pub(crate) oracle: Oracle,
    pub(crate) receivers: Vec<Receiver>,
    /// Trouble is over.
    pub(crate) healed: bool,
    pub(crate) weather: DiskWeather,
    pub(crate) random: Random,
    /// Steps until the node dies.
    pub(crate) steps_to_live: Option<u64>,
    /// The instant of the last step, and the steps in it.
    pub(crate) spin: (Duration, u64),
    failure: Option<String>,
}

/// An endpoint as the outside sees it.
pub(crate) struct Receiver {
    pub(crate) script: Script,
    pub(crate) under_way: usize,
}

/// How the disk is at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskWeather {
    pub(crate) plan: DiskPlan,
    pub(crate) outage: Option<Outage>,
    pub(crate) slow: Option<Duration>,
}

/// The database answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    Away,
    Full,
}

impl World {
    pub(crate) fn new(plan: Plan, tail: usize) -> Arc<Self> {
        let seed = plan.seed;
        let ids = Mutex::new(Random::stream(seed, 2));
        let ids = Ids::with_random(move || lock(&ids).id_bytes());
        let receivers = plan.endpoints.iter();
        let receivers = receivers.map(|one| Receiver { script: one.script.clone(), under_way: 0 }).collect();
        let calm = DiskPlan { most: Duration::ZERO, fails_before: 0, fails_after: 0 };
        let state = State {
            trace: Trace::keeping(tail),
            oracle: Oracle::new(&plan),
            receivers,
            healed: false,
            weather: DiskWeather { plan: calm, outage: None, slow: None },
            random: Random::stream(seed, 3),
            steps_to_live: None,
            spin: (Duration::ZERO, 0),
            failure: None,
        };
        Arc::new(Self {
            plan,
            clock: Arc::new(Clock::of_runtime(EPOCH)),
            ids: Arc::new(ids),
            disk: SharedDisk::default(),
            begun: Instant::now(),
            state: Mutex::new(state),
            alarm: Notify::new(),
            up: Mutex::new(None),
            turned: Notify::new(),
        })
    }

    /// Since the start, by a clock that nobody sets.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The instant so long after the start.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.begun + at
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Notes what happened.
    pub(crate) fn note(&self, entry: Entry) {
        let at = self.elapsed();
        self.state().trace.note(at, entry);
    }

    /// Looks at something with the oracle; what it finds forbidden ends the run.
    pub(crate) fn judge(&self, look: impl FnOnce(&mut State, Duration) -> Result<(), String>) {
        let at = self.elapsed();
        let mut state = self.state();
        if let Err(text) = look(&mut state, at) {
            state.failure.get_or_insert(format!("{text} (at {:.3} s)", at.as_secs_f64()));
            self.alarm.notify_one();
        }
    }

    /// What was found to be forbidden first.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// A node is up from here on, or none is.
    pub(crate) fn set_up(&self, store: Option<Arc<ModelStore>>) {
        *lock(&self.up) = store;
        self.turned.notify_waiters();
    }

    /// Waits until a node is up.
    async fn store(&self) -> Arc<ModelStore> {
        loop {
            let turned = self.turned.notified();
            if let Some(store) = lock(&self.up).clone() {
                return store;
            }
            turned.await;
        }
    }

    /// Calls the node that is up; `None` when it went away before it answered: what was asked may have been done.
    pub(crate) async fn call<T, F: Future<Output = T>>(
        &self,
        call: impl FnOnce(Arc<ModelStore>) -> F,
    ) -> Option<T> {
        let store = self.store().await;
        let went_away = async {
            loop {
                let turned = self.turned.notified();
                if lock(&self.up).as_ref().is_none_or(|now| !Arc::ptr_eq(now, &store)) {
                    return;
                }
                turned.await;
            }
        };
        tokio::select! {
            biased;
            answer = call(Arc::clone(&store)) => Some(answer),
            () = went_away => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
