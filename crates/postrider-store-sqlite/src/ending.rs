//! A thread of the store ends by a panic: nobody is left waiting for it, and nobody comes to wait.
//!
//! Panics inside an operation or its effect end no thread. What is left are defects of the threads themselves; after one
//! the store is broken for good, as after a failed sync, and a restart reads everything anew.

use crate::{Shared, failure::unavailable, health::Disk};
use std::{sync::Arc, thread::panicking};

/// Dropped at the end of a thread that callers wait for.
pub(crate) struct Ending {
    shared: Arc<Shared>,
    what: &'static str,
}

impl Ending {
    /// `what` is the thread, for the message.
    pub(crate) fn of(what: &'static str, shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), what }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !panicking() {
            return;
        }
        // First: whoever comes from here on is refused at once.
        breaks(&self.shared.disk, self.what);
        self.shared.inbox.close();
        // What it was about to make durable it never will.
        self.shared.inbox.sync_ended();
        let detail = self.shared.disk.broken().unwrap_or_default();
        for operation in self.shared.inbox.abandoned() {
            operation.answer(Err(unavailable(detail.clone())));
        }
    }
}

/// Dropped at the end of the upkeep, for which nobody waits. Without it the log would grow until the disk is full: better to refuse,
/// and to answer what was accepted before.
pub(crate) struct UpkeepEnding(pub(crate) Arc<Shared>);

impl Drop for UpkeepEnding {
    fn drop(&mut self) {
        if panicking() {
            breaks(&self.0.disk, "the upkeep");
        }
    }
}

fn breaks(disk: &Disk, what: &str) {
    disk.breaks_by(format!("{what} ended by a panic, the server must be restarted"));
}
