//! The yardstick: what this machine does when nothing is stored. Each client signs a fresh 1 KiB request and posts it to a
//! receiver that answers 200; hyper on both sides.

use crate::connection::{self, Connection};
use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use postrider_model::{
    id::{Ksuid, MessageId},
    signature::{self, SigningSecret},
    time::Timestamp,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of a payload in all scenarios.
pub(crate) const PAYLOAD_BYTES: usize = 1024;

/// Deliveries per second.
pub(crate) async fn measure(connections: usize, duration: Duration) -> Result<f64> {
    let address = connection::serve(|request: Request<hyper::body::Incoming>| async {
        let _ = request.into_body().collect().await;
        Response::new(Full::default())
    })
    .await?;
    let delivered = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + duration;
    let clients: Vec<_> =
        (0..connections).map(|_| tokio::spawn(client(address, until, Arc::clone(&delivered)))).collect();
    for client in clients {
        client.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    Ok(delivered.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

async fn client(address: std::net::SocketAddr, until: Instant, delivered: Arc<AtomicU64>) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let secret = SigningSecret::hmac([7; 24]);
    let body = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut counter = [0_u8; 20];
    while Instant::now() < until {
        increment(&mut counter);
        let id = MessageId::new(Ksuid::from_bytes(counter));
        let at = Timestamp::from_micros(1_767_225_600_000_000);
        let request = Request::post("/webhooks")
            .header(header::HOST, "127.0.0.1")
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", at.as_seconds())
            .header("webhook-signature", signature::sign(&[&secret], id, at, &body))
            .body(Full::new(body.clone()))?;
        let (status, _) = connection.send(request).await?;
        anyhow::ensure!(status == 200, "the receiver answered {status}");
        delivered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn increment(counter: &mut [u8; 20]) {
    for byte in counter.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
}
