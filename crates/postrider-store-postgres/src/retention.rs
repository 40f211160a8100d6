//! Retention: what is old goes, and nothing that is pending is touched. One node does it for all.
//!
//! Whole weeks of the history are dropped when everything in them is too old; the rest goes in batches, found along the
//! partitions of the time before the cut. Those that are empty then are dropped.

mod partitions;

use crate::{
    PostgresStore, Shared,
    duties::{self, Duty},
    failure::Failure,
    settled::{self, End},
    values::{at, id_at, number_at, rows},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, State},
    id::Ksuid,
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    retention::{Cutoffs, Expired, Retention},
};
use std::{sync::Arc, time::Duration};

/// When what disabled endpoints hold is looked at again at the latest.
const HELD_AGAIN: Duration = Duration::from_hours(1);

/// Idempotency records, overlapped secrets, deleted endpoints and applications without history: each until an instant,
/// so many at most.
const OLD_OTHERS: [&str; 4] = [
    "DELETE FROM idempotency WHERE (environment, digest) IN
     (SELECT environment, digest FROM idempotency WHERE expires_at <= $1 LIMIT $2)",
    "DELETE FROM secret WHERE (owner, kind, id, version) IN
     (SELECT owner, kind, id, version FROM secret
      WHERE valid_until IS NOT NULL AND valid_until <= $1 LIMIT $2)",
    "DELETE FROM endpoint WHERE id IN
     (SELECT id FROM endpoint WHERE deleted_at IS NOT NULL AND deleted_at < $1
        AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.endpoint = endpoint.id)
        AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.endpoint = endpoint.id) LIMIT $2)",
    "DELETE FROM application WHERE id IN
     (SELECT id FROM application WHERE deleted_at IS NOT NULL AND deleted_at < $1
        AND NOT EXISTS (SELECT 1 FROM message WHERE message.application = application.id)
        AND NOT EXISTS (SELECT 1 FROM endpoint
                        WHERE endpoint.application = application.id AND endpoint.deleted_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM endpoint
                        WHERE endpoint.application = application.id AND endpoint.deleted_at IS NULL) LIMIT $2)",
];

#[async_trait]
impl Retention for PostgresStore {
    async fn expire(&self, cutoffs: Cutoffs, batch: usize) -> Result<Expired, StoreError> {
        let batch = batch.clamp(1, 10_000);
        let shared = &self.shared;
        let all = step(shared, move |work| Box::pin(async move { held(work, batch).await })).await?;
        let Mine::Done(held) = all else { return Ok(Expired::default()) };
        let payloads =
            step(shared, move |work| Box::pin(async move { payloads(work, batch).await })).await?.count();
        let dropped = partitions::drop_whole(shared, cutoffs, batch).await?;
        let mut deleted = [0, 0];
        if !dropped.attempts_wait {
            let work =
                step(shared, move |work| Box::pin(async move { attempts(work, cutoffs, batch).await }));
            deleted[0] = work.await?.count();
        }
        if !dropped.messages_wait {
            let work =
                step(shared, move |work| Box::pin(async move { messages(work, cutoffs, batch).await }));
            deleted[1] = work.await?.count();
        }
        let others = step(shared, move |work| Box::pin(async move { others(work, cutoffs, batch).await }))
            .await?
            .count();
        let [attempts, messages] = deleted;
        let full = [held, payloads, attempts, messages, others].iter().any(|count| *count >= batch as u64);
        if !full {
            let work = step(shared, move |work| {
                Box::pin(async move { partitions::drop_empty(work, cutoffs).await })
            });
            match work.await {
                // Somebody reads there: another time.
                Err(failure) if failure.is_lock_timeout() => {}
                done => {
                    done?;
                }
            }
        }
        Ok(Expired {
            payloads,
            attempts: attempts + dropped.attempts,
            messages: messages + dropped.messages,
            others,
            more: full || dropped.more,
        })
    }
}

/// What came of a step.
enum Mine {
    /// So many.
    Done(u64),
    /// Another node does this for all.
    Anothers,
}

impl Mine {
    fn count(self) -> u64 {
        match self {
            Self::Done(count) => count,
            Self::Anothers => 0,
        }
    }
}

/// One transaction of retention, when that is this node's duty.
async fn step(
    shared: &Arc<Shared>,
    run: impl for<'w> FnOnce(&'w mut Work) -> crate::work::Doing<'w, u64> + Send + 'static,
) -> Result<Mine, Failure> {
    shared
        .change(None, move |work| {
            Box::pin(async move {
                let node = work.shared.node();
                if duties::take(&work.connection, &node, Duty::Retention).await? {
                    Ok(Mine::Done(run(work).await?))
                } else {
                    Ok(Mine::Anothers)
                }
            })
        })
        .await
}

/// What disabled endpoints hold expires at its deadline: nobody claims it, so nobody else notices.
async fn held(work: &mut Work, batch: usize) -> Result<u64, Failure> {
    let now = work.now;
    if work.shared.held_look() > now {
        return Ok(0);
    }
    let read = work
        .connection
        .query(
            "SELECT message, pending.endpoint, generation FROM endpoint JOIN pending ON pending.endpoint = endpoint.id
             WHERE endpoint.disabled_at IS NOT NULL AND pending.deadline_at < $1 LIMIT $2",
            &[&now.as_micros(), &rows(batch)],
        )
        .await?;
    if read.len() < batch {
        let row = work
            .connection
            .first_row(
                "SELECT min(pending.deadline_at) FROM endpoint JOIN pending ON pending.endpoint = endpoint.id
                 WHERE endpoint.disabled_at IS NOT NULL AND pending.deadline_at >= $1",
                &[&now.as_micros()],
            )
            .await?;
        let next = row.map(|row| at::<Option<i64>>(&row, 0)).transpose()?.flatten();
        let again = now.plus(HELD_AGAIN);
        let next = next.map_or(again, |next| again.min(Timestamp::from_micros(next)));
        work.after_commit(move |shared| shared.look_at_held(next));
    }
    let state = State::Failed(GiveUp::Expired);
    let ends = read
        .iter()
        .map(|row| {
            let delivery = DeliveryId {
                message: id_at(row, 0)?,
                endpoint: id_at(row, 1)?,
                generation: number_at(row, 2)?,
            };
            Ok(End { delivery, state, attempts: 0, deaths: 0 })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let ended = settled::end(&work.connection, &ends).await?;
    let count = ended.len() as u64;
    work.after_commit(move |shared| {
        for delivery in ended {
            shared.ended(delivery, now);
        }
    });
    Ok(count)
}

async fn payloads(work: &mut Work, batch: usize) -> Result<u64, Failure> {
    let connection = &work.connection;
    let now = work.now;
    let short = connection
        .query(
            "DELETE FROM payload_expiry WHERE (expires_at, message) IN
                (SELECT expires_at, message FROM payload_expiry
                 WHERE expires_at <= $1
                   AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.message = payload_expiry.message)
                 ORDER BY expires_at LIMIT $2)
             RETURNING message",
            &[&now.as_micros(), &rows(batch)],
        )
        .await?;
    let mut ids: Vec<Vec<u8>> = short.iter().map(|row| at(row, 0)).collect::<Result<_, _>>()?;
    // The others go by age, from where the last look ended.
    let cut = Ksuid::floor(now.minus(Duration::from_secs(work.shared.config.payload_retention_seconds)));
    let from = work.shared.payload_position();
    let old = connection
        .query(
            "SELECT id FROM message
             WHERE id > $1 AND id < $2 AND payload IS NOT NULL AND payload_expires_at <= $3
               AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.message = message.id)
             ORDER BY id LIMIT $4",
            &[&from, &&cut.as_bytes()[..], &now.as_micros(), &rows(batch - ids.len())],
        )
        .await?;
    for row in &old {
        ids.push(at(row, 0)?);
    }
    let position = ids.last().cloned().filter(|_| !old.is_empty());
    let text = "UPDATE message SET payload = NULL WHERE id = ANY ($1) AND payload IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.message = message.id)";
    let count = connection.execute(text, &[&ids]).await?;
    if let Some(position) = position {
        work.after_commit(move |shared| shared.payloads_gone(position));
    }
    Ok(count)
}

async fn attempts(work: &mut Work, cutoffs: Cutoffs, batch: usize) -> Result<u64, Failure> {
    let cut = Ksuid::floor(cutoffs.attempts);
    let text = "DELETE FROM attempt WHERE (message, endpoint, id) IN
            (SELECT message, endpoint, id FROM attempt
             WHERE id < $1 AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.message = attempt.message)
             LIMIT $2) AND id < $1";
    work.connection.execute(text, &[&&cut.as_bytes()[..], &rows(batch)]).await
}

/// Messages with everything that hangs on them. A resend locks the message that it sends again: such a one is passed over.
async fn messages(work: &mut Work, cutoffs: Cutoffs, batch: usize) -> Result<u64, Failure> {
    let cut = Ksuid::floor(cutoffs.messages);
    let connection = &work.connection;
    let locked = connection
        .query(
            "SELECT id FROM message
             WHERE id < $1 AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.message = message.id)
             ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
            &[&&cut.as_bytes()[..], &rows(batch)],
        )
        .await?;
    let ids: Vec<Vec<u8>> = locked.iter().map(|row| at(row, 0)).collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    // What was resent between the look and the lock stays.
    let waits =
        connection.query("SELECT DISTINCT message FROM pending WHERE message = ANY ($1)", &[&ids]).await?;
    let waits: Vec<Vec<u8>> = waits.iter().map(|row| at(row, 0)).collect::<Result<_, _>>()?;
    let ids: Vec<Vec<u8>> = ids.into_iter().filter(|id| !waits.contains(id)).collect();
    for text in [
        "DELETE FROM attempt WHERE message = ANY ($1)",
        "DELETE FROM delivery WHERE message = ANY ($1)",
        "DELETE FROM event_id WHERE message = ANY ($1)",
        "DELETE FROM message WHERE id = ANY ($1)",
    ] {
        connection.execute(text, &[&ids]).await?;
    }
    Ok(ids.len() as u64)
}

async fn others(work: &mut Work, cutoffs: Cutoffs, batch: usize) -> Result<u64, Failure> {
    let (now, old, most) = (work.now.as_micros(), cutoffs.messages.as_micros(), rows(batch));
    let [keys, secrets, endpoints, applications] = OLD_OTHERS;
    let deleted = work.connection.execute(keys, &[&now, &most]).await?
        + work.connection.execute(secrets, &[&now, &most]).await?;
    work.connection.execute(endpoints, &[&old, &most]).await?;
    work.connection.execute(applications, &[&old, &most]).await?;
    Ok(deleted)
}
