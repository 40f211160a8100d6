//! What a batch of messages looks at before it writes, in the round trip that begins its transaction and takes its locks.

use super::Matched;
use crate::{
    connection::Connection,
    failure::Failure,
    schema::lock,
    values::{at, count, id_at, key},
    work::config_lock,
};
use futures_util::{FutureExt as _, future};
use postrider_model::{id::ApplicationId, time::Timestamp};
use std::collections::{BTreeSet, HashMap, HashSet};
use tokio_postgres::{Row, types::ToSql};

/// What a request with an idempotency key had made.
pub(super) struct Made {
    pub(super) kind: i16,
    pub(super) created: Vec<u8>,
    /// Too long ago: the key is a new one.
    pub(super) expired: bool,
    /// Where its row lies.
    pub(super) place: String,
}

/// What the database knows before a batch is written.
pub(super) struct Known {
    pub(super) versions: HashMap<ApplicationId, u64>,
    /// By environment and key.
    pub(super) keys: HashMap<(String, Vec<u8>), Made>,
    pub(super) event_ids: HashSet<(ApplicationId, String)>,
    /// Event ids that a transaction which published them is about to commit, or not.
    pub(super) undecided: HashSet<(ApplicationId, String)>,
}

const LOCK: &str = "SELECT pg_advisory_xact_lock_shared($1, one) FROM unnest($2::int[]) AS one";
/// Each by its key: see [`Use::Commits`](crate::connection::Use::Commits).
pub(crate) const VERSIONS: &str = "SELECT id, config_version FROM unnest($1::bytea[]) AS wanted
     CROSS JOIN LATERAL (SELECT application.id, config_version FROM application
        WHERE application.id = wanted AND deleted_at IS NULL LIMIT 1) AS found";
/// Idempotency records, and where those lie that have expired.
pub(crate) const KEYS: &str = "SELECT wanted.environment, wanted.digest, kind, created, expires_at <= $3, place
     FROM unnest($1::text[], $2::bytea[]) AS wanted (environment, digest)
     CROSS JOIN LATERAL (SELECT kind, created, expires_at, ctid::text AS place FROM idempotency
        WHERE idempotency.environment = wanted.environment AND idempotency.digest = wanted.digest LIMIT 1) AS found";
/// Event ids that are in use, also by what was published in a transaction and is not routed yet.
pub(crate) const EVENT_IDS: &str = "SELECT wanted.application, wanted.event_id
     FROM unnest($1::bytea[], $2::text[]) AS wanted (application, event_id)
     CROSS JOIN LATERAL (
        (SELECT 1 FROM event_id
         WHERE event_id.application = wanted.application AND event_id.event_id = wanted.event_id LIMIT 1)
        UNION ALL
        (SELECT 1 FROM outbox
         WHERE outbox.application = wanted.application AND outbox.event_id = wanted.event_id LIMIT 1)
        LIMIT 1) AS found";
/// Event ids for which a transaction that published them has begun to commit: `check_event_id` in
/// `migrations/0006_event_ids_and_wall.sql`. What commits later finds this transaction's names. A statement of its own
/// before the look, which so sees what has committed by then. Waits for nobody.
const UNDECIDED: &str = "SELECT wanted.application, wanted.event_id
     FROM unnest($1::bytea[], $2::text[]) AS wanted (application, event_id)
     WHERE NOT pg_try_advisory_xact_lock_shared($3, hashtext(wanted.event_id) # hashtext(encode(wanted.application, 'hex')))";

/// Whether transactions that publish may commit at the same time with the same event ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Transactions,
    /// Nobody may publish in transactions; or what is looked at came from there, and has its event ids.
    Nobody,
}

/// Begins the transaction, takes the locks and looks, in one round trip.
pub(super) async fn look(
    connection: &Connection,
    items: &[&Matched],
    now: Timestamp,
    beside: Beside,
) -> Result<Known, Failure> {
    // Of other environments than those of the batch, nothing is seen.
    let environments: BTreeSet<&str> =
        items.iter().map(|item| item.message.scope.environment.as_str()).collect();
    connection.see(&environments.into_iter().collect::<Vec<_>>().join(","));
    look_after(connection, "BEGIN", items, now, beside).await
}

/// The same after this statement: in a transaction that has begun, none.
pub(super) async fn look_after(
    connection: &Connection,
    first: &str,
    items: &[&Matched],
    now: Timestamp,
    beside: Beside,
) -> Result<Known, Failure> {
    let (lock_shared, versions) = (connection.prepare(LOCK).await?, connection.prepare(VERSIONS).await?);
    let (keys, event_ids) = (connection.prepare(KEYS).await?, connection.prepare(EVENT_IDS).await?);
    let undecided = connection.prepare(UNDECIDED).await?;
    let applications: BTreeSet<ApplicationId> =
        items.iter().map(|item| item.message.scope.application).collect();
    let ids: Vec<&[u8]> = applications.iter().map(key).collect();
    let locks: BTreeSet<i32> = applications.iter().copied().map(config_lock).collect();
    let locks: Vec<i32> = locks.into_iter().collect();
    let keyed = items.iter().filter_map(|item| Some((&item.message, item.message.idempotency.as_ref()?)));
    let (environments, digests): (Vec<&str>, Vec<&[u8]>) =
        keyed.map(|(message, key)| (message.scope.environment.as_str(), &key.digest[..])).unzip();
    let named = items.iter().filter_map(|item| Some((&item.message, item.message.event_id.as_ref()?)));
    let (owners, names): (Vec<&[u8]>, Vec<&str>) =
        named.map(|(message, name)| (key(&message.scope.application), name.as_str())).unzip();
    let client = connection.client();
    let time = now.as_micros();
    let lock_values: [&(dyn ToSql + Sync); 2] = [&lock::CONFIG, &locks];
    let version_values: [&(dyn ToSql + Sync); 1] = [&ids];
    let key_values: [&(dyn ToSql + Sync); 3] = [&environments, &digests, &time];
    let name_values: [&(dyn ToSql + Sync); 2] = [&owners, &names];
    let try_values: [&(dyn ToSql + Sync); 3] = [&owners, &names, &lock::EVENT_ID];
    let tries = beside == Beside::Transactions && !names.is_empty();
    let asked = future::join5(
        client.batch_execute(first),
        client.query(&lock_shared, &lock_values),
        client.query(&versions, &version_values),
        async { if digests.is_empty() { Ok(Vec::new()) } else { client.query(&keys, &key_values).await } },
        future::join(
            async { if tries { client.query(&undecided, &try_values).await } else { Ok(Vec::new()) } },
            async {
                if names.is_empty() { Ok(Vec::new()) } else { client.query(&event_ids, &name_values).await }
            },
        ),
    );
    let (begun, locked, versions, keys, (undecided, event_ids)) = connection.timed(asked.map(Ok)).await?;
    begun?;
    locked?;
    let mut known = Known {
        versions: HashMap::new(),
        keys: HashMap::new(),
        event_ids: names_of(&event_ids?)?,
        undecided: names_of(&undecided?)?,
    };
    for row in versions? {
        known.versions.insert(id_at(&row, 0)?, count(at(&row, 1)?));
    }
    for row in keys? {
        let made =
            Made { kind: at(&row, 2)?, created: at(&row, 3)?, expired: at(&row, 4)?, place: at(&row, 5)? };
        known.keys.insert((at(&row, 0)?, at(&row, 1)?), made);
    }
    Ok(known)
}

fn names_of(rows: &[Row]) -> Result<HashSet<(ApplicationId, String)>, Failure> {
    rows.iter().map(|row| Ok((id_at(row, 0)?, at(row, 1)?))).collect()
}
