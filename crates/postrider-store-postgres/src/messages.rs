//! Messages: reading them and deleting payloads. Accepting them is [`crate::accept`].

use crate::{
    PostgresStore, accept,
    connection::Connection,
    failure::Failure,
    message_rows, settled, snapshots,
    values::{Span, key, rows},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    application::Ref,
    event_type::EventTypeName,
    id::MessageId,
    message::{Channel, MessageWithPayload},
};
use postrider_store::{
    StoreError, WriteError,
    endpoints::AppScope,
    messages::{Accepted, MessageFilter, Messages, NewMessage},
    page::{Page, PageRequest},
};
use std::collections::BTreeSet;

/// Rows that a filtered list reads at a time, at least.
pub(crate) const CHUNK: usize = 100;

#[async_trait]
impl Messages for PostgresStore {
    async fn accept(&self, messages: Vec<NewMessage>) -> Vec<Result<Accepted, WriteError>> {
        accept::all(&self.shared, messages).await
    }

    async fn message(
        &self,
        scope: &AppScope,
        reference: &Ref<MessageId>,
    ) -> Result<Option<MessageWithPayload>, StoreError> {
        let connection = self.shared.reader_of(&scope.environment).await?;
        Ok(match reference {
            Ref::Id(id) => message_rows::of_id(&connection, scope.application, *id, true).await?,
            Ref::Uid(uid) => message_rows::of_event_id(&connection, scope.application, uid, true).await?,
        })
    }

    async fn messages(
        &self,
        scope: &AppScope,
        filter: MessageFilter,
        with_payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<MessageWithPayload>, StoreError> {
        Ok(list(&*self.shared.reader_of(&scope.environment).await?, scope, &filter, with_payload, &page)
            .await?)
    }

    async fn expunge_payload(&self, scope: &AppScope, id: MessageId) -> Result<bool, StoreError> {
        let scope = scope.clone();
        let change = self.shared.change_in(scope.environment.clone(), None, move |work| {
            Box::pin(async move { expunge(work, &scope, id).await })
        });
        Ok(change.await?)
    }

    async fn any_match(
        &self,
        scope: &AppScope,
        event_type: &EventTypeName,
        channels: &BTreeSet<Channel>,
    ) -> Result<bool, StoreError> {
        let snapshot = snapshots::current(&self.shared, scope).await?;
        Ok(snapshot.is_some_and(|snapshot| snapshot.matching(event_type, channels).next().is_some()))
    }
}

async fn list(
    connection: &Connection,
    scope: &AppScope,
    filter: &MessageFilter,
    with_payload: bool,
    page: &PageRequest<MessageId>,
) -> Result<Page<MessageWithPayload>, Failure> {
    let mut span = Span::of_ids(page, filter.window);
    // Payloads are large: no more of them than the page holds.
    let plain = *filter == MessageFilter { window: filter.window, ..MessageFilter::default() };
    let chunk = if plain { page.limit + 1 } else { CHUNK.max(page.limit + 1) };
    let text = format!(
        "SELECT {} FROM message WHERE application = $1 AND id >= $2 AND id < $3 ORDER BY id {} LIMIT $4",
        message_rows::columns(with_payload && plain),
        span.direction()
    );
    let mut found = Vec::new();
    loop {
        let values = (key(&scope.application), rows(chunk));
        let read = connection.query(&text, &[&values.0, &span.low, &span.high, &values.1]).await?;
        for row in &read {
            let message = message_rows::read(row, with_payload && plain)?;
            span.after(key(&message.message.id));
            if message_rows::passes(filter, &message.message) {
                found.push(message);
            }
        }
        if read.len() < chunk || found.len() > page.limit {
            break;
        }
    }
    found.truncate(page.limit + 1);
    if with_payload && !plain {
        message_rows::add_payloads(connection, found.iter_mut()).await?;
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}

/// Deletes a payload; what cannot be sent any more is cancelled. The message's row is locked by its change, which whoever
/// resends it waits for.
async fn expunge(work: &mut Work, scope: &AppScope, id: MessageId) -> Result<bool, Failure> {
    let text = "UPDATE message SET payload = NULL WHERE id = $1 AND application = $2";
    if work.connection.execute(text, &[&key(&id), &key(&scope.application)]).await? == 0 {
        return Ok(false);
    }
    let cancelled = settled::cancel_message(&work.connection, id).await?;
    let now = work.now;
    work.after_commit(move |shared| {
        for delivery in cancelled {
            shared.ended(delivery, now);
        }
    });
    Ok(true)
}
