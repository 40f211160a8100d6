//! What a node reads of the database to know its work: all that waits in a shard when it comes, and from time to time what
//! no wake-up told.

use crate::{
    Shared,
    connection::{Connection, Own},
    endpoints,
    failure::Failure,
    shards::Shards,
    values::{at, count, id_at, instant_at, key},
};
use postrider_model::{
    id::{ApiKeyId, ApplicationId, EndpointId},
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::{OnDisk, Part},
    deliveries::Deferred,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Versions before the last one that are looked at again: what was numbered earlier may have been committed later.
const OVERLAP: i64 = 200;
/// Changes that are remembered as seen.
const SEEN: usize = 2_000;
/// Counting takes at most this part of the time.
const COUNT_SHARE: u32 = 500;
/// What waits in some shards, with how many: one walk along an index.
const WAITING: &str =
    "SELECT waiting.endpoint, endpoint.application, waiting.retry, endpoint.disabled_at IS NOT NULL,
        endpoint.deleted_at IS NOT NULL, waiting.first_due, waiting.deliveries
     FROM (SELECT endpoint, retry, min(due_at) AS first_due, count(*) AS deliveries
           FROM pending WHERE shard = ANY ($1) GROUP BY endpoint, retry) AS waiting
     JOIN endpoint ON endpoint.id = waiting.endpoint";

/// The same without how many: from one endpoint's part to the next, by one step along the index each, however much waits
/// in between.
pub(crate) const LANES: &str = "WITH RECURSIVE lane AS (
        SELECT first.* FROM unnest($1::smallint[]) AS wanted (id) CROSS JOIN LATERAL (
            SELECT shard, endpoint, retry, due_at FROM pending WHERE pending.shard = wanted.id
            ORDER BY endpoint, retry, due_at LIMIT 1) AS first
        UNION ALL
        SELECT next.* FROM lane CROSS JOIN LATERAL (
            SELECT shard, endpoint, retry, due_at FROM pending
            WHERE pending.shard = lane.shard AND (pending.endpoint, pending.retry) > (lane.endpoint, lane.retry)
            ORDER BY endpoint, retry, due_at LIMIT 1) AS next)
     SELECT lane.endpoint, endpoint.application, lane.retry, endpoint.disabled_at IS NOT NULL,
        endpoint.deleted_at IS NOT NULL, lane.due_at, 0::bigint
     FROM lane JOIN endpoint ON endpoint.id = lane.endpoint";

/// One endpoint's part of what waits.
struct Waits {
    application: ApplicationId,
    endpoint: EndpointId,
    part: Part,
    held: bool,
    deleted: bool,
    due: Timestamp,
    count: u64,
}

async fn waiting(connection: &Connection, text: &str, shards: Shards) -> Result<Vec<Waits>, Failure> {
    let rows = connection.query(text, &[&shards.list()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Waits {
                endpoint: id_at(row, 0)?,
                application: id_at(row, 1)?,
                part: if at(row, 2)? { Part::Retries } else { Part::First },
                held: at(row, 3)?,
                deleted: at(row, 4)?,
                due: instant_at(row, 5)?,
                count: count(at(row, 6)?),
            })
        })
        .collect()
}

/// Brings the work of shards into memory. What a stop left pending of deleted endpoints is cancelled.
pub(super) async fn load(
    shared: &Arc<Shared>,
    connection: &Connection,
    shards: Shards,
) -> Result<(), Failure> {
    let changes = shared.memory.changes();
    let waiting = waiting(connection, WAITING, shards).await?;
    let now = shared.clock.now();
    let mut deleted = HashSet::new();
    let mut outdated = false;
    {
        let mut agenda = shared.agenda();
        for waits in waiting {
            let Waits { application, endpoint, part, held, due, count, .. } = waits;
            // Another node may have taken over while the answer was waited for.
            if !shared.owns(endpoint) {
                continue;
            }
            if waits.deleted {
                deleted.insert(endpoint);
                agenda.counted(count);
            } else {
                let old = shared.memory.changed_since(application, changes);
                outdated |= old;
                // What is held wrongly is found by looking again; what is not, would begin.
                agenda.add(OnDisk { application, endpoint, part, held: held || old, due, count }, now);
            }
        }
    }
    if outdated {
        shared.keeper.look_around();
    }
    if !deleted.is_empty() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { endpoints::cancel_pending(&shared, deleted.into_iter().collect()).await });
    }
    shared.claimable.notify_one();
    Ok(())
}

/// Which changes of configuration were seen.
#[derive(Default)]
pub(super) struct Versions {
    last: i64,
    seen: HashSet<(ApplicationId, i64)>,
}

impl Versions {
    /// Forgets what this node remembers of what others changed since the last look; returns the applications.
    pub(super) async fn look(
        &mut self,
        shared: &Shared,
        connection: &Connection,
    ) -> Result<Vec<ApplicationId>, Failure> {
        let first = self.last == 0;
        let text = "SELECT id, config_version FROM application WHERE config_version > $1 ORDER BY config_version DESC LIMIT 1000";
        let rows = connection.query(text, &[&(self.last - OVERLAP)]).await?;
        let mut changed = Vec::new();
        if self.seen.len() > SEEN {
            self.seen.clear();
        }
        for row in &rows {
            let (application, version) = (id_at(row, 0)?, at(row, 1)?);
            self.last = self.last.max(version);
            if self.seen.insert((application, version)) && !first {
                shared.memory.changed(application);
                changed.push(application);
            }
        }
        let since = shared.clock.now().minus(Duration::from_mins(1)).as_micros();
        for row in connection.query("SELECT id FROM api_key WHERE revoked_at >= $1", &[&since]).await? {
            shared.memory.api_key_changed(id_at::<postrider_model::id::ApiKeyKind>(&row, 0)? as ApiKeyId);
        }
        Ok(changed)
    }
}

/// When this node looked, and what it has seen.
#[derive(Default)]
pub(super) struct Looks {
    pub(super) wanted: bool,
    again: Option<Instant>,
    count_again: Option<Instant>,
    versions: Versions,
}

impl Looks {
    /// Looks around when that is due or wanted.
    pub(super) async fn look(&mut self, shared: &Arc<Shared>, own: &mut Own, every: Duration) {
        let begun = Instant::now();
        if !self.wanted && self.again.is_some_and(|again| begun < again) {
            return;
        }
        self.wanted = false;
        if let Err(failure) = self.around(shared, own).await {
            let error = StoreError::from(failure);
            tracing::debug!(%error, "looking around failed");
            own.give_up();
        }
        // Looking must not become all that the database does.
        self.again = Some(Instant::now() + every + begun.elapsed() * 10);
    }

    async fn around(&mut self, shared: &Arc<Shared>, own: &mut Own) -> Result<(), Failure> {
        let connection = own.get().await?;
        let changed = self.versions.look(shared, connection).await?;
        let changes = shared.memory.changes();
        let owned = shared.keeper.owned();
        let waiting = waiting(connection, LANES, owned).await?;
        let count = self.count(connection, owned, waiting.is_empty()).await?;
        let now = shared.clock.now();
        let mut outdated = false;
        {
            let mut agenda = shared.agenda();
            if let Some(count) = count {
                agenda.count(count);
            }
            let mine = |waits: &Waits| !waits.deleted && shared.owns(waits.endpoint);
            for waits in waiting.into_iter().filter(mine) {
                let Waits { application, endpoint, part, held, due, .. } = waits;
                let held = held || shared.is_leaving(endpoint);
                // Whoever disabled or enabled it since has told so, and knows better than what was read.
                let old = shared.memory.changed_since(application, changes);
                outdated |= old;
                agenda.lies_in_database(application, endpoint, part, (!old).then_some(held), due, now);
            }
        }
        if outdated {
            shared.keeper.look_around();
        }
        if !changed.is_empty() {
            endpoints_changed(shared, &changed).await;
        }
        shared.claimable.notify_one();
        Ok(())
    }

    /// What waits in all. Counting walks through all of it: rarely, when that takes long.
    async fn count(
        &mut self,
        connection: &Connection,
        owned: Shards,
        nothing: bool,
    ) -> Result<Option<u64>, Failure> {
        if nothing {
            return Ok(Some(0));
        }
        let begun = Instant::now();
        if self.count_again.is_some_and(|again| begun < again) {
            return Ok(None);
        }
        let text = "SELECT count(*) FROM pending WHERE shard = ANY ($1)";
        let row = connection.first_row(text, &[&owned.list()]).await?;
        self.count_again = Some(Instant::now() + begun.elapsed() * COUNT_SHARE);
        row.map(|row| Ok(count(at(&row, 0)?))).transpose()
    }
}

/// Another node changed the configuration of these applications: what this one serves of them goes by it.
pub(crate) async fn endpoints_changed(shared: &Arc<Shared>, applications: &[ApplicationId]) {
    if let Err(failure) = try_endpoints_changed(shared, applications).await {
        let error = StoreError::from(failure);
        tracing::debug!(%error, "a change of configuration could not be read");
        shared.keeper.look_around();
    }
}

async fn try_endpoints_changed(shared: &Arc<Shared>, applications: &[ApplicationId]) -> Result<(), Failure> {
    let connection = shared.hot_pool.get().await?;
    let changes = shared.memory.changes();
    let ids: Vec<&[u8]> = applications.iter().map(key).collect();
    let rows = connection
        .query(
            "SELECT id, disabled_at IS NOT NULL, deleted_at IS NOT NULL, updated_at, application FROM endpoint
             WHERE application = ANY ($1)",
            &[&ids],
        )
        .await?;
    let now = shared.clock.now();
    let recent = now.minus(Duration::from_secs(30));
    for row in &rows {
        let endpoint: EndpointId = id_at(row, 0)?;
        if !shared.owns(endpoint) {
            continue;
        }
        let held = at::<bool>(row, 1)? || shared.is_leaving(endpoint);
        let mut agenda = shared.agenda();
        if shared.memory.changed_since(id_at(row, 4)?, changes) {
            shared.keeper.look_around();
            continue;
        }
        if at(row, 2)? {
            agenda.drop_lane(endpoint);
        } else {
            agenda.hold(endpoint, held, now);
            if instant_at(row, 3)? >= recent {
                agenda.defer(Deferred::Endpoint(endpoint), now, now);
            }
        }
    }
    shared.claimable.notify_one();
    Ok(())
}
