//! `kill -9` (or SIGTERM) in the middle of load, again and again, then one quiet life in which everything must arrive.

use crate::{
    Kill, Verdict,
    findings::{Findings, Restart},
    ledger::Ledger,
    load::Load,
    node::{Home, Node},
    receiver,
    world::{World, drain},
};
use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{ops::RangeInclusive, path::Path, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// When the server is killed, in milliseconds after the load began.
const KILL_AFTER_MS: RangeInclusive<u64> = 10..=800;
/// How soon deliveries must go on after a restart.
pub(crate) const REDELIVERY: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Runs the rig.
pub(crate) async fn run(options: &Kill, server: &Path) -> Result<Verdict> {
    ensure!(options.endpoints > 0, "--endpoints must be at least 1");
    let folder = tempfile::tempdir()?;
    let home = Home::new(server, folder.path())?;
    let result = lives(options, &home).await;
    if !matches!(&result, Ok(findings) if findings.violations().is_empty()) {
        let kept = folder.keep();
        eprintln!("the server's data and log are kept in {}", kept.display());
    }
    Ok(result?.report().verdict())
}

async fn lives(options: &Kill, home: &Home) -> Result<Findings> {
    let ledger = Ledger::new(options.endpoints);
    let mut random = StdRng::seed_from_u64(options.seed);
    let receiver = receiver::start(&ledger).await?;
    let mut node = home.start().await?;
    let world = World::create(&node.access, receiver, options.endpoints).await?;
    let mut restarts = Vec::new();
    let mut in_flight = 0;
    for life in 0..options.cycles {
        let load = Load::start(&node.access, &world.path, &ledger, options.rate);
        let kill_at = Instant::now() + Duration::from_millis(random.random_range(KILL_AFTER_MS));
        // Every second life ends whenever it ends, also in the middle of its recovery; the others are long enough to
        // see whether deliveries go on in time.
        if life > 0 && life % 2 == 0 {
            await_redelivery(&ledger, &node, life).await;
        }
        sleep_until(kill_at).await;
        node.is_running()?;
        restarts.push(restart(&ledger, &node, life, in_flight));
        if options.orderly {
            ensure!(node.stop().await?.success(), "the server did not end with exit code 0 after SIGTERM");
        } else {
            node.kill().await.context("killing the server")?;
        }
        drop(load);
        // What the server had sent is read before the next life begins, so that it counts for this one.
        sleep(Duration::from_millis(50)).await;
        let begun = home.begun(&world.endpoints)?;
        in_flight = ledger.book().die(begun);
        let owed = ledger.book().owed.len();
        eprint!("\rended {} of {} times, {owed} deliveries owed ", life + 1, options.cycles);
        ledger.book().life = life + 1;
        node = home.start().await?;
    }
    eprintln!();
    let drained = drain(&ledger, &mut node).await?;
    let stopped = node.stop().await?;
    let book = ledger.book();
    Ok(Findings::new(&book, options.orderly, restarts, drained, stopped.success()))
}

/// What this life has shown until now; `in_flight` is what the end of the one before cut off.
fn restart(ledger: &Ledger, node: &Node, life: u32, in_flight: usize) -> Restart {
    let book = ledger.book();
    let since_start = |at: Option<&Instant>| at.map(|at| *at - node.spawned);
    Restart {
        life,
        start_took: node.start_took,
        redelivered: since_start(book.first_redelivery.get(&life)),
        in_flight,
        missing: book.some_awaited(),
        all_redelivered: since_start(book.all_redelivered.get(&life)),
        lived: node.spawned.elapsed(),
    }
}

/// Waits for a message of an earlier life, if one is owed, and for all that the last kill cut off, as long as that may
/// take.
async fn await_redelivery(ledger: &Ledger, node: &Node, life: u32) {
    let until = node.spawned + REDELIVERY + POLL;
    let expected = || {
        let book = ledger.book();
        let first = !book.first_redelivery.contains_key(&life) && book.owes_from_before();
        first || book.awaits_redelivery()
    };
    while Instant::now() < until && expected() {
        sleep(POLL).await;
    }
}
