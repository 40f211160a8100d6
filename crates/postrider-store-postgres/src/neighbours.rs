//! Asking the node that serves an endpoint, by wake-ups: one goes out with a number, whoever serves the endpoint answers with
//! another. Nothing is stored, and a lost one costs the answer only.

use crate::{PostgresStore, Shared};
use async_trait::async_trait;
use postrider_model::id::EndpointId;
use postrider_store::neighbours::{ANSWER_BYTES, Neighbours, Teller};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// How long an answer is waited for: a wake-up takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions that are open at the same time; each is a line of a wake-up that all nodes read.
const OPEN: usize = 1_000;

/// What this node asked, and what answers for it.
#[derive(Default)]
pub(crate) struct Questions {
    teller: OnceLock<Teller>,
    open: Mutex<HashMap<u64, oneshot::Sender<String>>>,
}

impl Questions {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<String>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another node has answered.
    pub(crate) fn answered(&self, number: u64, answer: String) {
        if let Some(asker) = self.open().remove(&number) {
            // It may have given up.
            let _ = asker.send(answer);
        }
    }
}

/// Another node asks of an endpoint.
pub(crate) fn asked(shared: &Shared, number: u64, endpoint: EndpointId) {
    let Some(teller) = shared.questions.teller.get().filter(|_| shared.owns(endpoint)) else { return };
    let answer = teller(endpoint)
        .filter(|answer| answer.len() <= ANSWER_BYTES && !answer.contains(char::is_whitespace));
    if let Some(answer) = answer {
        shared.hints.tell(number, &answer);
    }
}

#[async_trait]
impl Neighbours for PostgresStore {
    fn serves(&self, endpoint: EndpointId) -> bool {
        self.shared.owns(endpoint)
    }

    fn tell_with(&self, teller: Teller) {
        let _ = self.shared.questions.teller.set(teller);
    }

    async fn ask(&self, endpoint: EndpointId) -> Option<String> {
        let shared = &self.shared;
        if !shared.listens() || shared.is_closed() {
            return None;
        }
        let number = rand::random::<u64>();
        let (asker, answer) = oneshot::channel();
        {
            let mut open = shared.questions.open();
            // Who gave up leaves nothing behind but this.
            open.retain(|_, asker| !asker.is_closed());
            if open.len() >= OPEN {
                return None;
            }
            open.insert(number, asker);
        }
        shared.hints.ask(number, endpoint);
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }
}
