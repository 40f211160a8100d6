//! The payload table: its rows lie in the order in which they expire, by their numbers alone, without an index.
//!
//! A number is the second of the expiry, and below it a count: new payloads come to the end of the table, as long as
//! all live equally long, and what has expired is its beginning. A message names its payload; the payload names its
//! message too, and counts only if it does: a message whose payload has expired keeps the number.

use crate::{
    Shared,
    failure::Failure,
    values::{count, key},
};
use postrider_model::{
    id::{ApplicationId, MessageId},
    time::Timestamp,
};
use postrider_store::StoreError;
use rusqlite::{Connection, params};
use std::sync::atomic::Ordering;

/// Bits of the count, below the second of the expiry.
const COUNT_BITS: u32 = 31;
/// Numbers that are tried: one is taken only where a clock that was set back comes upon the same second again.
const TRIES: usize = 1_000;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// The join of a message with its payload, where it has one.
pub(crate) const JOIN: &str =
    "LEFT JOIN payload ON payload.id = message.payload AND payload.message = message.id";

/// What has expired by an instant has a smaller number.
pub(crate) fn first_after(now: Timestamp) -> i64 {
    // Up to 2106; what is to live longer lives until then.
    now.as_micros().div_euclid(MICROS_PER_SECOND).clamp(0, i64::from(u32::MAX)) << COUNT_BITS
}

fn number(expires_at: Timestamp, counted: u64) -> i64 {
    let count = counted & ((1 << COUNT_BITS) - 1);
    first_after(expires_at) | i64::try_from(count).unwrap_or(0)
}

/// Writes a payload; tells its number. Nothing is asked of the database for it. On an error nothing was written.
pub(crate) fn insert(
    connection: &Connection,
    shared: &Shared,
    message: MessageId,
    expires_at: Timestamp,
    body: &[u8],
) -> Result<i64, Failure> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO payload (id, message, body) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
    )?;
    for _ in 0..TRIES {
        let number = number(expires_at, shared.payloads.fetch_add(1, Ordering::Relaxed));
        if statement.execute(params![number, key(&message), body])? > 0 {
            return Ok(number);
        }
    }
    Err(StoreError::Internal { detail: "no number is free for a payload".to_owned() }.into())
}

/// Where the count begins at a start: behind that of a process that ended a moment ago, since no process writes a
/// million payloads a second.
pub(crate) fn first_count(now: Timestamp) -> u64 {
    count(now.as_micros())
}

/// Deletes the payload of this number; `false` when it was gone.
pub(crate) fn delete(connection: &Connection, number: i64) -> Result<bool, Failure> {
    Ok(connection.prepare_cached("DELETE FROM payload WHERE id = ?1")?.execute([number])? > 0)
}

/// Deletes the payload of a message of this application.
pub(crate) fn delete_of(
    connection: &Connection,
    application: ApplicationId,
    message: MessageId,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "DELETE FROM payload WHERE message = ?1
                AND id = (SELECT payload FROM message WHERE id = ?1 AND application = ?2)",
        )?
        .execute(params![key(&message), key(&application)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, SqliteStore, message_rows, writer::Isolation};
    use postrider_model::id::Ksuid;
    use postrider_store::Store as _;
    use postrider_vault::keyring::Keyring;

    #[test]
    fn numbers_are_in_the_order_of_the_expiry_whatever_the_count_and_the_time() {
        let at = Timestamp::from_micros;
        let second = |number: i64| at(number * MICROS_PER_SECOND);
        for (earlier, later) in [
            (second(1_700_000_000), second(1_700_000_001)),
            (second(0), second(1)),
            (at(i64::MIN), second(1)),
            (second(4_294_967_294), at(i64::MAX)),
        ] {
            assert!(number(earlier, u64::MAX) < first_after(later), "{earlier:?} {later:?}");
            assert!(number(later, 0) >= first_after(later), "{later:?}");
            assert!(number(earlier, 0) >= 0);
        }
        assert_ne!(number(second(7), 1), number(second(7), 2));
    }

    /// As when a clock was set back: the count comes upon numbers of the same second that are taken.
    #[tokio::test]
    async fn a_number_that_is_taken_is_passed_over_and_nobody_sees_the_payload_of_another_message() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
        let config = Config { data_dir: folder.path().join("data"), readers: 1, ..Config::default() };
        let store = SqliteStore::open(config, keyring).unwrap();
        let [first, second, third] = [1, 2, 3].map(|byte| MessageId::new(Ksuid::from_bytes([byte; 20])));
        let application = ApplicationId::new(Ksuid::from_bytes([9; 20]));
        let expires_at = Timestamp::from_micros(1_700_000_000 * MICROS_PER_SECOND);
        let seen = store.shared.write(Isolation::Own, move |work| {
            let mut numbers = Vec::new();
            for message in [first, second] {
                work.shared.payloads.store(5, Ordering::Relaxed);
                numbers.push(insert(work.connection, work.shared, message, expires_at, message.ksuid().as_bytes())?);
            }
            // The third one's payload has expired, and the second one's has its number now.
            for (message, payload) in [(first, numbers[0]), (second, numbers[1]), (third, numbers[1])] {
                work.connection.execute(
                    "INSERT INTO message (id, application, event_type, payload, payload_expires_at, created_at)
                     VALUES (?1, ?2, 'a', ?3, 0, 0)",
                    params![key(&message), key(&application), payload],
                )?;
            }
            delete_of(work.connection, application, third)?;
            let payload = |id| {
                let found = message_rows::of_id(work.connection, application, id, true)?;
                Ok(found.and_then(|found| found.payload))
            };
            let seen = [first, second, third].map(payload);
            Ok((numbers, seen.into_iter().collect::<Result<Vec<_>, Failure>>()?))
        });
        let (numbers, seen) = seen.await.unwrap_or_else(|_| panic!("the operation failed"));
        assert_eq!(numbers[1], numbers[0] + 1);
        assert_eq!(seen[0].as_deref(), Some(first.ksuid().as_bytes().as_slice()));
        assert_eq!(seen[1].as_deref(), Some(second.ksuid().as_bytes().as_slice()));
        assert_eq!(seen[2], None);
        store.close().await;
    }
}
