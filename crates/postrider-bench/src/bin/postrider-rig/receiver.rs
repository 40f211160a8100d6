//! The receiver: notes each request at its arrival and answers 200 after a short while, so that some are always under
//! way when the server dies.

use crate::{
    connection,
    ledger::{Acknowledged, Ledger},
};
use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::{net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep};

/// The longest time until an answer, in milliseconds: with the default rate and number of endpoints the places of the
/// lanes are all taken and a backlog grows, so that every kill hits something and every restart finds work.
const DELAY_MS: u64 = 60;

/// Starts it.
pub(crate) async fn start(ledger: &Ledger) -> Result<SocketAddr> {
    let ledger = ledger.clone();
    connection::serve(move |request: Request<Incoming>| {
        let ledger = ledger.clone();
        async move {
            let endpoint = request.uri().path().strip_prefix("/endpoint/").and_then(|text| text.parse().ok());
            let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
            // A request that the server did not live to finish is no delivery.
            let Ok(body) = request.into_body().collect().await else { return Response::new(Full::default()) };
            let serial = note(&ledger, endpoint, id.clone(), &body.to_bytes());
            // Spread by the serial number: as good as random, and the same in each run.
            sleep(Duration::from_millis(serial.wrapping_mul(7919) % DELAY_MS)).await;
            // Not reached when the server dies meanwhile: its connection ends, and this with it.
            if let (Some(endpoint), Some(id)) = (endpoint, id) {
                ledger.book().answer(endpoint, &id);
            }
            Response::new(Full::default())
        }
    })
    .await
}

fn note(ledger: &Ledger, endpoint: Option<u8>, id: Option<String>, body: &Bytes) -> u64 {
    let mut book = ledger.book();
    let (Some(endpoint), Some(id), Some(message)) = (endpoint, id, read(body)) else {
        book.strange.push(String::from_utf8_lossy(body).chars().take(100).collect());
        return 0;
    };
    book.arrive(endpoint, id, message, Instant::now());
    message.serial
}

/// Serial number and life of publication, from the payload.
fn read(body: &[u8]) -> Option<Acknowledged> {
    let payload: serde_json::Value = serde_json::from_slice(body).ok()?;
    let life = u32::try_from(payload["life"].as_u64()?).ok()?;
    Some(Acknowledged { serial: payload["serial"].as_u64()?, life })
}
