//! Who may come in: how much of what is asked is worked on at one time, who waits for a turn, and who is told to come back.
//!
//! The cast:
//! - `line`: who waits, in turn by application, and when waiting makes no sense: pure;
//! - `gate`: so much inside at one time, with lines before it: two atomic operations while nobody waits;
//! - `steer`: how many turns there are, by how deliveries keep up;
//! - `beside`: the gates of everything that is not publishing, as a service around the routes;
//! - [`Admission`]: all gates of a node, and what they refused.
//!
//! A publish passes three times, in this order:
//! 1. `judge`, before anything is read: is its application's line, or the server, beyond what waiting can help?
//! 2. the gate of **bodies**: its announced length is reserved before its first byte is read; one application has a
//!    quarter of all bytes. A body without a length reserves the largest and gives back what it did not need.
//! 3. the gate of **turns**, once the body is complete, so that slow senders hold memory that is accounted for, but no turn.
//!
//! Whoever is refused is answered only after [`PATIENCE`], counted from its arrival, as if it had waited in vain: a
//! client that asks again at once costs one refusal a second, whatever it does. A wait costs a connection, whose number
//! is bounded, and nothing else; nothing of the body is read for it. See `docs/decisions/0010-overload.md`.

mod beside;
mod config;
mod gate;
mod line;
mod steer;

pub use config::LimitsConfig;

use crate::{auth::Caller, error::ApiError, json, ports::Pulse};
use axum::body::Body;
use bytes::Bytes;
use gate::{Gate, Pass};
use http::{HeaderMap, header};
use line::{Blame, Limits};
use postrider_model::limits::REQUEST_BODY_BYTES;
use postrider_store::Store;
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The longest wait for a turn, and how long after its arrival a refused request is answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for everything else than publishing.
const PATIENCE_BESIDE: Duration = Duration::from_secs(5);
/// A line that did not get empty for this long is no burst.
const BURST: Duration = Duration::from_secs(1);
/// A line of two turns is short.
const SHORT: usize = 2;
/// What the other gates' lines may cost: their work takes longer than a publish.
const LASTING_BESIDE: Duration = Duration::from_secs(1);
/// Requests that wait for their refusal. What comes on top is refused at once.
const HELD: usize = 10_000;
/// One application has this part of the bytes of bodies.
const BODY_SHARE: u64 = 4;
/// One application has this part of those who wait.
const LINE_SHARE: usize = 4;
/// One token has this part of the other gates.
const BESIDE_SHARE: u64 = 2;
/// Test sends at one time, and those of one token: each has a body in memory, and waits for its attempt.
const TESTS: u64 = 32;
const TESTS_OF_ONE: u64 = 8;
/// Reads and changes that may wait, each.
const BESIDE_WAITING: usize = 1024;
/// How often it is looked at what is pending, and whether deliveries keep up.
const LOOK: Duration = Duration::from_millis(50);
/// When to come back: the load may be over in a moment, a backlog or a full disk is not.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

/// The gates of a node.
#[derive(Debug)]
pub struct Admission {
    turns: Gate,
    /// Turns at most.
    most_turns: u64,
    /// First attempts that were known at the last look.
    attempts: AtomicU64,
    look: Look,
    bodies: Gate,
    reads: Gate,
    changes: Gate,
    tests: Gate,
    backlog_most: u64,
    backlog_full: AtomicBool,
    keys: RandomState,
    held: AtomicUsize,
    refused: [AtomicU64; Reason::ALL.len()],
}

/// Why something was refused, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An application publishes faster than it is served.
    Application,
    /// More is published than the server can take.
    Publishing,
    /// More deliveries are pending than the configuration allows.
    Backlog,
    /// The store could not take a message.
    Store,
    /// Too many requests that read.
    Reads,
    /// Too many requests that change something else, or send tests.
    Changes,
}

/// What the gates look like at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Publish requests that may be worked on at one time now.
    pub turns: u64,
    /// Publish requests that are worked on.
    pub publishing: u64,
    /// Publish requests that wait, for memory or for a turn.
    pub waiting: u64,
    /// Bytes of their bodies that are in memory or reserved.
    pub body_bytes: u64,
    /// Refusals since the start, by reason.
    pub refused: [(Reason, u64); Reason::ALL.len()],
}

/// A publish that is being worked on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _turn: Pass<'a>,
    _body: Pass<'a>,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Application, Self::Publishing, Self::Backlog, Self::Store, Self::Reads, Self::Changes];

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Publishing => "publishing",
            Self::Backlog => "backlog",
            Self::Store => "store",
            Self::Reads => "reads",
            Self::Changes => "changes",
        }
    }

    fn of_publish(blame: Blame) -> Self {
        match blame {
            Blame::Line => Self::Application,
            Blame::Server => Self::Publishing,
        }
    }

    fn answer(self) -> ApiError {
        match self {
            Self::Application => ApiError::publishing_too_fast(SOON),
            Self::Backlog => ApiError::overloaded(
                "Too many deliveries are pending (`api.limits.backlog_deliveries`); publish again when some are done.",
                LATER,
            ),
            Self::Publishing | Self::Store | Self::Reads | Self::Changes => ApiError::overloaded(
                "The server has more to do than it can; nothing was done, ask again.",
                SOON,
            ),
        }
    }
}

impl Admission {
    /// The gates that the configuration asks for.
    pub fn new(config: &LimitsConfig) -> Self {
        let publishing = Limits {
            waiting: config.publishes_waiting,
            line: (config.publishes_waiting / LINE_SHARE).max(1),
            burst: BURST,
            lasting: Duration::from_millis(config.publish_wait_ms),
            short: config.publishes_at_once * SHORT,
        };
        let beside = |most: u64| Limits {
            waiting: BESIDE_WAITING,
            line: BESIDE_WAITING / LINE_SHARE,
            burst: BURST,
            lasting: LASTING_BESIDE,
            short: usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(SHORT),
        };
        let other = |most: usize| {
            let most = most as u64;
            Gate::new(most, most.div_ceil(BESIDE_SHARE), PATIENCE_BESIDE, beside(most))
        };
        let places = config.publishes_at_once as u64;
        let bytes = config.publish_bytes as u64;
        Self {
            turns: Gate::new(places, places, PATIENCE, publishing),
            most_turns: places,
            attempts: AtomicU64::new(0),
            look: Look::new(),
            bodies: Gate::new(bytes, bytes / BODY_SHARE, PATIENCE, publishing),
            reads: other(config.reads_at_once),
            changes: other(config.changes_at_once),
            tests: Gate::new(TESTS, TESTS_OF_ONE, PATIENCE_BESIDE, beside(TESTS)),
            backlog_most: config.backlog_deliveries,
            backlog_full: AtomicBool::new(false),
            keys: RandomState::new(),
            held: AtomicUsize::new(0),
            refused: Default::default(),
        }
    }

    /// Reads the body of a publish into the application of this name, and waits for its turn. The message is accepted
    /// while the turn is held.
    pub(crate) async fn publish(
        &self,
        store: &dyn Store,
        pulse: &dyn Pulse,
        (caller, application): (&Caller, &str),
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Turn<'_>), ApiError> {
        let arrived = Instant::now();
        let key = self.keys.hash_one((caller.identity.environment.as_str(), application));
        let refused = match self.judge(store, pulse, key, arrived) {
            Err(reason) => reason,
            Ok(()) => match self.read_and_begin(key, headers, body).await? {
                Ok(begun) => return Ok(begun),
                Err(blame) => Reason::of_publish(blame),
            },
        };
        Err(self.refuse(refused, arrived).await)
    }

    /// What a store answers that cannot take a message, at the pace of refusals.
    pub(crate) async fn not_stored(&self, error: ApiError) -> ApiError {
        self.count(Reason::Store);
        self.hold(Instant::now() + PATIENCE).await;
        error
    }

    /// What the gates look like at this moment.
    pub fn figures(&self) -> Figures {
        let refused = Reason::ALL.map(|reason| (reason, self.refused[reason as usize].load(Relaxed)));
        Figures {
            turns: self.turns.most(),
            publishing: self.turns.inside(),
            waiting: (self.turns.waiting() + self.bodies.waiting()) as u64,
            body_bytes: self.bodies.inside(),
            refused,
        }
    }

    fn judge(&self, store: &dyn Store, pulse: &dyn Pulse, key: u64, now: Instant) -> Result<(), Reason> {
        if self.look.is_due(now) {
            self.look_at_backlog(store);
            self.look_at_deliveries(pulse);
        }
        if self.backlog_full.load(Relaxed) {
            return Err(Reason::Backlog);
        }
        self.turns.judge(key).and_then(|()| self.bodies.judge(key)).map_err(Reason::of_publish)
    }

    fn look_at_backlog(&self, store: &dyn Store) {
        if self.backlog_most == 0 {
            return;
        }
        let full = store.pending().is_some_and(|pending| pending >= self.backlog_most);
        if self.backlog_full.swap(full, Relaxed) != full {
            let most = self.backlog_most;
            tracing::warn!(full, most, "pending deliveries crossed `api.limits.backlog_deliveries`");
        }
    }

    fn look_at_deliveries(&self, pulse: &dyn Pulse) {
        let live = pulse.live();
        let any = self.attempts.swap(live.first_attempts, Relaxed) != live.first_attempts;
        let turns = self.turns.most();
        let next = steer::next(turns, self.most_turns, any.then_some(live.late_permille));
        if next != turns {
            self.turns.set_most(next);
        }
    }

    /// The outer error is the body's.
    async fn read_and_begin(
        &self,
        key: u64,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Result<(Bytes, Turn<'_>), Blame>, ApiError> {
        let mut reserved = match self.bodies.enter(key, announced(headers)).await {
            Ok(reserved) => reserved,
            Err(blame) => return Ok(Err(blame)),
        };
        let body = json::read_body(headers, body, REQUEST_BODY_BYTES).await?;
        reserved.shrink(body.len() as u64);
        let turn = self.turns.enter(key, 1).await;
        Ok(turn.map(|turn| (body, Turn { _turn: turn, _body: reserved })))
    }

    async fn refuse(&self, reason: Reason, arrived: Instant) -> ApiError {
        self.count(reason);
        self.hold(arrived + PATIENCE).await;
        reason.answer()
    }

    fn count(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// Waits until then, unless too many do.
    async fn hold(&self, until: Instant) {
        let held = Held::one_of(&self.held);
        if held.before < HELD {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// The length that a body is said to have, or the largest that one can have.
fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    length.unwrap_or(u64::MAX).min(REQUEST_BODY_BYTES as u64)
}

/// One of those who wait for their refusal; their client may go away.
struct Held<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Held<'a> {
    fn one_of(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Relaxed) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

/// When it is time to look again.
#[derive(Debug)]
struct Look {
    started: Instant,
    /// In milliseconds since `started`.
    next: AtomicU64,
}

impl Look {
    fn new() -> Self {
        Self { started: Instant::now(), next: AtomicU64::new(0) }
    }

    /// `true` for one caller of many.
    fn is_due(&self, now: Instant) -> bool {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since = milliseconds(now.duration_since(self.started));
        let due = self.next.load(Relaxed);
        let next = since.saturating_add(milliseconds(LOOK));
        since >= due && self.next.compare_exchange(due, next, AcqRel, Relaxed).is_ok()
    }
}
