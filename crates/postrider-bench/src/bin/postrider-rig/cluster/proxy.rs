//! The way of a node to the database: a TCP proxy that can cut every connection, hold the bytes of one direction or of
//! both, and be slow. What is held is not lost: it goes on when the way is whole again, as packets do that are sent
//! again, and so arrives late.

use anyhow::Result;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// Bytes that one direction of a connection takes at a time.
const CHUNK: usize = 64 * 1024;

/// How the way is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Where it leads.
    pub(crate) to: SocketAddr,
    /// Connections are closed and none is opened.
    pub(crate) cut: bool,
    /// Bytes to the database wait.
    pub(crate) holds_out: bool,
    /// Bytes from the database wait.
    pub(crate) holds_back: bool,
    /// What each piece takes longer, in both directions.
    pub(crate) delay: Duration,
    /// Connections of an earlier number are closed.
    generation: u64,
}

/// A proxy; its connections end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where the node connects to.
    pub(crate) port: u16,
    way: watch::Sender<Way>,
}

impl Proxy {
    /// Starts one.
    pub(crate) async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let whole =
            Way { to, cut: false, holds_out: false, holds_back: false, delay: Duration::ZERO, generation: 0 };
        let (way, heard) = watch::channel(whole);
        tokio::spawn(async move {
            // Ends with the runtime, as the rig does.
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, heard.clone()));
            }
        });
        Ok(Self { port, way })
    }

    /// Changes the way; a cut closes what is open.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Way)) {
        self.way.send_modify(|way| {
            let before = way.to;
            change(way);
            if way.cut || way.to != before {
                way.generation += 1;
            }
        });
    }
}

/// One connection.
async fn carry(node: TcpStream, way: watch::Receiver<Way>) {
    let Way { to, cut, generation, .. } = *way.borrow();
    if cut {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the rig's own database on loopback")]
    let Ok(database) = TcpStream::connect(to).await else { return };
    let _ = (node.set_nodelay(true), database.set_nodelay(true));
    let (from_node, to_node) = node.into_split();
    let (from_database, to_database) = database.into_split();
    let out = pump(from_node, to_database, way.clone(), |way| way.holds_out);
    let back = pump(from_database, to_node, way.clone(), |way| way.holds_back);
    let mut ends = way;
    tokio::select! {
        ((), ()) = async { tokio::join!(out, back) } => {}
        _ = ends.wait_for(|way| way.generation != generation) => {}
    }
}

/// One direction of it. Its end is passed on, after everything that was held.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    holds: impl Fn(&Way) -> bool,
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let delay = way.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if way.wait_for(|way| !holds(way)).await.is_err() || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    let _ = way.wait_for(|way| !holds(way)).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each piece with itself, behind a proxy, and a connection to it.
    async fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        #[expect(clippy::disallowed_methods, reason = "a test's own server")]
        let stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        (proxy, stream)
    }

    async fn says(stream: &mut TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(text).await.ok()?;
        hears(stream).await
    }

    async fn hears(stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut answer = vec![0; 100];
        let read = stream.read(&mut answer);
        let length = tokio::time::timeout(Duration::from_millis(200), read).await.ok()?.ok()?;
        Some(answer[..length].to_vec())
    }

    #[tokio::test]
    async fn what_is_held_arrives_late_and_a_cut_ends_the_connection() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(says(&mut stream, b"one").await.unwrap(), b"one");
        for direction in [|way: &mut Way| way.holds_out = true, |way: &mut Way| way.holds_back = true] {
            proxy.set(direction);
            assert_eq!(says(&mut stream, b"two").await, None, "held");
            proxy.set(|way| (way.holds_out, way.holds_back) = (false, false));
            assert_eq!(hears(&mut stream).await.unwrap(), b"two");
        }
        proxy.set(|way| way.cut = true);
        assert!(hears(&mut stream).await.is_none_or(|rest| rest.is_empty()));
        proxy.set(|way| way.cut = false);
        assert!(says(&mut stream, b"three").await.is_none_or(|rest| rest.is_empty()), "it stays closed");
    }
}
