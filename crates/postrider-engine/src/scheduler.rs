//! The loop that claims due deliveries and starts them. Between two rounds it waits for a reason to look again: the
//! store's hint, the next due time, a freed place; never by polling. It ends only when the engine drains.

use crate::{
    backoff::Backoff,
    dispatch::{self, Dispatch},
    lanes::Lanes,
    metrics::Metrics,
};
use postrider_model::time::Timestamp;
use postrider_store::{
    Store, StoreError,
    deliveries::{Claimed, ClaimedDelivery},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::futures::Notified, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The longest wait between two rounds: bounds what a lost hint costs, and lets `health` tell an idle loop from a dead
/// one.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// The same while due work waits for a place, or results wait for the store.
const LONGEST_REST_IN_NEED: Duration = Duration::from_secs(1);

/// The parts that the loop works with.
pub(crate) struct Scheduler {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: CancellationToken,
    pub(crate) metrics: Metrics,
}

/// When the loop last went round.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    last: Mutex<Option<Instant>>,
}

/// Why the next round may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It may not: more is due, and there is room.
    None,
    /// Nothing is due before this instant (or at all).
    UntilDue(Option<Timestamp>),
    /// What is due has no place.
    UntilFreed,
    /// The store could not answer.
    For(Duration),
}

impl Scheduler {
    pub(crate) async fn run(self: Arc<Self>) {
        let mut outage = Backoff::default();
        while !self.draining.is_cancelled() {
            // Registered before the claim: a hint that comes during it must not be lost.
            let hint = self.store.claimable().notified();
            tokio::pin!(hint);
            hint.as_mut().enable();
            let rest = self.round(&mut outage).await;
            tokio::select! {
                biased;
                () = self.draining.cancelled() => {}
                () = self.rest(rest, hint) => {}
            }
        }
    }

    async fn round(&self, outage: &mut Backoff) -> Rest {
        self.pulse.beat();
        let room = self.lanes.room();
        if room.total == 0 || self.dispatch.is_stuck() {
            return Rest::UntilFreed;
        }
        match self.store.claim(&room).await {
            Ok(claimed) => {
                if outage.reset() {
                    tracing::info!("deliveries can be claimed again");
                }
                let rest = rest_after(&claimed, self.store.clock().now());
                self.start(claimed.deliveries);
                rest
            }
            Err(error) => Rest::For(self.failed(&error, outage)),
        }
    }

    /// Starts what was claimed, each in a task of its own, and gives back what its lane cannot take.
    fn start(&self, deliveries: Vec<ClaimedDelivery>) {
        let mut surplus = Vec::new();
        for claimed in deliveries {
            let (lease, bytes) = (claimed.lease, claimed.payload.len());
            let suspect = dispatch::is_suspect(&claimed);
            let place = if suspect { self.lanes.wait(lease, bytes) } else { self.lanes.enter(lease, bytes) };
            match place {
                // In a box: the runtime moves a future several times, and this one is some kilobytes.
                Some(place) => {
                    drop(self.tasks.spawn(Box::pin(Arc::clone(&self.dispatch).bring(claimed, place))));
                }
                None => surplus.push(lease),
            }
        }
        if !surplus.is_empty() {
            drop(self.tasks.spawn(Arc::clone(&self.dispatch).give_back(surplus)));
        }
    }

    fn failed(&self, error: &StoreError, outage: &mut Backoff) -> Duration {
        self.metrics.claim_failures.inc();
        if outage.is_first() {
            tracing::error!(%error, "deliveries cannot be claimed; trying again until they can");
        }
        outage.next()
    }

    async fn rest(&self, rest: Rest, hint: std::pin::Pin<&mut Notified<'_>>) {
        match rest {
            Rest::None => {}
            Rest::For(wait) => tokio::time::sleep(wait).await,
            // In a fixed order: a run that is repeated with the same events goes the same way.
            Rest::UntilFreed => tokio::select! {
                biased;
                () = self.lanes.freed().notified() => {}
                () = hint => {}
                () = tokio::time::sleep(LONGEST_REST_IN_NEED) => {}
            },
            // A full lane may have more, whatever the claim said of the others.
            Rest::UntilDue(due) => tokio::select! {
                biased;
                () = self.lanes.freed().notified() => {}
                () = hint => {}
                () = self.store.clock().sleep_until(due.unwrap_or(Timestamp::MAX)) => {}
                () = tokio::time::sleep(LONGEST_REST) => {}
            },
        }
    }
}

/// Whether to look again at once. A claim that found nothing although something is due was short of room in one lane:
/// asking again before a place is free would only ask again.
fn rest_after(claimed: &Claimed, now: Timestamp) -> Rest {
    match claimed.next_due {
        Some(due) if due > now => Rest::UntilDue(Some(due)),
        None => Rest::UntilDue(None),
        Some(_) if claimed.deliveries.is_empty() => Rest::UntilFreed,
        Some(_) => Rest::None,
    }
}

impl Pulse {
    fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn since_last(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn the_next_round_waits_for_what_can_change_its_answer() {
        let now = samples::at();
        let later = now.plus(Duration::from_secs(9));
        let earlier = now.minus(Duration::from_secs(9));
        let rest = |deliveries, next_due| {
            let deliveries = (0..deliveries).map(|_| samples::claimed()).collect();
            rest_after(&Claimed { deliveries, next_due }, now)
        };
        assert_eq!(rest(0, None), Rest::UntilDue(None), "nothing is due");
        assert_eq!(rest(3, None), Rest::UntilDue(None), "all that was due runs");
        assert_eq!(rest(3, Some(later)), Rest::UntilDue(Some(later)));
        assert_eq!(rest(3, Some(earlier)), Rest::None, "there was more than one claim gives");
        assert_eq!(rest(0, Some(earlier)), Rest::UntilFreed, "its lane is full");
        assert_eq!(rest(0, Some(now)), Rest::UntilFreed);
    }
}
