//! Deliveries: the contract's calls. Claiming is [`crate::claim`], storing results [`crate::record`].

use crate::{
    SqliteStore,
    accept::insert_delivery,
    claim, endpoint_rows,
    failure::{Failure, Refusal},
    idempotency::{self, Kind},
    in_flight::Begun,
    message_rows, messages, progress, record,
    values::{Span, key},
    writer::Scope,
};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    id::{EndpointId, MessageId},
    limits::PAGE_BYTES,
    time::Timestamp,
};
use postrider_store::{
    StoreError,
    agenda::Handed,
    deliveries::{
        AttemptRecord, Claimed, Deferred, Deliveries, Destination, EndpointMessage, Lease, ProgressKind,
        Recorded, ResendError, Room,
    },
    endpoints::AppScope,
    idempotency::{Created, IdempotencyKey},
    messages::MessageFilter,
    page::{Page, PageRequest, Window},
};
use rusqlite::{Connection, params};
use tokio::sync::Notify;

#[async_trait]
impl Deliveries for SqliteStore {
    async fn claim(&self, room: &Room) -> Result<Claimed, StoreError> {
        claim::claim(&self.shared, room).await
    }

    fn claimable(&self) -> &Notify {
        &self.shared.claimable
    }

    fn defer(&self, whose: Deferred, until: Timestamp) {
        self.shared.agenda().defer(whose, until, self.shared.clock.now());
        self.shared.claimable.notify_one();
    }

    fn started(&self, lease: &Lease, number: u32, url: &str) -> bool {
        let shared = &self.shared;
        if shared.is_closed() || shared.disk.broken().is_some() || !shared.agenda().may_start(lease) {
            return false;
        }
        let begun =
            Begun { delivery: lease.delivery, number, started_at: shared.clock.now(), url: url.to_owned() };
        match shared.in_flight.begin(&begun) {
            Ok(slot) => {
                let began = shared.agenda().began(lease, slot);
                let (starts, unused) =
                    began.map_or_else(|slot| (false, Some(slot)), |earlier| (true, earlier));
                if let Some(unused) = unused {
                    shared.in_flight.end(unused);
                }
                starts
            }
            // Without a note a killer would be sent for ever; the delivery stays due.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                let full = StoreError::Full { detail: "no space is left for the in-flight file".to_owned() };
                shared.disk.failed(Some(rusqlite::ErrorCode::DiskFull), &full);
                false
            }
            Err(error) => {
                tracing::error!(%error, "the in-flight file cannot be written; nothing is sent");
                false
            }
        }
    }

    async fn record(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>> {
        record::all(&self.shared, records).await
    }

    async fn release(&self, leases: Vec<Lease>) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        for lease in leases {
            let slot = self.shared.agenda().released(&lease, now);
            if let Some(slot) = slot {
                self.shared.in_flight.end(slot);
            }
        }
        self.shared.claimable.notify_one();
        Ok(())
    }

    async fn resend(
        &self,
        scope: &AppScope,
        message: MessageId,
        endpoint: EndpointId,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Created<DeliveryId>, ResendError> {
        let scope = scope.clone();
        let resend =
            move |work: &mut Scope<'_>| resend(work, &scope, message, endpoint, idempotency.as_ref());
        Ok(self.shared.change(resend).await?)
    }

    async fn destinations(
        &self,
        scope: &AppScope,
        message: MessageId,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Destination>, StoreError> {
        let scope = scope.clone();
        let read = move |connection: &Connection| destinations(connection, &scope, message, &page);
        Ok(self.shared.readers.read(read).await?)
    }

    async fn endpoint_messages(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        filter: MessageFilter,
        kind: Option<ProgressKind>,
        with_payload: bool,
        page: PageRequest<MessageId>,
    ) -> Result<Page<EndpointMessage>, StoreError> {
        let scope = scope.clone();
        let wanted = Wanted { filter, kind, with_payload };
        let read =
            move |connection: &Connection| endpoint_messages(connection, &scope, endpoint, &wanted, &page);
        Ok(self.shared.readers.read(read).await?)
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.shared.agenda().next_due())
    }
}

/// Which messages of an endpoint are wanted.
struct Wanted {
    filter: MessageFilter,
    kind: Option<ProgressKind>,
    with_payload: bool,
}

fn resend(
    work: &mut Scope<'_>,
    scope: &AppScope,
    message: MessageId,
    endpoint: EndpointId,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<DeliveryId>, Failure> {
    let (connection, now) = (work.connection, work.now);
    let recalled = idempotency::recall(connection, &scope.environment, idempotency, Kind::Resend, now)?;
    if let Some(generation) = recalled.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) {
        return Ok(Created { item: DeliveryId { message, endpoint, generation }, replayed: true });
    }
    let stored = endpoint_rows::of_id(connection, scope.application, endpoint)?.ok_or(Refusal::Missing)?;
    let found = message_rows::of_id(connection, scope.application, message, true)?.ok_or(Refusal::Missing)?;
    let payload = found.payload.ok_or(Refusal::PayloadGone)?;
    let generation: u32 = connection
        .prepare_cached(
            "SELECT COALESCE(MAX(generation), 0) + 1 FROM delivery WHERE message = ?1 AND endpoint = ?2",
        )?
        .query_row(params![key(&message), key(&endpoint)], |row| row.get(0))?;
    let delivery = DeliveryId { message, endpoint, generation };
    let age = endpoint_rows::delivery_age(&stored, work.shared.config.delivery_deadline_seconds);
    let handed = Handed {
        delivery,
        scope: scope.clone(),
        attempts: 0,
        trigger: Trigger::Manual,
        payload: Some(payload),
        content_type: found.message.content_type,
        accepted_at: found.message.created_at,
        due_at: now,
        deadline_at: now.plus(age),
        deaths: 0,
    };
    insert_delivery(connection, &handed)?;
    let created = generation.to_be_bytes();
    idempotency::remember(connection, &scope.environment, idempotency, Kind::Resend, &created, now)?;
    let held = stored.disabled.is_some();
    work.after_commit(move |shared| {
        shared.agenda().hand_over(handed, held, now);
        shared.claimable.notify_one();
    });
    Ok(Created { item: delivery, replayed: false })
}

fn destinations(
    connection: &Connection,
    scope: &AppScope,
    message: MessageId,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Destination>, Failure> {
    let span = Span::of_ids(page, Window::default());
    if message_rows::of_id(connection, scope.application, message, false)?.is_none() {
        return Ok(Page { items: Vec::new(), done: true });
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM endpoint
         WHERE id IN (SELECT endpoint FROM delivery WHERE message = ?1 AND endpoint >= ?2 AND endpoint < ?3)
         ORDER BY id {} LIMIT ?4",
        endpoint_rows::COLUMNS,
        span.direction()
    ))?;
    let most = i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = statement.query(params![key(&message), span.low, span.high, most])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let endpoint = endpoint_rows::read(row)?;
        let progress = progress::of(connection, message, endpoint.id, endpoint.disabled.is_some())?;
        found.extend(progress.map(|progress| Destination { endpoint, progress }));
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}

fn endpoint_messages(
    connection: &Connection,
    scope: &AppScope,
    endpoint: EndpointId,
    wanted: &Wanted,
    page: &PageRequest<MessageId>,
) -> Result<Page<EndpointMessage>, Failure> {
    let Some(stored) = endpoint_rows::of_id(connection, scope.application, endpoint)? else {
        return Ok(Page { items: Vec::new(), done: true });
    };
    let span = Span::of_ids(page, wanted.filter.window);
    // A resent message has several deliveries here, one behind the other: it is listed once. CROSS keeps the walk along
    // the endpoint's index, so that reading stops where the page is full.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM delivery INDEXED BY delivery_endpoint
         CROSS JOIN message ON message.id = delivery.message {}
         WHERE delivery.endpoint = ?1 AND delivery.message >= ?2 AND delivery.message < ?3
         ORDER BY delivery.message {}",
        message_rows::columns(wanted.with_payload),
        message_rows::join(wanted.with_payload),
        span.direction()
    ))?;
    let mut rows = statement.query(params![key(&endpoint), span.low, span.high])?;
    let mut found: Vec<EndpointMessage> = Vec::new();
    let mut previous = None;
    let mut bytes = 0;
    while found.len() <= page.limit
        && bytes <= PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let message = message_rows::read(row, wanted.with_payload)?;
        let again = previous.replace(message.message.id) == Some(message.message.id);
        if again || !message_rows::passes(&wanted.filter, &message.message) {
            continue;
        }
        let progress = progress::of(connection, message.message.id, endpoint, stored.disabled.is_some())?;
        if let Some(progress) = progress
            && wanted.kind.is_none_or(|kind| kind == progress::kind(&progress))
        {
            bytes += messages::size(&message);
            found.push(EndpointMessage { message, progress });
        }
    }
    Ok(Page::from_sized_rows(found, page.limit, page.backward, |item| messages::size(&item.message)))
}
