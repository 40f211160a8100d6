//! A disk that fails as disks do, below SQLite: power cuts that drop, tear and reorder what was not synced, and errors
//! at a chosen moment.
//!
//! The cast:
//! - [`Disk`]: one directory. Its files are real ones, so that reading, locks and shared memory are SQLite's own; the disk
//!   remembers beside them what a sync has covered;
//! - `contents`: what a cut leaves of one file (pure);
//! - `vfs`: the layer that SQLite calls; the only unsafe code of the workspace.
//!
//! A database is opened on it under the name that [`Disk::vfs`] gives. Nothing is really synced: what counts is what the
//! disk says it would hold.

mod contents;
mod vfs;

use contents::{Change, Contents};
use postrider_store_sqlite::TestDisk;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::ThreadId,
};

/// All disks of this process, by directory.
static DISKS: Mutex<BTreeMap<PathBuf, Weak<Disk>>> = Mutex::new(BTreeMap::new());

/// A directory on a disk that can fail.
#[derive(Debug)]
pub struct Disk {
    state: Mutex<State>,
}

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writing to a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing the database itself, which only checkpoints do.
    SyncDatabase,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `EIO`. Of a sync: what waited for it never gets to the disk as a whole, and the next sync does not say so.
    Io,
    /// `ENOSPC`, for every write from then on until [`Disk::heal`].
    Full,
}

#[derive(Debug)]
struct State {
    /// Every file that was ever there; names refer to them by position.
    files: Vec<Contents>,
    names: BTreeMap<String, Entry>,
    random: StdRng,
    /// Changes and syncs so far.
    operations: u64,
    /// The power goes when so many have happened.
    cut_at: Option<u64>,
    cut: bool,
    /// The next of these so often from now on fails.
    trouble: Option<(Operation, u64, Trouble)>,
    full: bool,
    failed: u64,
    /// The file whose sync failed, and the thread that tried it.
    sync_failed: Option<(usize, ThreadId)>,
    repeated_syncs: u64,
    lies: bool,
}

/// A name in the directory: which file it leads to for certain, and where later operations led it.
#[derive(Debug, Default)]
struct Entry {
    synced: Option<usize>,
    waiting: Vec<Option<usize>>,
}

impl Entry {
    fn now(&self) -> Option<usize> {
        self.waiting.last().copied().unwrap_or(self.synced)
    }
}

/// An open file.
#[derive(Debug, Clone, Copy)]
struct Handle {
    file: usize,
    /// The first sync of a log or journal syncs the directory too: so SQLite does on Unix.
    syncs_folder: bool,
    database: bool,
}

/// Why an operation did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The power is off.
    Off,
    Failed(Trouble),
    /// By the real file system, with SQLite's code.
    Real(i32),
}

impl Disk {
    /// A disk for this directory; files that are there count as synced.
    pub fn new(folder: &Path, seed: u64) -> Arc<Self> {
        let folder = folder.canonicalize().unwrap();
        let mut state = State {
            files: Vec::new(),
            names: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            operations: 0,
            cut_at: None,
            cut: false,
            trouble: None,
            full: false,
            failed: 0,
            sync_failed: None,
            repeated_syncs: 0,
            lies: false,
        };
        for (name, bytes) in files(&folder) {
            state.names.insert(name, Entry { synced: Some(state.files.len()), waiting: Vec::new() });
            state.files.push(Contents::of(bytes));
        }
        let disk = Arc::new(Self { state: Mutex::new(state) });
        let mut disks = disks();
        disks.retain(|_, disk| disk.strong_count() > 0);
        disks.insert(folder, Arc::downgrade(&disk));
        disk
    }

    /// The name under which SQLite opens files on such a disk.
    pub fn vfs() -> &'static str {
        vfs::register()
    }

    /// What the embedded store needs to run on such a disk.
    pub fn of_store() -> TestDisk {
        TestDisk { vfs: Self::vfs(), sync: Self::sync_file }
    }

    /// Syncs a file that is there, past SQLite.
    fn sync_file(path: &Path) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let path = path.canonicalize()?;
        let (disk, name) = Self::of(&path).ok_or_else(gone)?;
        let file = disk.state().names.get(&name).and_then(Entry::now).ok_or_else(gone)?;
        disk.sync(&mut Handle { file, syncs_folder: false, database: false })
            .map_err(|_| io::Error::other("the disk failed"))
    }

    /// Changes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power goes after so many further changes and syncs.
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.operations + operations);
    }

    /// The power goes now: every operation fails from here on.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// Is the power off?
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// After so many of these that work, one fails (and with [`Trouble::Full`] all that follow).
    pub fn fail_after(&self, operation: Operation, count: u64, trouble: Trouble) {
        self.state().trouble = Some((operation, count, trouble));
    }

    /// Takes back a failure that has not come yet, and gives space to a full disk.
    pub fn heal(&self) {
        let mut state = self.state();
        state.trouble = None;
        state.full = false;
    }

    /// Operations that failed so far, cut power aside.
    pub fn failures(&self) -> u64 {
        self.state().failed
    }

    /// Syncs of a file that were tried although one had failed: each may claim what is not so. What another thread does to
    /// the log before it hears of the failure does not count.
    pub fn repeated_syncs(&self) -> u64 {
        self.state().repeated_syncs
    }

    /// From now on syncs answer without having done anything: a disk that lies, or a server that forgets to sync.
    pub fn ignore_syncs(&self) {
        self.state().lies = true;
    }

    /// What the cut left, as a disk for a new, empty directory. Cuts the power if it is still there.
    pub fn after_cut(&self, folder: &Path, seed: u64) -> Arc<Self> {
        let mut state = self.state();
        state.cut = true;
        let State { files, names, random, .. } = &mut *state;
        let images: Vec<Vec<u8>> = files.iter().map(|file| file.after_cut(random)).collect();
        for (name, entry) in names {
            let versions: Vec<_> =
                std::iter::once(entry.synced).chain(entry.waiting.iter().copied()).collect();
            let version = versions[random.random_range(0..versions.len())];
            if let Some(file) = version {
                fs::write(folder.join(name), &images[file]).unwrap();
            }
        }
        Self::new(folder, seed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of the directory that this file lies in, and the file's name.
    fn of(path: &Path) -> Option<(Arc<Self>, String)> {
        let disk = disks().get(path.parent()?)?.upgrade()?;
        Some((disk, path.file_name()?.to_str()?.to_owned()))
    }

    /// A file is opened, or made where there is none. `log`: it is a journal or a log that may be made.
    fn open(&self, name: &str, log: bool) -> Result<Handle, Refused> {
        let mut state = self.state();
        if state.cut {
            return Err(Refused::Off);
        }
        let database = Path::new(name).extension() == Some(OsStr::new("db"));
        if let Some(file) = state.names.get(name).and_then(Entry::now) {
            return Ok(Handle { file, syncs_folder: log, database });
        }
        let file = state.files.len();
        state.files.push(Contents::default());
        state.names.entry(name.to_owned()).or_default().waiting.push(Some(file));
        Ok(Handle { file, syncs_folder: log, database })
    }

    /// Changes a file, here and (`real`) on the file system.
    fn change(&self, handle: Handle, change: Change, real: impl FnOnce() -> i32) -> Result<(), Refused> {
        let mut state = self.state();
        state.begin(Operation::Write)?;
        match real() {
            0 => {
                state.files[handle.file].change(change);
                Ok(())
            }
            code => Err(Refused::Real(code)),
        }
    }

    /// Syncs a file.
    fn sync(&self, handle: &mut Handle) -> Result<(), Refused> {
        let mut state = self.state();
        let thread = std::thread::current().id();
        let again = state
            .sync_failed
            .is_some_and(|(file, by)| file == handle.file && (by == thread || handle.database));
        state.repeated_syncs += u64::from(again && !state.cut);
        let begun = state.begin(if handle.database { Operation::SyncDatabase } else { Operation::Sync });
        if let Err(Refused::Failed(_)) = begun {
            state.sync_failed = Some((handle.file, thread));
            let State { files, random, .. } = &mut *state;
            files[handle.file].fail_to_sync(random);
        }
        begun?;
        if state.lies {
            return Ok(());
        }
        state.files[handle.file].sync();
        if std::mem::take(&mut handle.syncs_folder) {
            state.sync_folder();
        }
        Ok(())
    }

    /// Removes a name, here and on the file system.
    fn delete(&self, name: &str, sync_folder: bool, real: impl FnOnce() -> i32) -> Result<(), Refused> {
        let mut state = self.state();
        state.begin(Operation::Write)?;
        match real() {
            0 => {}
            code => return Err(Refused::Real(code)),
        }
        if let Some(entry) = state.names.get_mut(name) {
            entry.waiting.push(None);
        }
        if sync_folder && !state.lies {
            state.sync_folder();
        }
        Ok(())
    }
}

impl State {
    /// Counts an operation; says whether it happens.
    fn begin(&mut self, operation: Operation) -> Result<(), Refused> {
        self.cut |= self.cut_at.is_some_and(|at| self.operations >= at);
        if self.cut {
            return Err(Refused::Off);
        }
        self.operations += 1;
        if self.full && operation == Operation::Write {
            return Err(Refused::Failed(Trouble::Full));
        }
        let concerned = |which: Operation| {
            which == operation || (which == Operation::Sync && operation == Operation::SyncDatabase)
        };
        match &mut self.trouble {
            Some((which, 0, trouble)) if concerned(*which) => {
                let trouble = *trouble;
                self.full = trouble == Trouble::Full;
                self.trouble = None;
                self.failed += 1;
                Err(Refused::Failed(trouble))
            }
            Some((which, left, _)) if concerned(*which) => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sync_folder(&mut self) {
        for entry in self.names.values_mut() {
            entry.synced = entry.now();
            entry.waiting.clear();
        }
    }
}

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Weak<Disk>>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The databases of a directory, with their logs.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let names = entries.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    let databases =
        names.filter(|(name, _)| [".db", ".db-wal", ".db-journal"].iter().any(|end| name.ends_with(end)));
    databases.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[cfg(test)]
mod tests;
