//! The way from a server to its database: it can be cut and fall silent, and counts what goes over it. Runs on a thread
//! of its own, so that what a test does to a server's runtime does not touch it.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// What the way does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Carries them.
    Open,
    /// Ends every connection and takes none: a database that was shut down.
    Cut,
    /// Takes connections and keeps all of them, and carries nothing: a cut cable, a machine that stands still.
    Silent,
    /// The test is over.
    Gone,
}

/// What went over a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that were tried.
    pub connections: u64,
    /// Statements that were sent, one for each time that it was executed.
    pub statements: u64,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    statements: AtomicU64,
}

/// A way to a database.
pub struct Way {
    url: String,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
}

/// Where a way leads.
#[derive(Debug, Clone)]
enum Goal {
    Socket(PathBuf),
    Address(String),
}

impl Way {
    /// Begins a way to the database at a URL, as a cluster for tests gives it.
    pub fn to(url: &str) -> Self {
        let (scheme_and_user, rest) = url.split_once('@').unwrap_or_else(|| panic!("no user in {url}"));
        let (place, database) = rest.split_once('/').unwrap_or_else(|| panic!("no database in {url}"));
        let goal = goal(place);
        let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = database.split('?').next().unwrap_or(database);
        let (state, watched) = watch::channel(State::Open);
        let counts = Arc::new(Counts::default());
        let way = Self {
            url: format!("{scheme_and_user}@127.0.0.1:{port}/{database}?sslmode=disable"),
            state,
            counts: Arc::clone(&counts),
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(&listener, &goal, watched, &counts).await;
            });
        });
        way
    }

    /// The URL over this way.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends every connection and takes none, as when the database is shut down.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Keeps everything open and carries nothing, as when a cable is cut.
    pub fn fall_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Carries again. Connections that were silent go on where they were.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// What went over it since it began.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.counts.connections.load(Ordering::Relaxed),
            statements: self.counts.statements.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.state.send_replace(State::Gone);
    }
}

fn goal(place: &str) -> Goal {
    let (host, port) = place.rsplit_once(':').unwrap_or((place, "5432"));
    let host = host.replace("%2F", "/");
    if host.starts_with('/') {
        Goal::Socket(PathBuf::from(host).join(format!(".s.PGSQL.{port}")))
    } else {
        Goal::Address(format!("{host}:{port}"))
    }
}

async fn serve(listener: &TcpListener, goal: &Goal, mut state: watch::Receiver<State>, counts: &Arc<Counts>) {
    let mut connections = JoinSet::new();
    while *state.borrow() != State::Gone {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                counts.connections.fetch_add(1, Ordering::Relaxed);
                let (goal, state, counts) = (goal.clone(), state.clone(), Arc::clone(counts));
                // An end of either side is the end of the connection: the other side learns it.
                connections.spawn(async move { connection(stream, &goal, state, &counts).await.ok() });
            }
            Some(_) = connections.join_next() => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

async fn connection(
    near: TcpStream,
    goal: &Goal,
    mut state: watch::Receiver<State>,
    counts: &Counts,
) -> io::Result<()> {
    near.set_nodelay(true)?;
    if !wait_for_open(&mut state).await {
        return Ok(());
    }
    match goal {
        Goal::Socket(path) => carry(near, UnixStream::connect(path).await?, state, counts).await,
        Goal::Address(address) => {
            #[expect(clippy::disallowed_methods, reason = "the database of the tests")]
            let far = TcpStream::connect(address.as_str()).await?;
            far.set_nodelay(true)?;
            carry(near, far, state, counts).await
        }
    }
}

/// `false` when there will be no more.
async fn wait_for_open(state: &mut watch::Receiver<State>) -> bool {
    let decided = state.wait_for(|state| *state != State::Silent).await;
    decided.is_ok_and(|state| *state == State::Open)
}

async fn carry(
    near: TcpStream,
    far: impl AsyncRead + AsyncWrite + Unpin,
    state: watch::Receiver<State>,
    counts: &Counts,
) -> io::Result<()> {
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = tokio::io::split(far);
    let mut reading = Statements::default();
    let there = carry_one(near_read, far_write, state.clone(), |bytes| {
        counts.statements.fetch_add(reading.count(bytes), Ordering::Relaxed);
    });
    let back = carry_one(far_read, near_write, state, |_| {});
    tokio::select! {
        done = there => done,
        done = back => done,
    }
}

async fn carry_one(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while wait_for_open(&mut state).await {
        let Some(length) = unless_changed(&mut state, from.read(&mut buffer)).await else { continue };
        let length = length?;
        if length == 0 {
            return Ok(());
        }
        // What was read before the way fell silent waits with it.
        if !wait_for_open(&mut state).await {
            return Ok(());
        }
        each(&buffer[..length]);
        to.write_all(&buffer[..length]).await?;
    }
    Ok(())
}

/// `None` when the state changed first.
async fn unless_changed<T>(state: &mut watch::Receiver<State>, doing: impl Future<Output = T>) -> Option<T> {
    let doing = pin!(doing);
    tokio::select! {
        biased;
        _ = state.changed() => None,
        done = doing => Some(done),
    }
}

/// Counts executions of statements in what a client sends: messages of a type, a length and a body.
#[derive(Default)]
struct Statements {
    /// The first message has no type.
    begun: bool,
    head: Vec<u8>,
    /// Bytes of the body that are still to come.
    body: usize,
}

impl Statements {
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut found = 0;
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let size = if self.begun { 5 } else { 4 };
            while self.body == 0 && self.head.len() < size && !bytes.is_empty() {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
            }
            if self.head.len() == size {
                let length = &self.head[size - 4..];
                let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
                self.body = (length as usize).saturating_sub(4);
                // A simple query, or the execution of a prepared one.
                found += u64::from(self.begun && matches!(self.head[0], b'Q' | b'E'));
                self.begun = true;
                self.head.clear();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_however_the_bytes_are_cut() {
        let mut bytes = vec![0, 0, 0, 9, 0, 3, 0, 0, 0];
        for kind in *b"PBESQ" {
            bytes.extend([kind, 0, 0, 0, 7, b'E', b'Q', b'E']);
        }
        for size in 1..bytes.len() {
            let mut statements = Statements::default();
            let found: u64 = bytes.chunks(size).map(|chunk| statements.count(chunk)).sum();
            assert_eq!(found, 2, "in pieces of {size}");
        }
    }

    #[test]
    fn a_place_is_a_socket_or_an_address() {
        assert!(matches!(goal("%2Ftmp%2Fx:5433"), Goal::Socket(path) if path.ends_with(".s.PGSQL.5433")));
        assert!(matches!(goal("127.0.0.1:5433"), Goal::Address(address) if address == "127.0.0.1:5433"));
    }
}
