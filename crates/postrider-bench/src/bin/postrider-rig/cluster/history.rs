//! What the database and the API say at the end.

use super::{
    book::{Delivery, Micros},
    database::Database,
    member::Member,
    world::World,
};
use crate::connection::Connection;
use anyhow::{Context as _, Result, bail, ensure};
use postrider_model::id::{EndpointId, Ksuid, MessageId};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// How long reading everything from the API may take.
const LISTING: Duration = Duration::from_mins(5);

/// Everything that is stored.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Messages by id, with their serial numbers.
    pub(crate) messages: HashMap<String, u64>,
    pub(crate) deliveries: HashMap<Delivery, Ended>,
    /// Deliveries that still wait.
    pub(crate) pending: Vec<Delivery>,
    /// Attempts by delivery, in the order of their numbers.
    pub(crate) attempts: HashMap<Delivery, Vec<Attempt>>,
    /// Every node that registered.
    pub(crate) nodes: Vec<Registered>,
    /// Why the API could not be read to the end.
    pub(crate) unlisted: Option<String>,
    /// Attempts and successes of each delivery, as the API lists them.
    pub(crate) listed: HashMap<Delivery, (usize, usize)>,
}

/// A delivery that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// It was delivered; else why not.
    pub(crate) reason: Option<String>,
    pub(crate) attempts: usize,
    pub(crate) deaths: u32,
}

/// An attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: usize,
    pub(crate) started: Micros,
    pub(crate) outcome: u8,
    /// 0 when there was no answer.
    pub(crate) status: u16,
    /// When the transaction that stored it committed; 0 when nobody knows any more.
    pub(crate) committed: Micros,
}

/// A row of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) pid: u32,
    pub(crate) started: Micros,
    /// When others, or itself, ended it.
    pub(crate) ended: Option<Micros>,
}

/// When the transaction that wrote a row committed.
const COMMITTED: &str = "coalesce((extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint, 0)";

/// Reads everything.
pub(crate) async fn read(database: &Database, world: &World, members: &[Arc<Member>]) -> Result<History> {
    let mut history = History::default();
    let numbers: BTreeMap<&str, usize> =
        (0..).zip(&world.endpoints).map(|(number, endpoint)| (endpoint.id.as_str(), number)).collect();
    let delivery = |row: &[String]| -> Result<Delivery> {
        let endpoint = EndpointId::new(ksuid(&row[1])?).to_string();
        let number = numbers.get(endpoint.as_str()).context("an endpoint that the rig did not make")?;
        Ok((*number, MessageId::new(ksuid(&row[0])?).to_string()))
    };
    let text =
        "SELECT encode(id, 'hex'), convert_from(payload, 'UTF8')::json->>'serial' FROM postrider.message";
    for row in database.rows(text).await? {
        history.messages.insert(MessageId::new(ksuid(&row[0])?).to_string(), row[1].parse()?);
    }
    let text = "SELECT encode(message, 'hex'), encode(endpoint, 'hex') FROM postrider.pending";
    for row in database.rows(text).await? {
        history.pending.push(delivery(&row)?);
    }
    let text = "SELECT encode(message, 'hex'), encode(endpoint, 'hex'), attempts, deaths, state, reason FROM postrider.delivery";
    for row in database.rows(text).await? {
        let reason = (row[4] != "1").then(|| format!("state {} {}", row[4], row[5]));
        let ended = Ended { reason, attempts: row[2].parse()?, deaths: row[3].parse()? };
        if history.deliveries.insert(delivery(&row)?, ended).is_some() {
            bail!("two rows of the delivery {:?}", delivery(&row)?);
        }
    }
    let text = format!(
        "SELECT encode(message, 'hex'), encode(endpoint, 'hex'), number, started_at, outcome, coalesce(status, 0), {COMMITTED}
         FROM postrider.attempt ORDER BY number"
    );
    for row in database.rows(&text).await? {
        let attempt = Attempt {
            number: row[2].parse()?,
            started: row[3].parse()?,
            outcome: row[4].parse()?,
            status: row[5].parse()?,
            committed: row[6].parse()?,
        };
        history.attempts.entry(delivery(&row)?).or_default().push(attempt);
    }
    let text = format!("SELECT name, started_at, ended, {COMMITTED} FROM postrider.node");
    for row in database.rows(&text).await? {
        let pid = row[0].rsplit(' ').next().unwrap_or_default();
        let pid = pid.parse().with_context(|| format!("no process id in a node's name: {}", row[0]))?;
        let ended = (row[2] == "t").then(|| row[3].parse()).transpose()?;
        history.nodes.push(Registered { pid, started: row[1].parse()?, ended });
    }
    match timeout(LISTING, listed(world, members)).await {
        Ok(Ok(listed)) => history.listed = listed,
        Ok(Err(error)) => history.unlisted = Some(format!("{error:#}")),
        Err(_) => history.unlisted = Some("a node does not answer".to_owned()),
    }
    Ok(history)
}

fn ksuid(hex: &str) -> Result<Ksuid> {
    ensure!(hex.len() == 40, "an id of another length: {hex}");
    let mut bytes = [0; 20];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16)?;
    }
    Ok(Ksuid::from_bytes(bytes))
}

/// What the API lists, the endpoints in turn through all nodes.
async fn listed(world: &World, members: &[Arc<Member>]) -> Result<HashMap<Delivery, (usize, usize)>> {
    let mut counts: HashMap<Delivery, (usize, usize)> = HashMap::new();
    for (number, endpoint) in world.endpoints.iter().enumerate() {
        let access = members[number % members.len()].access().context("a node does not run")?;
        let mut connection = Connection::open(access.address).await?;
        let application = &world.applications[endpoint.application];
        let list = format!("/api/v1/app/{application}/attempt/endpoint/{}?limit=250", endpoint.id);
        let mut path = list.clone();
        loop {
            let (status, page) = access.read(&mut connection, &path).await?;
            ensure!(status == 200, "{path} answered {status}: {page}");
            for attempt in page["data"].as_array().into_iter().flatten() {
                let message = attempt["msgId"].as_str().unwrap_or_default().to_owned();
                let count = counts.entry((number, message)).or_default();
                count.0 += 1;
                count.1 += usize::from(attempt["status"] == 0);
            }
            match page["iterator"].as_str() {
                Some(iterator) if page["done"] == false => path = format!("{list}&iterator={iterator}"),
                _ => break,
            }
        }
    }
    Ok(counts)
}
