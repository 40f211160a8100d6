//! Publishes messages, in a closed loop or at a fixed rate.

use crate::{
    connection::Connection,
    limit::PAYLOAD_BYTES,
    receiver::{Receiver, SENT},
    server::Server,
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// As fast as answers come, over some connections; returns how many messages were accepted.
pub(crate) async fn closed_loop(
    server: &Arc<Server>,
    path: &str,
    receiver: &Receiver,
    connections: usize,
    duration: Duration,
) -> Result<u64> {
    let until = Instant::now() + duration;
    let accepted = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (server, receiver, accepted) = (Arc::clone(server), receiver.clone(), Arc::clone(&accepted));
            let path = path.to_owned();
            tokio::spawn(async move {
                let mut connection = Connection::open(server.address).await?;
                while Instant::now() < until {
                    publish(&server, &mut connection, &path, receiver.now()).await?;
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(accepted.load(Ordering::Relaxed))
}

/// One message every `interval`, whether or not earlier ones were answered: each carries the time at which it was meant
/// to be sent, so that a stall counts against every message that it held up (no coordinated omission).
pub(crate) async fn open_loop(
    server: &Arc<Server>,
    path: &str,
    receiver: &Receiver,
    connections: usize,
    rate: f64,
    duration: Duration,
) -> Result<u64> {
    let start = Instant::now();
    let origin = receiver.now();
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (server, next, path) = (Arc::clone(server), Arc::clone(&next), path.to_owned());
            tokio::spawn(async move {
                let mut connection = Connection::open(server.address).await?;
                loop {
                    #[expect(clippy::cast_precision_loss, reason = "a schedule")]
                    let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                    if due >= duration {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep_until(start + due).await;
                    let meant = origin + u64::try_from(due.as_micros()).unwrap_or(0);
                    publish(&server, &mut connection, &path, meant).await?;
                }
            })
        })
        .collect();
    // Each connection took one number beyond the end.
    let beyond = u64::try_from(connections).unwrap_or(0);
    for task in tasks {
        task.await??;
    }
    Ok(next.load(Ordering::Relaxed).saturating_sub(beyond))
}

async fn publish(server: &Server, connection: &mut Connection, path: &str, sent: u64) -> Result<()> {
    let head = format!("{{\"eventType\":\"bench.sent\",\"payload\":{SENT}{sent},\"fill\":\"");
    let padding = PAYLOAD_BYTES.saturating_sub(SENT.len() + 24);
    let body = [head.as_bytes(), &vec![b'x'; padding], b"\"}}"].concat();
    let (status, answer) = connection.send(server.post(path, Bytes::from(body))?).await?;
    ensure!(status == 202, "publishing answered {status}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
