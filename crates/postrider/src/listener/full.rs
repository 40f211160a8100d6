//! Connections that find no place: told so in a few bytes, and closed. A silent wait would look like a server that is
//! gone, and end in the client's own time limit.
//!
//! Such a connection is kept for up to a second: so long takes whoever connects again at once, and few are kept at a time.

use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Connections that are told at one time. While there are so many, further ones wait to be accepted.
const TOLD: usize = 256;
/// How long one of them may take.
const TIME: Duration = Duration::from_secs(1);
/// What is read of its request: closing with unread bytes would reset the connection, and the answer with it.
const REQUEST_BYTES: u64 = 1024 * 1024;

/// Room for those that are told.
#[derive(Clone)]
pub(super) struct Full(Arc<Semaphore>);

/// Why a connection has no place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Because {
    /// All are taken.
    All,
    /// Its address has as many as it may.
    Address,
}

impl Full {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOLD)))
    }

    /// Waits until one more can be told.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }

    /// The same without waiting.
    pub(super) fn room_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Tells a client why it is not served, if it can be told in `plain` text, and closes.
pub(super) async fn tell(mut stream: TcpStream, because: Because, plain: bool, _room: OwnedSemaphorePermit) {
    let telling = async {
        if plain {
            stream.write_all(&because.answer()).await?;
            stream.shutdown().await?;
        }
        tokio::io::copy(&mut (&mut stream).take(REQUEST_BYTES), &mut tokio::io::sink()).await
    };
    // A client that has gone, or does not listen, needs no answer.
    drop(timeout(TIME, telling).await);
}

impl Because {
    fn answer(self) -> Bytes {
        let (status, code, detail) = match self {
            Self::All => (
                "503 Service Unavailable",
                "overloaded",
                "All connections of the server are taken; ask again.",
            ),
            Self::Address => (
                "429 Too Many Requests",
                "too_many_connections",
                "This address has too many connections; close some, or use them for several requests.",
            ),
        };
        let body = format!(r#"{{"code":"{code}","detail":"{detail}"}}"#);
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        Bytes::from(head + &body)
    }
}
