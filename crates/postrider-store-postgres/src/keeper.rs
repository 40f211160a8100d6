//! The keeper: holds this node's lease, takes its share of the shards, gives back what is too much, ends nodes that are
//! dead, and looks around from time to time for what no wake-up told.
//!
//! A node whose lease another one has ended is fenced: nothing that it still writes changes anything, and it begins anew
//! as a new node. Leases are measured by the database's clock; what this node may still begin, by its own monotonic
//! clock from before the renewal was sent.

mod look;

pub(crate) use look::endpoints_changed;

use crate::{
    Shared, clock_sync,
    connection::{Connection, Own, Use},
    failure::Failure,
    identity::NodeId,
    schema,
    shards::{self, SHARDS, Shards},
    takeover,
    values::at,
};
use look::{Versions, load};
use postrider_model::id::EndpointId;
use postrider_store::StoreError;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How often a lease is renewed while it lasts.
const RENEWALS: u32 = 7;
/// How soon the keeper comes again while shards are leaving, or after a failure.
const SOON: Duration = Duration::from_millis(200);
/// How often the keeper looks around while wake-ups are heard.
const LOOK: Duration = Duration::from_secs(10);
/// How often partitions for the weeks ahead are made, and the clock is compared.
const UPKEEP: Duration = Duration::from_hours(1);

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
    /// Until then no other node takes over, whatever happens.
    valid_until: Option<Instant>,
    fenced: bool,
    hears: bool,
    look: bool,
}

impl Keeper {
    /// A node that holds nothing yet.
    pub(crate) fn new(node: NodeId) -> Self {
        let (owned, leaving) = (Shards::default(), Shards::default());
        let state =
            State { node, owned, leaving, valid_until: None, fenced: false, hears: false, look: true };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards that this node serves.
    fn owned(&self) -> Shards {
        self.state().owned
    }

    /// Shards come or go: at once.
    pub(crate) fn hurry(&self) {
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
        let mut state = self.keeper.state();
        if !state.fenced && state.node == node {
            state.fenced = true;
            state.valid_until = None;
            (state.owned, state.leaving) = (Shards::default(), Shards::default());
            drop(state);
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
    let lease = Duration::from_secs(shared.config.lease_seconds);
    let poll = Duration::from_millis(shared.config.poll_milliseconds.max(50));
    let (mut renewed, mut looked, mut kept_up) = (Instant::now(), None::<Instant>, Instant::now());
    let mut versions = Versions::default();
    while !shared.is_closed() {
        let rest = match round(&shared, &mut own, &mut renewed, lease).await {
            Ok(rest) => rest,
            Err(failure) => {
                let error = StoreError::from(failure);
                tracing::warn!(%error, "the lease of this node could not be renewed");
                own.give_up();
                Duration::from_secs(1)
            }
        };
        let (due, hears) = {
            let mut state = shared.keeper.state();
            let every = if state.hears { LOOK } else { poll };
            let due =
                std::mem::take(&mut state.look) || looked.is_none_or(|looked| looked.elapsed() >= every);
            (due, state.hears)
        };
        if due {
            let begun = Instant::now();
            if let Err(failure) = look::around(&shared, &mut own, &mut versions).await {
                let error = StoreError::from(failure);
                tracing::debug!(%error, "looking around failed");
                own.give_up();
            }
            // Looking must not become all that the database does.
            looked = Some(Instant::now() + begun.elapsed() * 10);
        }
        if kept_up.elapsed() >= UPKEEP {
            kept_up = Instant::now();
            upkeep(&shared, &mut own).await;
        }
        let rest = if hears { rest } else { rest.min(poll) };
        tokio::select! {
            () = shared.keeper.wake.notified() => {}
            () = tokio::time::sleep(rest) => {}
            () = shared.closing.notified() => {}
        }
    }
}

/// Renews when it is time; takes and gives shards. Returns how long nothing is to be done.
async fn round(
    shared: &Arc<Shared>,
    own: &mut Own,
    renewed: &mut Instant,
    lease: Duration,
) -> Result<Duration, Failure> {
    let fenced = shared.keeper.state().fenced;
    let connection = own.get().await?;
    if fenced {
        begin_anew(shared, connection).await?;
    }
    give(shared, connection).await?;
    let standing = renew(shared, connection).await?;
    *renewed = Instant::now();
    let Some(standing) = standing else {
        shared.fenced(shared.node());
        return Ok(Duration::ZERO);
    };
    for dead in &standing.dead {
        takeover::end(shared, connection, *dead, false).await?;
    }
    balance(shared, connection, &standing).await?;
    let leaving = shared.keeper.state().leaving.count() > 0;
    Ok(if leaving { SOON } else { lease / RENEWALS })
}

/// How things stand among the nodes.
pub(crate) struct Standing {
    live: usize,
    mine: Shards,
    free: usize,
    dead: Vec<NodeId>,
}

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Writes the row of a new node.
pub(crate) async fn register(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    let node = shared.node();
    let name = format!("process {}", std::process::id());
    let text = format!(
        "INSERT INTO node (id, name, started_at, lease_until, ended) VALUES ($1, $2, {NOW}, {NOW} + $3, false)"
    );
    let lease = i64::try_from(shared.config.lease_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let begun = Instant::now();
    connection.execute(&text, &[&&node[..], &name, &lease]).await?;
    let mut state = shared.keeper.state();
    state.valid_until = Some(begun + Duration::from_secs(shared.config.lease_seconds));
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

/// Renews the lease; `None` when another node has ended it.
pub(crate) async fn renew(shared: &Shared, connection: &Connection) -> Result<Option<Standing>, Failure> {
    let node = shared.node();
    let text = format!(
        "WITH mine AS (UPDATE node SET lease_until = {NOW} + $2 WHERE id = $1 AND NOT ended RETURNING id)
         SELECT (SELECT count(*) FROM mine),
            (SELECT count(*) FROM node WHERE NOT ended AND (lease_until > {NOW} OR id = $1)),
            ARRAY(SELECT id FROM shard WHERE owner = $1),
            (SELECT count(*) FROM shard WHERE owner IS NULL),
            ARRAY(SELECT id FROM node WHERE NOT ended AND lease_until <= {NOW} AND id <> $1)"
    );
    let lease = i64::try_from(shared.config.lease_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let begun = Instant::now();
    let row = connection.first_row(&text, &[&&node[..], &lease]).await?;
    let Some(row) = row.filter(|row| row.get::<_, i64>(0) == 1) else { return Ok(None) };
    shared.keeper.state().valid_until = Some(begun + Duration::from_secs(shared.config.lease_seconds));
    let dead: Vec<Vec<u8>> = at(&row, 4)?;
    Ok(Some(Standing {
        live: usize::try_from(at::<i64>(&row, 1)?).unwrap_or(1).max(1),
        mine: at::<Vec<i16>>(&row, 2)?.into_iter().collect(),
        free: usize::try_from(at::<i64>(&row, 3)?).unwrap_or(0),
        dead: dead.into_iter().filter_map(|id| id.try_into().ok()).collect(),
    }))
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
    }
    shared.agenda().forget(|endpoint| idle.cover(endpoint));
    let text = "UPDATE shard SET owner = NULL WHERE id = ANY ($1) AND owner = $2";
    connection.execute(text, &[&idle.list(), &&shared.node()[..]]).await?;
    shared.hints.shards();
    Ok(())
}

async fn upkeep(shared: &Arc<Shared>, own: &mut Own) {
    let now = shared.clock.now();
    let done = async {
        let connection = own.get().await?;
        clock_sync::compare(shared, connection).await?;
        connection.run("BEGIN; SET LOCAL lock_timeout = 2000").await?;
        connection.query("SELECT pg_advisory_xact_lock($1, 0)", &[&schema::lock::SCHEMA]).await?;
        schema::make_partitions(connection, now).await?;
        connection.run("COMMIT").await?;
        // Rows of nodes that ended long ago tell nobody anything.
        let text = format!("DELETE FROM node WHERE ended AND lease_until < {NOW} - 86400000000");
        connection.execute(&text, &[]).await?;
        Ok::<_, Failure>(())
    };
    if let Err(failure) = done.await {
        let error = StoreError::from(failure);
        tracing::warn!(%error, "the upkeep of the database failed; it is tried again in an hour");
        own.give_up();
    }
}

impl Shared {
    /// Does the endpoint's shard leave this node?
    pub(crate) fn is_leaving(&self, endpoint: EndpointId) -> bool {
        self.keeper.state().leaving.cover(endpoint)
    }
}
