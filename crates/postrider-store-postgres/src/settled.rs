//! Deliveries that end: their rows move from what waits to the history, in one statement.

use crate::{
    connection::Connection,
    failure::Failure,
    progress::{self, code},
    values::{id_at, key, number, number_at},
};
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{EndpointId, MessageId},
};
use tokio_postgres::Row;

/// The columns that history keeps of what waited.
const KEPT: &str =
    "INSERT INTO delivery (message, endpoint, generation, state, attempts, deaths, cause, reason)
     SELECT message, endpoint, generation, state, attempts, deaths, cause, reason FROM gone";

/// A delivery and how it ends.
pub(crate) struct End {
    pub(crate) delivery: DeliveryId,
    pub(crate) state: State,
    /// Attempts at least.
    pub(crate) attempts: u32,
    /// One more death.
    pub(crate) deaths: u32,
}

/// Ends pending deliveries; returns which of them were pending.
pub(crate) async fn end(connection: &Connection, ends: &[End]) -> Result<Vec<DeliveryId>, Failure> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!(
        "WITH item AS (SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int[], $4::smallint[], $5::text[], $6::int[],
            $7::int[]) AS item (message, endpoint, generation, state, reason, attempts, deaths)),
         gone AS (DELETE FROM pending USING item
            WHERE pending.message = item.message AND pending.endpoint = item.endpoint
              AND pending.generation = item.generation
            RETURNING pending.message, pending.endpoint, pending.generation, item.state, item.reason,
               greatest(pending.attempts, item.attempts) AS attempts, pending.deaths + item.deaths AS deaths,
               pending.cause)
         {KEPT} RETURNING message, endpoint, generation"
    );
    let messages: Vec<&[u8]> = ends.iter().map(|end| key(&end.delivery.message)).collect();
    let endpoints: Vec<&[u8]> = ends.iter().map(|end| key(&end.delivery.endpoint)).collect();
    let generations: Vec<i32> = ends.iter().map(|end| number(end.delivery.generation)).collect();
    let columns: Vec<_> = ends.iter().map(|end| progress::columns(end.state)).collect();
    let states: Vec<i16> = columns.iter().map(|(state, _)| i16::from(*state)).collect();
    let reasons: Vec<Option<&str>> = columns.iter().map(|(_, reason)| *reason).collect();
    let attempts: Vec<i32> = ends.iter().map(|end| number(end.attempts)).collect();
    let deaths: Vec<i32> = ends.iter().map(|end| number(end.deaths)).collect();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&messages, &endpoints, &generations, &states, &reasons, &attempts, &deaths];
    connection.query(&text, &values).await?.iter().map(read).collect()
}

/// Settles what is pending between a message and an endpoint, but for `own` generations: the success of a manual delivery.
pub(crate) async fn deliver_others(
    connection: &Connection,
    message: MessageId,
    endpoint: EndpointId,
    own: &[i32],
) -> Result<Vec<DeliveryId>, Failure> {
    let text = format!(
        "WITH gone AS (DELETE FROM pending WHERE message = $1 AND endpoint = $2 AND generation <> ALL ($4)
            RETURNING message, endpoint, generation, $3::smallint AS state, attempts, deaths, cause,
               NULL::text AS reason)
         {KEPT} RETURNING message, endpoint, generation"
    );
    let state = i16::from(code::DELIVERED);
    connection
        .query(&text, &[&key(&message), &key(&endpoint), &state, &own])
        .await?
        .iter()
        .map(read)
        .collect()
}

fn read(row: &Row) -> Result<DeliveryId, Failure> {
    Ok(DeliveryId { message: id_at(row, 0)?, endpoint: id_at(row, 1)?, generation: number_at(row, 2)? })
}

/// Cancels some of what is pending for an endpoint; returns how many.
pub(crate) async fn cancel_endpoint(
    connection: &Connection,
    endpoint: EndpointId,
    most: i64,
) -> Result<u64, Failure> {
    let text = format!(
        "WITH gone AS (DELETE FROM pending WHERE (message, endpoint, generation) IN
               (SELECT message, endpoint, generation FROM pending WHERE endpoint = $1 LIMIT $2)
            RETURNING message, endpoint, generation, $3::smallint AS state, attempts, deaths, cause,
               NULL::text AS reason)
         {KEPT}"
    );
    connection.execute(&text, &[&key(&endpoint), &most, &i16::from(code::CANCELLED)]).await
}

/// Cancels what is pending of a message.
pub(crate) async fn cancel_message(
    connection: &Connection,
    message: MessageId,
) -> Result<Vec<DeliveryId>, Failure> {
    let text = format!(
        "WITH gone AS (DELETE FROM pending WHERE message = $1
            RETURNING message, endpoint, generation, $2::smallint AS state, attempts, deaths, cause,
               NULL::text AS reason)
         {KEPT} RETURNING endpoint, generation"
    );
    let rows = connection.query(&text, &[&key(&message), &i16::from(code::CANCELLED)]).await?;
    rows.iter()
        .map(|row| Ok(DeliveryId { message, endpoint: id_at(row, 0)?, generation: number_at(row, 1)? }))
        .collect()
}
