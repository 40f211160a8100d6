//! Watches the system calls of a server under load: for every acknowledged message the sync of its commit had ended
//! before the first byte of the answer left.

use crate::{
    Ack, Verdict,
    ledger::Ledger,
    load::Load,
    node::Home,
    receiver,
    report::Report,
    trace,
    world::{World, drain},
};
use anyhow::{Context, Result};
use postrider_model::id::MessageId;
use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};
use tokio::time::{Instant, sleep};

/// Bytes of a call's data that the trace shows: more than any write here has.
const SHOWN: &str = "65536";
/// How long the messages may take: the tracer slows everything.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs the rig.
pub(crate) async fn run(options: &Ack, server: &Path) -> Result<Verdict> {
    if !strace_works() {
        return Ok(Verdict::Skipped("strace is missing, or may not trace here".to_owned()));
    }
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let file = folder.path().join("trace");
    let calls = "trace=fdatasync,fsync,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg";
    let mut wrapper = strace();
    wrapper.extend(["-tt", "-y", "-xx", "-s", SHOWN, "-e", calls, "-o"].map(OsString::from));
    wrapper.push(file.clone().into());
    let home = Home::new(server, &data)?.under(wrapper);

    let ledger = Ledger::new(1);
    let receiver = receiver::start(&ledger).await?;
    let mut node = home.start().await?;
    let world = World::create(&node.access, receiver, 1).await?;
    let load = Load::start(&node.access, &world.path, &ledger, options.rate);
    let begun = Instant::now();
    while ledger.book().acknowledged.len() < options.messages && begun.elapsed() < PATIENCE {
        node.is_running()?;
        sleep(Duration::from_millis(20)).await;
    }
    drop(load);
    let drained = drain(&ledger, &mut node).await?;
    let stopped = node.stop().await?;

    let messages = messages(&ledger)?;
    let text = std::fs::read(&file).context("the trace")?;
    let calls = trace::read(&String::from_utf8_lossy(&text));
    let doubts = trace::doubts(&calls, &messages);
    let mut report = Report::default();
    report.row("messages acknowledged", messages.len());
    report.row("system calls", calls.len());
    report.row("answers that left after the sync of their commit", messages.len() - doubts.len());
    for (id, doubt) in doubts.iter().take(5) {
        report.violation(format!("{id}: {doubt:?}"));
    }
    report.check(!messages.is_empty(), "nothing was acknowledged");
    report.check(drained.is_some(), "not everything arrived");
    report.check(stopped.success(), "the server did not end with exit code 0 after SIGTERM");
    Ok(report.verdict())
}

fn messages(ledger: &Ledger) -> Result<Vec<([u8; 20], String)>> {
    let book = ledger.book();
    let parse = |id: &String| {
        let parsed = MessageId::parse(id).with_context(|| format!("{id} is no id of a message"))?;
        Ok((*parsed.ksuid().as_bytes(), id.clone()))
    };
    book.acknowledged.keys().map(parse).collect()
}

/// The tracer as a child of the server, which so keeps its process id and its exit code.
pub(crate) fn strace() -> Vec<OsString> {
    ["strace", "-D", "-f", "-qq"].map(OsString::from).to_vec()
}

/// Is it there, and may it trace? Containers often forbid it.
pub(crate) fn strace_works() -> bool {
    let tried = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=none", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}
