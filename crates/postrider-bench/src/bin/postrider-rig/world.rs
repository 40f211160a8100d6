//! What every rig begins and ends with: an application with its endpoints, and the wait until everything has arrived.

use crate::{
    connection::Connection,
    ledger::Ledger,
    node::{Access, Node},
};
use anyhow::{Result, ensure};
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep};

/// How long everything may take to arrive at the end.
const DRAIN: Duration = Duration::from_mins(2);
/// How long nothing more may arrive until nothing more is expected: longer than suspects wait after a start.
const QUIET: Duration = Duration::from_millis(2500);
const POLL: Duration = Duration::from_millis(5);

/// An application and its endpoints.
pub(crate) struct World {
    app: String,
    /// Where to publish to.
    pub(crate) path: String,
    /// Ids, in the order of their numbers.
    pub(crate) endpoints: Vec<String>,
}

impl World {
    /// Creates it.
    pub(crate) async fn create(access: &Access, receiver: SocketAddr, endpoints: u8) -> Result<Self> {
        let mut connection = Connection::open(access.address).await?;
        let app = access.create(&mut connection, "/api/v1/app", r#"{"name":"rig"}"#.to_owned()).await?;
        let mut ids = Vec::new();
        for number in 0..endpoints {
            let endpoint = format!(r#"{{"url":"http://{receiver}/endpoint/{number}"}}"#);
            ids.push(access.create(&mut connection, &format!("/api/v1/app/{app}/endpoint"), endpoint).await?);
        }
        Ok(Self { path: format!("/api/v1/app/{app}/msg"), app, endpoints: ids })
    }

    /// How many attempts each delivery has in the history, by number of the endpoint and message.
    pub(crate) async fn attempts(&self, access: &Access) -> Result<HashMap<(u8, String), usize>> {
        let mut connection = Connection::open(access.address).await?;
        let mut counts: HashMap<(u8, String), usize> = HashMap::new();
        for (number, endpoint) in (0..).zip(&self.endpoints) {
            let list = format!("/api/v1/app/{}/attempt/endpoint/{endpoint}?limit=250", self.app);
            let mut path = list.clone();
            loop {
                let (status, page) = access.read(&mut connection, &path).await?;
                ensure!(status == 200, "{path} answered {status}: {page}");
                for attempt in page["data"].as_array().into_iter().flatten() {
                    let message = attempt["msgId"].as_str().unwrap_or_default().to_owned();
                    *counts.entry((number, message)).or_default() += 1;
                }
                match page["iterator"].as_str() {
                    Some(iterator) if page["done"] == false => path = format!("{list}&iterator={iterator}"),
                    _ => break,
                }
            }
        }
        Ok(counts)
    }
}

/// Waits until everything that was acknowledged has arrived, and nothing more comes. The time until the last arrival
/// that was missing; `None` when something never came.
pub(crate) async fn drain(ledger: &Ledger, node: &mut Node) -> Result<Option<Duration>> {
    let begun = Instant::now();
    while !ledger.book().owed.is_empty() {
        if begun.elapsed() > DRAIN {
            return Ok(None);
        }
        node.is_running()?;
        sleep(POLL).await;
    }
    let took = begun.elapsed();
    let arrivals = || ledger.book().arrivals.values().map(Vec::len).sum::<usize>();
    let mut before = arrivals();
    loop {
        sleep(QUIET).await;
        let now = arrivals();
        if now == before || begun.elapsed() > DRAIN {
            return Ok(Some(took));
        }
        before = now;
    }
}
