//! Whether deliveries keep up: the part of first attempts that began late. Only those of endpoints that answered well
//! count, and only of fresh messages: what hangs, fails or comes back with a backlog says nothing of this node.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A first attempt that begins this long after it was due is late: ten commits of a usual disk.
const LATE: Duration = Duration::from_millis(50);
/// What is older has waited for its endpoint, or for this server to be started.
const BACKLOG: Duration = Duration::from_secs(10);
/// The last attempts count most: about so many.
const MEMORY: u32 = 64;
/// All of them, in the parts that are counted in.
const ALL: u32 = 1 << 20;

/// See the head. Notes that meet may lose one of them, which does not matter.
#[derive(Debug, Default)]
pub(crate) struct Promptness {
    late: AtomicU32,
    noted: AtomicU64,
}

impl Promptness {
    /// A first attempt that was answered well began so long after it was due.
    pub(crate) fn note(&self, lag: Duration) {
        if lag > BACKLOG {
            return;
        }
        let late = self.late.load(Relaxed);
        let share = if lag > LATE { ALL / MEMORY } else { 0 };
        self.late.store(late - late / MEMORY + share, Relaxed);
        self.noted.fetch_add(1, Relaxed);
    }

    /// How many were noted, and how many of a thousand of the last ones were late.
    pub(crate) fn read(&self) -> (u64, u32) {
        (self.noted.load(Relaxed), self.late.load(Relaxed).saturating_mul(1000) / ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_late_attempts_follows_the_last_ones() {
        let promptness = Promptness::default();
        let note = |times, lag| (0..times).for_each(|_| promptness.note(Duration::from_millis(lag)));
        note(1000, 50);
        assert_eq!(promptness.read(), (1000, 0));
        note(1000, 51);
        assert!(promptness.read().1 > 980, "{:?}", promptness.read());
        for _ in 0..1000 {
            note(1, 51);
            note(3, 5);
        }
        assert!((230..270).contains(&promptness.read().1), "{:?}", promptness.read());
        note(1000, 5);
        assert!(promptness.read().1 < 20, "{:?}", promptness.read());
        let before = promptness.read();
        note(1000, 10_001);
        assert_eq!(promptness.read(), before, "a backlog says nothing");
    }
}
