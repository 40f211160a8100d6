//! Attempts: the history as it can be read.

use super::{Disk, ModelStore, paging};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    attempt::Attempt,
    delivery::{Progress, State},
    id::{AttemptId, EndpointId, MessageId},
    outcome::Outcome,
};
use postrider_store::{
    StoreError,
    attempts::{AttemptFilter, Attempts, AttemptsOf, EndpointStats, ListedAttempt},
    endpoints::AppScope,
    page::{Page, PageRequest, Window},
};

#[async_trait]
impl Attempts for ModelStore {
    async fn attempts(
        &self,
        scope: &AppScope,
        of: AttemptsOf,
        filter: AttemptFilter,
        with_message: bool,
        page: PageRequest<AttemptId>,
    ) -> Result<Page<ListedAttempt>, StoreError> {
        let is_of = |attempt: &Attempt| {
            let delivery = attempt.delivery;
            match of {
                AttemptsOf::Endpoint(endpoint) => delivery.endpoint == endpoint,
                AttemptsOf::Message(message) => delivery.message == message,
                AttemptsOf::MessageToEndpoint(message, endpoint) => {
                    delivery.message == message && delivery.endpoint == endpoint
                }
            }
        };
        let wanted = |attempt: &Attempt| {
            let class = attempt.status.map_or(0, |status| status / 100);
            filter.succeeded.is_none_or(|wanted| (attempt.outcome == Outcome::Succeeded) == wanted)
                && filter.status_class.is_none_or(|wanted| u16::from(wanted) == class)
                && paging::within(attempt.id, filter.message.window)
        };
        self.read(|disk| {
            let rows = disk.attempts.values().filter(|attempt| is_of(attempt) && wanted(attempt));
            let rows = rows.filter_map(|attempt| {
                let stored = disk.message_in(scope, attempt.delivery.message)?;
                let mut item = listed(disk, attempt);
                item.message = with_message.then(|| stored.message.clone());
                paging::passes(&filter.message, &stored.message).then_some((attempt.id, item))
            });
            paging::page(rows.collect(), &page)
        })
        .await
    }

    async fn attempt(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<Option<ListedAttempt>, StoreError> {
        self.read(|disk| {
            disk.message_in(scope, message)?;
            let attempt = disk.attempts.get(&id).filter(|attempt| attempt.delivery.message == message)?;
            Some(listed(disk, attempt))
        })
        .await
    }

    async fn expunge_response(
        &self,
        scope: &AppScope,
        message: MessageId,
        id: AttemptId,
    ) -> Result<bool, StoreError> {
        self.change(|disk, _| {
            if disk.message_in(scope, message).is_none() {
                return false;
            }
            let attempt = disk.attempts.get_mut(&id).filter(|attempt| attempt.delivery.message == message);
            attempt.is_some_and(|attempt| {
                (attempt.response.body, attempt.response.expunged) = (Bytes::new(), true);
                true
            })
        })
        .await
    }

    async fn endpoint_stats(
        &self,
        scope: &AppScope,
        endpoint: EndpointId,
        window: Window,
    ) -> Result<EndpointStats, StoreError> {
        self.read(|disk| {
            let mut stats = EndpointStats::default();
            if disk.endpoint_in(scope, endpoint).is_none() {
                return stats;
            }
            for attempt in disk.attempts.values().filter(|attempt| attempt.delivery.endpoint == endpoint) {
                if paging::within(attempt.id, window) {
                    let succeeded = attempt.outcome == Outcome::Succeeded;
                    *(if succeeded { &mut stats.succeeded } else { &mut stats.failed }) += 1;
                }
            }
            for (id, stored) in disk.deliveries.iter().filter(|(id, _)| id.endpoint == endpoint) {
                if !paging::within(id.message, window) {
                    continue;
                }
                match stored.state {
                    State::Pending { .. } if stored.attempts == 0 => stats.waiting += 1,
                    State::Pending { .. } => stats.retrying += 1,
                    State::Cancelled => stats.cancelled += 1,
                    State::Delivered | State::Failed(_) => {}
                }
            }
            stats
        })
        .await
    }
}

fn listed(disk: &Disk, attempt: &Attempt) -> ListedAttempt {
    let delivery = attempt.delivery;
    let newer = disk.attempts.range(attempt.id..).skip(1).any(|(_, other)| {
        other.delivery.message == delivery.message && other.delivery.endpoint == delivery.endpoint
    });
    let progress = disk.progress(delivery.message, delivery.endpoint);
    let none = Progress { state: State::Cancelled, attempts: 0, held: false };
    ListedAttempt {
        attempt: attempt.clone(),
        progress: progress.unwrap_or(none),
        latest: !newer,
        message: None,
    }
}
