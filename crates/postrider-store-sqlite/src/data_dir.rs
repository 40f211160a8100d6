//! The data directory: created when missing, on a file system that can be trusted, owned by one process.

use crate::{OpenError, restore};
use rustix::fs::FlockOperation;
use std::{
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What a file system is by the number that `statfs` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    /// Over a network: its locks and syncs cannot be trusted.
    Network(&'static str),
    /// Whether its locks and syncs can be trusted depends on what lies behind it.
    Doubtful(&'static str),
    Local,
}

impl FileSystem {
    fn of(number: u64) -> Self {
        match number {
            0x6969 => Self::Network("NFS"),
            0xff53_4d42 => Self::Network("CIFS"),
            0xfe53_4d42 => Self::Network("SMB2"),
            0x517b => Self::Network("SMB"),
            0x0102_1997 => Self::Doubtful("9p"),
            0x6573_5546 => Self::Doubtful("FUSE"),
            _ => Self::Local,
        }
    }
}

/// Permissions of what is created here: nobody but the server's user has business with payloads and answers.
pub(crate) const PRIVATE: u32 = 0o600;

/// Where the database lies.
pub(crate) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("postrider.db")
}

/// The lock on a data directory; it ends with the process, whatever becomes of that.
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a child that this process is just starting holds a copy of it until its exec.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(%error, "the data directory could not be unlocked; closing its lock file must do");
        }
    }
}

/// Creates and locks the directory, until the lock is dropped; finishes a restore that was cut off.
pub(crate) fn take(data_dir: &Path) -> Result<Lock, OpenError> {
    let io = |what: &'static str| move |source| OpenError::Io { what, path: data_dir.to_owned(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(io("create the data directory"))?;
    check_file_system(data_dir)?;
    sync_name(data_dir);
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(data_dir.join("lock"))
        .map_err(io("open the lock file in the data directory"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let lock = Lock(lock);
            restore::finish(data_dir)?;
            Ok(lock)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { data_dir: data_dir.to_owned() }),
        Err(error) => Err(io("lock the data directory")(error.into())),
    }
}

/// SQLite syncs the names in the directory; that of the directory itself, which may be new, must survive a power loss too.
fn sync_name(data_dir: &Path) {
    let synced = data_dir.canonicalize().and_then(|path| match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    if let Err(error) = synced {
        tracing::debug!(%error, "the directory above the data directory could not be synced");
    }
}

fn check_file_system(data_dir: &Path) -> Result<(), OpenError> {
    let Ok(stat) = rustix::fs::statfs(data_dir) else { return Ok(()) };
    let data_dir = data_dir.display();
    match FileSystem::of(u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff) {
        FileSystem::Network(name) => Err(OpenError::Refused(format!(
            "the data directory {data_dir} lies on {name}, where locks and syncs cannot be trusted; use a local disk"
        ))),
        FileSystem::Doubtful(name) => {
            tracing::warn!(
                %data_dir,
                file_system = name,
                "whether what is written survives a power loss depends on what lies behind this file system; prefer a \
                 local disk"
            );
            Ok(())
        }
        FileSystem::Local => Ok(()),
    }
}

/// Creates the database file, which SQLite would make readable for everybody; its log takes over the permissions.
pub(crate) fn create_database(path: &Path) -> Result<(), OpenError> {
    let created = File::options().write(true).create(true).truncate(false).mode(PRIVATE).open(path);
    created.map(drop).map_err(|source| OpenError::Io {
        what: "open the database file",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_apart_by_their_numbers() {
        for (number, expected) in [
            (0x6969, FileSystem::Network("NFS")),
            (0x0102_1997, FileSystem::Doubtful("9p")),
            (0x6573_5546, FileSystem::Doubtful("FUSE")),
            (0xef53, FileSystem::Local),
        ] {
            assert_eq!(FileSystem::of(number), expected, "{number:x}");
        }
    }

    #[test]
    fn a_dropped_lock_is_free_though_a_copy_of_its_file_is_still_open() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        assert!(matches!(take(folder.path()), Err(OpenError::Locked { .. })));
        // What a child has between fork and exec.
        let copy = first.0.try_clone().unwrap();
        drop(first);
        assert!(take(folder.path()).is_ok());
        drop(copy);
    }
}
