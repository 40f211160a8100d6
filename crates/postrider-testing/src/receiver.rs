//! A customer's endpoint on loopback that follows a script and records what it got.

use crate::{certificate::Certificate, wire};
use bytes::Bytes;
use serde_json::Value;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Longest time that a test waits for a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a receiver does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with this status and a short body.
    Status(u16),
    /// Answers with status, further header fields and body.
    Full(u16, Vec<(String, String)>, Bytes),
    /// Answers with this status, and with head and body of the request as body.
    Echo(u16),
    /// Waits, then answers with this status.
    Slow(Duration, u16),
    /// Never answers and keeps the connection open.
    Hang,
    /// Closes the connection without an answer.
    Drop,
    /// Writes these bytes, whatever they are, and closes.
    Raw(Bytes),
    /// Writes these bytes, and keeps the connection open without ever writing more.
    Unfinished(Bytes),
    /// Does what this says of the request.
    By(fn(&Received) -> Reply),
    /// Waits, then does this.
    Later(Duration, Box<Reply>),
}

impl Reply {
    /// Points elsewhere.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::Full(status, vec![("Location".to_owned(), location.to_owned())], Bytes::new())
    }

    /// Answers with JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self::Full(status, headers, Bytes::from(body.to_string()))
    }

    /// Decides by the request.
    pub fn by(decide: fn(&Received) -> Self) -> Self {
        Self::By(decide)
    }

    /// Answers with a header field.
    pub fn with_header(status: u16, name: &str, value: &str) -> Self {
        Self::Full(status, vec![(name.to_owned(), value.to_owned())], Bytes::new())
    }
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self::Status(status)
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields in their order and spelling.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// When it was complete.
    pub at: Instant,
}

impl Received {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the body is no JSON: {error}"))
    }

    /// The headers as verifying libraries take them.
    pub fn header_map(&self) -> http::HeaderMap {
        let fields = self.headers.iter();
        fields
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }
}

struct Shared {
    script: Mutex<Vec<Reply>>,
    position: AtomicUsize,
    requests: Mutex<Vec<Received>>,
    arrived: Notify,
    connections: AtomicUsize,
}

/// A running receiver; it stops listening when dropped.
pub struct Receiver {
    address: SocketAddr,
    origin: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    /// Starts a receiver that answers the requests by this script, one entry each; the last entry repeats.
    pub async fn start<R: Into<Reply>>(script: impl IntoIterator<Item = R>) -> Self {
        Self::open(script.into_iter().map(Into::into).collect(), None).await
    }

    /// The same over TLS, under the name `localhost`, with this certificate.
    pub async fn start_tls<R: Into<Reply>>(
        script: impl IntoIterator<Item = R>,
        certificate: &Certificate,
    ) -> Self {
        Self::open(script.into_iter().map(Into::into).collect(), Some(certificate.acceptor.clone())).await
    }

    async fn open(script: Vec<Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            position: AtomicUsize::new(0),
            requests: Mutex::default(),
            arrived: Notify::new(),
            connections: AtomicUsize::new(0),
        });
        let origin = match tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let accepted = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&accepted);
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => shared.serve(stream).await,
                        // A client that does not trust the certificate breaks off: that is what some tests want.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                shared.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, origin, shared, accepting }
    }

    /// Its URL, with a path.
    pub fn url(&self) -> String {
        format!("{}/webhooks", self.origin)
    }

    /// Its URL with another path.
    pub fn url_with(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script; the next request gets its first entry.
    pub fn replies<R: Into<Reply>>(&self, script: impl IntoIterator<Item = R>) {
        *lock(&self.shared.script) = script.into_iter().map(Into::into).collect();
        self.shared.position.store(0, Ordering::Relaxed);
    }

    /// What it got so far, in order.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.requests).clone()
    }

    /// Connections that were opened to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until it has got so many requests, and returns them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let waiting = async {
            loop {
                let arrived = self.shared.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                let requests = self.requests();
                if requests.len() >= count {
                    return requests;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| {
            panic!("{} of {count} requests arrived in {PATIENCE:?}", self.requests().len())
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut buffer = Vec::new();
        while let Ok(Some(received)) = wire::read(&mut stream, &mut buffer).await {
            let reply = match self.next() {
                Reply::By(decide) => decide(&received),
                reply => reply,
            };
            lock(&self.requests).push(received.clone());
            self.arrived.notify_waiters();
            let reply = match reply {
                Reply::Later(time, then) => {
                    tokio::time::sleep(time).await;
                    *then
                }
                reply => reply,
            };
            if !matches!(self.reply(reply, &received, &mut stream).await, Ok(true)) {
                return;
            }
        }
    }

    fn next(&self) -> Reply {
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let script = lock(&self.script);
        script.get(position).or_else(|| script.last()).cloned().unwrap_or(Reply::Status(200))
    }

    /// `true` while the connection can take another request.
    async fn reply(
        &self,
        reply: Reply,
        received: &Received,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<bool> {
        match reply {
            Reply::Status(status) => write(stream, status, &[], b"done").await?,
            Reply::Full(status, headers, body) => write(stream, status, &headers, &body).await?,
            Reply::Echo(status) => write(stream, status, &[], &echo(received)).await?,
            Reply::Slow(time, status) => {
                tokio::time::sleep(time).await;
                write(stream, status, &[], b"at last").await?;
            }
            Reply::Hang => std::future::pending().await,
            // One decision and one wait is what a test may ask for.
            Reply::Drop | Reply::By(_) | Reply::Later(..) => return Ok(false),
            Reply::Unfinished(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                std::future::pending::<()>().await;
            }
            Reply::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn fields(headers: &[(String, String)], end: &str) -> String {
    headers.iter().flat_map(|(name, value)| [name, ": ", value, end]).collect()
}

fn echo(received: &Received) -> Vec<u8> {
    let head = fields(&received.headers, "\n");
    [format!("{} {}\n{head}\n", received.method, received.path).as_bytes(), &received.body[..]].concat()
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    let fields = fields(headers, "\r\n");
    let without_body = status == 204 || status == 304;
    let length = if without_body { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} Scripted\r\n{fields}{length}\r\n");
    let body = if without_body { &[] } else { body };
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    stream.flush().await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
