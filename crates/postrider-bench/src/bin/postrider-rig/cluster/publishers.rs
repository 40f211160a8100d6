//! Publishers: each message with a key of its own through any node that lives, again through another one until it is
//! acknowledged. A part of them is sent once more afterwards, which must find the same message.

use super::{
    book::{Notebook, now},
    member::Member,
    world::World,
};
use crate::{
    connection::Connection,
    node::{Access, id_of},
};
use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

const PUBLISHERS: u32 = 16;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(6);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(150);
/// How long a message may be tried.
const PATIENCE: Duration = Duration::from_mins(1);
/// One in so many acknowledged messages is sent once more.
const ONCE_MORE: u32 = 20;

/// Publishers at work.
pub(crate) struct Publishers {
    tasks: JoinSet<u64>,
    stop: Arc<AtomicBool>,
}

/// What a publisher needs.
struct Publisher {
    applications: Vec<String>,
    members: Vec<Arc<Member>>,
    notebook: Notebook,
    connections: HashMap<SocketAddr, Connection>,
    random: StdRng,
    seed: u64,
}

impl Publishers {
    /// Starts publishing `rate` messages per second.
    pub(crate) fn start(
        world: &World,
        members: &[Arc<Member>],
        notebook: &Notebook,
        rate: u32,
        seed: u64,
    ) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        let every = Duration::from_secs(1) * PUBLISHERS / rate.max(1);
        for number in 0..PUBLISHERS {
            let mut publisher = Publisher::new(world, members, notebook, seed, number);
            let (first, stop) = (Instant::now() + every * number / PUBLISHERS, Arc::clone(&stop));
            tasks.spawn(async move {
                let mut ticks = interval_at(first, every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut unfinished = 0;
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    unfinished += u64::from(!publisher.one().await);
                }
                unfinished
            });
        }
        Self { tasks, stop }
    }

    /// As many messages as fast as they are taken; returns how many were not.
    pub(crate) async fn rush(
        world: &World,
        members: &[Arc<Member>],
        notebook: &Notebook,
        messages: u64,
        seed: u64,
    ) -> u64 {
        let mut tasks = JoinSet::new();
        for number in 0..PUBLISHERS {
            let mut publisher = Publisher::new(world, members, notebook, seed, number);
            tasks.spawn(async move {
                let mut unfinished = 0;
                while publisher.notebook.book().published < messages {
                    unfinished += u64::from(!publisher.one().await);
                }
                unfinished
            });
        }
        tasks.join_all().await.into_iter().sum()
    }

    /// Ends them, each after its message; returns how many messages were never acknowledged.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}

impl Publisher {
    fn new(world: &World, members: &[Arc<Member>], notebook: &Notebook, seed: u64, number: u32) -> Self {
        Self {
            applications: world.applications.clone(),
            members: members.to_vec(),
            notebook: notebook.clone(),
            connections: HashMap::new(),
            random: StdRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
            seed,
        }
    }

    /// One message, until it is acknowledged.
    async fn one(&mut self) -> bool {
        let serial = self.notebook.book().publish();
        let application = self.random.random_range(0..self.applications.len());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(id) = self.try_once(serial, application).await else {
                sleep(PAUSE).await;
                continue;
            };
            self.notebook.book().acknowledge(&id, serial, application, now());
            if self.random.random_range(0..ONCE_MORE) == 0
                && let Some(again) = self.try_once(serial, application).await
                && again != id
            {
                let strange =
                    format!("the key of {id} (message {serial}) made {again} when it was used again");
                self.notebook.book().strange.push(strange);
            }
            return true;
        }
        false
    }

    /// One request through a node that lives; the id of an acknowledged message.
    async fn try_once(&mut self, serial: u64, application: usize) -> Option<String> {
        let living: Vec<Access> = self.members.iter().filter_map(|member| member.access()).collect();
        if living.is_empty() {
            return None;
        }
        let access = &living[self.random.random_range(0..living.len())];
        let connection = self.connections.remove(&access.address);
        let key = format!("rig-{}-{serial}", self.seed);
        let sent =
            timeout(ANSWER, send(access, connection, &self.applications[application], &key, serial)).await;
        let Ok(Ok((status, id, connection))) = sent else {
            self.notebook.book().publication_answered(0);
            return None;
        };
        self.connections.insert(access.address, connection);
        note(&self.notebook, status);
        id.filter(|_| status == 202)
    }
}

/// A message through this node, until it is acknowledged.
pub(crate) async fn probe(access: &Access, world: &World, notebook: &Notebook) {
    let serial = notebook.book().publish();
    let key = format!("rig-probe-{serial}");
    loop {
        let sent = timeout(ANSWER, send(access, None, &world.applications[0], &key, serial)).await;
        if let Ok(Ok((status, id, _))) = sent {
            note(notebook, status);
            if let Some(id) = id.filter(|_| status == 202) {
                notebook.book().acknowledge(&id, serial, 0, now());
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

async fn send(
    access: &Access,
    connection: Option<Connection>,
    application: &str,
    key: &str,
    serial: u64,
) -> Result<(u16, Option<String>, Connection)> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(access.address).await?,
    };
    let body = format!(r#"{{"eventType":"rig.sent","payload":{{"serial":{serial},"fill":"{:0>200}"}}}}"#, "");
    let mut request = access.post(&format!("/api/v1/app/{application}/msg"), body)?;
    request.headers_mut().insert("idempotency-key", key.parse()?);
    let (status, answer) = connection.send(request).await?;
    Ok((status, id_of(&answer), connection))
}

/// 202, or what says that another try makes sense.
fn note(notebook: &Notebook, status: u16) {
    let mut book = notebook.book();
    book.publication_answered(status);
    if !matches!(status, 202 | 429 | 503) {
        book.strange.push(format!("a publication was answered with {status}"));
    }
}
