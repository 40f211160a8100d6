//! The keeper: holds this node's lease, takes its share of the shards, gives back what is too much, ends nodes that are
//! dead, and looks around from time to time for what no wake-up told.
//!
//! A node whose lease another one has ended is fenced: nothing that it still writes changes anything, and it begins anew
//! as a new node. Leases are measured by the database's clock; what this node may still begin, by its own monotonic
//! clock from before the renewal was sent.

mod follow;
mod look;
mod set_back;
mod upkeep;
mod watch;

pub(crate) use follow::run as follow;
pub(crate) use look::endpoints_changed;

use crate::{
    Shared,
    clock_sync::Asked,
    connection::{Connection, Own, Use},
    failure::Failure,
    identity::NodeId,
    shards::{self, SHARDS, Shards},
    takeover,
    values::at,
};
use look::{Looks, load};
use postrider_model::id::EndpointId;
use postrider_store::StoreError;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use watch::{GRACE, Row, Watch};

/// How often a lease is renewed while it lasts.
const RENEWALS: u32 = 7;
/// How soon the keeper comes again while shards are leaving, or after a failure.
const SOON: Duration = Duration::from_millis(200);
/// How often the keeper looks around while wake-ups are heard.
const LOOK: Duration = Duration::from_secs(10);
/// How often at most it is said that the lease cannot be renewed; `reach` says when an outage begins and ends.
const WARN_AGAIN: Duration = Duration::from_mins(1);
/// What this node holds.
pub(crate) struct Keeper {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    node: NodeId,
    owned: Shards,
    /// Of those owned: they go as soon as nothing of theirs runs.
    leaving: Shards,
    /// How often shards were given away or lost.
    losses: u64,
    /// Until then no other node takes over, whatever happens.
    valid_until: Option<Instant>,
    fenced: bool,
    hears: bool,
    look: bool,
    hurry: bool,
    /// What was seen of the other nodes.
    watch: Watch,
    /// The database's clock was set back.
    set_back: Option<Duration>,
}

impl Keeper {
    /// A node that holds nothing yet.
    pub(crate) fn new(node: NodeId) -> Self {
        let (owned, leaving) = (Shards::default(), Shards::default());
        let state = State {
            node,
            owned,
            leaving,
            losses: 0,
            valid_until: None,
            fenced: false,
            hears: false,
            look: true,
            hurry: false,
            watch: Watch::default(),
            set_back: None,
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards that this node serves.
    fn owned(&self) -> Shards {
        self.state().owned
    }

    /// How often shards were given away or lost: what was read before may be another node's since.
    pub(crate) fn losses(&self) -> u64 {
        self.state().losses
    }

    /// Shards come or go: at once.
    pub(crate) fn hurry(&self) {
        self.state().hurry = true;
        self.wake.notify_one();
    }

    /// Something may have been missed.
    pub(crate) fn look_around(&self) {
        self.state().look = true;
        self.wake.notify_one();
    }

    /// Wake-ups are heard from now on.
    pub(crate) fn hears(&self) {
        self.state().hears = true;
        self.look_around();
    }

    /// Wake-ups are not heard any more.
    pub(crate) fn deaf(&self) {
        self.state().hears = false;
        self.wake.notify_one();
    }
}

impl Shared {
    /// Who this node is.
    pub(crate) fn node(&self) -> NodeId {
        self.keeper.state().node
    }

    /// Does this node serve the endpoint?
    pub(crate) fn owns(&self, endpoint: EndpointId) -> bool {
        self.keeper.state().owned.cover(endpoint)
    }

    /// Will this node's lease outlast an attempt that begins now?
    pub(crate) fn may_begin(&self) -> bool {
        let attempt = Duration::from_secs(self.config.attempt_seconds);
        self.keeper.state().valid_until.is_some_and(|until| Instant::now() + attempt <= until)
    }

    /// Another node has taken over from the one that this was: everything that it held is gone. Nothing when this one has
    /// begun anew since.
    pub(crate) fn fenced(&self, node: NodeId) {
        let first = {
            let mut state = self.keeper.state();
            let first = !state.fenced && state.node == node;
            if first {
                state.fenced = true;
                state.valid_until = None;
                (state.owned, state.leaving) = (Shards::default(), Shards::default());
            }
            first
        };
        if first {
            self.forget_work();
            tracing::warn!("another node took over while this one was not heard of; it begins anew");
        }
        self.keeper.hurry();
    }
}

/// The lock of a node's right to write.
pub(crate) fn lock_of(node: &NodeId) -> i32 {
    let [a, b, c, d, ..] = *node;
    i32::from_be_bytes([a, b, c, d])
}

/// Keeps until the store closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Reading);
    let poll = shared.config.poll_time();
    let (mut at, mut warned) = (Instant::now(), None::<Instant>);
    let mut looks = Looks::default();
    let mut set_back = set_back::Work::default();
    let mut upkeep = upkeep::Upkeep::default();
    while !shared.is_closed() {
        let hurry = std::mem::take(&mut shared.keeper.state().hurry);
        if hurry || Instant::now() >= at {
            let rest = round(&shared, &mut own).await.unwrap_or_else(|failure| {
                let error = StoreError::from(failure);
                if warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "the lease of this node could not be renewed");
                }
                own.give_up();
                Duration::from_secs(1)
            });
            at = Instant::now() + rest;
        }
        let hears = {
            let mut state = shared.keeper.state();
            let now = std::mem::take(&mut state.look);
            looks.wanted |= now;
            if let Some(by) = state.set_back.take() {
                drop(state);
                set_back.begin(&shared, by);
                shared.keeper.state().hears
            } else {
                state.hears
            }
        };
        looks.look(&shared, &mut own, if hears { LOOK } else { poll }).await;
        set_back.go_on(&shared, &mut own).await;
        upkeep.go_on(&shared, &mut own).await;
        let next = if set_back.is_done() { at } else { at.min(Instant::now() + SOON) };
        let next = if hears { next } else { next.min(Instant::now() + poll) };
        tokio::select! {
            () = shared.keeper.wake.notified() => {}
            () = tokio::time::sleep_until(next) => {}
            () = shared.closing.notified() => {}
        }
    }
}

/// Renews the lease; takes and gives shards. Returns how long nothing is to be done.
async fn round(shared: &Arc<Shared>, own: &mut Own) -> Result<Duration, Failure> {
    let fenced = shared.keeper.state().fenced;
    let connection = own.get().await?;
    if fenced {
        begin_anew(shared, connection).await?;
    }
    give(shared, connection).await?;
    let Some(standing) = renew(shared, connection).await? else {
        shared.fenced(shared.node());
        return Ok(Duration::ZERO);
    };
    for dead in &standing.dead {
        takeover::end(shared, connection, dead.node, Some(dead.lease_until)).await?;
    }
    balance(shared, connection, &standing).await?;
    let leaving = shared.keeper.state().leaving.count() > 0;
    Ok(if leaving {
        SOON
    } else if standing.doubt {
        GRACE.min(shared.config.lease_time() / RENEWALS)
    } else {
        shared.config.lease_time() / RENEWALS
    })
}

/// How things stand among the nodes.
pub(crate) struct Standing {
    live: usize,
    mine: Shards,
    free: usize,
    dead: Vec<Row>,
    doubt: bool,
}

/// Writes the row of a new node.
pub(crate) async fn register(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    let node = shared.node();
    let name = format!("process {}", std::process::id());
    let now = shared.offset.now_sql();
    let text = format!(
        "INSERT INTO node (id, name, started_at, lease_until, ended, lease) VALUES ($1, $2, {now}, {now} + $3, false, $3)"
    );
    let begun = Instant::now();
    connection.execute(&text, &[&&node[..], &name, &micros(shared.config.lease_time())]).await?;
    let mut state = shared.keeper.state();
    state.valid_until = Some(begun + shared.config.lease_time());
    state.fenced = false;
    Ok(())
}

async fn begin_anew(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    {
        let mut state = shared.keeper.state();
        state.node = rand::random();
        (state.owned, state.leaving) = (Shards::default(), Shards::default());
    }
    shared.in_flight.forget();
    register(shared, connection).await?;
    shared.identity(|identity| identity.remember(shared.node()));
    Ok(())
}

/// Renews the lease, and looks at those of the others and at the clock; `None` when another node has ended it.
pub(crate) async fn renew(shared: &Shared, connection: &Connection) -> Result<Option<Standing>, Failure> {
    let node = shared.node();
    let now = shared.offset.now_sql();
    let text = format!(
        "WITH mine AS (UPDATE node SET lease_until = {now} + $2, lease = $2 WHERE id = $1 AND NOT ended RETURNING id)
         SELECT (SELECT count(*) FROM mine), {now},
            ARRAY(SELECT id FROM shard WHERE owner = $1),
            (SELECT count(*) FROM shard WHERE owner IS NULL),
            ARRAY(SELECT id FROM node WHERE NOT ended AND id <> $1 ORDER BY id),
            ARRAY(SELECT lease_until FROM node WHERE NOT ended AND id <> $1 ORDER BY id),
            ARRAY(SELECT COALESCE(lease, $2) FROM node WHERE NOT ended AND id <> $1 ORDER BY id)"
    );
    let lease = shared.config.lease_time();
    connection.prepare(&text).await?;
    let (begun, asked) = (Instant::now(), Asked::now());
    let row = connection.first_row(&text, &[&&node[..], &micros(lease)]).await?;
    let Some(row) = row.filter(|row| row.get::<_, i64>(0) == 1) else { return Ok(None) };
    let now: i64 = at(&row, 1)?;
    let back = asked.answered(shared, now);
    let (ids, until, leases): (Vec<Vec<u8>>, Vec<i64>, Vec<i64>) = (at(&row, 4)?, at(&row, 5)?, at(&row, 6)?);
    let others: Vec<Row> = ids
        .into_iter()
        .zip(until)
        .zip(leases)
        .filter_map(|((id, lease_until), lease)| {
            let lease = Duration::from_micros(u64::try_from(lease).unwrap_or(0));
            Some(Row { node: id.try_into().ok()?, lease_until, lease })
        })
        .collect();
    let mut state = shared.keeper.state();
    state.valid_until = Some(begun + lease);
    state.set_back = back.or(state.set_back);
    let verdict = state.watch.judge(&others, now, begun, lease / 2);
    drop(state);
    Ok(Some(Standing {
        live: verdict.live + 1,
        mine: at::<Vec<i16>>(&row, 2)?.into_iter().collect(),
        free: usize::try_from(at::<i64>(&row, 3)?).unwrap_or(0),
        dead: verdict.dead,
        doubt: verdict.doubt,
    }))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Takes free shards up to this node's share; marks what is beyond it as leaving.
pub(crate) async fn balance(
    shared: &Arc<Shared>,
    connection: &Connection,
    standing: &Standing,
) -> Result<(), Failure> {
    reconcile(shared, connection, standing.mine).await?;
    let share = usize::from(SHARDS).div_ceil(standing.live);
    let owned = standing.mine.count();
    // Those of the dead that were just ended are free too.
    if owned < share && (standing.free > 0 || !standing.dead.is_empty()) {
        let most = i64::try_from(share - owned).unwrap_or(0);
        let node = shared.node();
        let rows = connection
            .query(
                "UPDATE shard SET owner = $1 WHERE id IN
                    (SELECT id FROM shard WHERE owner IS NULL ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
                 AND EXISTS (SELECT 1 FROM node WHERE id = $1 AND NOT ended) RETURNING id",
                &[&&node[..], &most],
            )
            .await?;
        let taken: Shards = rows.iter().map(|row| at(row, 0)).collect::<Result<_, _>>()?;
        if taken.count() > 0 {
            {
                let mut state = shared.keeper.state();
                state.owned = state.owned.and(taken);
            }
            load(shared, connection, taken).await?;
            tracing::info!(shards = taken.count(), nodes = standing.live, "this node serves more endpoints");
        }
    }
    if owned > share {
        let surplus: Shards = standing.mine.list().into_iter().rev().take(owned - share).collect();
        shared.keeper.state().leaving = surplus;
        let now = shared.clock.now();
        shared.agenda().leave(|endpoint| surplus.cover(endpoint), now);
    } else {
        let stays = {
            let mut state = shared.keeper.state();
            std::mem::take(&mut state.leaving)
        };
        if stays.count() > 0 {
            // A node went: what was to leave stays, and what is held is read anew.
            load(shared, connection, stays).await?;
        }
    }
    Ok(())
}

/// This node serves what is its own in the database, whatever it knows: the answer to a change may have been lost.
async fn reconcile(shared: &Arc<Shared>, connection: &Connection, mine: Shards) -> Result<(), Failure> {
    let (unknown, gone) = {
        let mut state = shared.keeper.state();
        if state.fenced {
            return Ok(());
        }
        let (unknown, gone) = (mine.without(state.owned), state.owned.without(mine));
        (state.owned, state.leaving) = (mine, state.leaving.without(gone));
        state.losses += u64::from(gone.count() > 0);
        (unknown, gone)
    };
    if gone.count() > 0 {
        shared.agenda().forget(|endpoint| gone.cover(endpoint));
    }
    if unknown.count() > 0 {
        tracing::info!(shards = unknown.count(), "this node serves endpoints that it had lost sight of");
        load(shared, connection, unknown).await?;
    }
    Ok(())
}

/// Gives away what is leaving and idle.
async fn give(shared: &Arc<Shared>, connection: &Connection) -> Result<(), Failure> {
    let idle: Shards = {
        let agenda = shared.agenda();
        let busy = |shard: &i16| agenda.leases_of(|endpoint| shards::of(endpoint) == *shard) > 0;
        shared.keeper.state().leaving.list().into_iter().filter(|shard| !busy(shard)).collect()
    };
    if idle.count() == 0 {
        return Ok(());
    }
    {
        let mut state = shared.keeper.state();
        state.owned = state.owned.without(idle);
        state.leaving = state.leaving.without(idle);
        state.losses += 1;
    }
    shared.agenda().forget(|endpoint| idle.cover(endpoint));
    let text = "UPDATE shard SET owner = NULL WHERE id = ANY ($1) AND owner = $2";
    connection.execute(text, &[&idle.list(), &&shared.node()[..]]).await?;
    shared.hints.shards();
    Ok(())
}

impl Shared {
    /// Does the endpoint's shard leave this node?
    pub(crate) fn is_leaving(&self, endpoint: EndpointId) -> bool {
        self.keeper.state().leaving.cover(endpoint)
    }
}
