//! What a batch of results looks at before it writes: which leases are out, whether this node may still write, and how
//! the deliveries stand.

use super::Before;
use crate::{
    Shared,
    connection::Connection,
    failure::Failure,
    identity::NodeId,
    keeper, progress,
    schema::lock,
    values::{at, code_at, id_at, instant_at, key, number, number_at},
    work::config_lock,
};
use futures_util::{FutureExt as _, future};
use postrider_model::{
    delivery::{DeliveryId, State, Trigger},
    id::{ApplicationId, EndpointId},
    retry::{GiveUp, NextStep},
    time::Timestamp,
};
use postrider_store::deliveries::AttemptRecord;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio_postgres::types::ToSql;

/// Places of records whose leases are out, the first of each delivery.
pub(super) fn held(shared: &Shared, records: &[&AttemptRecord]) -> Vec<usize> {
    let agenda = shared.agenda();
    let mut seen = HashSet::new();
    let out = |(_, record): &(usize, &&AttemptRecord)| {
        agenda.holds(&record.lease) && seen.insert(record.lease.delivery)
    };
    records.iter().enumerate().filter(out).map(|(place, _)| place).collect()
}

/// Endpoints that answered that they are gone for good, with their applications.
pub(super) async fn gone(
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
) -> Result<BTreeMap<EndpointId, ApplicationId>, Failure> {
    let gone: BTreeSet<EndpointId> = held
        .iter()
        .filter(|place| records[**place].next == NextStep::GiveUp(GiveUp::Gone))
        .map(|place| records[*place].lease.delivery.endpoint)
        .collect();
    if gone.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<&[u8]> = gone.iter().map(key).collect();
    let rows = connection.query("SELECT id, application FROM endpoint WHERE id = ANY ($1)", &[&ids]).await?;
    rows.iter().map(|row| Ok((id_at(row, 0)?, id_at(row, 1)?))).collect()
}

const LOCK_CONFIG: &str = "SELECT pg_advisory_xact_lock($1, one) FROM unnest($2::int[]) AS one";
const LOCK_NODE: &str = "SELECT pg_advisory_xact_lock_shared($1, $2)";
const NODE: &str = "SELECT ended FROM node WHERE id = $1";
/// Deliveries as they stand, this transaction's alone until it ends, each by its key: see
/// [`Use::Commits`](crate::connection::Use::Commits).
pub(crate) const BEFORE: &str = "SELECT item.message, item.endpoint, item.generation, due_at, attempts, deadline_at, cause, deaths, application,
        place
     FROM unnest($1::bytea[], $2::bytea[], $3::int[]) AS item (message, endpoint, generation)
     CROSS JOIN LATERAL (SELECT due_at, attempts, deadline_at, cause, deaths, application, ctid::text AS place
        FROM pending WHERE pending.message = item.message AND pending.endpoint = item.endpoint
          AND pending.generation = item.generation
        LIMIT 1 FOR UPDATE) AS found";

pub(super) type Standing = HashMap<DeliveryId, Before>;

/// Begins the transaction, takes the locks and looks, in one round trip. `None` when others have taken over.
pub(super) async fn look(
    me: NodeId,
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
    gone: &BTreeMap<EndpointId, ApplicationId>,
) -> Result<Option<Standing>, Failure> {
    let (lock_config, lock_node) =
        (connection.prepare(LOCK_CONFIG).await?, connection.prepare(LOCK_NODE).await?);
    let (node, before) = (connection.prepare(NODE).await?, connection.prepare(BEFORE).await?);
    let locks: BTreeSet<i32> = gone.values().copied().map(config_lock).collect();
    let locks: Vec<i32> = locks.into_iter().collect();
    let columns = Keys::of(held.iter().map(|place| &records[*place].lease.delivery));
    let config_values: [&(dyn ToSql + Sync); 2] = [&lock::CONFIG, &locks];
    let node_lock = keeper::lock_of(&me);
    let node_values: [&(dyn ToSql + Sync); 2] = [&lock::NODE, &node_lock];
    let me = &me[..];
    let me_values: [&(dyn ToSql + Sync); 1] = [&me];
    let before_values = columns.values();
    let client = connection.client();
    let asked = future::join5(
        client.batch_execute("BEGIN"),
        async {
            if locks.is_empty() { Ok(Vec::new()) } else { client.query(&lock_config, &config_values).await }
        },
        client.query(&lock_node, &node_values),
        client.query(&node, &me_values),
        client.query(&before, &before_values),
    );
    let (begun, config, node_locked, node, before) = connection.timed(asked.map(Ok)).await?;
    begun?;
    config?;
    node_locked?;
    let ended = node?.first().map(|row| at::<bool>(row, 0)).transpose()?;
    if ended != Some(false) {
        return Ok(None);
    }
    let mut standing = HashMap::new();
    for row in &before? {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? };
        let before = Before {
            state: State::Pending { next_attempt_at: instant_at(row, 3)? },
            attempts: number_at(row, 4)?,
            deadline_at: instant_at(row, 5)?,
            trigger: Trigger::from_code(code_at(row, 6)?).unwrap_or(Trigger::Scheduled),
            deaths: number_at(row, 7)?,
            application: Some(id_at(row, 8)?),
            place: at(row, 9)?,
        };
        standing.insert(delivery, before);
    }
    Ok(Some(standing))
}

/// Adds deliveries that ended meanwhile: their attempts are stored all the same.
pub(super) async fn late(
    connection: &Connection,
    records: &[&AttemptRecord],
    held: &[usize],
    standing: &mut Standing,
) -> Result<(), Failure> {
    let missing: Vec<&DeliveryId> = held
        .iter()
        .map(|place| &records[*place].lease.delivery)
        .filter(|delivery| !standing.contains_key(delivery))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let columns = Keys::of(missing.into_iter());
    let rows = connection
        .query(
            "SELECT item.message, item.endpoint, item.generation, state, reason, attempts, cause
             FROM unnest($1::bytea[], $2::bytea[], $3::int[]) AS item (message, endpoint, generation)
             CROSS JOIN LATERAL (SELECT state, reason, attempts, cause FROM delivery
                WHERE delivery.message = item.message AND delivery.endpoint = item.endpoint
                  AND delivery.generation = item.generation LIMIT 1) AS found",
            &columns.values(),
        )
        .await?;
    for row in &rows {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? };
        let at_no_time = Timestamp::default();
        let before = Before {
            state: progress::state(code_at(row, 3)?, at(row, 4)?, at_no_time, delivery.message)?,
            attempts: number_at(row, 5)?,
            deadline_at: at_no_time,
            trigger: Trigger::from_code(code_at(row, 6)?).unwrap_or(Trigger::Scheduled),
            deaths: 0,
            application: None,
            place: String::new(),
        };
        standing.insert(delivery, before);
    }
    Ok(())
}

/// Columns that name deliveries.
pub(crate) struct Keys<'a> {
    messages: Vec<&'a [u8]>,
    endpoints: Vec<&'a [u8]>,
    generations: Vec<i32>,
}

impl<'a> Keys<'a> {
    pub(crate) fn of(deliveries: impl Iterator<Item = &'a DeliveryId>) -> Self {
        let mut keys = Self { messages: Vec::new(), endpoints: Vec::new(), generations: Vec::new() };
        for delivery in deliveries {
            keys.messages.push(key(&delivery.message));
            keys.endpoints.push(key(&delivery.endpoint));
            keys.generations.push(number(delivery.generation));
        }
        keys
    }

    pub(crate) fn values(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.messages, &self.endpoints, &self.generations]
    }
}
