//! Nodes under full load and no fault at all: every delivery arrives exactly once.

use super::{
    book::{Notebook, now},
    database::Database,
    drain, findings, history, members,
    publishers::Publishers,
    world::{self, World},
};
use crate::{Cluster, report::Report};
use anyhow::Result;
use std::path::Path;

/// Runs it.
pub(super) async fn run(
    options: &Cluster,
    server: &Path,
    folder: &Path,
    database: &mut Database,
) -> Result<Report> {
    let notebook = Notebook::default();
    let members = members(options.nodes, server, folder, database, &notebook).await?;
    let world = World::create(&members, world::QUICK, folder, server, &notebook).await?;
    let fan_out = u64::try_from(world.endpoints.len() / world.applications.len().max(1))?;
    let begun = now();
    let messages = options.deliveries.div_ceil(fan_out);
    let unfinished = Publishers::rush(&world, &members, &notebook, messages, options.seed).await;
    let drained = drain(&notebook).await;
    let took = now() - begun;
    let history = history::read(database, &world, &members).await?;
    let mut stopped_well = true;
    for member in &members {
        stopped_well &= member.stop().await.unwrap_or(false);
    }
    let book = notebook.book();
    let mut report = findings::report(&book, &history, &[], &world.endpoints);
    let twice = book.arrivals.values().filter(|arrivals| arrivals.len() > 1).count();
    report.row("nodes; deliveries that arrived twice", format!("{}; {twice}", options.nodes));
    report.row("time, with the quiet at the end", format!("{} ms", took / 1000));
    report.check(twice == 0, format!("{twice} deliveries arrived more than once without any fault"));
    report.check(unfinished == 0, format!("{unfinished} messages could not be published"));
    report.check(drained.is_some(), "not everything that was acknowledged arrived");
    report.check(stopped_well, "a node did not end with exit code 0 after SIGTERM");
    Ok(report)
}
