//! A small file system that gets low and full under load.
//!
//! Low: publishing answers 507 while deliveries go on. Full: nothing is sent that cannot be recorded. With the space the
//! service comes back by itself, and every request that the receiver saw stands in the history, once.

use crate::{
    Full, Verdict,
    connection::Connection,
    ledger::Ledger,
    load::Load,
    node::{Home, Node},
    receiver,
    report::Report,
    world::{World, drain},
};
use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const ENDPOINTS: u8 = 3;
/// Size of the file system: more than the server wants to be free before it accepts (64 MiB) and its log may grow to.
const SIZE_MIB: u64 = 192;
/// Free space that counts as low.
const LOW_MIB: u64 = 32;
/// How soon the server must notice what the space is like; it looks every second.
const NOTICE: Duration = Duration::from_secs(5);
/// How long it stays full.
const FULL: Duration = Duration::from_millis(2500);
const POLL: Duration = Duration::from_millis(10);

/// Runs the rig, in a mount namespace of its own: the file system goes with it.
pub(crate) async fn run(options: &Full, server: &Path) -> Result<Verdict> {
    if let Some(folder) = &options.inside {
        return inside(options, server, folder).await;
    }
    let Some(way) = namespace() else {
        let why = "a small file system cannot be mounted: that needs root, or user namespaces and unshare(1)";
        return Ok(Verdict::Skipped(why.to_owned()));
    };
    let folder = tempfile::tempdir()?;
    let status = Command::new("unshare")
        .args(way)
        .arg(std::env::current_exe()?)
        .args(["full", "--rounds", &options.rounds.to_string(), "--seed", &options.seed.to_string()])
        .args(["--rate", &options.rate.to_string(), "--server"])
        .arg(server)
        .arg("--inside")
        .arg(folder.path())
        .status()?;
    Ok(Verdict::Ran { text: String::new(), held: status.success() })
}

/// The flags of unshare(1) with which a file system can be mounted here.
fn namespace() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    ways.into_iter().find(|way| {
        let tried = Command::new("unshare")
            .args(*way)
            .args(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    })
}

/// What happened in all rounds.
#[derive(Default)]
struct Seen {
    refused_low: u64,
    refused_full: u64,
    /// Answers to publishing while there was no space: neither 202 nor 507.
    strange: BTreeMap<u16, u64>,
    noticed: Vec<Duration>,
    recovered: Vec<Duration>,
    paused: u32,
    /// Requests that arrived nevertheless: the server may have found space by emptying its log, so that is no violation as
    /// long as they are in the history.
    sent_while_full: usize,
}

async fn inside(options: &Full, server: &Path, folder: &Path) -> Result<Verdict> {
    let data = folder.join("data");
    fs::create_dir(&data)?;
    let size = format!("size={SIZE_MIB}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&data).status()?;
    ensure!(mounted.success(), "the small file system could not be mounted");
    let home = Home::new(server, &data)?.with_log(folder.join("server.log"));
    let ledger = Ledger::new(ENDPOINTS);
    let receiver = receiver::start(&ledger).await?;
    let mut node = home.start().await?;
    let world = World::create(&node.access, receiver, ENDPOINTS).await?;
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut seen = Seen::default();
    let mut report = Report::default();
    for round in 0..options.rounds {
        let load = Load::start(&node.access, &world.path, &ledger, options.rate);
        let ballast = Ballast { file: data.join("ballast") };
        let result = one(&ledger, &mut node, &ballast, &mut random, &mut seen).await;
        ballast.free()?;
        if let Err(error) = result {
            report.violation(format!("round {round}: {error:#}"));
        }
        drop(load);
        let drained = drain(&ledger, &mut node).await?;
        report.check(drained.is_some(), format!("round {round}: not everything that was accepted arrived"));
        eprint!("\rfull {} of {} times ", round + 1, options.rounds);
    }
    eprintln!();
    let recorded = world.attempts(&node.access).await?;
    let stopped = node.stop().await?;
    report.check(stopped.success(), "the server did not end with exit code 0 after SIGTERM");
    let node = home.start().await?;
    report
        .check(world.attempts(&node.access).await? == recorded, "the history is another one after a restart");
    node.stop().await?;
    let log = String::from_utf8_lossy(&fs::read(&home.log)?).into_owned();
    describe(&mut report, &ledger, &seen, &recorded, log.matches("the disk is full").count());
    Ok(report.verdict())
}

/// A round: a healthy moment, low, healthy again, full, and healthy again.
async fn one(
    ledger: &Ledger,
    node: &mut Node,
    ballast: &Ballast,
    random: &mut StdRng,
    seen: &mut Seen,
) -> Result<()> {
    until(ledger, 202, NOTICE).await.context("nothing is accepted")?;
    sleep(Duration::from_millis(random.random_range(300..1500))).await;

    ballast.leave(LOW_MIB)?;
    seen.noticed.push(until(ledger, 507, NOTICE).await.context("with little space")?);
    seen.refused_low += refused(ledger);
    let arrived = arrivals(ledger);
    sleep(Duration::from_secs(1)).await;
    ensure!(
        ledger.book().owed.is_empty() || arrivals(ledger) > arrived,
        "with little space deliveries do not go on"
    );
    seen.refused_low += refusals(ledger, seen)?;

    ballast.free()?;
    seen.recovered.push(until(ledger, 202, NOTICE).await.context("after there was little space")?);
    sleep(Duration::from_millis(random.random_range(300..1500))).await;

    ballast.leave(0)?;
    until(ledger, 507, NOTICE).await.context("without space")?;
    seen.refused_full += refused(ledger);
    let begun = Instant::now();
    while begun.elapsed() < FULL {
        if cannot_write(node).await? {
            seen.paused += 1;
            // Whatever was under way has arrived by then.
            stay_full(ballast, Duration::from_millis(200)).await?;
            let before = arrivals(ledger);
            stay_full(ballast, Duration::from_millis(700)).await?;
            if cannot_write(node).await? {
                seen.sent_while_full += arrivals(ledger) - before;
            }
            break;
        }
        stay_full(ballast, POLL).await?;
    }
    seen.refused_full += refusals(ledger, seen)?;
    node.is_running()?;

    ballast.free()?;
    seen.recovered.push(until(ledger, 202, NOTICE).await.context("after there was no space")?);
    let accepts = Instant::now();
    while cannot_write(node).await? {
        ensure!(accepts.elapsed() < NOTICE, "it accepts, but says that it cannot write");
        sleep(POLL).await;
    }
    Ok(())
}

/// Takes what the server itself frees meanwhile.
async fn stay_full(ballast: &Ballast, time: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        ballast.leave(0)?;
        sleep(POLL).await;
    }
    Ok(())
}

/// Waits for an answer with this status; how long it took.
async fn until(ledger: &Ledger, status: u16, within: Duration) -> Result<Duration> {
    ledger.book().answers.clear();
    let begun = Instant::now();
    while !ledger.book().answers.contains_key(&status) {
        ensure!(begun.elapsed() < within, "no {status} within {within:?}: {:?}", ledger.book().answers);
        sleep(POLL).await;
    }
    Ok(begun.elapsed())
}

/// Takes the refusals until now; messages accepted before the first one were accepted rightly.
fn refused(ledger: &Ledger) -> u64 {
    std::mem::take(&mut ledger.book().answers).remove(&507).unwrap_or(0)
}

/// The answers since they were last cleared must all be 507.
fn refusals(ledger: &Ledger, seen: &mut Seen) -> Result<u64> {
    let mut answers = std::mem::take(&mut ledger.book().answers);
    let refused = answers.remove(&507).unwrap_or(0);
    let accepted = answers.remove(&202).unwrap_or(0);
    for (status, count) in answers {
        *seen.strange.entry(status).or_default() += count;
    }
    ensure!(accepted == 0, "{accepted} messages were accepted without the space for them");
    Ok(refused)
}

fn arrivals(ledger: &Ledger) -> usize {
    ledger.book().arrivals.values().map(Vec::len).sum()
}

async fn cannot_write(node: &Node) -> Result<bool> {
    let mut connection = Connection::open(node.access.address).await?;
    let (status, answer) = node.access.read(&mut connection, "/api/v1/health").await?;
    Ok(status == 503 && answer.to_string().contains("cannot write"))
}

fn describe(
    report: &mut Report,
    ledger: &Ledger,
    seen: &Seen,
    recorded: &HashMap<(u8, String), usize>,
    told: usize,
) {
    let book = ledger.book();
    let most = |times: &[Duration]| times.iter().max().map_or(0, Duration::as_millis);
    let requests: usize = book.arrivals.values().map(Vec::len).sum();
    let unrecorded =
        book.arrivals.iter().filter(|(delivery, all)| recorded.get(*delivery) != Some(&all.len())).count();
    let repeated = book.arrivals.values().filter(|all| all.len() > 1).count();
    let unseen = recorded.keys().filter(|delivery| !book.arrivals.contains_key(*delivery)).count();
    report.row("times low and full", seen.noticed.len());
    report.row("messages acknowledged", book.acknowledged.len());
    report.row("refused with 507 while low / full", format!("{} / {}", seen.refused_low, seen.refused_full));
    report.row("times that nothing could be written at all", format!("{} ({told} in the log)", seen.paused));
    report.row("requests sent in the 700 ms after 200 ms without space", seen.sent_while_full);
    report.row("most time until 507", format!("{} ms", most(&seen.noticed)));
    report.row("most time until 202 again", format!("{} ms", most(&seen.recovered)));
    report.row("requests that arrived", requests);
    report.row("deliveries lost / sent twice", format!("{} / {repeated}", book.owed.len()));
    report
        .row("deliveries with requests that the history lacks, or the other way round", unrecorded + unseen);
    report.check(book.owed.is_empty(), "deliveries of acknowledged messages never arrived");
    report.check(repeated == 0, "deliveries were repeated without a restart");
    report.check(unrecorded + unseen == 0, "the history and what arrived differ");
    report.check(
        seen.strange.is_empty(),
        format!("publishing was refused with other answers: {:?}", seen.strange),
    );
    report.check(book.unanswered == 0, format!("{} publications had no answer", book.unanswered));
}

/// A file that takes space away.
struct Ballast {
    file: PathBuf,
}

impl Ballast {
    /// Takes all but so many MiB.
    fn leave(&self, mib: u64) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        let block = vec![0; 256 * 1024];
        loop {
            let space = rustix::fs::statvfs(&self.file)?;
            let spare = (space.f_bavail * space.f_frsize).saturating_sub(mib * 1024 * 1024);
            let length = usize::try_from(spare).unwrap_or(usize::MAX).min(block.len());
            // The server may be quicker.
            if length == 0 || file.write_all(&block[..length]).is_err() {
                return Ok(());
            }
        }
    }

    /// Gives it back.
    fn free(&self) -> Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
