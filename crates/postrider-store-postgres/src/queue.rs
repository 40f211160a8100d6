//! A bounded queue of operations that share commits: while one commit runs the next batch gathers, so no timer is
//! needed. Several workers, each with a connection of its own, take from the same queue; but as long as few operations
//! wait, one commit follows the other: what a commit costs by itself is then shared by twice as many.

use crate::failure::{closing, unavailable};
use postrider_store::StoreError;
use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

/// How long a caller waits for a place in the queue before it is told to come back.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// So many must wait for another commit to begin beside one that runs. With commits of 5 ms one after the other serves
/// 25,000 operations a second; where more come than that, more wait than this.
const BESIDE: usize = 128;

/// An operation with whom to answer.
pub(crate) type Item<I, O> = (I, oneshot::Sender<O>);

/// The queue.
pub(crate) struct Queue<I, O> {
    /// `None` once the store closes; the workers end when the queue is empty.
    sender: RwLock<Option<mpsc::Sender<Item<I, O>>>>,
    receiver: Mutex<mpsc::Receiver<Item<I, O>>>,
    batch: usize,
    /// Batches that were taken and not ended.
    running: AtomicUsize,
    /// One of them ended, or enough wait.
    news: Notify,
}

/// A batch, until its commit ended.
pub(crate) struct Batch<'q, I, O> {
    queue: &'q Queue<I, O>,
    pub(crate) items: Vec<Item<I, O>>,
}

impl<I, O> Batch<'_, I, O> {
    /// The commit ended: the next one begins, while these are answered.
    pub(crate) fn ended(mut self) -> Vec<Item<I, O>> {
        std::mem::take(&mut self.items)
    }
}

impl<I, O> Drop for Batch<'_, I, O> {
    fn drop(&mut self) {
        self.queue.running.fetch_sub(1, Ordering::Relaxed);
        self.queue.news.notify_one();
    }
}

impl<I: Send, O: Send> Queue<I, O> {
    /// With room for so many operations, of which so many share a commit.
    pub(crate) fn new(room: usize, batch: usize) -> Self {
        let (sender, receiver) = mpsc::channel(room.max(1));
        Self {
            sender: RwLock::new(Some(sender)),
            receiver: Mutex::new(receiver),
            batch: batch.max(1),
            running: AtomicUsize::new(0),
            news: Notify::new(),
        }
    }

    /// Puts an operation into the queue; the answer comes after its commit.
    pub(crate) async fn submit(&self, item: I) -> Result<oneshot::Receiver<O>, StoreError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else { return Err(closing()) };
        let (reply, answer) = oneshot::channel();
        match tokio::time::timeout(QUEUE_WAIT, sender.send((item, reply))).await {
            Ok(Ok(())) => {
                if sender.max_capacity() - sender.capacity() >= BESIDE {
                    self.news.notify_one();
                }
                Ok(answer)
            }
            Ok(Err(_)) => Err(closing()),
            Err(_) => Err(unavailable("too many writes wait for the database".to_owned())),
        }
    }

    /// The next batch, at least one; `None` when the store closes and nothing is left.
    pub(crate) async fn next(&self) -> Option<Batch<'_, I, O>> {
        let mut receiver = self.receiver.lock().await;
        let mut items = Vec::new();
        // Waits for the first; its commit begins when it is this worker's turn, with what came meanwhile.
        if receiver.recv_many(&mut items, 1).await == 0 {
            return None;
        }
        while self.running.load(Ordering::Relaxed) > 0 && receiver.len() < BESIDE {
            self.news.notified().await;
        }
        while items.len() < self.batch
            && let Ok(item) = receiver.try_recv()
        {
            items.push(item);
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Some(Batch { queue: self, items })
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn one_commit_follows_the_other_until_many_wait() {
        let queue = Arc::new(Queue::<usize, ()>::new(1000, 1000));
        queue.submit(0).await.unwrap();
        let first = queue.next().await.unwrap();
        let other = Arc::clone(&queue);
        let second = tokio::spawn(async move { other.next().await.unwrap().ended().len() });
        for number in 1..=20 {
            queue.submit(number).await.unwrap();
        }
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "few wait: their commit comes after the first");
        drop(first);
        assert_eq!(second.await.unwrap(), 20);
        queue.submit(0).await.unwrap();
        let _running = queue.next().await.unwrap();
        for number in 0..=BESIDE {
            queue.submit(number).await.unwrap();
        }
        let many = tokio::time::timeout(Duration::from_secs(5), queue.next()).await;
        assert_eq!(many.unwrap().unwrap().items.len(), BESIDE + 1);
    }

    #[tokio::test]
    async fn what_waits_is_still_done_when_the_queue_closes() {
        let queue = Queue::<u8, ()>::new(10, 10);
        queue.submit(1).await.unwrap();
        queue.close();
        assert!(queue.submit(2).await.is_err());
        assert_eq!(queue.next().await.unwrap().items.len(), 1);
        assert!(queue.next().await.is_none());
    }
}
