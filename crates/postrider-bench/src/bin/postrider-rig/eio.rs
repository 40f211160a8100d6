//! A sync of the log fails under load: the server must end with exit code 70, and the next start has everything that was
//! acknowledged.

use crate::{
    Eio, Verdict, ack,
    ledger::Ledger,
    load::Load,
    node::Home,
    receiver,
    report::Report,
    world::{World, drain},
};
use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{ffi::OsString, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

/// Exit code of a server whose disk failed.
const BROKEN: i32 = 70;
/// How long it may take until the sync fails and the server has ended.
const PATIENCE: Duration = Duration::from_mins(1);
/// Which sync of a thread fails. A start has fewer in each of its threads.
const WHICH: std::ops::Range<u32> = 20..200;

/// Runs the rig.
pub(crate) async fn run(options: &Eio, server: &Path) -> Result<Verdict> {
    if !ack::strace_works() {
        return Ok(Verdict::Skipped(
            "strace, which makes the sync fail, is missing or may not trace here".to_owned(),
        ));
    }
    let folder = tempfile::tempdir()?;
    let ledger = Ledger::new(2);
    let receiver = receiver::start(&ledger).await?;
    let healthy = Home::new(server, folder.path())?;
    let node = healthy.start().await?;
    let world = World::create(&node.access, receiver, 2).await?;
    node.stop().await?;

    let mut random = StdRng::seed_from_u64(options.seed);
    let mut report = Report::default();
    let mut slowest = Duration::ZERO;
    for round in 0..options.rounds {
        let which = random.random_range(WHICH);
        let mut wrapper = ack::strace();
        let inject = format!("inject=fdatasync,fsync:error=EIO:when={which}+");
        wrapper.extend(["-e", "trace=fdatasync,fsync", "-e", &inject, "-o", "/dev/null"].map(OsString::from));
        let node = Home::new(server, folder.path())?.under(wrapper).start().await?;
        let load = Load::start(&node.access, &world.path, &ledger, options.rate);
        let begun = Instant::now();
        let code = node.end(PATIENCE).await?.code();
        slowest = slowest.max(begun.elapsed());
        drop(load);
        report.check(
            code == Some(BROKEN),
            format!("round {round}: the server ended with {code:?}, not with {BROKEN}"),
        );
        sleep(Duration::from_millis(50)).await;
        ledger.book().life += 1;
        eprint!("\r{} of {} syncs failed ", round + 1, options.rounds);
    }
    eprintln!();
    let mut node = healthy.start().await?;
    let drained = drain(&ledger, &mut node).await?;
    let stopped = node.stop().await?;

    let book = ledger.book();
    let log = String::from_utf8_lossy(&std::fs::read(&healthy.log)?).into_owned();
    let told = log.matches("the disk failed").count();
    report.row("failed syncs", options.rounds);
    report.row("messages acknowledged", book.acknowledged.len());
    report.row("publications without an answer / refused", format!("{} / {}", book.unanswered, book.refused));
    report.row("deliveries lost", book.owed.len());
    report.row("most time from the load until the end of the process", format!("{} ms", slowest.as_millis()));
    report.check(
        book.owed.is_empty() && drained.is_some(),
        "deliveries of acknowledged messages never arrived",
    );
    report.check(!book.acknowledged.is_empty(), "nothing was acknowledged");
    report.check(told >= options.rounds as usize, "the log does not say why the server ended");
    report.check(stopped.success(), "the server did not end with exit code 0 after SIGTERM");
    Ok(report.verdict())
}
