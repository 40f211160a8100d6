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
    deliveries::{AttemptRecord, ClaimedDelivery, Deliveries, Lease},
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::task::TaskTracker;

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
    recorder: Recorder<Kept>,
    tasks: TaskTracker,
    promptness: Promptness,
    suspects: Arc<Semaphore>,
    started: Instant,
    metrics: Metrics,
    stop: Stop,
}

/// Whose turn it is among suspects; `None`: the delivery is none.
type Turn = Option<OwnedSemaphorePermit>;

/// What a delivery keeps until its result is stored.
struct Kept {
    _place: Place,
    _turn: Turn,
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
        (tasks, stop): (TaskTracker, Stop),
    ) -> Self {
        Self {
            attempts: Attempts::new(Arc::clone(&store), ports, config),
            recorder: Recorder::new(Arc::clone(&store) as Arc<dyn Deliveries>, metrics.clone()),
            tasks,
            promptness: Promptness::default(),
            suspects: Arc::new(Semaphore::new(1)),
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
        let record = tokio::select! {
            biased;
            () = self.stop.abandoned.cancelled() => {
                // What was sent and is not recorded is not given back: the store books it as interrupted. Given back it
                // would be sent again as if it never had been.
                if !place.has_sent() {
                    leases::try_release(&*self.store, vec![claimed.lease]).await;
                }
                return;
            }
            record = leases::see_through(&*self.store, claimed.lease, &self.metrics, self.work(&claimed, &mut place)) => record,
        };
        if let Some((record, turn)) = record
            && self.recorder.gather(record, Kept { _place: place, _turn: turn })
        {
            let dispatch = Arc::clone(&self);
            drop(self.tasks.spawn(async move { dispatch.record().await }));
        }
    }

    /// Stores the results of the moment, and frees their places.
    async fn record(&self) {
        tokio::select! {
            biased;
            () = self.recorder.set_out() => {}
            () = self.stop.abandoned.cancelled() => {}
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

    /// The result to record, if there is one; else the lease was given back.
    async fn work(&self, claimed: &ClaimedDelivery, place: &mut Place) -> Option<(AttemptRecord, Turn)> {
        let Some(turn) = self.turn(claimed).await else {
            self.release(claimed).await;
            return None;
        };
        place.begin();
        match self.attempt(claimed, place).await {
            Ended::Attempted(record, finding) => {
                self.metrics.attempt_ended(record.attempt.outcome, record.attempt.duration);
                place.ended(finding, record.attempt.duration, self.attempts.jitter());
                if finding == Finding::Well && claimed.number == 1 && claimed.trigger == Trigger::Scheduled {
                    self.promptness.note(record.attempt.started_at.since(claimed.due_at));
                }
                return Some((*record, turn));
            }
            Ended::Withheld => self.release(claimed).await,
            // Lost or void leases are nothing to the store; but it may also be unable to note the start.
            Ended::NotWanted | Ended::LeaseLost => {
                let _ = tokio::time::timeout(RELEASE_PAUSE, self.stop.draining.cancelled()).await;
                self.release(claimed).await;
            }
        }
        None
    }

    /// Waits until the delivery may begin: suspects one at a time and not right after the start, everything else at
    /// once, and nothing in a drain.
    async fn turn(&self, claimed: &ClaimedDelivery) -> Option<Turn> {
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

    async fn suspect_turn(&self) -> Turn {
        tokio::time::sleep_until(self.started + SUSPECTS_AFTER).await;
        Arc::clone(&self.suspects).acquire_owned().await.ok()
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
