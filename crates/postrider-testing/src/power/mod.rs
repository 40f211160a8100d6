//! The rig of power cuts: the real store on a disk that loses its power, again and again, each time another way.
//!
//! The cast:
//! - `workload`: keeps the store busy, with `claims` (workers) and `changes` (everything else), all at once;
//! - `ledger`: what was asked and what was answered; `oracle`: what must hold after a cut;
//! - `place`: directories, and what a cut leaves beside the database.
//!
//! A seed decides on the work, the moment of the cut, what it leaves, and errors of the disk before it. How threads take
//! turns it does not decide: a seed that fails may need a few runs to fail again.

mod changes;
mod claims;
mod ledger;
mod oracle;
mod place;
mod workload;

use crate::disk::{Disk, Operation, Trouble};
use ledger::{Ledger, Target, Versions};
use place::{AUDIENCES, Notes, World};
use postrider_store::Store as _;
use postrider_store_sqlite::{Config, TestDisk};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    cell::{Cell, RefCell},
    ops::AddAssign,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use workload::{Cast, Life};

/// Cuts of one seed.
const CUTS: u32 = 2;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The first seed.
    pub seed: u64,
    /// How many of them.
    pub seeds: u64,
    /// Which syncs do nothing: with any of them the rig must find losses.
    pub ignored: Ignored,
}

/// Syncs that answer without having done anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ignored {
    /// None: the disk is honest.
    #[default]
    None,
    /// The store's own syncs of the log, one after each commit.
    Commits,
    /// All, those of checkpoints too.
    All,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Errors that the disk reported before a cut.
    pub errors: u64,
    /// Messages that were acknowledged.
    pub accepted: u64,
    /// Results that were acknowledged.
    pub recorded: u64,
    /// Changes and syncs of files.
    pub operations: u64,
    /// Broken promises, each with its seed.
    pub violations: Vec<String>,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.cuts += other.cuts;
        self.errors += other.errors;
        self.accepted += other.accepted;
        self.recorded += other.recorded;
        self.operations += other.operations;
        self.violations.extend(other.violations);
    }
}

/// Runs all seeds, on as many threads as there are processors; `progress` hears how many are done.
pub fn run(options: Options, progress: impl Fn(u64) + Sync) -> Report {
    let world = runtime().block_on(World::new());
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut report = Report::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return report;
            }
            report += one(&world, options.seed + number, options.ignored);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut total = Report::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            total += thread.join().expect("panics are caught in each run");
        }
    });
    total
}

/// A panic is a finding too: with its seed.
fn one(world: &World, seed: u64, ignored: Ignored) -> Report {
    catch_unwind(AssertUnwindSafe(|| Run::new(world, seed, ignored).run())).unwrap_or_else(|_| Report {
        seeds: 1,
        violations: vec![format!("seed {seed}: a panic")],
        ..Report::default()
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build().unwrap()
}

/// One seed.
struct Run<'a> {
    world: &'a World,
    seed: u64,
    random: StdRng,
    ignored: Ignored,
    ledger: Rc<RefCell<Ledger>>,
    notes: Rc<RefCell<Notes>>,
    report: Report,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, seed: u64, ignored: Ignored) -> Self {
        let targets = world.endpoints.iter().zip(AUDIENCES).map(|(id, event_type)| Target {
            id: *id,
            event_type,
            description: Versions::default(),
            secret: Versions::default(),
        });
        let ledger = Ledger { endpoints: targets.collect(), ..Ledger::default() };
        Self {
            world,
            seed,
            random: StdRng::seed_from_u64(seed),
            ignored,
            ledger: Rc::new(RefCell::new(ledger)),
            notes: Rc::default(),
            report: Report { seeds: 1, ..Report::default() },
        }
    }

    fn run(mut self) -> Report {
        if self.random.random_range(0..10) == 0 {
            self.first_start();
        }
        let mut folder = self.world.begin(false);
        let mut disk = Disk::new(folder.path(), self.random.random());
        for cut in 0..CUTS {
            self.live(&folder, &disk, cut > 0);
            (folder, disk) = self.cut(&disk);
        }
        self.end(&folder, &disk);
        let mut ledger = self.ledger.borrow_mut();
        self.report.accepted = ledger.accepted;
        self.report.recorded = ledger.recorded;
        let seed = self.seed;
        // A loss is seen at each start; the first few say what there is to say.
        self.report.violations =
            ledger.violations.drain(..).take(10).map(|text| format!("seed {seed}: {text}")).collect();
        drop(ledger);
        self.report
    }

    /// The power goes while the database is made: the next start must work all the same.
    fn first_start(&mut self) {
        let folder = self.world.begin(true);
        let disk = Disk::new(folder.path(), self.random.random());
        disk.cut_after(self.random.random_range(0..150));
        let keyring = self.world.keyring();
        let config = self.config();
        runtime().block_on(async {
            if let Ok(store) = place::open(folder.path(), &keyring, &config) {
                place::settle(&*store).await;
            }
        });
        let (folder, _disk) = self.cut(&disk);
        let opened = runtime().block_on(async {
            let store = place::open(folder.path(), &keyring, &config).map_err(|error| error.to_string())?;
            place::settle(&*store).await.ok_or("nothing can be created".to_owned())
        });
        if let Err(error) = opened {
            self.ledger.borrow_mut().fail(format!("after a cut in the first start: {error}"));
        }
    }

    /// Opens the store, checks it, and keeps it busy until its power goes.
    fn live(&mut self, folder: &TempDir, disk: &Arc<Disk>, check: bool) {
        let keyring = self.world.keyring();
        let config = self.config();
        let runtime = runtime();
        runtime.block_on(async {
            let Some(life) = self.open(folder, disk, &keyring, &config) else { return };
            if check {
                oracle::check(&life).await;
                oracle::repeat(&life).await;
            }
            if self.ignored == Ignored::All {
                disk.ignore_syncs();
            }
            let cast = self.cast(disk);
            workload::run(&life, cast, &mut self.random).await;
            self.notes.borrow_mut().look(&life.data);
            if self.random.random_range(0..6) == 0 {
                life.store.close().await;
            }
        });
        self.report.errors += disk.failures();
        if disk.repeated_syncs() > 0 {
            self.ledger.borrow_mut().fail("a sync was tried again after it had failed".to_owned());
        }
    }

    /// The power goes, if it has not yet; returns what is left.
    fn cut(&mut self, disk: &Disk) -> (TempDir, Arc<Disk>) {
        disk.cut();
        self.report.cuts += 1;
        self.report.operations += disk.operations();
        place::after_cut(disk, &self.notes.borrow(), &mut self.random)
    }

    /// The last life: everything that is pending is delivered.
    fn end(&mut self, folder: &TempDir, disk: &Arc<Disk>) {
        let keyring = self.world.keyring();
        let config = self.config();
        runtime().block_on(async {
            let Some(life) = self.open(folder, disk, &keyring, &config) else { return };
            oracle::check(&life).await;
            oracle::repeat(&life).await;
            oracle::drain(&life, &mut self.random).await;
            life.store.close().await;
        });
    }

    fn open(
        &self,
        folder: &TempDir,
        disk: &Arc<Disk>,
        keyring: &std::path::Path,
        config: &Config,
    ) -> Option<Life> {
        match place::open(folder.path(), keyring, config) {
            Ok(store) => Some(Life {
                store,
                disk: Arc::clone(disk),
                ledger: Rc::clone(&self.ledger),
                notes: Rc::clone(&self.notes),
                scope: self.world.scope.clone(),
                data: folder.path().to_owned(),
                failed: Rc::new(Cell::new(false)),
            }),
            Err(error) => {
                self.ledger.borrow_mut().fail(format!("the store does not open: {error}"));
                None
            }
        }
    }

    fn config(&mut self) -> Config {
        let honest = Disk::of_store();
        let disk = match self.ignored {
            Ignored::Commits => TestDisk { sync: |_| Ok(()), ..honest },
            Ignored::None | Ignored::All => honest,
        };
        Config {
            readers: 1,
            batch: [1, 4, 32, 512][self.random.random_range(0..4)],
            hand_over_bytes: if self.random.random_bool(0.3) { 2000 } else { 64 * 1024 * 1024 },
            disk: Some(disk),
            ..Config::default()
        }
    }

    /// Who works, and what happens to the disk meanwhile.
    fn cast(&mut self, disk: &Disk) -> Cast {
        let random = &mut self.random;
        // As often early as late.
        let most = 1_u64 << random.random_range(1..14);
        let moment = |random: &mut StdRng| random.random_range(0..most);
        let mut checkpoints = random.random_bool(0.7);
        let at = moment(random);
        match random.random_range(0..20) {
            0 | 1 => {
                // Every third: the one of the checkpoint when the store is closed.
                let database = random.random_range(0..3) == 0;
                let which = if database { Operation::SyncDatabase } else { Operation::Sync };
                disk.fail_after(which, if database { 0 } else { at / 8 }, Trouble::Io);
                // The store is not told what a checkpoint of the rig's own met.
                checkpoints = false;
            }
            2 => {
                disk.fail_after(Operation::Write, at, Trouble::Io);
                checkpoints = false;
            }
            3 => disk.fail_after(Operation::Write, at, Trouble::Full),
            // The power stays on until all is done.
            4 => {}
            _ => disk.cut_after(at),
        }
        Cast {
            publishers: random.random_range(1..=3),
            workers: random.random_range(1..=3),
            checkpoints,
            retention: random.random_bool(0.2),
        }
    }
}
