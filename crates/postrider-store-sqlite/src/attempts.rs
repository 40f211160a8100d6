//! Attempts: the history as it can be read.

use crate::{
    SqliteStore, attempt_rows, endpoint_rows,
    failure::Failure,
    message_rows, progress,
    values::{Span, count, key},
    writer::{Isolation, Scope},
};
use async_trait::async_trait;
use postrider_model::{
    attempt::Attempt,
    delivery::{Progress, State},
    id::{ApplicationId, AttemptId, EndpointId, Ksuid, MessageId},
    outcome::Outcome,
};
use postrider_store::{
    StoreError,
    attempts::{AttemptFilter, Attempts, AttemptsOf, EndpointStats, ListedAttempt},
    endpoints::AppScope,
    page::{Page, PageRequest, Window},
};
use rusqlite::{Connection, OptionalExtension, params};

#[async_trait]
impl Attempts for SqliteStore {
    async fn attempts(
        &self,
        scope: &AppScope,
        of: AttemptsOf,
        filter: AttemptFilter,
        with_message: bool,
        page: PageRequest<AttemptId>,
    ) -> Result<Page<ListedAttempt>, StoreError> {
        let application = scope.application;
        let read = move |connection: &Connection| {
            if !exists(connection, application, of)? {
                return Ok(Page { items: Vec::new(), done: true });
            }
            list(connection, application, of, &filter, with_message, &page)
        };
        Ok(self.shared.readers.read(read).await?)
    }

    async fn attempt(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<Option<ListedAttempt>, StoreError> {
        let application = scope.application;
        let read = move |connection: &Connection| {
            if !exists(connection, application, AttemptsOf::Message(message))? {
                return Ok(None);
            }
            let attempt = of_id(connection, message, id)?;
            attempt.map(|attempt| listed(connection, attempt)).transpose()
        };
        Ok(self.shared.readers.read(read).await?)
    }

    async fn expunge_response(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<bool, StoreError> {
        let application = scope.application;
        let expunge = move |work: &mut Scope<'_>| {
            let connection = work.connection;
            if !exists(connection, application, AttemptsOf::Message(message))? {
                return Ok(false);
            }
            let Some(attempt) = of_id(connection, message, id)? else { return Ok(false) };
            connection.execute(
                "UPDATE attempt SET expunged = 1 WHERE message = ?1 AND endpoint = ?2 AND id = ?3",
                params![key(&message), key(&attempt.delivery.endpoint), key(&id)],
            )?;
            connection.execute("DELETE FROM response WHERE attempt = ?1", [key(&id)])?;
            Ok(true)
        };
        Ok(self.shared.write(Isolation::Own, expunge).await?)
    }

    async fn endpoint_stats(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        window: Window,
    ) -> Result<EndpointStats, StoreError> {
        let application = scope.application;
        let read = move |connection: &Connection| {
            if endpoint_rows::of_id(connection, application, endpoint)?.is_none() {
                return Ok(EndpointStats::default());
            }
            stats(connection, endpoint, window)
        };
        Ok(self.shared.readers.read(read).await?)
    }
}

/// Do the message and the endpoint belong to the application?
fn exists(connection: &Connection, application: ApplicationId, of: AttemptsOf) -> Result<bool, Failure> {
    let (message, endpoint) = match of {
        AttemptsOf::Endpoint(endpoint) => (None, Some(endpoint)),
        AttemptsOf::Message(message) => (Some(message), None),
        AttemptsOf::MessageToEndpoint(message, endpoint) => (Some(message), Some(endpoint)),
    };
    let of_application = |table: &str, id: &Ksuid| {
        connection
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?1 AND application = ?2)"
            ))?
            .query_row(params![id.as_bytes(), key(&application)], |row| row.get::<_, bool>(0))
    };
    Ok(message.map_or(Ok(true), |id| of_application("message", id.ksuid()))?
        && endpoint.map_or(Ok(true), |id| of_application("endpoint", id.ksuid()))?)
}

fn of_id(connection: &Connection, message: MessageId, id: AttemptId) -> Result<Option<Attempt>, Failure> {
    connection
        .prepare_cached(&format!(
            "SELECT {} FROM attempt {} WHERE attempt.message = ?1 AND attempt.id = ?2",
            attempt_rows::COLUMNS,
            attempt_rows::JOIN
        ))?
        .query_row(params![key(&message), key(&id)], |row| Ok(attempt_rows::read(row)))
        .optional()?
        .transpose()
}

/// A page of attempts: of whom by the first two values, from the third to the fourth, filtered by the others.
pub(crate) fn page_query(of: AttemptsOf, direction: &str) -> String {
    let whose = match of {
        AttemptsOf::Endpoint(_) => "attempt.endpoint = ?1 AND ?2 IS NULL",
        AttemptsOf::Message(_) => "attempt.message = ?1 AND ?2 IS NULL",
        AttemptsOf::MessageToEndpoint(..) => "attempt.message = ?1 AND attempt.endpoint = ?2",
    };
    let table = match of {
        AttemptsOf::Endpoint(_) => "attempt INDEXED BY attempt_endpoint",
        AttemptsOf::Message(_) | AttemptsOf::MessageToEndpoint(..) => "attempt",
    };
    let succeeded = Outcome::Succeeded.code();
    format!(
        "SELECT {} FROM {table} {}
         WHERE {whose} AND attempt.id >= ?3 AND attempt.id < ?4
           AND (?5 IS NULL OR (attempt.outcome = {succeeded}) = ?5)
           AND (?6 IS NULL OR COALESCE(attempt.status, 0) / 100 = ?6)
         ORDER BY attempt.id {}",
        attempt_rows::COLUMNS,
        attempt_rows::JOIN,
        direction
    )
}

fn list(
    connection: &Connection,
    application: ApplicationId,
    of: AttemptsOf,
    filter: &AttemptFilter,
    with_message: bool,
    page: &PageRequest<AttemptId>,
) -> Result<Page<ListedAttempt>, Failure> {
    let span = Span::of_ids(page, filter.message.window);
    let (first, second) = match of {
        AttemptsOf::Endpoint(endpoint) => (*endpoint.ksuid(), None),
        AttemptsOf::Message(message) => (*message.ksuid(), None),
        AttemptsOf::MessageToEndpoint(message, endpoint) => (*message.ksuid(), Some(*endpoint.ksuid())),
    };
    let mut statement = connection.prepare_cached(&page_query(of, span.direction()))?;
    let second = second.as_ref().map(|id| id.as_bytes().as_slice());
    let mut rows = statement.query(params![
        first.as_bytes(),
        second,
        span.low,
        span.high,
        filter.succeeded,
        filter.status_class
    ])?;
    let mut found = Vec::new();
    while found.len() <= page.limit
        && let Some(row) = rows.next()?
    {
        let attempt = attempt_rows::read(row)?;
        let id = attempt.delivery.message;
        let Some(stored) = message_rows::of_id(connection, application, id, false)? else { continue };
        let message = stored.message;
        if message_rows::passes(&filter.message, &message) {
            let mut item = listed(connection, attempt)?;
            item.message = with_message.then_some(message);
            found.push(item);
        }
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}

/// The attempt with how its delivery stands now.
fn listed(connection: &Connection, attempt: Attempt) -> Result<ListedAttempt, Failure> {
    let DeliveryEnds { message, endpoint } = DeliveryEnds::of(&attempt);
    let disabled: Option<bool> = connection
        .prepare_cached("SELECT disabled_at IS NOT NULL FROM endpoint WHERE id = ?1")?
        .query_row([key(&endpoint)], |row| row.get(0))
        .optional()?;
    let latest: bool = connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM attempt WHERE message = ?1 AND endpoint = ?2 AND id > ?3)",
        )?
        .query_row(params![key(&message), key(&endpoint), key(&attempt.id)], |row| row.get(0))?;
    let progress = progress::of(connection, message, endpoint, disabled.unwrap_or(false))?
        .unwrap_or(Progress { state: State::Cancelled, attempts: 0, held: false });
    Ok(ListedAttempt { attempt, progress, latest, message: None })
}

/// Between which two a delivery is.
struct DeliveryEnds {
    message: MessageId,
    endpoint: EndpointId,
}

impl DeliveryEnds {
    fn of(attempt: &Attempt) -> Self {
        Self { message: attempt.delivery.message, endpoint: attempt.delivery.endpoint }
    }
}

/// Each number comes from an index of its own; what is counted is what the window holds, or what waits.
fn stats(connection: &Connection, endpoint: EndpointId, window: Window) -> Result<EndpointStats, Failure> {
    let low = window.from.map_or_else(Vec::new, |from| Ksuid::floor(from).as_bytes().to_vec());
    let high = window.until.map_or_else(|| vec![0xff; 21], |until| Ksuid::floor(until).as_bytes().to_vec());
    let pair = |query: &str| -> Result<(u64, u64), Failure> {
        let counts = connection
            .prepare_cached(query)?
            .query_row(params![key(&endpoint), low, high], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((count(counts.0), count(counts.1)))
    };
    let (succeeded, attempts) = pair(
        "SELECT COALESCE(SUM(outcome = 0), 0), COUNT(*) FROM attempt INDEXED BY attempt_endpoint
         WHERE endpoint = ?1 AND id >= ?2 AND id < ?3",
    )?;
    let (waiting, pending) = pair(
        "SELECT COALESCE(SUM(attempts = 0), 0), COUNT(*) FROM delivery INDEXED BY delivery_due
         WHERE endpoint = ?1 AND state = 0 AND message >= ?2 AND message < ?3",
    )?;
    let (cancelled, _) = pair(
        "SELECT COUNT(*), 0 FROM delivery INDEXED BY delivery_cancelled
         WHERE endpoint = ?1 AND state = 3 AND message >= ?2 AND message < ?3",
    )?;
    Ok(EndpointStats {
        succeeded,
        failed: attempts.saturating_sub(succeeded),
        waiting,
        retrying: pending.saturating_sub(waiting),
        cancelled,
    })
}
