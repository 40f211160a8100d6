//! A small HTTP client for servers that this program started or administers: the admin socket, the demo, tests.
//!
//! It never dials an address that a user of the API gave; that is `postrider-outbound`'s alone. One connection a
//! request.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// Longest answer that is read, in bytes: a page of messages with their payloads.
const ANSWER_BYTES: usize = 300 * 1024 * 1024;
/// Longest time for a request and its answer.
const ANSWER_TIME: Duration = Duration::from_mins(1);

/// Where a server of ours listens.
#[derive(Debug, Clone)]
pub enum Place {
    /// A TCP address, without TLS.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// An answer, complete.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` when it is empty or no JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends a request and reads the whole answer.
pub async fn request(place: &Place, request: http::Request<Full<Bytes>>) -> io::Result<Answer> {
    tokio::time::timeout(ANSWER_TIME, async {
        match place {
            Place::Tcp(address) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the address is one of ours, not one that a user gave"
                )]
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                exchange(stream, request).await
            }
            Place::Unix(path) => exchange(tokio::net::UnixStream::connect(path).await?, request).await,
        }
    })
    .await
    .unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER_TIME:?}")))
    })
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: http::Request<Full<Bytes>>,
) -> io::Result<Answer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let host = request.uri().authority().map_or_else(|| "localhost".to_owned(), ToString::to_string);
    if let Ok(host) = host.parse() {
        request.headers_mut().entry(http::header::HOST).or_insert(host);
    }
    let (head, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
    connection.abort();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}
