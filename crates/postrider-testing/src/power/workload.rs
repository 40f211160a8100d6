//! What the store is kept busy with until its disk fails: publishers, workers, changes of configuration, retention and
//! checkpoints, all at once, so that they share commits. Every answer is noted in the ledger.

use super::{
    changes::{checkpoint, configure, expire, resend},
    claims::work,
    ledger::{Ledger, Sent},
    place::{self, Notes},
};
use crate::disk::Disk;
use bytes::Bytes;
use postrider_store::{
    Store, StoreError, WriteError,
    endpoints::AppScope,
    idempotency::IdempotencyKey,
    messages::{Audience, NewMessage},
};
use postrider_store_sqlite::SqliteStore;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::task::{JoinSet, LocalSet, yield_now};

/// Steps that each of those who work takes at most.
pub(super) const STEPS: usize = 40;
/// How often an error is met until one gives up.
const PATIENCE: u32 = 20;

/// One life of the store, as all who work see it.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) store: Arc<SqliteStore>,
    pub(super) disk: Arc<Disk>,
    pub(super) ledger: Rc<RefCell<Ledger>>,
    pub(super) notes: Rc<RefCell<Notes>>,
    pub(super) scope: AppScope,
    pub(super) data: PathBuf,
    /// Somebody was told that the disk failed: nothing may be acknowledged any more.
    pub(super) failed: Rc<Cell<bool>>,
}

/// Who works in a life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast {
    pub(super) publishers: usize,
    pub(super) workers: usize,
    pub(super) checkpoints: bool,
    pub(super) retention: bool,
}

/// Runs until everybody has taken their steps or the disk has failed.
pub(super) async fn run(life: &Life, cast: Cast, random: &mut StdRng) {
    let local = LocalSet::new();
    let mut tasks = JoinSet::new();
    let mut seeds = std::iter::repeat_with(|| StdRng::seed_from_u64(random.random()));
    let mut next = || seeds.next().expect("there are always more");
    for _ in 0..cast.publishers {
        tasks.spawn_local_on(publish(life.clone(), next()), &local);
    }
    for _ in 0..cast.workers {
        tasks.spawn_local_on(work(life.clone(), next()), &local);
    }
    tasks.spawn_local_on(configure(life.clone(), next()), &local);
    tasks.spawn_local_on(resend(life.clone(), next()), &local);
    if cast.checkpoints {
        tasks.spawn_local_on(checkpoint(life.clone(), next()), &local);
    }
    if cast.retention {
        life.ledger.borrow_mut().retention = true;
        tasks.spawn_local_on(expire(life.clone(), next()), &local);
    }
    local.run_until(async { while tasks.join_next().await.is_some() {} }).await;
}

impl Life {
    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Notes an error; `true` when there is no point in going on.
    pub(super) async fn met(&self, error: &StoreError, met: &mut u32) -> bool {
        match error {
            StoreError::Full { .. } => {
                // Somebody makes space, and the store notices when it tries.
                self.disk.heal();
                let _ = self.store().check_write().await;
            }
            StoreError::Unavailable { detail, .. } if detail.contains("disk failed") => self.failed.set(true),
            StoreError::Unavailable { .. } => {}
            other => {
                if !self.disk.is_cut() && self.disk.failures() == 0 {
                    self.ledger.borrow_mut().fail(format!("an unexpected error: {other}"));
                }
            }
        }
        *met += 1;
        yield_now().await;
        self.disk.is_cut() || self.failed.get() || *met > PATIENCE
    }

    /// Nothing that is asked for after a failed sync may be acknowledged.
    pub(super) fn acknowledged(&self, asked_after_failure: bool, what: &str) {
        if asked_after_failure {
            self.ledger.borrow_mut().fail(format!("{what} was acknowledged after the disk had failed"));
        }
    }
}

async fn publish(life: Life, mut random: StdRng) {
    let mut met = 0;
    for _ in 0..STEPS {
        let count = random.random_range(1..=6);
        let serials: Vec<u64> = (0..count).map(|_| invent(&life, &mut random)).collect();
        if let Some(error) = accept(&life, &serials).await
            && life.met(&error, &mut met).await
        {
            return;
        }
    }
}

/// A new message for the ledger; returns its serial number.
fn invent(life: &Life, random: &mut StdRng) -> u64 {
    let mut ledger = life.ledger.borrow_mut();
    let serial = ledger.messages.last_key_value().map_or(0, |(last, _)| *last) + 1;
    let size = match random.random_range(0..10) {
        0..=4 => random.random_range(0..200),
        5..=7 => random.random_range(200..4000),
        _ => random.random_range(4000..30_000),
    };
    let fill: String = (0..size).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
    let sent = Sent {
        payload: Bytes::from(format!("{{\"serial\":{serial},\"fill\":\"{fill}\"}}")),
        event_type: if random.random_bool(0.5) { "a.one" } else { "a.two" },
        key: random.random_bool(0.4).then(|| format!("key-{serial}")),
        short_lived: random.random_bool(0.1),
        id: None,
        duties: BTreeMap::new(),
        resends: BTreeSet::new(),
    };
    ledger.messages.insert(serial, sent);
    serial
}

fn message_of(scope: &AppScope, sent: &Sent) -> NewMessage {
    NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: place::event_type(sent.event_type),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload: sent.payload.clone(),
        payload_lifetime: sent.short_lived.then_some(Duration::from_millis(1)),
        deliver_at: None,
        audience: Audience::Matching,
        idempotency: sent.key.as_ref().map(|key| IdempotencyKey::new("POST", "/messages", key)),
    }
}

/// Accepts messages of the ledger; the last error, if one failed.
pub(super) async fn accept(life: &Life, serials: &[u64]) -> Option<StoreError> {
    let late = life.failed.get();
    let new = {
        let ledger = life.ledger.borrow();
        serials.iter().map(|serial| message_of(&life.scope, &ledger.messages[serial])).collect()
    };
    let results = life.store().accept(new).await;
    let mut failure = None;
    for (serial, result) in serials.iter().zip(results) {
        match result {
            Ok(accepted) => {
                life.acknowledged(late, "a message");
                let mut ledger = life.ledger.borrow_mut();
                let known = ledger.messages[serial].id;
                if accepted.replayed && known != Some(accepted.message.id) && !ledger.retention {
                    ledger.fail(format!("message {serial} was replayed as another one"));
                }
                if !accepted.replayed && known.is_some() {
                    // Only where the first one was deleted, and its key with it.
                    ledger.fail(format!("message {serial} was accepted again"));
                }
                ledger.accept(*serial, accepted.message.id);
            }
            Err(WriteError::Store(error)) => failure = Some(error),
            Err(other) => life.ledger.borrow_mut().fail(format!("message {serial} was refused: {other}")),
        }
    }
    failure
}
