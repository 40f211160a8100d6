//! What one node does for all: retention, and the upkeep of the schema. Whoever takes a duty keeps it for as long as its
//! node lives; it is free once the node has ended, in order or because its lease was over (see `takeover`).

use crate::{connection::Connection, failure::Failure, identity::NodeId, schema::lock, values::at};

/// A duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Deleting what is old.
    Retention,
    /// Partitions for the weeks ahead, indexes beside the work, rows of nodes that are long gone.
    Upkeep,
}

impl Duty {
    fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Upkeep => "upkeep",
        }
    }
}

/// Is it this node's, until the transaction ends? Takes it when it is free. Must be called in each transaction that does
/// the duty's work: a node that was paused meanwhile finds that it is another's.
pub(crate) async fn take(connection: &Connection, node: &NodeId, duty: Duty) -> Result<bool, Failure> {
    let (name, node) = (duty.name(), &node[..]);
    // One at a time; whoever comes in between comes again.
    let lock = connection
        .first_row("SELECT pg_try_advisory_xact_lock($1, $2)", &[&lock::DUTY, &(duty as i32)])
        .await?;
    if !lock.map(|row| at::<bool>(&row, 0)).transpose()?.unwrap_or(false) {
        return Ok(false);
    }
    let row = connection
        .first_row(
            "SELECT EXISTS (SELECT 1 FROM node WHERE id = $2 AND NOT ended),
                (SELECT holder = $2 FROM duty WHERE name = $1),
                EXISTS (SELECT 1 FROM duty JOIN node ON node.id = duty.holder WHERE duty.name = $1 AND NOT ended)",
            &[&name, &node],
        )
        .await?;
    let Some(row) = row else { return Ok(false) };
    let (lives, mine, held): (bool, Option<bool>, bool) = (at(&row, 0)?, at(&row, 1)?, at(&row, 2)?);
    if !lives || (held && mine != Some(true)) {
        return Ok(false);
    }
    if mine != Some(true) {
        let text = "INSERT INTO duty (name, holder) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder";
        connection.execute(text, &[&name, &node]).await?;
        tracing::info!(duty = name, "this node does it for all from now on");
    }
    Ok(true)
}
