//! A whole server in the test's process: the parts wired as the binary wires them, on a runtime of their own, so that it
//! can die without a word.

use crate::{
    attempts::{Attempts, MessageRef},
    backend::{Backend, use_database},
    client::Client,
    clock::TestClock,
    dns::StubDns,
    receiver::{Receiver, Reply},
    way::Way,
};
use postrider::{
    config::Config,
    dev,
    node::{Mode, Node},
};
use postrider_outbound::resolver::Resolve;
use postrider_store::Store;
use postrider_store_postgres::testing::Place;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A running server; dropping it stops it like a power cut.
pub struct TestServer {
    /// Its clock.
    pub clock: TestClock,
    /// Its store, for what the API does not show.
    pub store: Arc<dyn Store>,
    /// Its configuration.
    pub config: Config,
    address: SocketAddr,
    token: String,
    node: Option<Node>,
    runtime: Option<Runtime>,
    /// Their name.
    threads: String,
    own: Own,
}

/// What outlives a restart.
#[derive(Clone)]
struct Own {
    mode: Mode,
    resolver: Option<Arc<dyn Resolve>>,
    folder: Arc<TempDir>,
    /// Its database on PostgreSQL.
    place: Option<Arc<Place>>,
    /// How it gets there, when a test wants to cut that.
    way: Option<Arc<Way>>,
    /// The token of the node that this one joined.
    token: Option<String>,
}

/// An application of the server.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id.
    pub id: String,
}

/// An endpoint of the server.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its application.
    pub app: String,
    /// Its id.
    pub id: String,
}

impl Endpoint {
    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/api/v1/app/{}/endpoint/{}", self.app, self.id)
    }
}

impl App {
    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/api/v1/app/{}", self.id)
    }
}

/// On PostgreSQL an attempt that has begun is noted within moments; a death before that is not counted, which is meant
/// and tested elsewhere.
const NOTED: Duration = Duration::from_millis(300);
/// The uid of the application that helpers use when none is named.
const DEFAULT_APP: &str = "default";

impl TestServer {
    /// Starts with the rules of `--dev`: loopback may be delivered to.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with changed settings.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(Own::new(Mode::Dev, None, Backend::chosen()).await, change).await
    }

    /// On SQLite whatever is chosen: for tests of its file.
    pub async fn embedded(change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(Own::new(Mode::Dev, None, Backend::Sqlite).await, change).await
    }

    /// On PostgreSQL whatever is chosen, over a way that can be cut: for tests of several nodes and of outages.
    pub async fn shared(change: impl FnOnce(&mut Config)) -> Self {
        let mut own = Own::new(Mode::Dev, None, Backend::Postgres).await;
        own.way = own.place.as_ref().map(|place| Arc::new(Way::to(place.node_url())));
        Self::launch(own, change).await
    }

    /// Starts with the rules of production: https only, private addresses blocked.
    pub async fn strict(change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(Own::new(Mode::Production, None, Backend::chosen()).await, change).await
    }

    /// The same with names that lead where the test says.
    pub async fn strict_with(dns: StubDns, change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(Own::new(Mode::Production, Some(Arc::new(dns)), Backend::chosen()).await, change).await
    }

    /// The rules of `--dev`, and names that lead where this resolver says.
    pub async fn with_resolver(resolver: Arc<dyn Resolve>) -> Self {
        Self::launch(Own::new(Mode::Dev, Some(resolver), Backend::chosen()).await, |_| {}).await
    }

    /// A further node on the database of this one, over a way of its own, with the same settings, keyring and key.
    pub async fn another_node(&self) -> Self {
        let place = self.own.place.clone().expect("a server that was started with `shared`");
        let keyring = self.config.server.keyring.clone().unwrap_or_else(|| self.config.server.dev_keyring());
        let own = Own {
            folder: Arc::new(tempfile::tempdir().unwrap()),
            way: Some(Arc::new(Way::to(place.node_url()))),
            place: Some(place),
            token: Some(self.token.clone()),
            ..self.own.clone()
        };
        let mut config = self.config.clone();
        own.settle(&mut config);
        config.server.keyring = Some(keyring);
        Self::boot(config, own).await
    }

    async fn launch(own: Own, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.server.drain_seconds = 5;
        config.delivery.total_deadline_ms = 2000;
        config.outbound.connect_timeout_ms = 1000;
        own.settle(&mut config);
        if own.mode == Mode::Production {
            let keyring = own.folder.path().join("keyring.toml");
            postrider_vault::keyring::Keyring::create(&keyring).unwrap();
            config.server.keyring = Some(keyring);
        }
        change(&mut config);
        Self::boot(config, own).await
    }

    async fn boot(config: Config, own: Own) -> Self {
        static SERVERS: AtomicUsize = AtomicUsize::new(0);
        let threads = format!("server-{}", SERVERS.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(&threads)
            .enable_all()
            .build()
            .unwrap();
        let (settings, starting) = (config.clone(), own.clone());
        let (node, token) = runtime
            .spawn(async move {
                let node = Node::start_with(&settings, starting.mode, starting.resolver)
                    .await
                    .unwrap_or_else(|failure| panic!("{failure}"));
                let token = match starting.token {
                    Some(token) => token,
                    None => dev::key(node.store.as_ref()).await.unwrap().expose_secret().to_owned(),
                };
                (node, token)
            })
            .await
            .unwrap();
        let store = Arc::clone(&node.store);
        let live = node.live();
        Self {
            clock: TestClock { store: Arc::clone(&store), in_flight: Box::new(move || live().in_flight) },
            store,
            config,
            address: node.address,
            token,
            node: Some(node),
            runtime: Some(runtime),
            threads,
            own,
        }
    }

    /// A client with the key of its environment.
    pub fn client(&self) -> Client {
        Client::new(self.address, Some(&self.token))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key of its environment.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.config.server.data_dir
    }

    /// The way to its database, of a server that was started with `shared`.
    pub fn way(&self) -> &Way {
        self.own.way.as_deref().expect("a server that was started with `shared`")
    }

    /// Its database on PostgreSQL; `None` on SQLite.
    pub fn place(&self) -> Option<&Place> {
        self.own.place.as_deref()
    }

    /// The processor time that its threads took so far; in steps of 10 ms.
    pub fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let own = tasks.filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == self.threads)
        });
        let ticks = own.filter_map(|task| ticks(&std::fs::read_to_string(task.path().join("stat")).ok()?));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Stops it in order.
    pub async fn stop(mut self) {
        self.halt().await;
    }

    /// Stops it in order and starts it again on the same database. Clock, token and port are new.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with changed settings, or files: while `change` runs, the database is closed.
    pub async fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.halt().await;
        self.again(change).await
    }

    /// Ends it as `kill -9` would: nothing is finished or closed. Then starts it again on the same database.
    pub async fn crash(mut self) -> Self {
        if self.own.place.is_some() {
            tokio::time::sleep(NOTED).await;
        }
        self.cut();
        self.again(|_| {}).await
    }

    async fn halt(&mut self) {
        if let (Some(node), Some(runtime)) = (self.node.take(), &self.runtime) {
            runtime.spawn(node.stop()).await.unwrap();
        }
        self.cut();
    }

    async fn again(self, change: impl FnOnce(&mut Config)) -> Self {
        let (mut config, own) = (self.config.clone(), self.own.clone());
        // Every handle of the store goes, and with the last one its lock: that of a delivery's task perhaps a moment later,
        // since nobody waits for the engine's threads.
        drop(self);
        unlocked(&config.server.data_dir.join("lock")).await;
        change(&mut config);
        Self::boot(config, own).await
    }

    fn cut(&mut self) {
        self.node = None;
        if let Some(runtime) = self.runtime.take() {
            // Waits until its tasks are gone, which is not allowed on a thread that runs tasks.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server's runtime did not end");
        }
    }

    /// The application that helpers use when none is named.
    pub async fn default_app(&self) -> App {
        self.app(DEFAULT_APP).await
    }

    /// Creates an application with this uid, or finds it.
    pub async fn app(&self, uid: &str) -> App {
        let answer =
            self.client().post("/api/v1/app?get_if_exists=true", json!({ "name": uid, "uid": uid })).await;
        assert!(answer.status == 200 || answer.status == 201, "{answer:?}");
        App { id: answer.body["id"].as_str().unwrap().to_owned() }
    }

    /// Creates an endpoint of an application for a URL.
    pub async fn endpoint(&self, app: &App, url: &str) -> Endpoint {
        self.endpoint_with(app, url, json!({})).await
    }

    /// The same with further members.
    pub async fn endpoint_with(&self, app: &App, url: &str, members: Value) -> Endpoint {
        let mut body = members;
        body["url"] = url.into();
        let created = self.client().post(&format!("{}/endpoint", app.path()), body).await.expect(201);
        Endpoint { app: app.id.clone(), id: created["id"].as_str().unwrap().to_owned() }
    }

    /// Starts a receiver with this script, and an endpoint of the default application for it.
    pub async fn receiver<R: Into<Reply>>(&self, script: impl IntoIterator<Item = R>) -> Receiver {
        let receiver = Receiver::start(script).await;
        self.endpoint(&self.default_app().await, &receiver.url()).await;
        receiver
    }

    /// Publishes to the default application.
    pub async fn send(&self, event_type: &str, payload: Value) -> MessageRef {
        self.send_to(&self.default_app().await, event_type, payload).await
    }

    /// Publishes to an application.
    pub async fn send_to(&self, app: &App, event_type: &str, payload: Value) -> MessageRef {
        let body = json!({ "eventType": event_type, "payload": payload });
        let accepted = self.client().post(&format!("{}/msg", app.path()), body).await.expect(202);
        MessageRef { app: app.id.clone(), id: accepted["id"].as_str().unwrap().to_owned() }
    }

    /// The attempts of a message, oldest first.
    pub async fn attempts(&self, message: &MessageRef) -> Attempts {
        let path = format!("/api/v1/app/{}/attempt/msg/{}?limit=250", message.app, message.id);
        let mut items = self.client().get(&path).await.items();
        items.reverse();
        Attempts(items)
    }

    /// Waits in real time until a message has so many attempts.
    pub async fn wait_for_attempts(&self, message: &MessageRef, count: usize) -> Attempts {
        const PATIENCE: Duration = Duration::from_secs(20);
        let waiting = async {
            loop {
                let attempts = self.attempts(message).await;
                if attempts.len() >= count {
                    return attempts;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("no {count} attempts in {PATIENCE:?}"))
    }
}

/// User and system time of a line of `/proc/…/stat`, in hundredths of a second.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

impl Own {
    async fn new(mode: Mode, resolver: Option<Arc<dyn Resolve>>, backend: Backend) -> Self {
        let (folder, place) = (Arc::new(tempfile::tempdir().unwrap()), backend.place().await);
        Self { mode, resolver, folder, place, way: None, token: None }
    }

    /// Data directory and database.
    fn settle(&self, config: &mut Config) {
        config.server.data_dir = self.folder.path().join("data");
        match (&self.way, &self.place) {
            (Some(way), _) => use_database(config, way.url()),
            (None, Some(place)) => use_database(config, place.node_url()),
            (None, None) => {}
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Waits until nobody locks a file, if there is one.
async fn unlocked(path: &Path) {
    let Ok(file) = std::fs::File::open(path) else { return };
    let begun = tokio::time::Instant::now();
    while file.try_lock().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server that ended keeps {}", path.display());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
