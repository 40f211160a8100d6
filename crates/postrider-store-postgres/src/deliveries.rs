//! Deliveries: the contract's calls. Claiming is [`crate::claim`], storing results [`crate::record`].

use crate::{
    PostgresStore,
    accept::{PENDING, PendingColumns},
    claim,
    coming::Committing,
    connection::Connection,
    endpoint_rows,
    failure::{Failure, Refusal},
    idempotency::{self, Kind},
    in_flight::Begun,
    message_rows,
    messages::CHUNK,
    progress, record,
    values::{Span, key, number_at, rows},
    work::Work,
};
use async_trait::async_trait;
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    endpoint::Endpoint,
    id::{EndpointId, MessageId},
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
use std::sync::Arc;
use tokio::sync::Notify;

#[async_trait]
impl Deliveries for PostgresStore {
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
        // Nothing is sent that may still run when the lease of this node ends.
        let may_begin = !shared.is_closed() && shared.may_begin() && shared.owns(lease.delivery.endpoint);
        if !may_begin || !shared.agenda().may_start(lease) {
            return false;
        }
        let begun =
            Begun { delivery: lease.delivery, number, started_at: shared.clock.now(), url: url.to_owned() };
        let slot = shared.in_flight.begin(&begun);
        let began = shared.agenda().began(lease, slot);
        let (starts, unused) = began.map_or_else(|slot| (false, Some(slot)), |earlier| (true, earlier));
        if let Some(unused) = unused {
            shared.in_flight.given_back(unused);
        }
        starts
    }

    async fn record(&self, records: Vec<AttemptRecord>) -> Vec<Result<Recorded, StoreError>> {
        record::all(&self.shared, records).await
    }

    async fn release(&self, leases: Vec<Lease>) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        for lease in leases {
            let slot = self.shared.agenda().released(&lease, now);
            if let Some(slot) = slot {
                self.shared.in_flight.given_back(slot);
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
        let (application, scope) = (scope.application, scope.clone());
        let change = self.shared.change_in(scope.environment.clone(), Some(application), move |work| {
            Box::pin(async move { resend(work, &scope, message, endpoint, idempotency.as_ref()).await })
        });
        Ok(change.await?)
    }

    async fn destinations(
        &self,
        scope: &AppScope,
        message: MessageId,
        page: PageRequest<EndpointId>,
    ) -> Result<Page<Destination>, StoreError> {
        Ok(destinations(&*self.shared.reader_of(&scope.environment).await?, scope, message, &page).await?)
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
        let connection = self.shared.reader_of(&scope.environment).await?;
        let stored = endpoint_rows::of_id(&connection, scope.application, endpoint).await?;
        let Some(stored) = stored else { return Ok(Page { items: Vec::new(), done: true }) };
        let wanted = Wanted { filter, kind, with_payload };
        Ok(endpoint_messages(&connection, &stored, &wanted, &page).await?)
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

async fn resend(
    work: &mut Work,
    scope: &AppScope,
    message: MessageId,
    endpoint: EndpointId,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Created<DeliveryId>, Failure> {
    let (connection, now) = (&work.connection, work.now);
    let recalled =
        idempotency::recall(connection, &scope.environment, idempotency, Kind::Resend, now).await?;
    if let Some(generation) = recalled.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes) {
        return Ok(Created { item: DeliveryId { message, endpoint, generation }, replayed: true });
    }
    let stored =
        endpoint_rows::of_id(connection, scope.application, endpoint).await?.ok_or(Refusal::Missing)?;
    // Its payload stays until the commit, and then what was expunged meanwhile cancels this delivery too.
    connection.query("SELECT 1 FROM message WHERE id = $1 FOR SHARE", &[&key(&message)]).await?;
    let found =
        message_rows::of_id(connection, scope.application, message, true).await?.ok_or(Refusal::Missing)?;
    let payload = found.payload.ok_or(Refusal::PayloadGone)?;
    let row = connection
        .first_row(
            "SELECT 1 + greatest(
                (SELECT max(generation) FROM pending WHERE message = $1 AND endpoint = $2),
                (SELECT max(generation) FROM delivery WHERE message = $1 AND endpoint = $2), 0)",
            &[&key(&message), &key(&endpoint)],
        )
        .await?;
    let generation = row.map(|row| number_at(&row, 0)).transpose()?.unwrap_or(1);
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
    connection.execute(PENDING, &PendingColumns::of(std::iter::once(&handed)).values()).await?;
    // Goes with the effects of a change that does not happen.
    let committing = Committing::begin(Arc::clone(&work.shared), std::iter::once(delivery));
    let created = generation.to_be_bytes();
    idempotency::remember(connection, &scope.environment, idempotency, Kind::Resend, &created, now).await?;
    let held = stored.disabled.is_some();
    work.after_commit(move |shared| {
        committing.hand_over(handed, held, now);
        committing.handed_over();
        shared.claimable.notify_one();
    });
    Ok(Created { item: delivery, replayed: false })
}

async fn destinations(
    connection: &Connection,
    scope: &AppScope,
    message: MessageId,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Destination>, Failure> {
    let span = Span::of_ids(page, Window::default());
    if message_rows::of_id(connection, scope.application, message, false).await?.is_none() {
        return Ok(Page { items: Vec::new(), done: true });
    }
    let text = format!(
        "SELECT {} FROM endpoint
         WHERE id IN (SELECT endpoint FROM pending WHERE message = $1 AND endpoint >= $2 AND endpoint < $3
                      UNION ALL
                      SELECT endpoint FROM delivery WHERE message = $1 AND endpoint >= $2 AND endpoint < $3)
         ORDER BY id {} LIMIT $4",
        endpoint_rows::COLUMNS,
        span.direction()
    );
    let most = rows(page.limit).saturating_add(1);
    let read = connection.query(&text, &[&key(&message), &span.low, &span.high, &most]).await?;
    let endpoints: Vec<Endpoint> = read.iter().map(endpoint_rows::read).collect::<Result<_, _>>()?;
    let pairs: Vec<_> = endpoints.iter().map(|endpoint| (message, endpoint.id)).collect();
    let progress = progress::of_pairs(connection, &pairs).await?;
    let with_progress = |endpoint: Endpoint| {
        let progress = progress::held(*progress.get(&(message, endpoint.id))?, endpoint.disabled.is_some());
        Some(Destination { endpoint, progress })
    };
    let found = endpoints.into_iter().filter_map(with_progress).collect();
    Ok(Page::from_rows(found, page.limit, page.backward))
}

async fn endpoint_messages(
    connection: &Connection,
    endpoint: &Endpoint,
    wanted: &Wanted,
    page: &PageRequest<MessageId>,
) -> Result<Page<EndpointMessage>, Failure> {
    let mut span = Span::of_ids(page, wanted.filter.window);
    let direction = span.direction();
    // A resent message has several deliveries here: it is listed once.
    let text = format!(
        "SELECT {} FROM (
            (SELECT DISTINCT message FROM pending WHERE endpoint = $1 AND message >= $2 AND message < $3
             ORDER BY message {direction} LIMIT $4)
            UNION
            (SELECT DISTINCT message FROM delivery WHERE endpoint = $1 AND message >= $2 AND message < $3
             ORDER BY message {direction} LIMIT $4)) AS of_endpoint
         JOIN message ON message.id = of_endpoint.message
         ORDER BY message.id {direction} LIMIT $4",
        message_rows::COLUMNS
    );
    let chunk = CHUNK.max(page.limit + 1);
    let mut found: Vec<EndpointMessage> = Vec::new();
    loop {
        let values = (key(&endpoint.id), rows(chunk));
        let read = connection.query(&text, &[&values.0, &span.low, &span.high, &values.1]).await?;
        let mut messages = Vec::with_capacity(read.len());
        for row in &read {
            let message = message_rows::read(row, false)?;
            span.after(key(&message.message.id));
            if message_rows::passes(&wanted.filter, &message.message) {
                messages.push(message);
            }
        }
        let pairs: Vec<_> = messages.iter().map(|message| (message.message.id, endpoint.id)).collect();
        let progress = progress::of_pairs(connection, &pairs).await?;
        for message in messages {
            let Some(progress) = progress.get(&(message.message.id, endpoint.id)) else { continue };
            let progress = progress::held(*progress, endpoint.disabled.is_some());
            if wanted.kind.is_none_or(|kind| kind == progress::kind(&progress)) {
                found.push(EndpointMessage { message, progress });
            }
        }
        if read.len() < chunk || found.len() > page.limit {
            break;
        }
    }
    found.truncate(page.limit + 1);
    if wanted.with_payload {
        message_rows::add_payloads(connection, found.iter_mut().map(|found| &mut found.message)).await?;
    }
    Ok(Page::from_rows(found, page.limit, page.backward))
}
