//! One claimed delivery, from its claim to its record: in a task of its own, so that it waits for no other, and with
//! what may go wrong around an attempt (a panic, a suspect, a drain) handled in one place.

use crate::{
    Stop,
    attempt::{Attempts, Ended},
    config::Config,
    lanes::Place,
    leases::{self, RELEASE_PAUSE},
    metrics::Metrics,
    ports::Ports,
    promptness::Promptness,
    recorder::Recorder,
};
use futures_util::FutureExt;
use postrider_model::{breaker::Finding, delivery::Trigger};
use postrider_store::{
    Store,
    deliveries::{ClaimedDelivery, Deliveries, Lease},
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// A delivery during whose attempts the process died this often runs alone among its kind, so that the next death names
/// the culprit. Not from the first on: an innocent `kill -9` costs nothing.
const SUSPECT_DEATHS: u32 = 2;
/// How long after the start suspects begin. A server that is killed again and again from outside, each time just after
/// its start, must not find the same innocent delivery guilty of all three deaths.
const SUSPECTS_AFTER: Duration = Duration::from_secs(1);

/// What a claimed delivery needs on its way.
pub(crate) struct Dispatch {
    store: Arc<dyn Store>,
    attempts: Attempts,
    recorder: Recorder,
    promptness: Promptness,
    suspects: Semaphore,
    started: Instant,
    metrics: Metrics,
    stop: Stop,
}

/// Does the delivery have to run alone among its kind?
pub(crate) fn is_suspect(claimed: &ClaimedDelivery) -> bool {
    claimed.deaths >= SUSPECT_DEATHS
}

impl Dispatch {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        ports: Ports,
        config: Config,
        metrics: Metrics,
        stop: Stop,
    ) -> Self {
        Self {
            attempts: Attempts::new(Arc::clone(&store), ports, config),
            recorder: Recorder::new(Arc::clone(&store) as Arc<dyn Deliveries>, metrics.clone()),
            promptness: Promptness::default(),
            suspects: Semaphore::new(1),
            started: Instant::now(),
            store,
            metrics,
            stop,
        }
    }

    /// Results wait for the store: whoever claims more would send what cannot be recorded.
    pub(crate) fn is_stuck(&self) -> bool {
        self.recorder.is_stuck()
    }

    /// Whether deliveries keep up.
    pub(crate) fn promptness(&self) -> &Promptness {
        &self.promptness
    }

    /// Brings a delivery to its end on this node, and frees its place.
    pub(crate) async fn bring(self: Arc<Self>, claimed: ClaimedDelivery, mut place: Place) {
        tokio::select! {
            biased;
            () = self.stop.abandoned.cancelled() => {}
            () = leases::see_through(&*self.store, claimed.lease, &self.metrics, self.work(&claimed, &mut place)) => return,
        }
        // What was sent and is not recorded is not given back: the store books it as interrupted. Given back it would be
        // sent again as if it never had been.
        if !place.has_sent() {
            leases::try_release(&*self.store, vec![claimed.lease]).await;
        }
    }

    /// Gives back what was claimed and has no place.
    pub(crate) async fn give_back(self: Arc<Self>, surplus: Vec<Lease>) {
        tokio::select! {
            biased;
            () = leases::release(&*self.store, surplus) => {}
            () = self.stop.abandoned.cancelled() => {}
        }
    }

    async fn work(&self, claimed: &ClaimedDelivery, place: &mut Place) {
        let Some(_turn) = self.turn(claimed).await else {
            return self.release(claimed).await;
        };
        place.begin();
        match self.attempt(claimed, place).await {
            Ended::Attempted(record, finding) => {
                self.metrics.attempt_ended(record.attempt.outcome, record.attempt.duration);
                place.ended(finding, record.attempt.duration, self.attempts.jitter());
                if finding == Finding::Well && claimed.number == 1 && claimed.trigger == Trigger::Scheduled {
                    self.promptness.note(record.attempt.started_at.since(claimed.due_at));
                }
                self.recorder.store(*record).await;
            }
            Ended::Withheld => self.release(claimed).await,
            // Lost or void leases are nothing to the store; but it may also be unable to note the start.
            Ended::NotWanted | Ended::LeaseLost => {
                let _ = tokio::time::timeout(RELEASE_PAUSE, self.stop.draining.cancelled()).await;
                self.release(claimed).await;
            }
        }
    }

    /// Waits until the delivery may begin: suspects one at a time and not right after the start, everything else at
    /// once, and nothing in a drain.
    async fn turn(&self, claimed: &ClaimedDelivery) -> Option<Option<SemaphorePermit<'_>>> {
        if self.stop.draining.is_cancelled() {
            return None;
        }
        if !is_suspect(claimed) {
            return Some(None);
        }
        tokio::select! {
            biased;
            () = self.stop.draining.cancelled() => None,
            permit = self.suspect_turn() => permit.map(Some),
        }
    }

    async fn suspect_turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::sleep_until(self.started + SUSPECTS_AFTER).await;
        self.suspects.acquire().await.ok()
    }

    /// The attempt; a panic in it is a failed attempt that its owner can see, retried by the schedule.
    async fn attempt(&self, claimed: &ClaimedDelivery, place: &mut Place) -> Ended {
        let run = self.attempts.begin();
        let attempt = AssertUnwindSafe(self.attempts.run(claimed, &run, place));
        let ended = attempt.catch_unwind().await.unwrap_or_else(|_| {
            self.metrics.panics.inc();
            self.attempts.defect(claimed, &run)
        });
        // What was withheld is no attempt.
        if matches!(ended, Ended::Attempted(..)) {
            self.metrics.attempt_started(run.lag(claimed));
        }
        ended
    }

    async fn release(&self, claimed: &ClaimedDelivery) {
        leases::release(&*self.store, vec![claimed.lease]).await;
    }
}
