//! Ending a node that is dead: its shards become free, and attempts that were running are booked.
//!
//! Whoever ends a node waits until what it is just committing is committed; from then on it changes nothing.

use crate::{
    Shared, attempt_rows,
    connection::Connection,
    failure::Failure,
    identity::NodeId,
    in_flight::{Begun, read_note},
    keeper,
    record::Keys,
    schema::lock,
    settled::{self, End},
    values::{at, code_at, id_at, number, number_at},
};
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{DeliveryId, State, Trigger},
    limits,
    outcome::Outcome,
    retry::GiveUp,
};
use std::{collections::HashMap, time::Duration};

/// Ends a node whose lease was seen to be this one for as long as it lasts, unless it was renewed after all; without a
/// lease, one that is known to be dead.
pub(crate) async fn end(
    shared: &Shared,
    connection: &Connection,
    node: NodeId,
    lease_until: Option<i64>,
) -> Result<(), Failure> {
    connection.run("BEGIN").await?;
    let done = try_end(shared, connection, node, lease_until).await;
    match done {
        Ok(interrupted) => {
            connection.run("COMMIT").await?;
            if let Some(interrupted) = interrupted {
                tracing::info!(interrupted, "a node that was not heard of any more was ended");
                shared.hints.shards();
            }
            Ok(())
        }
        Err(failure) => {
            connection.run("ROLLBACK").await?;
            Err(failure)
        }
    }
}

async fn try_end(
    shared: &Shared,
    connection: &Connection,
    node: NodeId,
    lease_until: Option<i64>,
) -> Result<Option<usize>, Failure> {
    connection.query("SELECT pg_advisory_xact_lock($1, $2)", &[&lock::NODE, &keeper::lock_of(&node)]).await?;
    let node = &node[..];
    let row = connection
        .first_row(
            "UPDATE node SET ended = true
             WHERE id = $1 AND NOT ended AND ($2::bigint IS NULL OR lease_until = $2) RETURNING 1",
            &[&node, &lease_until],
        )
        .await?;
    if row.is_none() {
        return Ok(None);
    }
    let rows = connection.query("SELECT notes FROM in_flight WHERE node = $1", &[&node]).await?;
    let mut begun = Vec::new();
    for row in &rows {
        let notes: Vec<Vec<u8>> = at(row, 0)?;
        begun.extend(notes.iter().filter_map(|note| read_note(note)));
    }
    let interrupted = book(shared, connection, begun).await?;
    connection.execute("DELETE FROM in_flight WHERE node = $1", &[&node]).await?;
    connection.execute("UPDATE shard SET owner = NULL WHERE owner = $1", &[&node]).await?;
    Ok(Some(interrupted))
}

/// A delivery during whose attempt the node died.
struct Victim {
    attempts: u32,
    deaths: u32,
    trigger: Trigger,
    pending: bool,
}

/// Books the attempts that had begun: each as an attempt with the outcome `interrupted`, its delivery due now with one
/// more death. The delivery that was there at too many deaths is set aside.
async fn book(shared: &Shared, connection: &Connection, mut begun: Vec<Begun>) -> Result<usize, Failure> {
    if begun.is_empty() {
        return Ok(0);
    }
    // Ids grow with the time they are made for.
    begun.sort_by_key(|begun| begun.started_at);
    let victims = victims(connection, &begun).await?;
    let mut attempts = Vec::new();
    let (mut retried, mut ends) = (Vec::new(), Vec::new());
    for begun in &begun {
        let Some(victim) = victims.get(&begun.delivery) else { continue };
        // Its result was stored, only the note had not been taken away yet.
        if victim.attempts >= begun.number {
            continue;
        }
        attempts.push(interrupted(shared, begun, victim.trigger));
        let deaths = victim.deaths.saturating_add(1);
        let state = State::Failed(GiveUp::Quarantined);
        if victim.pending && deaths >= limits::POISON_DEATHS {
            ends.push(End { delivery: begun.delivery, state, attempts: begun.number, deaths: 1 });
        } else {
            retried.push((begun.delivery, begun.number));
        }
    }
    let statement = connection.prepare(attempt_rows::INSERT).await?;
    attempt_rows::insert(connection, &statement, &attempts.iter().collect::<Vec<_>>()).await?;
    settled::end(connection, &ends).await?;
    let keys = Keys::of(retried.iter().map(|(delivery, _)| delivery));
    let numbers: Vec<i32> = retried.iter().map(|(_, attempts)| number(*attempts)).collect();
    let now = shared.clock.now().as_micros();
    let [messages, endpoints, generations] = keys.values();
    connection
        .execute(
            "UPDATE pending SET attempts = item.attempts, deaths = deaths + 1, retry = true, due_at = least(due_at, $5)
             FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::int[]) AS item (message, endpoint, generation, attempts)
             WHERE pending.message = item.message AND pending.endpoint = item.endpoint
               AND pending.generation = item.generation",
            &[messages, endpoints, generations, &numbers, &now],
        )
        .await?;
    connection
        .execute(
            "UPDATE delivery SET attempts = item.attempts, deaths = deaths + 1
             FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::int[]) AS item (message, endpoint, generation, attempts)
             WHERE delivery.message = item.message AND delivery.endpoint = item.endpoint
               AND delivery.generation = item.generation",
            &[messages, endpoints, generations, &numbers],
        )
        .await?;
    Ok(attempts.len())
}

async fn victims(connection: &Connection, begun: &[Begun]) -> Result<HashMap<DeliveryId, Victim>, Failure> {
    let keys = Keys::of(begun.iter().map(|begun| &begun.delivery));
    let rows = connection
        .query(
            "WITH item AS (SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int[]) AS item (message, endpoint, generation))
             SELECT message, endpoint, generation, attempts, deaths, cause, true
             FROM item JOIN pending USING (message, endpoint, generation)
             UNION ALL
             SELECT message, endpoint, generation, attempts, deaths, cause, false
             FROM item JOIN delivery USING (message, endpoint, generation)",
            &keys.values(),
        )
        .await?;
    let mut victims = HashMap::new();
    for row in &rows {
        let delivery =
            DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? };
        let victim = Victim {
            attempts: number_at(row, 3)?,
            deaths: number_at(row, 4)?,
            trigger: Trigger::from_code(code_at(row, 5)?).unwrap_or(Trigger::Scheduled),
            pending: at(row, 6)?,
        };
        victims.insert(delivery, victim);
    }
    Ok(victims)
}

fn interrupted(shared: &Shared, begun: &Begun, trigger: Trigger) -> Attempt {
    Attempt {
        id: shared.ids.next(begun.started_at),
        delivery: begun.delivery,
        number: begun.number,
        trigger,
        url: begun.url.clone(),
        started_at: begun.started_at,
        duration: Duration::ZERO,
        outcome: Outcome::Interrupted,
        detail: "the server stopped during this attempt; whether the endpoint got it is unknown".to_owned(),
        status: None,
        response: Response::default(),
        phases: Phases::default(),
    }
}
