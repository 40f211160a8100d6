//! A thread that callers wait for ends by a panic: nobody is left waiting, and nobody comes to wait.
//!
//! Panics inside an operation or its effect end neither thread. What is left are defects of the threads themselves; after one
//! the store is broken for good, as after a failed sync, and a restart reads everything anew.

use crate::{Shared, failure::unavailable};
use std::sync::Arc;

/// Dropped at the end of a thread.
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
        if !std::thread::panicking() {
            return;
        }
        // First: whoever comes from here on is refused at once.
        self.shared.disk.breaks_by(format!("{} ended by a panic, the server must be restarted", self.what));
        self.shared.inbox.close();
        // What it was about to make durable it never will.
        self.shared.inbox.sync_ended();
        let detail = self.shared.disk.broken().unwrap_or_default();
        for operation in self.shared.inbox.abandoned() {
            operation.answer(Err(unavailable(detail.clone())));
        }
    }
}
