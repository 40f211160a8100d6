//! What a seed stands for: settings, endpoints and their scripts, publishers, and what goes wrong when. Everything is
//! drawn before the run begins, each kind of trouble in some seeds only: trouble of all kinds at once hides what one
//! kind alone brings to light.

use crate::{
    random::Random,
    receiver::{Behaviour, Script},
};
use postrider_engine::Config;
use std::{fmt, str::FromStr, time::Duration};

/// What is asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Trouble until the end: nothing forbidden ever happens.
    Safety,
    /// After a time trouble ends and endpoints answer: then everything must come to its end.
    Liveness,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Safety, Self::Liveness];
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.to_string() == name);
        found.ok_or_else(|| "there are safety and liveness".to_owned())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Safety => "safety",
            Self::Liveness => "liveness",
        })
    }
}

/// A run before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) config: Config,
    pub(crate) applications: Vec<ApplicationPlan>,
    pub(crate) endpoints: Vec<EndpointPlan>,
    /// How long there is trouble.
    pub(crate) trouble: Duration,
    /// What happens to the node, in order of time.
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// What its owners do to endpoints, in order of time.
    pub(crate) changes: Vec<(Duration, Change)>,
    pub(crate) disk: DiskPlan,
    /// One application's queue delay is measured while another saturates the node.
    pub(crate) fairness: bool,
}

/// An application and its publisher.
#[derive(Debug, Clone)]
pub(crate) struct ApplicationPlan {
    pub(crate) throttle_rate: Option<u16>,
    /// When how many messages are published.
    pub(crate) publications: Vec<(Duration, usize)>,
}

/// An endpoint.
#[derive(Debug, Clone)]
pub(crate) struct EndpointPlan {
    pub(crate) application: usize,
    pub(crate) script: Script,
    /// Its own waits between attempts.
    pub(crate) waits: Option<Vec<Duration>>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) throttle_rate: Option<u16>,
    pub(crate) oauth: bool,
}

/// What happens to the node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It dies now, and comes back after a time.
    Crash { down: Duration },
    /// It dies after so many steps of its work, wherever that is, and comes back after a time.
    CrashAfter { steps: u64, down: Duration },
    /// It is stopped in an orderly way, and started again after a time.
    Stop { down: Duration },
    /// It stands still and goes on (`SIGSTOP`, a paused virtual machine).
    Pause { time: Duration },
    /// Its database answers nothing but errors.
    Outage { time: Duration, full: bool },
    /// Its disk is slow.
    SlowDisk { time: Duration, most: Duration },
    /// Its clock is set ahead.
    ClockAhead { by: Duration },
    /// Its clock is set back.
    ClockBack { by: Duration },
}

/// What an owner does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Disable(usize),
    Enable(usize),
    Delete(usize),
    MoveUrl(usize),
    Rotate(usize, Duration),
    Filter(usize),
    /// Sends an earlier message once more to an endpoint.
    Resend(usize),
    /// Deletes the payload of an earlier message.
    Expunge,
}

/// How the disk is at its best, and how often a call fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskPlan {
    pub(crate) most: Duration,
    /// Calls in a thousand that fail with nothing done.
    pub(crate) fails_before: u64,
    /// Calls in a thousand whose answer is an error although they were done.
    pub(crate) fails_after: u64,
}

const WAITS: [&[u64]; 5] =
    [&[], &[1_000], &[200, 200, 200, 200], &[1_000, 5_000, 30_000], &[500, 3_000, 10_000, 60_000]];

impl Plan {
    pub(crate) fn draw(seed: u64, mode: Mode) -> Self {
        let mut random = Random::stream(seed, 1);
        if random.permille(100) {
            return Self::fairness(seed, mode, &mut random);
        }
        let config = config(&mut random);
        let trouble = random.millis(10_000..=240_000);
        let applications: Vec<_> =
            (0..random.within(1..=4)).map(|_| application(&mut random, trouble)).collect();
        let oauth = random.permille(300);
        let endpoints: Vec<_> =
            (0..random.within(1..=8)).map(|_| endpoint(&mut random, applications.len(), oauth)).collect();
        let faults = faults(&mut random, trouble);
        let changes = changes(&mut random, trouble, endpoints.len());
        let disk = DiskPlan {
            most: random.pick(&[0, 0, 2, 20]).pipe(Duration::from_millis),
            fails_before: random.pick(&[0, 0, 5, 50]),
            fails_after: random.pick(&[0, 0, 0, 20]),
        };
        Self { seed, mode, config, applications, endpoints, trouble, faults, changes, disk, fairness: false }
    }

    /// One application fills the node and more; the other's messages must not wait for that.
    fn fairness(seed: u64, mode: Mode, random: &mut Random) -> Self {
        let config = Config {
            total_deadline_ms: 2_000,
            in_flight_total: 20,
            in_flight_per_endpoint: 10,
            in_flight_per_quick_endpoint: random.pick(&[10, 20, 100]),
            in_flight_per_slow_endpoint: random.pick(&[1, 2]),
            ..Config::default()
        };
        let trouble = Duration::from_secs(30);
        let burst = 50 + random.index(101);
        let every = |step: u64, count: usize| (0..30_000 / step).map(move |at| (at * step, count));
        let publications = |of: &mut dyn Iterator<Item = (u64, usize)>| ApplicationPlan {
            throttle_rate: None,
            publications: of.map(|(at, count)| (Duration::from_millis(at), count)).collect(),
        };
        let busy = publications(&mut std::iter::once((0, burst)).chain(every(1_000, 8)));
        let quiet = publications(&mut every(700, 1));
        let mut endpoints: Vec<_> = (0..random.within(2..=5))
            .map(|_| {
                let behaviour = random.pick(&[
                    Behaviour::Quick,
                    Behaviour::Queueing,
                    Behaviour::Hanging,
                    Behaviour::Failing(500),
                ]);
                steady(0, behaviour)
            })
            .collect();
        endpoints.push(steady(1, Behaviour::Quick));
        Self {
            seed,
            mode,
            config,
            applications: vec![busy, quiet],
            endpoints,
            trouble,
            faults: Vec::new(),
            changes: Vec::new(),
            disk: DiskPlan { most: Duration::ZERO, fails_before: 0, fails_after: 0 },
            fairness: true,
        }
    }
}

/// Calls a function on what stands before it.
trait Pipe: Sized {
    fn pipe<T>(self, function: impl FnOnce(Self) -> T) -> T {
        function(self)
    }
}

impl Pipe for u64 {}

fn steady(application: usize, behaviour: Behaviour) -> EndpointPlan {
    EndpointPlan {
        application,
        script: Script::always(behaviour),
        waits: Some(vec![Duration::from_secs(5)]),
        deadline: None,
        throttle_rate: None,
        oauth: false,
    }
}

fn config(random: &mut Random) -> Config {
    let total = random.pick(&[1, 2, 5, 20, 100]);
    let per_endpoint = usize::min(total, random.pick(&[1, 2, 5, 10]));
    Config {
        total_deadline_ms: random.pick(&[1_000, 3_000, 15_000]),
        in_flight_total: total,
        in_flight_per_endpoint: per_endpoint,
        in_flight_per_quick_endpoint: random.pick(&[1, 10, 100]),
        in_flight_per_slow_endpoint: per_endpoint.min(random.pick(&[1, 2])),
        slow_after_ms: random.pick(&[1_000, 2_000]),
        retry_waits_ms: random.pick(&WAITS).to_vec(),
        ..Config::default()
    }
}

fn application(random: &mut Random, trouble: Duration) -> ApplicationPlan {
    let end = u64::try_from(trouble.as_millis()).unwrap_or(u64::MAX);
    let times = random.within(1..=15);
    let most = random.pick(&[1, 3, 20]);
    let mut publications: Vec<_> =
        (0..times).map(|_| (random.millis(0..=end), random.index(most) + 1)).collect();
    publications.sort_by_key(|(at, _)| *at);
    let throttle_rate = random.permille(100).then(|| random.pick(&[1, 5, 50]));
    ApplicationPlan { throttle_rate, publications }
}

fn endpoint(random: &mut Random, applications: usize, oauth: bool) -> EndpointPlan {
    let waits = random.pick(&WAITS).iter().copied().map(Duration::from_millis).collect();
    EndpointPlan {
        application: random.index(applications),
        script: Script::draw(random),
        waits: random.permille(700).then_some(waits),
        deadline: random.permille(150).then(|| random.millis(5_000..=120_000)),
        throttle_rate: random.permille(200).then(|| random.pick(&[1, 2, 10, 100])),
        oauth: oauth && random.permille(500),
    }
}

fn faults(random: &mut Random, trouble: Duration) -> Vec<(Duration, Fault)> {
    let end = u64::try_from(trouble.as_millis()).unwrap_or(u64::MAX);
    let mut faults = Vec::new();
    for kind in 0..8 {
        if !random.permille(350) {
            continue;
        }
        for _ in 0..random.within(1..=4) {
            faults.push((random.millis(0..=end), fault(random, kind)));
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(random: &mut Random, kind: u64) -> Fault {
    let down = random.millis(0..=5_000);
    match kind {
        0 => Fault::Crash { down },
        1 | 2 => Fault::CrashAfter { steps: random.within(1..=200), down },
        3 => Fault::Stop { down },
        4 => Fault::Pause { time: random.millis(10..=60_000) },
        5 => Fault::Outage { time: random.millis(10..=60_000), full: random.permille(300) },
        6 => Fault::SlowDisk { time: random.millis(100..=30_000), most: random.millis(50..=3_000) },
        _ if random.permille(500) => Fault::ClockAhead { by: random.millis(1_000..=3_600_000) },
        _ => Fault::ClockBack { by: random.millis(1_000..=3_600_000) },
    }
}

fn changes(random: &mut Random, trouble: Duration, endpoints: usize) -> Vec<(Duration, Change)> {
    let end = u64::try_from(trouble.as_millis()).unwrap_or(u64::MAX);
    let count = random.pick(&[0, 3, 20]);
    let mut changes: Vec<_> = (0..count)
        .map(|_| {
            let one = random.index(endpoints);
            let change = match random.within(0..=20) {
                0..=3 => Change::Disable(one),
                4..=8 => Change::Enable(one),
                9 => Change::Delete(one),
                10 | 11 => Change::MoveUrl(one),
                12 | 13 => Change::Rotate(one, random.pick(&[0, 1, 60]).pipe(Duration::from_secs)),
                14 => Change::Filter(one),
                15 => Change::Expunge,
                _ => Change::Resend(one),
            };
            (random.millis(0..=end), change)
        })
        .collect();
    changes.sort_by_key(|(at, _)| *at);
    changes
}
