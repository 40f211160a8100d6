//! The receiver: takes deliveries, notes how long each took from being published (or meant to be), and answers as the
//! group of endpoints that it was sent to is told to. It runs in a thread of its own and does as little as it can.

use crate::{
    message::{self, Stamp},
    publisher::LONGEST,
    usage, wire,
};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, sleep},
};

/// Groups of endpoints that can be told apart.
const GROUPS: usize = 8;
const READ_BYTES: usize = 16 * 1024;
/// Addresses that endpoints are spread over, on loopback.
const ORIGINS: u32 = 16;
/// Ports that are tried until one is free on all of them.
const PORT_TRIES: u32 = 20;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
/// What a tar pit sends now and then: headers without an end.
const TAR: &[u8] = b"x-tar: pit\r\n";
const TAR_EVERY: Duration = Duration::from_secs(2);

/// A group of endpoints: its number stands in their URLs.
pub(crate) type Group = usize;

/// How a group answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// 200 at once.
    Answer,
    /// 200 after this long.
    AnswerAfter(Duration),
    /// 500 at once.
    Fail,
    /// Takes the request and says nothing.
    Hang,
    /// Begins an answer and goes on with it for ever, a header at a time.
    TarPit,
}

/// A receiver at work; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// What endpoints' URLs begin with: they take turns.
    origins: Vec<String>,
    epoch: Instant,
    groups: Arc<[GroupState; GROUPS]>,
    /// Both until it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct GroupState {
    manner: AtomicU64,
    arrived: AtomicU64,
    book: Mutex<Book>,
}

/// What arrived at a group.
#[derive(Debug)]
struct Book {
    latencies: Histogram<u64>,
    /// How often each serial number arrived, when that is counted.
    serials: Option<Vec<u8>>,
}

impl Receiver {
    /// Starts it; times in payloads count from `epoch`. `public` is the URL under which a server on another machine
    /// reaches it.
    pub(crate) fn start(listen: SocketAddr, public: Option<&str>, epoch: Instant) -> Result<Self> {
        let listeners = listen_on(listen)?;
        let origins = match public {
            Some(url) => vec![url.trim_end_matches('/').to_owned()],
            None => listeners
                .iter()
                .map(|listener| Ok(format!("http://{}", listener.local_addr()?)))
                .collect::<Result<_>>()?,
        };
        let groups = Arc::new([(); GROUPS].map(|()| GroupState::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::clone(&groups);
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(accept(listener, Arc::clone(&seen), epoch));
                }
                // Everything ends with the runtime.
                let _ = stopped.await;
            });
        })?;
        Ok(Self { origins, epoch, groups, stop: Some(stop), thread: Some(thread) })
    }

    /// The URL of an endpoint.
    pub(crate) fn url(&self, group: Group, number: usize) -> String {
        format!("{}/{group}/{number}", self.origins[number % self.origins.len()])
    }

    /// Tells a group how to answer from now on.
    pub(crate) fn manner(&self, group: Group, manner: Manner) {
        self.groups[group].manner.store(manner.code(), Ordering::Relaxed);
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Deliveries that arrived at a group, repeated ones too.
    pub(crate) fn arrived(&self, group: Group) -> u64 {
        self.groups[group].arrived.load(Ordering::Relaxed)
    }

    /// Latencies of a group so far, in microseconds; starts anew.
    pub(crate) fn take(&self, group: Group) -> Histogram<u64> {
        let mut book = self.groups[group].book();
        let taken = book.latencies.clone();
        book.latencies.reset();
        taken
    }

    /// From now on, keeps how often each serial number arrives at a group.
    pub(crate) fn count_serials(&self, group: Group) {
        self.groups[group].book().serials = Some(Vec::new());
    }

    /// How often each of these serial numbers arrived: never, and more than once.
    pub(crate) fn missing_and_repeated(&self, group: Group, serials: &[u64]) -> (u64, u64) {
        let book = self.groups[group].book();
        let counts = book.serials.as_deref().unwrap_or_default();
        serials.iter().fold((0, 0), |(missing, repeated), serial| {
            let count = usize::try_from(*serial).ok().and_then(|at| counts.get(at)).copied().unwrap_or(0);
            (missing + u64::from(count == 0), repeated + u64::from(count > 1))
        })
    }

    /// Processor time of all receivers of this process so far, in seconds.
    pub(crate) fn cpu_seconds() -> Result<f64> {
        usage::threads_named("receiver")
    }
}

impl Drop for Receiver {
    /// Waits, so that its port is free for the next one.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// On loopback, several addresses with one port: endpoints of different customers are different servers, and a sender may
/// keep connections for each of them.
fn listen_on(address: SocketAddr) -> Result<Vec<TcpListener>> {
    let mut error = None;
    for _ in 0..PORT_TRIES {
        let first = listen_at(address)?;
        let port = first.local_addr()?.port();
        let more = match address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => ORIGINS,
            _ => 1,
        };
        let others = (1..more).map(|number| match address.ip() {
            IpAddr::V4(ip) => {
                listen_at(SocketAddr::new(Ipv4Addr::from_bits(ip.to_bits() + number).into(), port))
            }
            IpAddr::V6(_) => listen_at(address),
        });
        match others.collect::<Result<Vec<_>>>() {
            Ok(others) => return Ok(std::iter::once(first).chain(others).collect()),
            // Somebody has that port on one of the addresses.
            Err(taken) => error = Some(taken),
        }
    }
    Err(error.unwrap_or_else(|| anyhow::anyhow!("the receiver found no free port")))
}

fn listen_at(address: SocketAddr) -> Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)
        .with_context(|| format!("the receiver cannot listen on {address}"))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

async fn accept(listener: TcpListener, groups: Arc<[GroupState; GROUPS]>, epoch: Instant) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let groups = Arc::clone(&groups);
                // A connection that breaks is the server's to notice.
                tokio::spawn(async move { serve(stream, &groups, epoch).await });
            }
            // Out of file descriptors: connections will end.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, groups: &[GroupState; GROUPS], epoch: Instant) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut out = Vec::new();
    loop {
        if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
            buffer.reserve(READ_BYTES);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let now = u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut taken = 0;
        while let Some(request) = wire::request(&buffer[taken..])? {
            taken += request.length;
            let group = &groups[group_of(request.path)];
            group.note(message::stamp(request.body), now);
            match group.manner() {
                Manner::Answer => out.extend_from_slice(OK),
                Manner::Fail => out.extend_from_slice(FAILED),
                Manner::AnswerAfter(wait) => {
                    sleep(wait).await;
                    out.extend_from_slice(OK);
                }
                // A thousand of these cost memory for as long as they last: none but the socket's.
                Manner::Hang => return hang(stream, (buffer, out), None).await,
                Manner::TarPit => return hang(stream, (buffer, out), Some(TAR)).await,
            }
        }
        buffer.drain(..taken);
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// Keeps a request without an answer until the server has had enough of it.
async fn hang(mut stream: TcpStream, buffers: (Vec<u8>, Vec<u8>), tar: Option<&[u8]>) -> Result<()> {
    drop(buffers);
    let mut rest = [0_u8; 64];
    if let Some(tar) = tar {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            tokio::select! {
                read = stream.read(&mut rest) => if read? == 0 { return Ok(()) },
                () = sleep(TAR_EVERY) => stream.write_all(tar).await?,
            }
        }
    }
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The first part of the path.
fn group_of(path: &str) -> Group {
    let digit = path.as_bytes().get(1).map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
    digit.min(GROUPS - 1)
}

impl GroupState {
    #[expect(clippy::expect_used, reason = "constant bounds")]
    fn new() -> Self {
        let latencies = Histogram::new_with_max(LONGEST, 3).expect("valid bounds");
        Self {
            manner: AtomicU64::new(Manner::Answer.code()),
            arrived: AtomicU64::new(0),
            book: Mutex::new(Book { latencies, serials: None }),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner(&self) -> Manner {
        Manner::from_code(self.manner.load(Ordering::Relaxed))
    }

    fn note(&self, stamp: Option<Stamp>, now: u64) {
        if let Some(stamp) = stamp {
            let mut book = self.book();
            book.latencies.saturating_record(now.saturating_sub(stamp.sent));
            if let (Some(serials), Ok(at)) = (&mut book.serials, usize::try_from(stamp.serial)) {
                if serials.len() <= at {
                    serials.resize(at + 1, 0);
                }
                serials[at] = serials[at].saturating_add(1);
            }
        }
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }
}

impl Manner {
    /// As one number: kinds, or milliseconds beyond them.
    fn code(self) -> u64 {
        match self {
            Self::Answer => 0,
            Self::Fail => 1,
            Self::Hang => 2,
            Self::TarPit => 3,
            Self::AnswerAfter(wait) => 4 + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX - 4),
        }
    }

    fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Answer,
            1 => Self::Fail,
            2 => Self::Hang,
            3 => Self::TarPit,
            more => Self::AnswerAfter(Duration::from_millis(more - 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_survives_being_a_number() {
        let after = Manner::AnswerAfter(Duration::from_millis(20));
        for manner in [Manner::Answer, Manner::Fail, Manner::Hang, Manner::TarPit, after] {
            assert_eq!(Manner::from_code(manner.code()), manner);
        }
    }

    /// Else the pool of one origin would be the bound of all endpoints.
    #[test]
    fn endpoints_are_spread_over_origins() {
        let receiver = Receiver::start(SocketAddr::from(([127, 0, 0, 1], 0)), None, Instant::now()).unwrap();
        let (first, second) = (receiver.url(0, 0), receiver.url(0, 1));
        assert!(first.starts_with("http://127.0.0.1:") && first.ends_with("/0/0"), "{first}");
        assert!(second.starts_with("http://127.0.0.2:") && second.ends_with("/0/1"), "{second}");
        assert!(receiver.url(3, 16).starts_with("http://127.0.0.1:"));
        drop(receiver);
        let named = SocketAddr::from(([127, 0, 0, 1], 0));
        let receiver = Receiver::start(named, Some("http://bench.example.com/"), Instant::now()).unwrap();
        assert_eq!(receiver.url(1, 7), "http://bench.example.com/1/7");
    }

    #[test]
    fn the_group_stands_first_in_the_path() {
        assert_eq!((group_of("/3/17"), group_of("/0/1"), group_of("/"), group_of("/webhooks")), (3, 0, 0, 7));
    }

    #[test]
    fn repeated_and_missing_messages_are_told_apart() {
        let groups = Arc::new([(); GROUPS].map(|()| GroupState::new()));
        let receiver = Receiver { origins: vec![], epoch: Instant::now(), groups, stop: None, thread: None };
        receiver.count_serials(1);
        for serial in [0, 2, 2] {
            receiver.groups[1].note(Some(Stamp { sent: 0, serial }), 5);
        }
        assert_eq!(receiver.missing_and_repeated(1, &[0, 1, 2, 99]), (2, 1));
        assert_eq!((receiver.arrived(1), receiver.take(1).len(), receiver.take(1).len()), (3, 3, 0));
    }
}
