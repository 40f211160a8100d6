//! Several nodes on one PostgreSQL database, and everything that can happen to them: the rig of the cluster.
//!
//! The cast:
//! - `database`: a PostgreSQL cluster of the rig's own, its restarts, its standby and the failover to it;
//! - `proxy`: the way of a node to the database, which can be cut, held in either direction, or slow;
//! - `member`: a node as a process with its proxy; `faults`: what is done to it or to the database, drawn from a seed;
//! - `publishers`: publish with idempotency keys through any node that lives, until each message is acknowledged;
//! - `receivers`: endpoints in several manners, which note who sent what and when;
//! - `book`: all that was published, arrived and done; `history`: what database and API say of it at the end;
//! - `findings`: the promises, checked on both (pure);
//! - `calm`: the same without any fault, where nothing at all may arrive twice.
//!
//! A round is a fault under load, often two at once, and the wait until the cluster has recovered without help.

pub(crate) mod book;
mod calm;
mod database;
pub(crate) mod faults;
mod findings;
mod history;
mod member;
mod proxy;
mod publishers;
mod receivers;
mod world;

use crate::{Cluster, Verdict, report::Report};
use anyhow::{Context as _, Result, ensure};
use book::{Notebook, now};
use database::Database;
use faults::{Plan, Window};
use member::{Member, SERVICE};
use publishers::Publishers;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use world::World;

/// Attempts end after this time, so that leases can be short.
const ATTEMPT_MS: u64 = 3_000;
/// How long a node that is not heard of keeps its work: the shortest that the server takes for such attempts.
pub(crate) const LEASE: Duration = Duration::from_secs(11);
/// How long everything that was owed when a fault ended may take to arrive: a lease may have to end, and the endpoints
/// that fail at times open their breakers.
const RECOVERY: Duration = Duration::from_secs(45);
/// How long nothing more may arrive until nothing more is expected.
const QUIET: Duration = Duration::from_millis(2_500);
const POLL: Duration = Duration::from_millis(20);

/// Everything that runs.
struct Stage {
    database: tokio::sync::Mutex<Database>,
    members: Vec<Arc<Member>>,
    notebook: Notebook,
    world: World,
}

/// Runs the rig. Nothing of it outlives this process.
pub(crate) async fn run(options: &Cluster, server: &Path) -> Result<Verdict> {
    ensure!(options.nodes > 0 && options.rounds > 0, "--nodes and --rounds must be at least 1");
    let Some(mut database) = Database::start().await? else {
        return Ok(Verdict::Skipped(
            "PostgreSQL is not installed; on Debian: apt-get install postgresql".to_owned(),
        ));
    };
    let folder = tempfile::tempdir()?;
    let kept = database.folder().to_owned();
    let report = if options.calm {
        calm::run(options, server, folder.path(), &mut database).await
    } else {
        rounds(options, server, folder.path(), database).await
    };
    if !matches!(&report, Ok(report) if report.held()) {
        std::fs::write(kept.join("keep"), "")?;
        eprintln!(
            "seed {}: the logs of the nodes are kept in {}/node-*/server.log (look for the time of the fault), the database, stopped, \
             in {}; the same again: cargo xtask rig cluster --seed {} --rounds {}",
            options.seed,
            folder.keep().display(),
            kept.display(),
            options.seed,
            options.rounds
        );
    }
    Ok(report?.verdict())
}

async fn rounds(options: &Cluster, server: &Path, folder: &Path, database: Database) -> Result<Report> {
    let notebook = Notebook::default();
    let members = members(options.nodes, server, folder, &database, &notebook).await?;
    let world = World::create(&members, world::MIXED, folder, server, &notebook).await?;
    let stage = Stage { database: database.into(), members, notebook, world };
    let mut random = StdRng::seed_from_u64(options.seed);
    let publishers =
        Publishers::start(&stage.world, &stage.members, &stage.notebook, options.rate, options.seed);
    let mut windows = Vec::new();
    let plans = faults::draw(&mut random, options.rounds, options.nodes, &options.fault);
    for (number, plan) in (1..).zip(&plans) {
        let pause = Duration::from_millis(random.random_range(500..2_500));
        sleep(pause).await;
        eprintln!("seed {} round {number} of {}: {plan}", options.seed, options.rounds);
        windows.extend(round(&stage, plan).await.with_context(|| format!("round {number}: {plan}"))?);
    }
    let unfinished = publishers.stop().await;
    let drained = drain(&stage.notebook).await;
    let history = history::read(&*stage.database.lock().await, &stage.world, &stage.members).await?;
    let mut stopped_well = true;
    for member in &stage.members {
        stopped_well &= member.stop().await.unwrap_or(false);
    }
    let book = stage.notebook.book();
    let mut report = findings::report(&book, &history, &windows, &stage.world.endpoints);
    report.check(unfinished == 0, format!("{unfinished} messages could not be published until the end"));
    report.check(drained.is_some(), "not everything that was acknowledged arrived by itself at the end");
    report.check(stopped_well, "a node did not end with exit code 0 after SIGTERM");
    Ok(report)
}

/// Nodes on this database, all started.
async fn members(
    count: u8,
    server: &Path,
    folder: &Path,
    database: &Database,
    notebook: &Notebook,
) -> Result<Vec<Arc<Member>>> {
    let mut members = Vec::new();
    for index in 0..usize::from(count) {
        members.push(Arc::new(Member::start(index, server, folder, database, notebook).await?));
    }
    Ok(members)
}

/// One or two faults at once, and the recovery from them.
async fn round(stage: &Stage, plan: &Plan) -> Result<Vec<Window>> {
    let second = async {
        match &plan.second {
            None => Ok(None),
            Some(fault) => faults::inject(stage, fault).await.map(Some),
        }
    };
    let (first, second) = tokio::join!(faults::inject(stage, &plan.first), second);
    let mut windows: Vec<Window> = [Some(first?), second?].into_iter().flatten().collect();
    let healed = Instant::now();
    let owed = stage.notebook.book().owed_now();
    let mut served = None;
    for member in &stage.members {
        member.is_running().await?;
        served = served.max(member.serves(&stage.world, &stage.notebook, healed + SERVICE).await);
    }
    let mut delivered = None;
    while delivered.is_none() && healed.elapsed() < RECOVERY {
        let open = stage.notebook.book().still_owed(&owed);
        delivered = (open == 0).then(|| healed.elapsed());
        sleep(POLL).await;
    }
    for window in &mut windows {
        window.settled = now();
        window.owed = owed.len();
        window.served = served.map(|at| at - healed);
        window.delivered = delivered;
    }
    Ok(windows)
}

/// Waits until everything that was acknowledged has arrived, and nothing more comes. `None` when something never came.
async fn drain(notebook: &Notebook) -> Option<Duration> {
    let begun = Instant::now();
    while !notebook.book().owed_now().is_empty() {
        if begun.elapsed() > RECOVERY * 2 {
            return None;
        }
        sleep(POLL).await;
    }
    let took = begun.elapsed();
    let mut before = notebook.book().arrived();
    loop {
        sleep(QUIET).await;
        let after = notebook.book().arrived();
        if after == before || begun.elapsed() > RECOVERY * 3 {
            return Some(took);
        }
        before = after;
    }
}
