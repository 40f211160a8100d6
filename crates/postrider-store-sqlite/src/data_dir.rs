//! The data directory: created when missing, on a file system that can be trusted, owned by one process.

use crate::OpenError;
use rustix::fs::FlockOperation;
use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// File systems over a network by the numbers that `statfs` gives: their locks and syncs cannot be trusted.
const NETWORK: [(u64, &str); 4] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2"), (0x517b, "SMB")];

/// Where the database lies.
pub(crate) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("postrider.db")
}

/// Creates and locks the directory. The lock lasts until the file is dropped, whatever becomes of the process.
pub(crate) fn take(data_dir: &Path) -> Result<File, OpenError> {
    let io = |what: &'static str| move |source| OpenError::Io { what, path: data_dir.to_owned(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(io("create the data directory"))?;
    if let Ok(stat) = rustix::fs::statfs(data_dir) {
        let kind = u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff;
        if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == kind) {
            return Err(OpenError::Refused(format!(
                "the data directory {} lies on {name}, where locks and syncs cannot be trusted; use a local disk",
                data_dir.display()
            )));
        }
    }
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_dir.join("lock"))
        .map_err(io("open the lock file in the data directory"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { data_dir: data_dir.to_owned() }),
        Err(error) => Err(io("lock the data directory")(error.into())),
    }
}
