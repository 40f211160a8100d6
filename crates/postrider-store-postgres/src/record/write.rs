//! Writing a batch of results, in one round trip with its commit.

use super::{Change, Keys};
use crate::{
    attempt_rows,
    connection::Connection,
    failure::Failure,
    progress, shards,
    values::{key, number},
};
use futures_util::{FutureExt as _, future};
use postrider_model::delivery::State;
use tokio_postgres::types::ToSql;

/// What waited goes, whether it ended or is to be tried again: its rows are this transaction's. Not in the statement that
/// looked: as a join with its keys, the planner went through all that waits where it believed that nothing does.
const GONE: &str = "DELETE FROM pending WHERE ctid = ANY ($1::text[]::tid[])";
const RETRY: &str = "INSERT INTO pending (message, endpoint, generation, application, attempts, deaths, cause, due_at, deadline_at, shard,
        retry)
     SELECT unnest($1::bytea[]), unnest($2::bytea[]), unnest($3::int[]), unnest($4::bytea[]), unnest($6::int[]),
        unnest($7::int[]), unnest($8::smallint[]), unnest($9::bigint[]), unnest($10::bigint[]), unnest($5::smallint[]),
        true";
const END: &str = "INSERT INTO delivery (message, endpoint, generation, state, attempts, deaths, cause, reason)
     SELECT unnest($1::bytea[]), unnest($2::bytea[]), unnest($3::int[]), unnest($4::smallint[]), unnest($5::int[]),
        unnest($6::int[]), unnest($7::smallint[]), unnest($8::text[])";

/// Writes everything and commits, in one round trip.
pub(super) async fn all(connection: &Connection, changes: &[Change<'_>]) -> Result<(), Failure> {
    // What waited until now has this attempt for the first time; what ended before may have stored it already, with an
    // answer that got lost.
    let (fresh, again): (Vec<&Change<'_>>, Vec<&Change<'_>>) =
        changes.iter().partition(|change| change.is_fresh());
    if !again.is_empty() {
        let attempts: Vec<_> = again.iter().map(|change| &change.record.attempt).collect();
        let statement = connection.prepare(attempt_rows::INSERT_AGAIN).await?;
        attempt_rows::insert(connection, &statement, &attempts).await?;
    }
    let attempts: Vec<_> = fresh.iter().map(|change| &change.record.attempt).collect();
    let statement = connection.prepare(attempt_rows::INSERT).await?;
    let (gone, retry, end) =
        (connection.prepare(GONE).await?, connection.prepare(RETRY).await?, connection.prepare(END).await?);
    let waited = |change: &&Change<'_>| change.pending;
    let places: Vec<&str> =
        changes.iter().filter(waited).map(|change| change.before.place.as_str()).collect();
    let (retried, ended): (Vec<&Change<'_>>, Vec<&Change<'_>>) =
        changes.iter().filter(waited).partition(|change| matches!(change.state, State::Pending { .. }));
    let client = connection.client();
    let (retried, ended) = (RetryColumns::of(&retried), EndColumns::of(&ended));
    let (gone_values, retry_values, end_values): ([&(dyn ToSql + Sync); 1], _, _) =
        ([&places], retried.values(), ended.values());
    let asked = future::join5(
        client.execute(&gone, &gone_values),
        async { if retried.due.is_empty() { Ok(0) } else { client.execute(&retry, &retry_values).await } },
        async { if ended.states.is_empty() { Ok(0) } else { client.execute(&end, &end_values).await } },
        attempt_rows::insert(connection, &statement, &attempts),
        client.batch_execute("COMMIT"),
    );
    let (gone, retried, ended, attempts, committed) = connection.timed(asked.map(Ok)).await?;
    gone?;
    retried?;
    ended?;
    attempts?;
    Ok(committed?)
}

/// The values of [`RETRY`].
struct RetryColumns<'a> {
    keys: Keys<'a>,
    applications: Vec<&'a [u8]>,
    shards: Vec<i16>,
    attempts: Vec<i32>,
    deaths: Vec<i32>,
    causes: Vec<i16>,
    due: Vec<i64>,
    deadlines: Vec<i64>,
}

impl<'a> RetryColumns<'a> {
    fn of(changes: &[&'a Change<'a>]) -> Self {
        let all = |value: fn(&Change<'a>) -> i32| changes.iter().map(|change| value(change)).collect();
        let due = |change: &&&Change<'_>| match change.state {
            State::Pending { next_attempt_at } => next_attempt_at.as_micros(),
            _ => change.before.deadline_at.as_micros(),
        };
        Self {
            keys: Keys::of(changes.iter().map(|change| &change.record.lease.delivery)),
            applications: changes
                .iter()
                .map(|change| change.before.application.as_ref().map_or(&[][..], key))
                .collect(),
            shards: changes.iter().map(|change| shards::of(change.delivery().endpoint)).collect(),
            attempts: all(|change| number(change.attempts)),
            deaths: all(|change| number(change.before.deaths)),
            causes: changes.iter().map(|change| i16::from(change.before.trigger.code())).collect(),
            due: changes.iter().map(|change| due(&change)).collect(),
            deadlines: changes.iter().map(|change| change.before.deadline_at.as_micros()).collect(),
        }
    }

    fn values(&self) -> [&(dyn ToSql + Sync); 10] {
        let [messages, endpoints, generations] = self.keys.values();
        [
            messages,
            endpoints,
            generations,
            &self.applications,
            &self.shards,
            &self.attempts,
            &self.deaths,
            &self.causes,
            &self.due,
            &self.deadlines,
        ]
    }
}

/// The values of [`END`].
struct EndColumns<'a> {
    keys: Keys<'a>,
    states: Vec<i16>,
    attempts: Vec<i32>,
    deaths: Vec<i32>,
    causes: Vec<i16>,
    reasons: Vec<Option<&'static str>>,
}

impl<'a> EndColumns<'a> {
    fn of(changes: &[&'a Change<'a>]) -> Self {
        let columns = changes.iter().map(|change| progress::columns(change.state));
        let (states, reasons) = columns.map(|(state, reason)| (i16::from(state), reason)).unzip();
        Self {
            keys: Keys::of(changes.iter().map(|change| &change.record.lease.delivery)),
            states,
            attempts: changes.iter().map(|change| number(change.attempts)).collect(),
            deaths: changes.iter().map(|change| number(change.before.deaths)).collect(),
            causes: changes.iter().map(|change| i16::from(change.before.trigger.code())).collect(),
            reasons,
        }
    }

    fn values(&self) -> [&(dyn ToSql + Sync); 8] {
        let [messages, endpoints, generations] = self.keys.values();
        [
            messages,
            endpoints,
            generations,
            &self.states,
            &self.attempts,
            &self.deaths,
            &self.causes,
            &self.reasons,
        ]
    }
}
