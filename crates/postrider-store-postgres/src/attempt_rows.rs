//! The attempt table: writing and reading its rows.

use crate::{
    connection::{Connection, Statement},
    failure::{Failure, inconsistent},
    values::{at, code_at, duration, duration_or_null, id_at, instant_at, key, micros, number, number_at},
};
use bytes::Bytes;
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    delivery::{DeliveryId, Trigger},
    outcome::Outcome,
};
use tokio_postgres::{Row, types::ToSql};

/// The columns that [`read`] expects, from 0.
pub(crate) const COLUMNS: &str = "attempt.id, attempt.message, attempt.endpoint, attempt.generation, attempt.number, \
     attempt.cause, attempt.url, attempt.started_at, attempt.duration, attempt.outcome, attempt.detail, \
     attempt.status, attempt.truncated, attempt.expunged, attempt.token, attempt.dns, attempt.connect, attempt.tls, \
     attempt.first_byte, attempt.body";

/// What [`INSERT`] and [`INSERT_AGAIN`] have in common. Lists of a `SELECT` go side by side, row by row; as functions in
/// its `FROM` each would be written to a table of its own first, which costs a third more.
macro_rules! insert {
    ($then:literal) => {
        concat!(
            "INSERT INTO attempt (message, endpoint, id, generation, number, cause, url, started_at, duration, outcome, detail,
        status, truncated, expunged, token, dns, connect, tls, first_byte, body)
     SELECT unnest($1::bytea[]), unnest($2::bytea[]), unnest($3::bytea[]), unnest($4::int[]), unnest($5::int[]),
        unnest($6::smallint[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::smallint[]),
        unnest($11::text[]), unnest($12::int[]), unnest($13::bool[]), unnest($14::bool[]), unnest($15::bigint[]),
        unnest($16::bigint[]), unnest($17::bigint[]), unnest($18::bigint[]), unnest($19::bigint[]),
        unnest($20::bytea[])",
            $then
        )
    };
}

/// Writes attempts.
pub(crate) const INSERT: &str = insert!("");
/// Writes attempts: one that is stored again after an answer that got lost changes nothing. Being ready for that costs
/// a third more.
pub(crate) const INSERT_AGAIN: &str = insert!(" ON CONFLICT DO NOTHING");

/// Writes attempts in one statement, which must be one of those.
pub(crate) async fn insert(
    connection: &Connection,
    statement: &Statement,
    attempts: &[&Attempt],
) -> Result<u64, Failure> {
    fn all<'a, T>(attempts: &[&'a Attempt], value: impl Fn(&'a Attempt) -> T) -> Vec<T> {
        attempts.iter().map(|attempt| value(attempt)).collect()
    }
    let phase = |phase: Option<std::time::Duration>| phase.map(micros);
    let message = all(attempts, |attempt| key(&attempt.delivery.message));
    let endpoint = all(attempts, |attempt| key(&attempt.delivery.endpoint));
    let id = all(attempts, |attempt| key(&attempt.id));
    let generation = all(attempts, |attempt| number(attempt.delivery.generation));
    let numbers = all(attempts, |attempt| number(attempt.number));
    let cause = all(attempts, |attempt| i16::from(attempt.trigger.code()));
    let url = all(attempts, |attempt| attempt.url.as_str());
    let started_at = all(attempts, |attempt| attempt.started_at.as_micros());
    let took = all(attempts, |attempt| micros(attempt.duration));
    let outcome = all(attempts, |attempt| i16::from(attempt.outcome.code()));
    let detail = all(attempts, |attempt| attempt.detail.as_str());
    let status = all(attempts, |attempt| attempt.status.map(i32::from));
    let truncated = all(attempts, |attempt| attempt.response.truncated);
    let expunged = all(attempts, |attempt| attempt.response.expunged);
    let token = all(attempts, |attempt| phase(attempt.phases.token));
    let dns = all(attempts, |attempt| phase(attempt.phases.dns));
    let connect = all(attempts, |attempt| phase(attempt.phases.connect));
    let tls = all(attempts, |attempt| phase(attempt.phases.tls));
    let first_byte = all(attempts, |attempt| phase(attempt.phases.first_byte));
    let body =
        all(attempts, |attempt| (!attempt.response.body.is_empty()).then_some(&attempt.response.body[..]));
    let values: [&(dyn ToSql + Sync); 20] = [
        &message,
        &endpoint,
        &id,
        &generation,
        &numbers,
        &cause,
        &url,
        &started_at,
        &took,
        &outcome,
        &detail,
        &status,
        &truncated,
        &expunged,
        &token,
        &dns,
        &connect,
        &tls,
        &first_byte,
        &body,
    ];
    connection.timed(connection.client().execute(statement, &values)).await
}

/// An attempt of a row of [`COLUMNS`].
pub(crate) fn read(row: &Row) -> Result<Attempt, Failure> {
    let id: postrider_model::id::AttemptId = id_at(row, 0)?;
    let bad = |column| inconsistent("attempt", column, id);
    Ok(Attempt {
        id,
        delivery: DeliveryId {
            message: id_at(row, 1)?,
            endpoint: id_at(row, 2)?,
            generation: number_at(row, 3)?,
        },
        number: number_at(row, 4)?,
        trigger: Trigger::from_code(code_at(row, 5)?).ok_or_else(|| bad("cause"))?,
        url: at(row, 6)?,
        started_at: instant_at(row, 7)?,
        duration: duration(at(row, 8)?),
        outcome: Outcome::from_code(code_at(row, 9)?).ok_or_else(|| bad("outcome"))?,
        detail: at(row, 10)?,
        status: at::<Option<i32>>(row, 11)?.and_then(|status| u16::try_from(status).ok()),
        response: Response {
            body: at::<Option<&[u8]>>(row, 19)?.map(Bytes::copy_from_slice).unwrap_or_default(),
            truncated: at(row, 12)?,
            expunged: at(row, 13)?,
        },
        phases: Phases {
            token: duration_or_null(row, 14)?,
            dns: duration_or_null(row, 15)?,
            connect: duration_or_null(row, 16)?,
            tls: duration_or_null(row, 17)?,
            first_byte: duration_or_null(row, 18)?,
        },
    })
}
