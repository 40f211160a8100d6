//! What a batch promises to those who share it.

use super::*;
use crate::{Config, SqliteStore, failure::Refusal};
use postrider_store::Store as _;
use postrider_vault::keyring::Keyring;
use std::sync::atomic::AtomicUsize;

fn open(folder: &tempfile::TempDir) -> Arc<SqliteStore> {
    let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
    let config = Config { data_dir: folder.path().join("data"), readers: 1, ..Config::default() };
    SqliteStore::open(config, keyring).unwrap()
}

fn insert(work: &Scope<'_>, id: u8) -> Result<(), Failure> {
    work.connection.execute("INSERT INTO probe (id, body) VALUES (?1, x'00')", [id])?;
    Ok(())
}

async fn rows(store: &SqliteStore) -> Vec<u8> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare("SELECT id FROM probe ORDER BY id")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    };
    store.shared.readers.read(read).await.unwrap()
}

/// Holds the writer until dropped, so that what is submitted meanwhile shares the next batch.
async fn hold(store: &SqliteStore) -> SyncSender<()> {
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (begun, begins) = oneshot::channel();
    let wait = move |work: &mut Scope<'_>| {
        work.after_commit(move |_| {
            let _ = begun.send(());
            let _ = held.recv();
        });
        Ok(())
    };
    drop(submit(&store.shared, Isolation::Own, wait).await.unwrap());
    begins.await.unwrap();
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_or_panic_in_a_savepoint_undoes_only_its_own_operation() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let shared = &store.shared;
    let effects = Arc::new(AtomicUsize::new(0));
    let release = hold(&store).await;
    let count = |work: &mut Scope<'_>, effects: &Arc<AtomicUsize>| {
        let effects = Arc::clone(effects);
        work.after_commit(move |_| {
            effects.fetch_add(1, Ordering::Relaxed);
        });
    };
    let [first, second, third, fourth] = [(); 4].map(|()| Arc::clone(&effects));
    let good = submit(shared, Isolation::Own, move |work| {
        count(work, &first);
        insert(work, 1)
    });
    let good = good.await.unwrap();
    let refused = submit(shared, Isolation::Own, move |work| {
        count(work, &second);
        insert(work, 2)?;
        Err::<(), _>(Refusal::Taken.into())
    });
    let refused = refused.await.unwrap();
    let panics = submit(shared, Isolation::Own, move |work| -> Result<(), Failure> {
        count(work, &third);
        insert(work, 3)?;
        panic!("a defect")
    });
    let panics = panics.await.unwrap();
    let last = submit(shared, Isolation::Shared, move |work| {
        count(work, &fourth);
        insert(work, 4)
    });
    let last = last.await.unwrap();
    drop(release);
    assert!(matches!(answered(good).await, Ok(())));
    assert!(matches!(answered(refused).await, Err(Failure::Refused(Refusal::Taken))));
    assert!(matches!(answered(panics).await, Err(Failure::Store(StoreError::Internal { .. }))));
    assert!(matches!(answered(last).await, Ok(())));
    assert_eq!((rows(&store).await, effects.load(Ordering::Relaxed)), (vec![1, 4], 2));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_of_the_hot_path_that_fails_halfway_takes_its_batch_along_and_nobody_is_told_ok() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let release = hold(&store).await;
    let good = submit(&store.shared, Isolation::Own, |work| insert(work, 1)).await.unwrap();
    let (begun, begins) = oneshot::channel();
    let halfway = submit(&store.shared, Isolation::Shared, |work| -> Result<(), Failure> {
        insert(work, 2)?;
        let _ = begun.send(());
        panic!("a defect")
    });
    let halfway = halfway.await.unwrap();
    // A writer that was slow to wake up would leave it to the next batch.
    begins.await.unwrap();
    drop(release);
    assert!(answered(good).await.is_err());
    assert!(answered(halfway).await.is_err());
    assert_eq!(rows(&store).await, Vec::<u8>::new());
    store.shared.write(Isolation::Own, |work| insert(work, 5)).await.unwrap();
    assert_eq!(rows(&store).await, [5]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_after_a_commit_stops_neither_its_answer_nor_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let write = |work: &mut Scope<'_>| {
        work.after_commit(|_| panic!("a defect"));
        insert(work, 1)
    };
    store.shared.write(Isolation::Own, write).await.unwrap();
    store.shared.write(Isolation::Own, |work| insert(work, 2)).await.unwrap();
    assert_eq!(rows(&store).await, [1, 2]);
    store.close().await;
}

/// What breaks the thread that comes by it: the writer, which asks for its isolation, or the one that answers.
struct Bomb {
    in_writer: bool,
}

impl Operation for Bomb {
    fn run(&mut self, _: &mut Scope<'_>) -> Ran {
        Ran::Well
    }

    fn isolation(&self) -> Isolation {
        assert!(!self.in_writer, "a defect of the writer");
        Isolation::Own
    }

    fn answer(self: Box<Self>, _: Result<(), StoreError>) {
        assert!(self.in_writer, "a defect of the thread that syncs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_thread_of_the_store_leaves_nobody_waiting_and_refuses_whoever_comes() {
    for in_writer in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let shared = &store.shared;
        let release = hold(&store).await;
        let before = submit(shared, Isolation::Own, |work| insert(work, 1)).await.unwrap();
        shared.inbox.put(Box::new(Bomb { in_writer }), QUEUE_WAIT).await.unwrap();
        let behind = submit(shared, Isolation::Own, |work| insert(work, 2)).await;
        drop(release);
        let ended = async {
            // Answered before the panic, or never durable: both are answers.
            let _ = answered(before).await;
            let behind = match behind {
                Ok(behind) => answered(behind).await,
                Err(error) => Err(error.into()),
            };
            let reason = postrider_store::health::Health::broken(&*store).await;
            (behind, reason)
        };
        let (behind, reason) = tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        assert!(behind.is_err(), "{behind:?}");
        assert!(reason.contains("panic"), "{reason}");
        let later = shared.write(Isolation::Own, |work| insert(work, 3));
        let later = tokio::time::timeout(Duration::from_secs(1), later).await.unwrap();
        assert!(matches!(later, Err(Failure::Store(StoreError::Unavailable { .. }))), "{later:?}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_upkeep_refuses_whoever_comes_and_loses_nothing_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let shared = &store.shared;
    shared.write(Isolation::Own, |work| insert(work, 1)).await.unwrap();
    let upkeep = crate::ending::UpkeepEnding(Arc::clone(shared));
    let ended = std::thread::spawn(move || {
        let _upkeep = upkeep;
        panic!("a defect of the upkeep")
    });
    assert!(ended.join().is_err());
    let reason = postrider_store::health::Health::broken(&*store).await;
    assert!(reason.contains("upkeep") && reason.contains("restarted"), "{reason}");
    let later = shared.write(Isolation::Own, |work| insert(work, 2)).await;
    assert!(matches!(later, Err(Failure::Store(StoreError::Unavailable { .. }))), "{later:?}");
    assert_eq!(rows(&store).await, [1]);
    store.close().await;
}

#[test]
fn a_closed_inbox_says_that_it_is_closed_and_not_that_it_is_full() {
    let inbox = crate::inbox::Inbox::new(1);
    inbox.try_put(Box::new(Bomb { in_writer: true })).unwrap();
    assert_eq!(inbox.try_put(Box::new(Bomb { in_writer: true })), Err(Refused::Full));
    inbox.close();
    assert_eq!(inbox.try_put(Box::new(Bomb { in_writer: true })), Err(Refused::Closed));
}
