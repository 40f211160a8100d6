//! Everything at once: publishers, claimers and changes of configuration in a random interleaving.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod place;

use place::{Place, endpoint, message, success, world};
use postrider_model::{
    application::Ref,
    delivery::DeliveryId,
    headers::CustomHeaders,
    id::{EndpointId, MessageId},
    retry::{NextStep, RetryOverride},
};
use postrider_store::{
    deliveries::{AttemptRecord, ClaimedDelivery, Deliveries as _, Recorded, Room},
    endpoints::{AppScope, EndpointFields, Endpoints as _},
    health::Health as _,
    messages::Messages as _,
};
use postrider_store_sqlite::{Config, SqliteStore};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const TIME: Duration = Duration::from_secs(2);

struct World {
    store: Arc<SqliteStore>,
    scope: AppScope,
    leased: Mutex<HashSet<DeliveryId>>,
    recent: Mutex<Vec<MessageId>>,
    recorded: AtomicUsize,
    changing: AtomicBool,
    ended: AtomicBool,
}

fn chance(percent: u32) -> bool {
    rand::random::<u32>() % 100 < percent
}

async fn pause() {
    tokio::time::sleep(Duration::from_micros(u64::from(rand::random::<u32>() % 3000))).await;
}

impl World {
    async fn publish(self: Arc<Self>) {
        while self.changing.load(Ordering::Relaxed) {
            let size = if chance(10) { 20_000 } else { 10 };
            let new = message(&self.scope, bytes::Bytes::from(vec![b'x'; size]));
            let many = 1 + rand::random::<u32>() as usize % 4;
            for accepted in self.store.accept(vec![new; many]).await {
                self.recent.lock().unwrap().push(accepted.unwrap().message.id);
            }
            pause().await;
        }
    }

    async fn claim(self: Arc<Self>) {
        while !self.ended.load(Ordering::Relaxed) {
            let room = Room { total: 7, per_endpoint: 3, ..Room::default() };
            let claimed = self.store.claim(&room).await.unwrap().deliveries;
            if claimed.is_empty() {
                pause().await;
            }
            for one in &claimed {
                let delivery = one.lease.delivery;
                assert!(self.leased.lock().unwrap().insert(delivery), "leased twice: {delivery:?}");
            }
            for one in claimed {
                let world = Arc::clone(&self);
                tokio::spawn(async move { world.attempt(one).await });
            }
        }
    }

    async fn attempt(&self, claimed: ClaimedDelivery) {
        let started = self.store.started(&claimed.lease, claimed.number, "https://example.com/hook");
        if chance(30) {
            pause().await;
        }
        // Before the call: once it is done, another claim may have it.
        self.leased.lock().unwrap().remove(&claimed.lease.delivery);
        if !started || chance(15) {
            return self.store.release(vec![claimed.lease]).await.unwrap();
        }
        let retry = NextStep::RetryAfter(Duration::from_micros(u64::from(rand::random::<u32>() % 4000)));
        let next = if chance(30) { retry } else { NextStep::Delivered };
        let record = AttemptRecord { next, ..success(&*self.store, &claimed) };
        let recorded = self.store.record(vec![record]).await.remove(0).unwrap();
        assert!(matches!(recorded, Recorded::Stored(_)), "{recorded:?}");
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }

    async fn change(self: Arc<Self>, endpoints: Vec<EndpointId>) {
        while self.changing.load(Ordering::Relaxed) {
            let one = endpoints[rand::random::<u32>() as usize % endpoints.len()];
            self.switch(one, chance(50)).await;
            let recent = self.recent.lock().unwrap().pop();
            if let Some(recent) = recent {
                if chance(50) {
                    self.store.expunge_payload(&self.scope, recent).await.unwrap();
                } else {
                    self.store.resend(&self.scope, recent, one, None).await.unwrap();
                }
            }
            let short = endpoint(&*self.store, &self.scope, CustomHeaders::default()).await;
            pause().await;
            self.store.delete_endpoint(&self.scope, short).await.unwrap();
        }
        for one in endpoints {
            self.switch(one, false).await;
        }
    }

    async fn switch(&self, id: EndpointId, disabled: bool) {
        let endpoint = self.store.endpoint(&self.scope, &Ref::Id(id)).await.unwrap().unwrap();
        let fields = EndpointFields {
            uid: None,
            url: endpoint.url,
            description: String::new(),
            throttle_rate: None,
            filter: endpoint.filter,
            disabled,
            metadata: endpoint.metadata,
            retry: RetryOverride::default(),
            legacy_version: 1,
        };
        self.store.replace_endpoint(&self.scope, id, endpoint.version, fields).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_any_interleaving_a_delivery_is_leased_once_at_a_time_and_comes_to_its_end() {
    let place = Place::new();
    // Little is handed over: claims go both ways.
    let config = Config { hand_over_bytes: 64 * 1024, ..place.config() };
    let store = SqliteStore::open(config, place.keyring()).unwrap();
    let scope = world(&*store).await;
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        endpoints.push(endpoint(&*store, &scope, CustomHeaders::default()).await);
    }
    let world = Arc::new(World {
        store: Arc::clone(&store),
        scope,
        leased: Mutex::default(),
        recent: Mutex::default(),
        recorded: AtomicUsize::new(0),
        changing: AtomicBool::new(true),
        ended: AtomicBool::new(false),
    });
    let claimers: Vec<_> = (0..3).map(|_| tokio::spawn(Arc::clone(&world).claim())).collect();
    let mut changers = vec![tokio::spawn(Arc::clone(&world).change(endpoints))];
    changers.extend((0..2).map(|_| tokio::spawn(Arc::clone(&world).publish())));
    tokio::time::sleep(TIME).await;
    world.changing.store(false, Ordering::Relaxed);
    for changer in changers {
        changer.await.unwrap();
    }
    let mut last = u64::MAX;
    let all_end = async {
        loop {
            last = store.backlog().await.unwrap().pending;
            if last == 0 || claimers.iter().any(tokio::task::JoinHandle::is_finished) {
                break;
            }
            pause().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), all_end).await.is_ok();
    world.ended.store(true, Ordering::Relaxed);
    for claimer in claimers {
        claimer.await.unwrap();
    }
    let pending = "SELECT COUNT(*) FROM delivery WHERE state = 0";
    let pending: i64 = place.connection().query_row(pending, [], |row| row.get(0)).unwrap();
    assert!(in_time, "{last} pending in memory, {pending} in the table");
    assert_eq!(pending, 0);
    assert!(world.recorded.load(Ordering::Relaxed) > 100);
    assert!(world.leased.lock().unwrap().is_empty());
}
