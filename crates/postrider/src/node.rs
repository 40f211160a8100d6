//! A running server: opens the store, wires engine and API over it, listens, and stops everything in order.
//!
//! Start: configuration, keyring, store, socket, engine, API: whatever is missing is said before anything listens.
//! Stop: accept nothing more, finish requests and attempts, then close the store.

use crate::{
    admin,
    config::{Config, Role, Server},
    failure::Failure,
    listener::{Listener, Transport},
    metrics::Metrics,
    standing,
};
use postrider_api::{Api, ApiState, ports};
use postrider_engine::Engine;
use postrider_model::id::EndpointId;
use postrider_outbound::{Outbound, resolver::Resolve};
use postrider_store::Store;
use postrider_store_postgres::PostgresStore;
use postrider_store_sqlite::SqliteStore;
use postrider_vault::keyring::{Keyring, KeyringError};
use prometheus_client::registry::Registry;
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How strict a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `https` only, private addresses blocked, an explicit keyring.
    Production,
    /// For trying things: loopback and plain `http` are fine, the keyring is created beside the database.
    Dev,
}

/// A running server.
pub struct Node {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Its URL as this machine reaches it.
    pub url: String,
    /// Its store.
    pub store: Arc<dyn Store>,
    /// None on a node that only serves the API.
    engine: Option<Arc<Engine>>,
    _threads: Threads,
    stop: CancellationToken,
    tasks: TaskTracker,
    socket: PathBuf,
    drain_time: Duration,
}

/// The engine's own threads: in one queue with a thousand publishers' connections a delivery would wait for all of them
/// at each of its steps, and the system cannot share the processors between the two (docs/decisions/0010-overload.md).
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("engine").enable_all().build();
        let runtime = runtime
            .map_err(|error| Failure::other(format!("cannot start threads for deliveries: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `start` so that what it spawns runs on these threads.
    fn within<T>(&self, start: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        start()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for them is not possible here, and what counts has been drained.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Pulse {
    engine: Option<Arc<Engine>>,
    store: Arc<dyn Store>,
}

/// As the API shows it.
fn treated(engine: &Engine, endpoint: EndpointId) -> ports::Standing {
    let postrider_engine::Standing { breaker, places, throttled_since } = engine.standing(endpoint);
    ports::Standing::of(breaker, places, throttled_since)
}

#[async_trait::async_trait]
impl ports::Pulse for Pulse {
    fn live(&self) -> ports::Live {
        // Without an engine nothing runs here, and nothing stands still.
        let Some(engine) = &self.engine else { return ports::Live::default() };
        let postrider_engine::Live { in_flight, since_last_round, first_attempts, late_permille } =
            engine.live();
        ports::Live { in_flight, since_last_round, first_attempts, late_permille }
    }

    async fn standing(&self, endpoint: EndpointId) -> Option<ports::Standing> {
        match &self.engine {
            Some(engine) if self.store.serves(endpoint) => Some(treated(engine, endpoint)),
            _ => standing::read(&self.store.ask(endpoint).await?),
        }
    }
}

impl Node {
    /// Starts a server. On an error nothing is left running.
    pub async fn start(config: &Config, mode: Mode) -> Result<Self, Failure> {
        Self::start_with(config, mode, None).await
    }

    /// The same with a resolver of the caller's choice, for tests of where names may lead.
    pub async fn start_with(
        config: &Config,
        mode: Mode,
        resolver: Option<Arc<dyn Resolve>>,
    ) -> Result<Self, Failure> {
        let dev = mode == Mode::Dev;
        let transport = Transport::of(&config.server, dev)?;
        let keyring = keyring(&config.server, mode)?;
        let delivers = config.server.has_role(Role::Engine);
        let store = open_store(config, keyring, delivers).await?;
        say_hold(store.as_ref());
        let listener = match Listener::bind(&config.server, transport) {
            Ok(listener) => listener,
            Err(failure) => {
                store.close().await;
                return Err(failure);
            }
        };
        let (address, url) = (listener.address(), listener.url());

        let mut registry = Registry::default();
        let engine_metrics = postrider_engine::Metrics::register(&mut registry);
        let outbound =
            postrider_outbound::Config { dev, own_listeners: vec![address], ..config.outbound.clone() };
        let rules = outbound.url_rules();
        let delivery = postrider_engine::Config { url_rules: rules.clone(), ..config.delivery.clone() };
        let threads = if delivers { Threads::start() } else { Ok(Threads(None)) };
        let (threads, engine) =
            match threads.and_then(|threads| Ok((threads, outbound_of(outbound, resolver)?))) {
                Ok((threads, outbound)) if delivers => {
                    let start = || Engine::start(Arc::clone(&store), outbound, delivery, engine_metrics);
                    let engine = Arc::new(threads.within(start));
                    (threads, Some(engine))
                }
                Ok((threads, _)) => (threads, None),
                Err(failure) => {
                    store.close().await;
                    return Err(failure);
                }
            };

        let metrics = Arc::new(Metrics::new(registry, Arc::clone(&store)));
        let api = postrider_api::Config { dev, url_rules: rules, ..config.api.clone() };
        let router = router(&store, engine.as_ref(), &metrics, api, config.server.has_role(Role::Api));

        let node = Self {
            address,
            url,
            store,
            engine,
            _threads: threads,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            socket: config.server.admin_socket(),
            drain_time: config.server.drain_time(),
        };
        let administration = match admin_listener(&node.socket) {
            Ok(administration) => administration,
            Err(failure) => {
                node.stop().await;
                return Err(failure);
            }
        };
        let admin = admin::router(Arc::clone(&node.store), Some(router.clone()));
        let stop = node.stop.clone();
        node.tasks.spawn(async move {
            let served =
                axum::serve(administration, admin).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin socket ended");
            }
        });
        node.tasks.spawn(listener.serve(router, node.stop.clone()));
        tracing::info!(%address, roles = ?config.server.roles, "listening");
        Ok(node)
    }

    /// Asks the engine how it is, for tests.
    pub fn live(&self) -> impl Fn() -> ports::Live + Send + Sync + use<> {
        let pulse = Pulse { engine: self.engine.clone(), store: Arc::clone(&self.store) };
        move || ports::Pulse::live(&pulse)
    }

    /// Stops in order, within the drain time and a few seconds; afterwards the database can be opened again.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        let requests = async {
            if tokio::time::timeout(self.drain_time, self.tasks.wait()).await.is_err() {
                tracing::warn!("requests did not finish within the drain time and are cut off");
            }
        };
        let attempts = async {
            if let Some(engine) = &self.engine {
                engine.drain().await;
            }
        };
        tokio::join!(requests, attempts);
        // It may be gone; a stale one is replaced at the next start.
        let _ = fs::remove_file(&self.socket);
        self.store.close().await;
        tracing::info!("stopped");
    }
}

fn outbound_of(
    config: postrider_outbound::Config,
    resolver: Option<Arc<dyn Resolve>>,
) -> Result<Outbound, Failure> {
    let outbound = match resolver {
        Some(resolver) => Outbound::new(config, resolver),
        None => Outbound::with_system_resolver(config),
    };
    outbound.map_err(|problem| Failure::config(problem.to_string()))
}

fn router(
    store: &Arc<dyn Store>,
    engine: Option<&Arc<Engine>>,
    metrics: &Arc<Metrics>,
    config: postrider_api::Config,
    whole: bool,
) -> Api {
    if let Some(engine) = engine {
        // The store outlives the engine, which has it.
        let engine = Arc::downgrade(engine);
        store.tell_with(Arc::new(move |endpoint| {
            standing::write(&treated(engine.upgrade()?.as_ref(), endpoint))
        }));
    }
    let pulse = Arc::new(Pulse { engine: engine.cloned(), store: Arc::clone(store) });
    let port: Arc<dyn ports::Metrics> = Arc::<Metrics>::clone(metrics);
    let state = ApiState::new(Arc::clone(store), pulse, port, Arc::new(config));
    metrics.watch(Arc::clone(&state.admission));
    if whole { postrider_api::router(state) } else { postrider_api::operating_router(state) }
}

/// Whoever wonders why nothing is sent looks at the log first.
fn say_hold(store: &dyn Store) {
    if let Some(since) = store.held_since() {
        tracing::warn!(
            since = since.to_rfc3339(),
            "deliveries are on hold until you decide: `postrider deliveries status`, then release, drop or retime"
        );
    }
}

/// The keyring of this configuration. `--dev` may create it beside the database; otherwise it must exist, elsewhere.
pub fn keyring(server: &Server, mode: Mode) -> Result<Keyring, Failure> {
    let config = |error: KeyringError| Failure::config(error.0);
    let beside = server.dev_keyring();
    match (&server.keyring, mode) {
        (Some(file), Mode::Dev) => Keyring::load(file).map_err(config),
        (Some(file), Mode::Production) => {
            Keyring::ensure_outside(file, &server.data_dir).map_err(config)?;
            Keyring::load(file).map_err(config)
        }
        (None, Mode::Dev) if beside.exists() => Keyring::load(&beside).map_err(config),
        (None, Mode::Dev) => {
            create_data_dir(&server.data_dir)?;
            Keyring::create(&beside).map_err(config)
        }
        (None, Mode::Production) => Err(Failure::config(
            "no keyring is configured: every stored credential is sealed with it.\n  Create one outside of the data \
             directory:  postrider keyring create /etc/postrider/keyring.toml\n  and name it:  postrider serve --keyring \
             /etc/postrider/keyring.toml  (or `server.keyring` in the configuration file)\n  To try things out instead:  \
             postrider serve --dev",
        )),
    }
}

/// Opens the database of this configuration: the shared one when its URL is set, else the embedded one under its lock.
/// `serves`: this process also makes deliveries.
pub async fn open_store(config: &Config, keyring: Keyring, serves: bool) -> Result<Arc<dyn Store>, Failure> {
    create_data_dir(&config.server.data_dir)?;
    if config.database.url.is_some() {
        return open_shared(config, keyring, serves).await;
    }
    let sqlite = postrider_store_sqlite::Config {
        data_dir: config.server.data_dir.clone(),
        delivery_deadline_seconds: config.delivery.retry_policy().deadline().as_secs(),
        ..config.sqlite.clone()
    };
    let opened = tokio::task::spawn_blocking(|| SqliteStore::open(sqlite, keyring)).await;
    match opened {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) if error.is_temporary() => Err(Failure::other(error.to_string())),
        Ok(Err(error)) => Err(Failure::config(error.to_string())),
        Err(panic) => Err(Failure::other(format!("cannot open the database: {panic}"))),
    }
}

async fn open_shared(config: &Config, keyring: Keyring, serves: bool) -> Result<Arc<dyn Store>, Failure> {
    let delivery = &config.delivery;
    // With what the engine may take to store the result.
    let attempt_seconds = delivery.total_deadline_ms.div_ceil(1000) + 3;
    let database = postrider_store_postgres::Config {
        data_dir: Some(config.server.data_dir.clone()),
        serves,
        attempt_seconds,
        // Renewed seven times while it lasts, it must outlast an attempt in between.
        lease_seconds: config.database.lease_seconds.max(attempt_seconds + (attempt_seconds / 2).max(5)),
        delivery_deadline_seconds: delivery.retry_policy().deadline().as_secs(),
        ..config.database.clone()
    };
    match PostgresStore::open(database, keyring).await {
        Ok(store) => Ok(store),
        Err(error) if error.is_temporary() => Err(Failure::other(error.to_string())),
        Err(error) => Err(Failure::config(error.to_string())),
    }
}

/// Readable for this user alone when it is made here.
fn create_data_dir(folder: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Failure::config(format!("cannot create the data directory {}: {error}; set `server.data_dir` to a directory, or a place for one, where \
             this user may write",
            folder.display()
        ))
    })
}

/// The store's lock says that no other server uses this directory: a socket that is there is a leftover.
fn admin_listener(path: &Path) -> Result<UnixListener, Failure> {
    let bind = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|error: io::Error| {
        Failure::config(format!(
            "cannot create the admin socket {}: {error} (paths of sockets have at most about 100 characters)",
            path.display()
        ))
    })
}
