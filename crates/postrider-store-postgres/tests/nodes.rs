//! Several nodes on one database: who serves what, and what a node that was taken over from can still do.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use postrider_model::{
    access::{Caller, Scope},
    application::Ref,
    delivery::State,
    outcome::Outcome,
};
use postrider_store::{
    Store as _,
    access::{Access as _, NewApiKey},
    attempts::{AttemptFilter, Attempts as _, AttemptsOf},
    deliveries::{ClaimedDelivery, Deliveries as _, Recorded},
    endpoints::Endpoints as _,
    health::Health as _,
    messages::{Audience, Messages as _},
    page::{Order, PageRequest},
};
use postrider_store_postgres::{Config, PostgresStore, testing::Place};
use secrecy::ExposeSecret as _;
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use world::{URL, application, claim, endpoint, fields, message, success};

fn quick(place: &Place, node: &str) -> Config {
    Config { lease_seconds: 3, attempt_seconds: 1, ..place.config(node) }
}

async fn open(place: &Place, config: Config) -> Arc<PostgresStore> {
    PostgresStore::open(config, place.keyring().unwrap()).await.unwrap()
}

async fn within<T, F: Future<Output = Option<T>>>(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what} within {seconds} s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn record(store: &PostgresStore, claimed: &ClaimedDelivery) -> Recorded {
    store.record(vec![success(store, claimed)]).await.remove(0).unwrap()
}

async fn shards_of_each(place: &Place) -> Vec<i64> {
    let text = "SELECT count(*) FROM shard GROUP BY owner ORDER BY owner";
    let rows = place.client().await.unwrap().query(text, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// CLM-1, CLM-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_endpoints_and_each_delivery_is_claimed_once() {
    let place = Place::new().await.unwrap();
    let one = open(&place, quick(&place, "one")).await;
    let scope = application(&one).await;
    for _ in 0..40 {
        endpoint(&one, &scope).await;
    }
    let two = open(&place, quick(&place, "two")).await;
    within("the shards are shared", 10, || async {
        (shards_of_each(&place).await == [32, 32]).then_some(())
    })
    .await;
    for store in [&one, &two] {
        for _ in 0..5 {
            assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
        }
    }
    let mut seen = BTreeSet::new();
    let mut each = [0, 0];
    let until = Instant::now() + Duration::from_secs(10);
    while seen.len() < 400 && Instant::now() < until {
        for (count, store) in each.iter_mut().zip([&one, &two]) {
            for claimed in claim(store).await {
                assert!(seen.insert(claimed.lease.delivery), "claimed twice: {:?}", claimed.lease.delivery);
                assert_eq!(record(store, &claimed).await, Recorded::Stored(State::Delivered));
                *count += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen.len(), 400);
    assert!(each[0] > 0 && each[1] > 0, "{each:?}");
    one.close().await;
    within("the other one serves everything", 10, || async {
        (shards_of_each(&place).await == [64]).then_some(())
    })
    .await;
    two.close().await;
}

/// What one node accepts the other one starts at once, when it hears wake-ups; else by its looking around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_accepted_by_one_node_is_started_by_another_within_a_second() {
    for listen in [true, false] {
        let place = Place::new().await.unwrap();
        let with = |node| Config { listen, ..quick(&place, node) };
        let one = open(&place, with("one")).await;
        let scope = application(&one).await;
        let id = endpoint(&one, &scope).await;
        let two = open(&place, with("two")).await;
        within("the shards are shared", 10, || async {
            (shards_of_each(&place).await == [32, 32]).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut slowest = Duration::ZERO;
        for store in [&one, &two] {
            let begun = Instant::now();
            assert!(store.accept(vec![message(&scope, Audience::Only(id))]).await[0].is_ok());
            let (store, claimed) = within("somebody claims it", 5, || async {
                for store in [&one, &two] {
                    if let Some(claimed) = claim(store).await.pop() {
                        return Some((store, claimed));
                    }
                }
                None
            })
            .await;
            slowest = slowest.max(begun.elapsed());
            assert_eq!(record(store, &claimed).await, Recorded::Stored(State::Delivered));
        }
        assert!(slowest < Duration::from_millis(1500), "listen {listen}: {slowest:?}");
        one.close().await;
        two.close().await;
    }
}

/// DUR-2: a node that is gone for good, with its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_dead_node_is_taken_over_when_its_lease_ends() {
    let place = Place::new().await.unwrap();
    let one = open(&place, quick(&place, "one")).await;
    let scope = application(&one).await;
    endpoint(&one, &scope).await;
    let accepted = one.accept(vec![message(&scope, Audience::Matching)]).await.remove(0).unwrap().message;
    let claimed = claim(&one).await.remove(0);
    assert!(one.started(&claimed.lease, claimed.number, URL));
    one.notes_written().await;
    let two = open(&place, quick(&place, "two")).await;
    assert!(claim(&two).await.is_empty(), "its lease lasts");
    drop(one);
    let again = within("the work is taken over", 10, || async { claim(&two).await.pop() }).await;
    assert_eq!(again.lease.delivery, claimed.lease.delivery);
    assert_eq!((again.number, again.deaths), (2, 1));
    let page = PageRequest { limit: 10, order: Order::Ascending, cursor: None, backward: false };
    let attempts = two
        .attempts(&scope, AttemptsOf::Message(accepted.id), AttemptFilter::default(), false, page)
        .await
        .unwrap();
    assert_eq!(attempts.items.len(), 1);
    assert_eq!(attempts.items[0].attempt.outcome, Outcome::Interrupted);
    assert_eq!(record(&two, &again).await, Recorded::Stored(State::Delivered));
    two.close().await;
}

/// CLM-4, I7: whoever was taken over from changes nothing, and begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_result_of_a_node_that_was_taken_over_from_changes_nothing() {
    let place = Place::new().await.unwrap();
    let one = open(&place, Config { lease_seconds: 60, attempt_seconds: 1, ..place.config("one") }).await;
    let scope = application(&one).await;
    endpoint(&one, &scope).await;
    assert!(one.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    let late = claim(&one).await.remove(0);
    assert!(one.started(&late.lease, late.number, URL));
    // As if it had been paused for longer than its lease: it renews next in eight seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let client = place.client().await.unwrap();
    client.batch_execute("UPDATE node SET lease_until = 0").await.unwrap();
    let two = open(&place, quick(&place, "two")).await;
    // By the other node, or by this process as a new one, which gets half of the shards.
    let (again, who) = within("the work is taken over", 10, || async {
        for store in [&two, &one] {
            if let Some(claimed) = claim(store).await.pop() {
                return Some((claimed, store));
            }
        }
        None
    })
    .await;
    assert_eq!(record(&one, &late).await, Recorded::Superseded);
    assert!(!one.started(&late.lease, late.number, URL), "it knows now");
    assert_eq!(record(who, &again).await, Recorded::Stored(State::Delivered));
    let attempts: i64 =
        client.query_one("SELECT count(*) FROM attempt WHERE outcome = 0", &[]).await.unwrap().get(0);
    assert_eq!(attempts, 1, "the late one is not among them");
    within("it serves again, as a new node", 10, || async {
        (shards_of_each(&place).await == [32, 32]).then_some(())
    })
    .await;
    assert!(one.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    one.close().await;
    two.close().await;
}

/// A node that cannot reach the database begins nothing that might outlast its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_begins_that_could_outlast_the_lease() {
    let place = Place::new().await.unwrap();
    let store = open(&place, Config { lease_seconds: 2, attempt_seconds: 4, ..place.config("node") }).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    let claimed = claim(&store).await.remove(0);
    assert!(!store.started(&claimed.lease, claimed.number, URL));
    store.release(vec![claimed.lease]).await.unwrap();
    store.close().await;
}

/// Configuration holds on all nodes within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_one_node_counts_on_the_other_within_a_second() {
    let place = Place::new().await.unwrap();
    let one = open(&place, quick(&place, "one")).await;
    let two = open(&place, quick(&place, "two")).await;
    within("the shards are shared", 10, || async {
        (shards_of_each(&place).await == [32, 32]).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let scope = application(&one).await;
    let id = endpoint(&one, &scope).await;
    let settings = async |store: &PostgresStore| store.send_settings(&scope, id).await.unwrap();
    assert!(settings(&two).await.is_some_and(|settings| settings.endpoint.disabled.is_none()));
    let caller = Caller { environment: scope.environment.clone(), scope: Scope::Environment };
    let new = NewApiKey { caller: caller.clone(), name: String::new(), expires_at: None };
    let (key, token) = one.create_api_key(new).await.unwrap();
    assert_eq!(two.authenticate(token.expose_secret()).await.unwrap(), Some(caller));

    let version = one.endpoint(&scope, &Ref::Id(id)).await.unwrap().unwrap().version;
    one.replace_endpoint(&scope, id, version, fields(true)).await.unwrap();
    one.revoke_api_key(&scope.environment, key.id).await.unwrap();
    let begun = Instant::now();
    within("the endpoint is disabled there too", 1, || async {
        settings(&two).await.filter(|settings| settings.endpoint.disabled.is_some())
    })
    .await;
    within("the key is revoked there too", 1, || async {
        two.authenticate(token.expose_secret()).await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    // What was matched with the old configuration is matched again.
    assert!(two.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    assert_eq!(one.backlog().await.unwrap().pending + two.backlog().await.unwrap().pending, 0);
    one.close().await;
    two.close().await;
}

/// DUR-3: all connections end at once, as when the database restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_connections_were_cut_goes_on_by_itself() {
    let place = Place::new().await.unwrap();
    let store = open(&place, quick(&place, "node")).await;
    let scope = application(&store).await;
    endpoint(&store, &scope).await;
    assert!(store.accept(vec![message(&scope, Audience::Matching)]).await[0].is_ok());
    let claimed = claim(&store).await.remove(0);
    let client = place.client().await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query(cut, &[]).await.unwrap();
    within("results are stored again", 5, || async {
        store.record(vec![success(&store, &claimed)]).await.remove(0).ok()
    })
    .await;
    within("messages are accepted again", 5, || async {
        store.accept(vec![message(&scope, Audience::Matching)]).await.remove(0).ok()
    })
    .await;
    within("deliveries are claimed again", 5, || async { claim(&store).await.pop() }).await;
    store.check_write().await.unwrap();
    store.close().await;
}

/// A look around may find a resent delivery before its hand-over, which must not bring it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_resent_while_a_node_looks_around_is_claimed_once() {
    let place = Place::new().await.unwrap();
    let config = Config { listen: false, poll_milliseconds: 1, ..quick(&place, "one") };
    let one = open(&place, config).await;
    let scope = application(&one).await;
    let id = endpoint(&one, &scope).await;
    let accepted = one.accept(vec![message(&scope, Audience::Only(id))]).await.remove(0).unwrap();
    let done = AtomicBool::new(false);
    let resends = async {
        for _ in 0..100 {
            one.resend(&scope, accepted.message.id, id, None).await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let claims = async {
        let mut seen = BTreeSet::new();
        let until = Instant::now() + Duration::from_secs(20);
        while !done.load(Ordering::Relaxed) && Instant::now() < until {
            for claimed in claim(&one).await {
                assert!(seen.insert(claimed.lease.delivery), "claimed twice: {:?}", claimed.lease.delivery);
                record(&one, &claimed).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What is left, and what would come twice.
        for _ in 0..20 {
            for claimed in claim(&one).await {
                assert!(seen.insert(claimed.lease.delivery), "claimed twice: {:?}", claimed.lease.delivery);
                record(&one, &claimed).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        seen.len()
    };
    let ((), seen) = tokio::join!(resends, claims);
    // The success of one settles those that waited beside it.
    assert!((1..=101).contains(&seen), "{seen}");
    one.close().await;
}
