//! The API's socket: accepts connections, bounds their number, their rest, the time and size of request heads and the
//! time of bodies, serves TLS when configured, and finishes what it began when told to stop.
//!
//! What it does not do: routes. They are `postrider-api`'s.

mod body;
mod full;
mod patience;
mod places;
pub mod proxies;
mod refusals;
pub mod tls;

use crate::{config::Server, failure::Failure, process};
use axum::body::Body;
use full::{Because, Full};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
use patience::{Patience, Patient, Turns};
use places::{Place, Places};
use postrider_api::{Api, auth::ClientAddress};
use proxies::Network;
use refusals::Told;
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Most header fields of a request.
const HEAD_FIELDS: usize = 100;
/// What a connection reads at once, and so keeps while it rests: hyper would go up to 400 KiB after a large body.
const READ_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted; the system may allow fewer. One too many is dropped by the system and comes back a
/// second later, which a burst of clients should not see: the usual 128 are there within a few milliseconds.
const BACKLOG: u32 = 4096;
/// Wait after a failed `accept` (too many open files): retrying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket with what its connections share.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Option<TlsAcceptor>,
    proxies: Vec<Network>,
    /// Plain HTTP beyond this machine: only the proxies, which end TLS, may connect.
    only_proxies: bool,
    places: Arc<Places>,
    patience: Patience,
}

/// How connections are secured; decided before anything is opened.
pub struct Transport {
    tls: Option<TlsAcceptor>,
    only_proxies: bool,
}

impl Transport {
    /// Loads the certificate, if one is set. Refuses plain HTTP beyond this machine unless a proxy in front is named,
    /// or in `dev`.
    pub fn of(settings: &Server, dev: bool) -> Result<Self, Failure> {
        let tls = tls::acceptor(settings)?;
        let only_proxies = tls.is_none() && !settings.listen.ip().is_loopback() && !dev;
        if only_proxies && settings.trusted_proxies.is_empty() {
            return Err(Failure::config(format!(
                "refusing to serve plain HTTP on {}: API keys would cross the network in clear. Set \
                 `server.tls_certificate` and `server.tls_key`, or name the proxy that ends TLS in \
                 `server.trusted_proxies`, or listen on 127.0.0.1",
                settings.listen
            )));
        }
        Ok(Self { tls, only_proxies })
    }
}

impl Listener {
    /// Binds the configured address.
    pub fn bind(settings: &Server, transport: Transport) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            let way_out = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there: stop it, or choose another port with `server.listen` or `--listen`"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have the address: put right `server.listen`"
                }
                io::ErrorKind::PermissionDenied => {
                    "this user may not: choose a port from 1024 on with `server.listen`"
                }
                _ => "put right `server.listen`",
            };
            Failure::other(format!("cannot listen on {}: {error}; {way_out}", settings.listen))
        };
        let socket = listen(settings.listen).map_err(cannot)?;
        let address = socket.local_addr().map_err(cannot)?;
        Ok(Self {
            socket,
            address,
            connections: Arc::new(Semaphore::new(places(settings.connections))),
            shared: Arc::new(Shared {
                tls: transport.tls,
                only_proxies: transport.only_proxies,
                proxies: settings.trusted_proxies.clone(),
                places: Places::new(settings.connections_per_address.max(1)),
                patience: Patience { head: settings.header_time(), idle: settings.idle_time() },
            }),
        })
    }

    /// Where it listens; the port that the system chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server as this machine reaches it.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        let host = if self.address.ip().is_unspecified() {
            "localhost".to_owned()
        } else {
            self.address.ip().to_string()
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Serves until `stop`, then accepts nothing more, finishes the requests that run, and returns.
    pub async fn serve(self, api: Api, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let tracker = TaskTracker::new();
        let full = Full::new();
        loop {
            let seat = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = Arc::clone(&self.connections).acquire_owned() => Seat::Place(permit.ok()),
                room = full.room() => Seat::ToBeTold(room),
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.seat(peer.ip(), seat, &full) {
                Seated::Served(permit, place) => {
                    let shared = Arc::clone(&self.shared);
                    let connection = connection(stream, peer, shared, api.clone(), graceful.watcher());
                    tracker.spawn(async move {
                        connection.await;
                        drop((permit, place));
                    });
                }
                Seated::Told(because, room) => {
                    tracing::debug!(%peer, ?because, "no place for a connection");
                    drop(tracker.spawn(full::tell(stream, because, self.shared.tls.is_none(), room)));
                }
                Seated::Closed => {}
            }
        }
        drop(self.socket);
        tracker.close();
        graceful.shutdown().await;
        tracker.wait().await;
    }
}

/// What the next connection can have.
enum Seat {
    Place(Option<OwnedSemaphorePermit>),
    ToBeTold(Option<OwnedSemaphorePermit>),
}

/// What an accepted connection gets.
enum Seated {
    Served(OwnedSemaphorePermit, Place),
    Told(Because, OwnedSemaphorePermit),
    Closed,
}

/// Places for connections: half of the files that the process may open at most, since deliveries need some too.
fn places(wanted: usize) -> usize {
    let files = process::file_limit().unwrap_or(usize::MAX);
    let most = (files / 2).clamp(1, Semaphore::MAX_PERMITS);
    if wanted > most {
        tracing::warn!(
            most,
            files,
            "`server.connections` is more than half of the files that this process may open; the half counts"
        );
    }
    wanted.clamp(1, most)
}

/// The socket, bound and listening.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// A place for a connection that was accepted, or what it is told instead.
    fn seat(&self, peer: IpAddr, seat: Seat, full: &Full) -> Seated {
        if !self.shared.may_connect(peer) {
            return Seated::Closed;
        }
        let (permit, room) = match seat {
            Seat::Place(permit) => (permit, None),
            // One may have become free since.
            Seat::ToBeTold(room) => (Arc::clone(&self.connections).try_acquire_owned().ok(), room),
        };
        let because = match permit.map(|permit| (permit, self.shared.place(peer))) {
            Some((permit, Some(place))) => return Seated::Served(permit, place),
            Some((_, None)) => Because::Address,
            None => Because::All,
        };
        room.or_else(|| full.room_now()).map_or(Seated::Closed, |room| Seated::Told(because, room))
    }
}

impl Shared {
    /// Plain HTTP beyond this machine is for proxies only.
    fn may_connect(&self, peer: IpAddr) -> bool {
        let may = !self.only_proxies || self.is_proxy(peer) || peer.to_canonical().is_loopback();
        if !may {
            tracing::debug!(%peer, "neither a trusted proxy nor this machine, and without TLS");
        }
        may
    }

    /// A place among those of its address. Proxies speak for many and are not counted.
    fn place(&self, peer: IpAddr) -> Option<Place> {
        if self.is_proxy(peer) { Some(Place::uncounted()) } else { self.places.take(peer) }
    }

    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(peer))
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, api: Api, watcher: Watcher) {
    // Small answers must not wait for more; an error here means that the connection is gone already.
    let _ = stream.set_nodelay(true);
    match shared.tls.clone() {
        None => requests(stream, peer, shared, api, watcher).await,
        Some(acceptor) => match tokio::time::timeout(shared.patience.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, peer, shared, api, watcher).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: SocketAddr,
    shared: Arc<Shared>,
    api: Api,
    watcher: Watcher,
) {
    let turns = Turns::default();
    let stream = Patient::new(stream, shared.patience, turns.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let request = admit(request, peer, &shared.proxies);
        let (api, turn) = (api.clone(), turns.begin());
        async move {
            let answer = api.answer(request).await;
            Ok::<_, Infallible>(answer.map(|body| body::Held::new(body, turn)))
        }
    });
    let connection = http1::Builder::new()
        // Ours tells the rest between requests from the time of a head.
        .header_read_timeout(None)
        .max_headers(HEAD_FIELDS)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(Told::new(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        // Clients that break off, time out or do not speak HTTP: theirs to fix, ours only to see when debugging.
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// Adds who the client is and bounds the time of the body.
fn admit(request: Request<Incoming>, peer: SocketAddr, proxies: &[Network]) -> Request<Body> {
    let client = proxies::client(peer, request.headers(), proxies);
    let mut request = request.map(|incoming| Body::new(body::Paced::new(incoming)));
    request.extensions_mut().insert(ClientAddress(client.ip()));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(listen: &str, proxies: &[&str]) -> Shared {
        let settings = Server {
            listen: listen.parse().unwrap(),
            trusted_proxies: proxies.iter().map(|network| network.parse().unwrap()).collect(),
            ..Server::default()
        };
        let transport = Transport::of(&settings, false).unwrap();
        Shared {
            tls: transport.tls,
            only_proxies: transport.only_proxies,
            proxies: settings.trusted_proxies,
            places: Places::new(1),
            patience: Patience { head: Duration::from_secs(1), idle: Duration::from_secs(1) },
        }
    }

    #[test]
    fn plain_http_beyond_this_machine_is_for_the_named_proxies_only() {
        let behind = shared("0.0.0.0:8071", &["10.0.0.0/8"]);
        let admitted = |shared: &Shared, peer: &str| shared.may_connect(peer.parse().unwrap());
        assert!(admitted(&behind, "10.1.2.3") && admitted(&behind, "127.0.0.1"));
        assert!(!admitted(&behind, "192.0.2.1"));
        let local = shared("127.0.0.1:8071", &[]);
        assert!(admitted(&local, "127.0.0.1"));
    }

    /// P10: clients that come all at once do not lose a second each.
    #[tokio::test]
    async fn a_burst_of_connections_waits_to_be_accepted() {
        let socket = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let allowed = allowed.ok().and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(128);
        let connections = (0..allowed.min(500)).map(|_| async move {
            #[expect(clippy::disallowed_methods, reason = "the listener under test")]
            TcpStream::connect(address).await.unwrap()
        });
        let connections = futures_util::future::join_all(connections);
        tokio::time::timeout(Duration::from_millis(900), connections).await.expect("none came back later");
    }
}
