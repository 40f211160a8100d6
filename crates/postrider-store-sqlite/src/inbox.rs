//! The writer's inbox: operations that wait for it, bounded, and whether the log is being synced. The writer sleeps here,
//! and nowhere else.

use crate::writer::Queued;
use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, Semaphore, TryAcquireError};

/// What waits for the writer.
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Free places; closed with the inbox.
    places: Semaphore,
    /// A commit is being made durable. Cleared only once memory shows what the commit did.
    syncing: AtomicBool,
    /// Notified whenever that ends.
    synced: Notify,
}

struct State {
    waiting: VecDeque<Queued>,
    /// The writer sleeps: whoever changes something wakes it.
    asleep: bool,
    closed: bool,
}

/// Why an operation was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All places stayed taken.
    Full,
    Closed,
}

impl Inbox {
    /// Empty, with so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            state: Mutex::new(State { waiting: VecDeque::new(), asleep: false, closed: false }),
            changed: Condvar::new(),
            places: Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)),
            syncing: AtomicBool::new(false),
            synced: Notify::new(),
        }
    }

    /// Puts an operation in; waits so long for a place.
    pub(crate) async fn put(&self, operation: Queued, patience: Duration) -> Result<(), Refused> {
        if let Ok(place) = self.places.try_acquire() {
            place.forget();
            return self.push(operation);
        }
        match tokio::time::timeout(patience, self.places.acquire()).await {
            Ok(Ok(place)) => place.forget(),
            Ok(Err(_)) => return Err(Refused::Closed),
            Err(_) => return Err(Refused::Full),
        }
        self.push(operation)
    }

    /// Puts an operation in if there is a place.
    pub(crate) fn try_put(&self, operation: Queued) -> Result<(), Refused> {
        let refused = |error| match error {
            TryAcquireError::NoPermits => Refused::Full,
            TryAcquireError::Closed => Refused::Closed,
        };
        self.places.try_acquire().map_err(refused)?.forget();
        self.push(operation)
    }

    fn push(&self, operation: Queued) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.waiting.push_back(operation);
        self.wake(state);
        Ok(())
    }

    /// Takes no more operations; those that wait are still handed out.
    pub(crate) fn close(&self) {
        self.places.close();
        let mut state = self.state();
        state.closed = true;
        self.wake(state);
    }

    /// What waits, once nobody will come for it.
    pub(crate) fn abandoned(&self) -> VecDeque<Queued> {
        std::mem::take(&mut self.state().waiting)
    }

    /// Waits for operations and moves up to so many. `false` when there will be none.
    pub(crate) fn wait(&self, into: &mut Vec<Queued>, most: usize) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            state = self.sleep(state);
        }
        self.take(&mut state, into, most);
        true
    }

    /// While the log is being synced: moves what came meanwhile, up to so many in all, or waits for it. `false` once the
    /// log is free and a commit may begin: those who come now wait for the next one, else those who came first would.
    pub(crate) fn more(&self, into: &mut Vec<Queued>, most: usize) -> bool {
        let mut state = self.state();
        while self.is_syncing() {
            if !state.waiting.is_empty() && into.len() < most {
                let left = most - into.len();
                self.take(&mut state, into, left);
                return true;
            }
            state = self.sleep(state);
        }
        false
    }

    /// Returns once all that a reader can have seen by now is durable.
    pub(crate) async fn durable(&self) {
        let synced = self.synced.notified();
        tokio::pin!(synced);
        // Before the look: an end in between must not be missed.
        synced.as_mut().enable();
        if self.is_syncing() {
            synced.await;
        }
    }

    /// Is a commit being made durable whose effects memory may not show yet?
    pub(crate) fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Acquire)
    }

    /// A commit begins, which readers see before it is synced.
    pub(crate) fn sync_began(&self) {
        self.syncing.store(true, Ordering::Release);
    }

    /// It is durable and its effects are in memory, or it failed.
    pub(crate) fn sync_ended(&self) {
        self.syncing.store(false, Ordering::Release);
        self.synced.notify_waiters();
        self.wake(self.state());
    }

    fn take(&self, state: &mut State, into: &mut Vec<Queued>, most: usize) {
        let count = state.waiting.len().min(most);
        into.extend(state.waiting.drain(..count));
        self.places.add_permits(count);
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.asleep = true;
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
