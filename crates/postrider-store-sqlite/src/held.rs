//! Held deliveries past their deadline: nobody claims what a disabled endpoint holds, so nobody else notices.
//!
//! Each held endpoint is looked through, a bounded number of rows at a time: one look over millions would end at the
//! time limit of a query, and retention with it. Then the earliest deadline among them says when to look again.

use crate::{
    Shared,
    claim::end,
    failure::Failure,
    retention,
    values::{id_at, instant_at, key},
    writer::{Isolation, Scope},
};
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{EndpointId, MessageId},
    retry::GiveUp,
    time::Timestamp,
};
use postrider_store::{StoreError, agenda::Part};
use rusqlite::{Connection, params};
use std::{
    collections::{HashMap, HashSet},
    sync::PoisonError,
    time::Duration,
};

/// Held endpoints that are looked through in one call.
const AT_ONCE: usize = 16;

/// When an endpoint is looked through again at the latest: what came since may have an earlier deadline.
const AGAIN: Duration = Duration::from_hours(1);

/// How far each held endpoint was looked through.
pub(crate) type Looks = HashMap<EndpointId, Look>;

/// How far an endpoint was looked through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Where to go on; `None` when it was looked through.
    from: Option<Place>,
    /// The earliest deadline seen: there is nothing to find before.
    earliest: Timestamp,
}

/// A place in the order of what waits: first attempts or retries, when it is due, and which it is.
type Place = (Part, Option<(Timestamp, MessageId, u32)>);

impl Look {
    const FIRST: Self = Self { from: None, earliest: Timestamp::MAX };
}

/// What an endpoint has waiting of first attempts or of retries, from a place on.
pub(crate) const PENDING: &str =
    "SELECT next_attempt_at, message, generation, deadline_at FROM delivery INDEXED BY delivery_due
     WHERE endpoint = ?1 AND state = 0 AND (attempts > 0) = ?6 AND next_attempt_at >= ?2
       AND (next_attempt_at, message, generation) > (?2, ?3, ?4)
     ORDER BY next_attempt_at, message, generation LIMIT ?5";

/// Expires some; `true` when more endpoints or deliveries are to be looked at.
pub(crate) async fn expire(shared: &Shared, batch: usize) -> Result<bool, StoreError> {
    let now = shared.clock.now();
    let held = shared.agenda().held();
    let known: HashSet<EndpointId> = held.iter().copied().collect();
    let positions = || shared.positions.lock().unwrap_or_else(PoisonError::into_inner);
    let due: Vec<(EndpointId, Option<Look>)> = {
        let looks = &mut positions().held;
        looks.retain(|endpoint, _| known.contains(endpoint));
        let of = |endpoint: &EndpointId| (*endpoint, looks.get(endpoint).copied());
        held.iter().map(of).filter(|(_, look)| is_due(look.as_ref(), now)).collect()
    };
    let mut more = due.len() > AT_ONCE;
    for (endpoint, look) in due.into_iter().take(AT_ONCE) {
        let before = look.filter(|look| look.from.is_some()).unwrap_or(Look::FIRST);
        let read = move |connection: &Connection| past_deadline(connection, endpoint, before, now, batch);
        let (found, after) = shared.readers.read(read).await?;
        if !found.is_empty() {
            shared.write(Isolation::Own, move |work| end_all(work, found)).await?;
        }
        more |= after.from.is_some();
        positions().held.insert(endpoint, after);
    }
    Ok(more)
}

fn is_due(look: Option<&Look>, now: Timestamp) -> bool {
    look.is_none_or(|look| look.from.is_some() || look.earliest < now)
}

/// Deliveries of an endpoint whose deadline has passed, from where the last look ended, and how far this one came.
fn past_deadline(
    connection: &Connection,
    endpoint: EndpointId,
    before: Look,
    now: Timestamp,
    batch: usize,
) -> Result<(Vec<DeliveryId>, Look), Failure> {
    let mut statement = connection.prepare_cached(PENDING)?;
    let most = retention::rows(batch);
    let (part, after) = before.from.unwrap_or((Part::First, None));
    let (due, message, generation) = match &after {
        Some((due, message, generation)) => (due.as_micros(), key(message), i64::from(*generation)),
        None => (i64::MIN, &[][..], -1),
    };
    let retries = part == Part::Retries;
    let mut rows = statement.query(params![key(&endpoint), due, message, generation, most, retries])?;
    let (mut found, mut seen, mut look) = (Vec::new(), 0, Look { from: None, ..before });
    if !retries {
        look.from = Some((Part::Retries, None));
    }
    while let Some(row) = rows.next()? {
        let place = (instant_at(row, 0)?, id_at(row, 1)?, row.get(2)?);
        let deadline = instant_at(row, 3)?;
        seen += 1;
        if deadline < now {
            found.push(DeliveryId { message: place.1, endpoint, generation: place.2 });
        } else {
            look.earliest = look.earliest.min(deadline);
        }
        if seen == most || found.len() == batch {
            look.from = Some((part, Some(place)));
            break;
        }
    }
    if look.from.is_none() {
        look.earliest = look.earliest.min(now.plus(AGAIN));
    }
    Ok((found, look))
}

fn end_all(work: &mut Scope<'_>, deliveries: Vec<DeliveryId>) -> Result<(), Failure> {
    let now = work.now;
    for delivery in deliveries {
        if end(work, delivery, State::Failed(GiveUp::Expired))? {
            work.after_commit(move |shared: &Shared| shared.agenda().settled(delivery, now));
        }
    }
    Ok(())
}
