//! Publishes at a fixed rate over a few connections and notes what was acknowledged, until the server dies or it is told
//! to stop.

use crate::{
    connection::Connection,
    ledger::{Acknowledged, Ledger},
    node::{Access, id_of},
};
use anyhow::Result;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

const CONNECTIONS: u32 = 8;

/// Publishers at work; dropping it stops them.
pub(crate) struct Load {
    _publishers: JoinSet<()>,
}

impl Load {
    /// Starts publishing `rate` messages per second to `path`.
    pub(crate) fn start(access: &Access, path: &str, ledger: &Ledger, rate: u32) -> Self {
        let mut publishers = JoinSet::new();
        let every = Duration::from_secs(1) * CONNECTIONS / rate.max(1);
        for number in 0..CONNECTIONS {
            let (access, path, ledger) = (access.clone(), path.to_owned(), ledger.clone());
            let first = Instant::now() + every * number / CONNECTIONS;
            publishers.spawn(async move {
                // Ends with the server: what it refused or did not answer is in the ledger.
                let _ = publish(&access, &path, &ledger, first, every).await;
            });
        }
        Self { _publishers: publishers }
    }
}

async fn publish(
    access: &Access,
    path: &str,
    ledger: &Ledger,
    first: Instant,
    every: Duration,
) -> Result<()> {
    let mut connection = Connection::open(access.address).await?;
    let mut ticks = interval_at(first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let message = ledger.book().publish();
        let Acknowledged { serial, life } = message;
        let body = format!(
            "{{\"eventType\":\"rig.sent\",\"payload\":{{\"serial\":{serial},\"life\":{life},\"fill\":\"{:0>200}\"}}}}",
            ""
        );
        let answer = connection.send(access.post(path, body)?).await;
        let mut book = ledger.book();
        if let Ok((status, _)) = &answer {
            *book.answers.entry(*status).or_default() += 1;
        }
        match answer {
            Ok((202, body)) => match id_of(&body) {
                Some(id) => book.acknowledge(&id, message),
                None => book.refused += 1,
            },
            Ok(_) => book.refused += 1,
            Err(error) => {
                book.unanswered += 1;
                return Err(error);
            }
        }
    }
}
