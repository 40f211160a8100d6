//! A bounded queue of operations that share commits: while one commit runs the next batch gathers, so no timer is
//! needed. Several workers, each with a connection of its own, take from the same queue.

use crate::failure::{closing, unavailable};
use postrider_store::StoreError;
use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{Mutex, mpsc, oneshot};

/// How long a caller waits for a place in the queue before it is told to come back.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// An operation with whom to answer.
pub(crate) type Item<I, O> = (I, oneshot::Sender<O>);

/// The queue.
pub(crate) struct Queue<I, O> {
    /// `None` once the store closes; the workers end when the queue is empty.
    sender: RwLock<Option<mpsc::Sender<Item<I, O>>>>,
    receiver: Mutex<mpsc::Receiver<Item<I, O>>>,
    batch: usize,
}

impl<I: Send, O: Send> Queue<I, O> {
    /// With room for so many operations, of which so many share a commit.
    pub(crate) fn new(room: usize, batch: usize) -> Self {
        let (sender, receiver) = mpsc::channel(room.max(1));
        Self { sender: RwLock::new(Some(sender)), receiver: Mutex::new(receiver), batch: batch.max(1) }
    }

    /// Puts an operation into the queue; the answer comes after its commit.
    pub(crate) async fn submit(&self, item: I) -> Result<oneshot::Receiver<O>, StoreError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else { return Err(closing()) };
        let (reply, answer) = oneshot::channel();
        match tokio::time::timeout(QUEUE_WAIT, sender.send((item, reply))).await {
            Ok(Ok(())) => Ok(answer),
            Ok(Err(_)) => Err(closing()),
            Err(_) => Err(unavailable("too many writes wait for the database".to_owned())),
        }
    }

    /// The next batch, at least one; `None` when the store closes and nothing is left.
    pub(crate) async fn next(&self) -> Option<Vec<Item<I, O>>> {
        let mut receiver = self.receiver.lock().await;
        let mut batch = Vec::new();
        (receiver.recv_many(&mut batch, self.batch).await > 0).then_some(batch)
    }

    /// Takes nothing more; what waits is still done.
    pub(crate) fn close(&self) {
        self.sender.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The answer of an operation.
pub(crate) async fn answered<O>(answer: oneshot::Receiver<O>) -> Result<O, StoreError> {
    answer.await.map_err(|_| StoreError::Internal { detail: "a batch of writes ended abnormally".to_owned() })
}
