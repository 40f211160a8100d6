//! Which database the servers of tests run on: a file, or PostgreSQL on a throw-away cluster, one for a test process.
//!
//! The same tests run on both: `POSTRIDER_TEST_STORE=postgres cargo test -p postrider --test it`. Each server has a
//! database of its own, which goes with it.

use postrider::config::Config;
use postrider_store_postgres::testing::Place;
use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_postgres::Client;

/// The variable that chooses.
const VARIABLE: &str = "POSTRIDER_TEST_STORE";

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The embedded one, a file in the data directory.
    Sqlite,
    /// The one of several nodes.
    Postgres,
}

impl Backend {
    /// What `POSTRIDER_TEST_STORE` says; SQLite when it says nothing.
    pub fn chosen() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the server")]
        let chosen = std::env::var(VARIABLE);
        match chosen.as_deref() {
            Err(_) | Ok("" | "sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("{VARIABLE} is sqlite or postgres, not {other}"),
        }
    }

    /// A new database; `None` when a file in the data directory is one.
    pub(crate) async fn place(self) -> Option<Arc<Place>> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Arc::new(Place::new().await.unwrap_or_else(|error| panic!("{error}")))),
        }
    }

    /// The variables that make a process, with its working directory here, use the database of this directory: the
    /// same one each time. None for SQLite.
    pub fn variables(self, folder: &Path) -> Vec<(&'static str, String)> {
        // Dropped with the cluster, at the end of the test process.
        static PLACES: Mutex<Option<HashMap<PathBuf, Place>>> = Mutex::new(None);
        if self == Self::Sqlite {
            return Vec::new();
        }
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places
            .get_or_insert_default()
            .entry(folder.to_owned())
            .or_insert_with(|| aside(async { Place::new().await.unwrap_or_else(|error| panic!("{error}")) }));
        vec![
            ("POSTRIDER_DATABASE_URL", place.node_url().to_owned()),
            ("POSTRIDER_DATABASE__DANGEROUS_ACCEPT_DATA_LOSS", "true".to_owned()),
        ]
    }

    /// All rows of the database of this directory as text, by table. None for SQLite, whose files can be read.
    pub fn stored(self, folder: &Path) -> Vec<(String, Vec<u8>)> {
        let variables = self.variables(folder);
        let Some((_, url)) = variables.first() else { return Vec::new() };
        aside(async {
            let client = connect(url).await;
            let names = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'postrider'";
            let mut tables = Vec::new();
            for row in client.query(names, &[]).await.unwrap() {
                let name: String = row.get(0);
                let text =
                    format!("SELECT coalesce(string_agg(row_to_json(t)::text, ' '), '') FROM \"{name}\" t");
                let rows: String = client.query_one(&text, &[]).await.unwrap().get(0);
                tables.push((format!("table {name}"), rows.into_bytes()));
            }
            tables
        })
    }
}

/// Changes rows of a database past the server; returns how many.
pub fn execute(url: &str, statement: &str) -> u64 {
    aside(async { connect(url).await.execute(statement, &[]).await.unwrap() })
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Tests look at all environments, also as somebody for whom there is a wall between them.
    client.batch_execute("SET search_path = postrider; SET postrider.environments = '*'").await.unwrap();
    client
}

/// For callers inside and outside of a runtime.
fn aside<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let working = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(working).join().unwrap())
}

/// Makes a server use the database at this URL.
pub(crate) fn use_database(config: &mut Config, url: &str) {
    config.database.url = Some(url.to_owned().into());
    // The cluster does not sync: tests of logic need no disk.
    config.database.dangerous_accept_data_loss = true;
}
