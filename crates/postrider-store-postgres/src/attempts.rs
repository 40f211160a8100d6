//! Attempts: the history as it can be read.

use crate::{
    PostgresStore, attempt_rows,
    connection::Connection,
    endpoint_rows,
    failure::Failure,
    message_rows,
    messages::CHUNK,
    progress,
    values::{Span, at, count, id_at, key, rows},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    attempt::Attempt,
    delivery::{Progress, State},
    id::{ApplicationId, AttemptId, EndpointId, Ksuid, MessageId},
    message::Message,
    outcome::Outcome,
};
use postrider_store::{
    StoreError,
    attempts::{AttemptFilter, Attempts, AttemptsOf, EndpointStats, ListedAttempt},
    endpoints::AppScope,
    page::{Page, PageRequest, Window},
};
use std::collections::{HashMap, HashSet};

#[async_trait]
impl Attempts for PostgresStore {
    async fn attempts(
        &self,
        scope: &AppScope,
        of: AttemptsOf,
        filter: AttemptFilter,
        with_message: bool,
        page: PageRequest<AttemptId>,
    ) -> Result<Page<ListedAttempt>, StoreError> {
        let connection = self.shared.reader_of(&scope.environment).await?;
        if !exists(&connection, scope.application, of).await? {
            return Ok(Page { items: Vec::new(), done: true });
        }
        Ok(list(&connection, scope.application, of, &filter, with_message, &page).await?)
    }

    async fn attempt(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<Option<ListedAttempt>, StoreError> {
        let connection = self.shared.reader_of(&scope.environment).await?;
        if !exists(&connection, scope.application, AttemptsOf::Message(message)).await? {
            return Ok(None);
        }
        let attempt = of_id(&connection, message, id).await?;
        Ok(listed(&connection, attempt.into_iter().collect()).await?.pop())
    }

    async fn expunge_response(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<bool, StoreError> {
        let application = scope.application;
        let change = self.shared.change_in(scope.environment.clone(), None, move |work| {
            Box::pin(async move { expunge(work, application, message, id).await })
        });
        Ok(change.await?)
    }

    async fn endpoint_stats(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        window: Window,
    ) -> Result<EndpointStats, StoreError> {
        let connection = self.shared.reader_of(&scope.environment).await?;
        if endpoint_rows::of_id(&connection, scope.application, endpoint).await?.is_none() {
            return Ok(EndpointStats::default());
        }
        Ok(stats(&connection, endpoint, window).await?)
    }
}

async fn expunge(
    work: &mut Work,
    application: ApplicationId,
    message: MessageId,
    id: AttemptId,
) -> Result<bool, Failure> {
    if !exists(&work.connection, application, AttemptsOf::Message(message)).await? {
        return Ok(false);
    }
    let text = "UPDATE attempt SET expunged = true, body = NULL WHERE message = $1 AND id = $2";
    Ok(work.connection.execute(text, &[&key(&message), &key(&id)]).await? > 0)
}

/// Do the message and the endpoint belong to the application?
async fn exists(
    connection: &Connection,
    application: ApplicationId,
    of: AttemptsOf,
) -> Result<bool, Failure> {
    let (message, endpoint) = match of {
        AttemptsOf::Endpoint(endpoint) => (None, Some(endpoint)),
        AttemptsOf::Message(message) => (Some(message), None),
        AttemptsOf::MessageToEndpoint(message, endpoint) => (Some(message), Some(endpoint)),
    };
    let row = connection
        .first_row(
            "SELECT ($1::bytea IS NULL OR EXISTS (SELECT 1 FROM message WHERE id = $1 AND application = $3))
                AND ($2::bytea IS NULL OR EXISTS (SELECT 1 FROM endpoint WHERE id = $2 AND application = $3))",
            &[&message.as_ref().map(key), &endpoint.as_ref().map(key), &key(&application)],
        )
        .await?;
    Ok(row.map(|row| at(&row, 0)).transpose()?.unwrap_or(false))
}

async fn of_id(
    connection: &Connection,
    message: MessageId,
    id: AttemptId,
) -> Result<Option<Attempt>, Failure> {
    let text = format!("SELECT {} FROM attempt WHERE message = $1 AND id = $2", attempt_rows::COLUMNS);
    let row = connection.first_row(&text, &[&key(&message), &key(&id)]).await?;
    row.map(|row| attempt_rows::read(&row)).transpose()
}

/// A page of attempts: of whom by the first two values, from the third to the fourth, filtered by the others.
pub(crate) fn page_query(of: AttemptsOf, direction: &str) -> String {
    let whose = match of {
        AttemptsOf::Endpoint(_) => "attempt.endpoint = $1 AND $2::bytea IS NULL",
        AttemptsOf::Message(_) => "attempt.message = $1 AND $2::bytea IS NULL",
        AttemptsOf::MessageToEndpoint(..) => "attempt.message = $1 AND attempt.endpoint = $2::bytea",
    };
    let succeeded = Outcome::Succeeded.code();
    format!(
        "SELECT {} FROM attempt
         WHERE {whose} AND attempt.id >= $3 AND attempt.id < $4
           AND ($5::bool IS NULL OR (attempt.outcome = {succeeded}) = $5)
           AND ($6::int IS NULL OR COALESCE(attempt.status, 0) / 100 = $6)
         ORDER BY attempt.id {direction} LIMIT $7",
        attempt_rows::COLUMNS,
    )
}

async fn list(
    connection: &Connection,
    application: ApplicationId,
    of: AttemptsOf,
    filter: &AttemptFilter,
    with_message: bool,
    page: &PageRequest<AttemptId>,
) -> Result<Page<ListedAttempt>, Failure> {
    let mut span = Span::of_ids(page, filter.message.window);
    let (first, second) = match of {
        AttemptsOf::Endpoint(endpoint) => (*endpoint.ksuid(), None),
        AttemptsOf::Message(message) => (*message.ksuid(), None),
        AttemptsOf::MessageToEndpoint(message, endpoint) => (*message.ksuid(), Some(*endpoint.ksuid())),
    };
    let text = page_query(of, span.direction());
    let second = second.as_ref().map(|id| id.as_bytes().as_slice());
    let class = filter.status_class.map(i32::from);
    let chunk = CHUNK.max(page.limit + 1);
    let mut found: Vec<(Attempt, Message)> = Vec::new();
    loop {
        let whose = first.as_bytes().as_slice();
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&whose, &second, &span.low, &span.high, &filter.succeeded, &class, &rows(chunk)];
        let read = connection.query(&text, &values).await?;
        let attempts: Vec<Attempt> = read.iter().map(attempt_rows::read).collect::<Result<_, _>>()?;
        if let Some(last) = attempts.last() {
            span.after(key(&last.id));
        }
        let messages = messages_of(connection, application, &attempts).await?;
        found.extend(attempts.into_iter().filter_map(|attempt| {
            let message = messages.get(&attempt.delivery.message)?;
            message_rows::passes(&filter.message, message).then(|| (attempt, message.clone()))
        }));
        if read.len() < chunk || found.len() > page.limit {
            break;
        }
    }
    found.truncate(page.limit + 1);
    let (attempts, messages): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let mut items = listed(connection, attempts).await?;
    if with_message {
        for (item, message) in items.iter_mut().zip(messages) {
            item.message = Some(message);
        }
    }
    Ok(Page::from_rows(items, page.limit, page.backward))
}

async fn messages_of(
    connection: &Connection,
    application: ApplicationId,
    attempts: &[Attempt],
) -> Result<HashMap<MessageId, Message>, Failure> {
    let ids: HashSet<MessageId> = attempts.iter().map(|attempt| attempt.delivery.message).collect();
    let ids: Vec<&[u8]> = ids.iter().map(key).collect();
    let text =
        format!("SELECT {} FROM message WHERE id = ANY ($1) AND application = $2", message_rows::COLUMNS);
    let mut messages = HashMap::new();
    for row in connection.query(&text, &[&ids, &key(&application)]).await? {
        let message = message_rows::read(&row, false)?.message;
        messages.insert(message.id, message);
    }
    Ok(messages)
}

/// Attempts with how their deliveries stand now.
async fn listed(connection: &Connection, attempts: Vec<Attempt>) -> Result<Vec<ListedAttempt>, Failure> {
    let pairs: HashSet<(MessageId, EndpointId)> =
        attempts.iter().map(|attempt| (attempt.delivery.message, attempt.delivery.endpoint)).collect();
    let pairs: Vec<_> = pairs.into_iter().collect();
    let progress = progress::of_pairs(connection, &pairs).await?;
    let messages: Vec<&[u8]> = pairs.iter().map(|(message, _)| key(message)).collect();
    let endpoints: Vec<&[u8]> = pairs.iter().map(|(_, endpoint)| key(endpoint)).collect();
    let newest = connection
        .query(
            "SELECT pair.message, pair.endpoint, newest.id, disabled_at IS NOT NULL
             FROM unnest($1::bytea[], $2::bytea[]) AS pair (message, endpoint)
             CROSS JOIN LATERAL (SELECT id FROM attempt
                WHERE attempt.message = pair.message AND attempt.endpoint = pair.endpoint
                ORDER BY id DESC LIMIT 1) AS newest
             LEFT JOIN endpoint ON endpoint.id = pair.endpoint",
            &[&messages, &endpoints],
        )
        .await?;
    let mut latest: HashMap<(MessageId, EndpointId), (AttemptId, bool)> = HashMap::new();
    for row in &newest {
        let disabled = at::<Option<bool>>(row, 3)?.unwrap_or(false);
        latest.insert((id_at(row, 0)?, id_at(row, 1)?), (id_at(row, 2)?, disabled));
    }
    let with_progress = |attempt: Attempt| {
        let pair = (attempt.delivery.message, attempt.delivery.endpoint);
        let newest = latest.get(&pair);
        let none = Progress { state: State::Cancelled, attempts: 0, held: false };
        let progress = progress.get(&pair).copied().unwrap_or(none);
        let progress = progress::held(progress, newest.is_some_and(|(_, disabled)| *disabled));
        let latest = newest.is_some_and(|(id, _)| *id == attempt.id);
        ListedAttempt { attempt, progress, latest, message: None }
    };
    Ok(attempts.into_iter().map(with_progress).collect())
}

/// Each number comes from an index of its own; what is counted is what the window holds, or what waits.
async fn stats(
    connection: &Connection,
    endpoint: EndpointId,
    window: Window,
) -> Result<EndpointStats, Failure> {
    let low = window.from.map_or_else(Vec::new, |from| Ksuid::floor(from).as_bytes().to_vec());
    let high = window.until.map_or_else(|| vec![0xff; 21], |until| Ksuid::floor(until).as_bytes().to_vec());
    let row = connection
        .first_row(
            "SELECT
                (SELECT count(*) FROM attempt WHERE endpoint = $1 AND id >= $2 AND id < $3 AND outcome = 0),
                (SELECT count(*) FROM attempt WHERE endpoint = $1 AND id >= $2 AND id < $3),
                (SELECT count(*) FROM pending WHERE endpoint = $1 AND message >= $2 AND message < $3
                    AND attempts = 0),
                (SELECT count(*) FROM pending WHERE endpoint = $1 AND message >= $2 AND message < $3),
                (SELECT count(*) FROM delivery WHERE endpoint = $1 AND message >= $2 AND message < $3
                    AND state = 3)",
            &[&key(&endpoint), &low, &high],
        )
        .await?;
    let Some(row) = row else { return Ok(EndpointStats::default()) };
    let number = |column| at::<i64>(&row, column).map(count);
    let (succeeded, attempts, waiting, pending) = (number(0)?, number(1)?, number(2)?, number(3)?);
    Ok(EndpointStats {
        succeeded,
        failed: attempts.saturating_sub(succeeded),
        waiting,
        retrying: pending.saturating_sub(waiting),
        cancelled: number(4)?,
    })
}
