//! Watches a server and what arrives while a scenario runs: a sample every now and then.

use crate::server::Measured;
use crate::{
    receiver::{Group, Receiver},
    world::World,
};
use anyhow::Result;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, interval},
};

/// One look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Since watching began.
    pub(crate) seconds: f64,
    /// Resident memory.
    pub(crate) rss_mib: f64,
    /// The database's files.
    pub(crate) disk_bytes: f64,
    /// Deliveries that have arrived at the group so far.
    pub(crate) arrived: u64,
}

/// Watching goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    task: JoinHandle<Vec<Sample>>,
    stop: oneshot::Sender<()>,
}

impl Watch {
    /// Looks at once, then every so often, and once more at the end.
    pub(crate) fn start(world: &World, group: Group, every: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let server = world.server.measured();
        let receiver = Arc::clone(&world.receiver);
        Self { task: tokio::spawn(watch(server, receiver, group, every, stopped)), stop }
    }

    /// Ends it.
    pub(crate) async fn finish(self) -> Result<Vec<Sample>> {
        drop(self.stop);
        Ok(self.task.await?)
    }
}

async fn watch(
    server: Measured,
    receiver: Arc<Receiver>,
    group: Group,
    every: Duration,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<Sample> {
    let started = Instant::now();
    let mut ticks = interval(every);
    let mut samples = Vec::new();
    let mut goes_on = true;
    while goes_on {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stopped => goes_on = false,
        }
        samples.push(Sample {
            seconds: started.elapsed().as_secs_f64(),
            rss_mib: server.rss_mib(),
            disk_bytes: server.disk_bytes(),
            arrived: receiver.arrived(group),
        });
    }
    samples
}
