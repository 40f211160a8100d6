//! One run: set up, trouble, and the end that its mode asks for.

use crate::{
    node::Node,
    oracle::Counts,
    owner,
    plan::{Fault, Mode, Plan},
    publisher,
    receiver::{Behaviour, Script},
    store::{Calm, ModelStore, Setup},
    trace::Entry,
    world::{DiskWeather, Outage, World},
};
use postrider_model::{delivery::State, event_type::EventTypeName};
use postrider_store::endpoints::AppScope;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Between two looks at the disk.
const LOOK: Duration = Duration::from_secs(1);
/// Once trouble is over, what is due must have come to its end after this and a second for each delivery: the longest
/// pause of a breaker, twice, and the slowest rate of an endpoint.
const BOUND: Duration = Duration::from_mins(15);
/// With everything at its end, the node must be idle after this.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Its mode.
    pub mode: Mode,
    /// The hash over all that happened: the same whenever the same seed runs.
    pub hash: u64,
    /// Things that happened.
    pub entries: u64,
    /// Simulated time.
    pub time: Duration,
    /// Numbers.
    pub counts: Counts,
    /// What was forbidden and happened, and what came before it.
    pub failure: Option<String>,
}

/// Runs a seed to its end. A failure shows the last `tail` entries of its trace.
pub fn run(seed: u64, mode: Mode, tail: usize) -> Report {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = built else {
        return Report {
            seed,
            mode,
            hash: 0,
            entries: 0,
            time: Duration::ZERO,
            counts: Counts::default(),
            failure: Some("there is no runtime".to_owned()),
        };
    };
    runtime.block_on(async {
        let world = World::new(Plan::draw(seed, mode), tail);
        let ended = Driver::new(Arc::clone(&world)).drive().await;
        let failure = world.failure().or(ended.err());
        let state = world.state();
        let failure = failure.map(|text| format!("{text}\n{}", state.trace));
        Report {
            seed,
            mode,
            hash: state.trace.hash(),
            entries: state.trace.entries(),
            time: world.elapsed(),
            counts: state.oracle.counts,
            failure,
        }
    })
}

/// What the driver does at a time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fault(Fault),
    EndOutage,
    EndSlowness,
    Boot,
    Look,
}

/// Makes happen what the plan says.
struct Driver {
    world: Arc<World>,
    node: Option<Node>,
    steps: BTreeMap<(Duration, u64), Step>,
    added: u64,
    /// How long a node stays down that dies of its own steps.
    down: Duration,
}

impl Driver {
    fn new(world: Arc<World>) -> Self {
        let mut driver = Self { world, node: None, steps: BTreeMap::new(), added: 0, down: Duration::ZERO };
        for (at, fault) in driver.world.plan.faults.clone() {
            driver.add(at, Step::Fault(fault));
        }
        driver.add(LOOK, Step::Look);
        driver
    }

    fn add(&mut self, at: Duration, step: Step) {
        self.added += 1;
        self.steps.insert((at, self.added), step);
    }

    fn after(&mut self, wait: Duration, step: Step) {
        self.add(self.world.elapsed() + wait, step);
    }

    async fn drive(mut self) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        let node = Node::start(&world);
        let scopes = owner::set_up(&world, &node.store).await?;
        self.node = Some(node);
        world.state().weather.plan = world.plan.disk;
        let mut tasks = JoinSet::new();
        let event_type = EventTypeName::parse("simulated").ok_or("an event type")?;
        for (application, scope) in scopes.iter().enumerate() {
            tasks.spawn(publisher::run(Arc::clone(&world), application, scope.clone(), event_type.clone()));
        }
        tasks.spawn(owner::run(Arc::clone(&world), scopes.clone()));
        self.trouble().await?;
        match world.plan.mode {
            Mode::Safety => self.cut(),
            Mode::Liveness => self.heal(&scopes, tasks).await,
        }
    }

    /// Until the time of trouble is over.
    async fn trouble(&mut self) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        while let Some((&(at, number), &step)) = self.steps.first_key_value()
            && at <= world.plan.trouble
        {
            tokio::select! {
                biased;
                () = world.alarm.notified() => self.alarmed()?,
                () = tokio::time::sleep_until(world.instant(at)) => {
                    self.steps.remove(&(at, number));
                    self.take(step).await?;
                }
            }
        }
        self.alarmed()
    }

    fn alarmed(&mut self) -> Result<(), String> {
        if let Some(failure) = self.world.failure() {
            return Err(failure);
        }
        if self.node.as_ref().is_some_and(|node| !node.gate.lives()) {
            let down = self.down;
            self.crash(down)?;
        }
        Ok(())
    }

    fn crash(&mut self, down: Duration) -> Result<(), String> {
        self.world.state().steps_to_live = None;
        if let Some(node) = self.node.take() {
            node.die(&self.world)?;
            self.after(down, Step::Boot);
        }
        Ok(())
    }

    async fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Fault(fault) => self.fault(fault).await,
            Step::EndOutage => {
                self.world.state().weather.outage = None;
                self.world.note(Entry::Fault("end of outage", 0));
                Ok(())
            }
            Step::EndSlowness => {
                self.world.state().weather.slow = None;
                Ok(())
            }
            Step::Boot => {
                if self.node.is_none() {
                    self.node = Some(Node::start(&self.world));
                }
                Ok(())
            }
            Step::Look => {
                self.after(LOOK, Step::Look);
                self.look()
            }
        }
    }

    fn look(&self) -> Result<(), String> {
        let disk = self.world.disk();
        self.world.judge(|state, _| state.oracle.look(&disk));
        self.world.failure().map_or(Ok(()), Err)
    }

    async fn fault(&mut self, fault: Fault) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        let note = |what, time: Duration| {
            world.note(Entry::Fault(what, u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        };
        match fault {
            Fault::Crash { down } => {
                note("crash", down);
                self.crash(down)?;
            }
            Fault::CrashAfter { steps, down } => {
                world.note(Entry::Fault("crash after steps", steps));
                self.down = down;
                world.state().steps_to_live = Some(steps);
            }
            Fault::Stop { down } => {
                note("stop", down);
                if let Some(node) = self.node.take() {
                    node.stop(&world).await?;
                    world.state().steps_to_live = None;
                    self.after(down, Step::Boot);
                }
            }
            Fault::Pause { time } => {
                note("pause", time);
                if let Some(node) = &self.node {
                    node.gate.stand_still_until(world.instant(world.elapsed() + time));
                }
            }
            Fault::Outage { time, full } => {
                note("outage", time);
                world.state().weather.outage = Some(if full { Outage::Full } else { Outage::Away });
                self.after(time, Step::EndOutage);
            }
            Fault::SlowDisk { time, most } => {
                note("slow disk", most);
                world.state().weather.slow = Some(most);
                self.after(time, Step::EndSlowness);
            }
            Fault::ClockAhead { by } => {
                note("clock ahead", by);
                world.clock.advance(by);
                world.state().oracle.clock_was_set();
            }
            Fault::ClockBack { by } => {
                note("clock back", by);
                world.clock.set_back(by);
                world.state().oracle.clock_was_set();
            }
        }
        Ok(())
    }

    /// The end of a safety run: the node dies, the next start books what was under way, and everything must fit.
    fn cut(mut self) -> Result<(), String> {
        self.crash(Duration::ZERO)?;
        self.conclude()
    }

    fn conclude(&self) -> Result<(), String> {
        let world = &self.world;
        let setup = Setup {
            clock: Arc::clone(&world.clock),
            ids: Arc::clone(&world.ids),
            weather: Arc::new(Calm),
            delivery_age: world.plan.config.retry_policy().deadline(),
        };
        drop(ModelStore::open(Arc::clone(&world.disk), setup));
        let disk = world.disk();
        world.judge(|state, _| state.oracle.conclude(&disk));
        world.failure().map_or(Ok(()), Err)
    }

    /// The end of a liveness run: no more trouble, and everything comes to its end.
    async fn heal(mut self, scopes: &[AppScope], mut tasks: JoinSet<()>) -> Result<(), String> {
        let world = Arc::clone(&self.world);
        world.note(Entry::Fault("end of all trouble", 0));
        {
            let mut state = world.state();
            let calm = crate::plan::DiskPlan { most: Duration::ZERO, fails_before: 0, fails_after: 0 };
            state.weather = DiskWeather { plan: calm, outage: None, slow: None };
            (state.steps_to_live, state.healed) = (None, true);
            for receiver in &mut state.receivers {
                receiver.script = Script::always(Behaviour::Quick);
            }
        }
        if self.node.is_none() {
            self.node = Some(Node::start(&world));
        }
        while tasks.join_next().await.is_some() {}
        self.wait_for_the_end(scopes).await?;
        tokio::time::sleep(IDLE_AFTER).await;
        let Some(node) = self.node.take() else { return Err("the node is gone".to_owned()) };
        let left = node.engine.live().in_flight;
        if left > 0 {
            return Err(format!("I12: {left} places are taken by deliveries that have ended"));
        }
        node.stop(&world).await?;
        self.conclude()
    }

    async fn wait_for_the_end(&self, scopes: &[AppScope]) -> Result<(), String> {
        let (world, begun) = (&self.world, self.world.elapsed());
        let (mut bound, mut rounds) = (None, 0);
        loop {
            if rounds % 10 == 0 {
                self.enable_all(scopes).await;
            }
            rounds += 1;
            self.look()?;
            let left = self.longest();
            let Some((count, wait, text)) = left else { return Ok(()) };
            let bound = *bound.get_or_insert(begun + wait + BOUND + Duration::from_secs(count));
            if world.elapsed() > bound {
                return Err(format!("I12: {count} deliveries come to no end, such as {text}"));
            }
            tokio::select! {
                biased;
                () = world.alarm.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn enable_all(&self, scopes: &[AppScope]) {
        for number in 0..self.world.plan.endpoints.len() {
            let disabled = {
                let disk = self.world.disk();
                let id = self.world.state().oracle.endpoints[number].id;
                id.and_then(|id| disk.live_endpoint(id)).is_some_and(|endpoint| endpoint.disabled.is_some())
            };
            if disabled {
                owner::set_enabled(&self.world, scopes, number, true).await;
            }
        }
    }

    /// How many deliveries are pending, how long the one that waits longest has to wait, and one of them.
    fn longest(&self) -> Option<(u64, Duration, String)> {
        let (disk, now) = (self.world.disk(), self.world.clock.now());
        let due = |id| match disk.delivery(id)?.state {
            State::Pending { next_attempt_at } => Some((next_attempt_at, id)),
            _ => None,
        };
        let (at, id) = disk.pending().filter_map(due).max()?;
        let text = format!("{id:?}: {:?}, now {}", disk.delivery(id), now.to_rfc3339());
        Some((disk.pending().count() as u64, at.since(now), text))
    }
}
