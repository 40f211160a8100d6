//! Publishers that go on whatever happens, and note each answer.

use postrider_testing::{App, Client};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long a publisher waits after a refusal.
const REFUSED: Duration = Duration::from_millis(100);
/// How long an answer may take before the test says that there is none.
const PATIENCE: Duration = Duration::from_secs(40);

/// An answer to a publish.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) asked: Instant,
    pub(super) took: Duration,
    pub(super) status: u16,
    /// The message, when it was accepted.
    pub(super) id: Option<String>,
    pub(super) retry_after: bool,
}

impl Answered {
    pub(super) fn accepted(&self) -> bool {
        self.status == 202
    }
}

/// Publishers of one application.
pub(super) struct Load {
    answers: Arc<Mutex<Vec<Answered>>>,
    stop: Arc<AtomicBool>,
    publishers: JoinSet<()>,
}

impl Load {
    /// Starts so many, each publishing one message after the other, and again after each answer at least this pause.
    pub(super) fn start(client: &Client, app: &App, publishers: usize, pause: Duration) -> Self {
        let mut load = Self { answers: Arc::default(), stop: Arc::default(), publishers: JoinSet::new() };
        for _ in 0..publishers {
            let (client, path) = (client.clone(), format!("{}/msg", app.path()));
            let (answers, stop) = (Arc::clone(&load.answers), Arc::clone(&load.stop));
            load.publishers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = publish(&client, &path).await;
                    let pause = if answer.accepted() { pause } else { pause.max(REFUSED) };
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        load
    }

    /// The answers to what was asked since.
    pub(super) fn since(&self, since: Instant) -> Vec<Answered> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().filter(|answer| answer.asked >= since).cloned().collect()
    }

    /// Stops; returns all answers.
    pub(super) async fn stop(mut self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        while self.publishers.join_next().await.is_some() {}
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn publish(client: &Client, path: &str) -> Answered {
    let asked = Instant::now();
    let body = json!({ "eventType": "invoice.paid", "payload": { "filler": "x".repeat(500) } });
    let answer = tokio::time::timeout(PATIENCE, client.post(path, body)).await.expect("an answer");
    let id = (answer.status == 202).then(|| answer.body["id"].as_str().unwrap().to_owned());
    let retry_after = answer.headers.contains_key("retry-after");
    Answered { asked, took: asked.elapsed(), status: answer.status, id, retry_after }
}

/// The messages that were accepted.
pub(super) fn ids(answers: &[Answered]) -> BTreeSet<String> {
    answers.iter().filter_map(|answer| answer.id.clone()).collect()
}
