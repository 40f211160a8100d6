//! Messages: reading them and deleting payloads. Accepting them is [`crate::accept`].

use crate::{
    SqliteStore, accept,
    failure::Failure,
    message_rows, payload_rows, snapshots,
    values::{Span, id_at, key},
    writer::{Isolation, Scope},
};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    application::Ref,
    delivery::DeliveryId,
    event_type::EventTypeName,
    id::MessageId,
    limits::PAGE_BYTES,
    message::{Channel, MessageWithPayload},
};
use postrider_store::{
    StoreError, WriteError,
    endpoints::AppScope,
    messages::{Accepted, MessageFilter, Messages, NewMessage},
    page::{Page, PageRequest},
};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

#[async_trait]
impl Messages for SqliteStore {
    async fn accept(&self, messages: Vec<NewMessage>) -> Vec<Result<Accepted, WriteError>> {
        accept::all(&self.shared, messages).await
    }

    async fn message(
        &self,
        scope: &AppScope,
        reference: &Ref<MessageId>,
    ) -> Result<Option<MessageWithPayload>, StoreError> {
        let (application, reference) = (scope.application, reference.clone());
        let find = move |connection: &Connection| match &reference {
            Ref::Id(id) => message_rows::of_id(connection, application, *id, true),
            Ref::Uid(uid) => message_rows::of_event_id(connection, application, uid, true),
        };
        Ok(self.shared.readers.read(find).await?)
    }

    async fn messages(
        &self,
        scope: &AppScope,
        filter: MessageFilter,
        with_payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<MessageWithPayload>, StoreError> {
        let scope = scope.clone();
        let read = move |connection: &Connection| list(connection, &scope, &filter, with_payload, &page);
        Ok(self.shared.readers.read(read).await?)
    }

    async fn expunge_payload(&self, scope: &AppScope, id: MessageId) -> Result<bool, StoreError> {
        let scope = scope.clone();
        Ok(self.shared.write(Isolation::Own, move |work| expunge(work, &scope, id)).await?)
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

fn list(
    connection: &Connection,
    scope: &AppScope,
    filter: &MessageFilter,
    with_payload: bool,
    page: &PageRequest<MessageId>,
) -> Result<Page<MessageWithPayload>, Failure> {
    let span = Span::of_ids(page, filter.window);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM message INDEXED BY message_application {}
         WHERE message.application = ?1 AND message.id >= ?2 AND message.id < ?3 ORDER BY message.id {}",
        message_rows::columns(with_payload),
        message_rows::join(with_payload),
        span.direction()
    ))?;
    let mut rows = statement.query(params![key(&scope.application), span.low, span.high])?;
    let mut found = Vec::new();
    let mut bytes = 0;
    // Rows come one by one, in the order of the index: reading stops where the page is full.
    while found.len() <= page.limit
        && bytes <= PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let message = message_rows::read(row, with_payload)?;
        if message_rows::passes(filter, &message.message) {
            bytes += size(&message);
            found.push(message);
        }
    }
    Ok(Page::from_sized_rows(found, page.limit, page.backward, size))
}

/// Bytes of the payload that was read.
pub(crate) fn size(message: &MessageWithPayload) -> usize {
    message.payload.as_ref().map_or(0, Bytes::len)
}

/// Deletes a payload; what cannot be sent any more is cancelled.
fn expunge(work: &mut Scope<'_>, scope: &AppScope, id: MessageId) -> Result<bool, Failure> {
    if message_rows::of_id(work.connection, scope.application, id, false)?.is_none() {
        return Ok(false);
    }
    payload_rows::delete_of(work.connection, scope.application, id)?;
    let cancelled: Vec<DeliveryId> = work
        .connection
        .prepare_cached(
            "UPDATE delivery SET state = 3 WHERE message = ?1 AND state = 0 RETURNING endpoint, generation",
        )?
        .query_map([key(&id)], |row| {
            Ok(DeliveryId { message: id, endpoint: id_at(row, 0)?, generation: row.get(1)? })
        })?
        .collect::<Result<_, _>>()?;
    let now = work.now;
    work.after_commit(move |shared| {
        let mut agenda = shared.agenda();
        for delivery in cancelled {
            agenda.settled(delivery, now);
        }
    });
    Ok(true)
}
