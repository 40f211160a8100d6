//! The upkeep of the database, which one node does for all: partitions for the weeks ahead, indexes that are built beside
//! the work, rows of nodes that are long gone.

use crate::{
    Shared,
    connection::{Connection, Own, Use},
    duties::{self, Duty},
    failure::Failure,
    schema,
};
use postrider_store::StoreError;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// How often it is done.
const EVERY: Duration = Duration::from_hours(1);
/// How long after the end the row of a node is kept for whoever wonders, in microseconds.
const KEPT: i64 = 24 * 3600 * 1_000_000;

/// When it was done.
#[derive(Default)]
pub(super) struct Upkeep {
    again: Option<Instant>,
    /// Builds indexes beside: they may take hours.
    builder: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Does it when it is due and this node's duty.
    pub(super) async fn go_on(&mut self, shared: &Arc<Shared>, own: &mut Own) {
        if self.again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        self.again = Some(Instant::now() + EVERY);
        let mine = async {
            let connection = own.get().await?;
            let mine = swept(shared, connection).await?;
            if mine {
                schema::make_partitions(connection, shared.clock.now()).await?;
            }
            Ok::<_, Failure>(mine)
        };
        match mine.await {
            Ok(true) if self.builder.as_ref().is_none_or(JoinHandle::is_finished) => {
                self.builder = Some(tokio::spawn(build(Arc::clone(shared))));
            }
            Ok(_) => {}
            Err(failure) => {
                let error = StoreError::from(failure);
                tracing::warn!(%error, "the upkeep of the database failed; it is tried again in an hour");
                own.give_up();
            }
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(builder) = &self.builder {
            builder.abort();
        }
    }
}

/// Deletes old rows of nodes, when that is this node's duty; tells whether it is.
async fn swept(shared: &Shared, connection: &Connection) -> Result<bool, Failure> {
    connection.run("BEGIN").await?;
    let mine = duties::take(connection, &shared.node(), Duty::Upkeep).await?;
    if mine {
        let now = shared.offset.now_sql();
        let text = format!("DELETE FROM node WHERE ended AND lease_until < {now} - $1");
        connection.execute(&text, &[&KEPT]).await?;
    }
    connection.run("COMMIT").await?;
    Ok(mine)
}

async fn build(shared: Arc<Shared>) {
    let built = async {
        let connection = Connection::open(&shared.address, Use::Reading).await?;
        schema::build_indexes(&connection, shared.address.is_pooled(), schema::INDEXES).await
    };
    if let Err(failure) = built.await {
        let error = StoreError::from(failure);
        tracing::warn!(%error, "an index could not be built; it is tried again in an hour");
    }
}
