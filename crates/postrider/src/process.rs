//! What the process asks of the system: room for its connections, and that its memory stays its own.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of open files to what the system allows: the usual default of 1024 is less than the connections
/// that the settings allow. What the system refuses is logged: a server that runs is better than none.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, current = limit.current, "the number of open files cannot be raised");
    }
}

/// Files that the process may have open; `None` when there is no limit.
pub fn file_limit() -> Option<usize> {
    getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok())
}

/// No core dumps, and on Linux no reading of this process by others of the same user: opened credentials are in its
/// memory.
pub fn seal_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "the process cannot be made unreadable for others");
    }
}
