//! The readers: a bounded pool of connections that cannot write, each query under a time limit.
//!
//! The limit keeps a list over a huge history from holding the write-ahead log back, and a connection from its next
//! user.

use crate::{
    Config,
    failure::{Failure, unavailable},
    schema,
};
use postrider_store::StoreError;
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// The longest that a query may run, and that a caller waits for a connection.
const QUERY_TIME: Duration = Duration::from_secs(10);
/// Instructions of SQLite's machine between two looks at the clock.
const STEPS_PER_LOOK: i32 = 10_000;

/// The pool.
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    /// Opens `count` connections.
    pub(crate) fn open(path: &Path, config: &Config, count: usize) -> Result<Self, rusqlite::Error> {
        let count = count.clamp(1, 64);
        let connections =
            (0..count).map(|_| schema::open_reader(path, config)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(connections)), places: Arc::new(Semaphore::new(count)) })
    }

    /// Runs a query over one consistent state of the database, on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let place = tokio::time::timeout(QUERY_TIME, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| unavailable("too many queries are running".to_owned()))?
            .map_err(|_| unavailable("the store is closing".to_owned()))?;
        let idle = Arc::clone(&self.idle);
        tokio::task::spawn_blocking(move || {
            let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = connection else {
                return Err(unavailable("no connection for reading is left".to_owned()).into());
            };
            let result = run(&mut connection, query);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(place);
            result
        })
        .await
        .unwrap_or_else(|error| {
            Err(StoreError::Internal { detail: format!("a query ended abnormally: {error}") }.into())
        })
    }

    /// No query begins any more.
    pub(crate) fn close(&self) {
        self.places.close();
    }
}

fn run<T>(
    connection: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + QUERY_TIME;
    connection.progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= deadline))?;
    // A panic must not take the connection away for good: it goes back to the pool, its transaction rolled back.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let transaction = connection.unchecked_transaction()?;
        query(&transaction)
    }));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    result.unwrap_or_else(|_| Err(StoreError::Internal { detail: "a query panicked".to_owned() }.into()))
}

#[cfg(test)]
mod tests {
    use crate::{Config, SqliteStore};
    use postrider_model::{
        environment::EnvironmentId,
        event_type::EventTypeName,
        id::{ApplicationId, EndpointId, Ksuid},
    };
    use postrider_store::{
        Store as _,
        agenda::{OnDisk, Part},
        deliveries::{Deliveries as _, Room},
        endpoints::AppScope,
        messages::Messages as _,
    };
    use postrider_vault::keyring::Keyring;
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_lists_keep_neither_claims_nor_publishers_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
        let config = Config { data_dir: folder.path().join("data"), readers: 1, ..Config::default() };
        let store = SqliteStore::open(config, keyring).unwrap();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&store.shared);
        let slow = tokio::spawn(async move {
            let list = move |_: &rusqlite::Connection| {
                let _ = begun.send(());
                let _ = held.recv();
                Ok(())
            };
            shared.readers.read(list).await
        });
        begins.await.unwrap();
        let now = store.shared.clock.now();
        let endpoint = EndpointId::new(Ksuid::from_bytes([1; 20]));
        let application = ApplicationId::new(Ksuid::from_bytes([2; 20]));
        let found = OnDisk { application, endpoint, part: Part::First, held: false, due: now, count: 1 };
        store.shared.agenda().add(found, now);
        let scope = AppScope { environment: EnvironmentId::parse("org_a").unwrap(), application };
        let name = EventTypeName::parse("a").unwrap();
        let quick = async {
            let room = Room { total: 10, per_endpoint: 10, ..Room::default() };
            assert!(store.claim(&room).await.unwrap().deliveries.is_empty());
            assert!(!store.any_match(&scope, &name, &BTreeSet::new()).await.unwrap());
        };
        tokio::time::timeout(Duration::from_secs(5), quick).await.expect("they have readers of their own");
        drop(release);
        slow.await.unwrap().unwrap();
        store.close().await;
    }
}
