//! Keeps the process' memory to itself: opened credentials are in it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// No core dumps, and on Linux no reading of this process by others of the same user. What the system refuses is
/// logged: a server that runs is better than none.
pub fn apply() {
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
