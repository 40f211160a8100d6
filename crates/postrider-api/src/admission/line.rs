//! Who waits for a turn, and who is told not to: lines by key (an application, a token) that are served in turn. Pure:
//! time comes as an argument, and what a waiter is, the caller knows.
//!
//! Judged by time, not by length: how many may wait sensibly depends on how fast they are served, which depends on the
//! machine, its disk and the size of what is sent, and changes while it runs. A line may be long for a moment (a burst
//! is served a little later and nobody is refused); one that did not get empty for [`Limits::burst`] is no burst, and what
//! is added to it makes everybody behind wait without anything being done sooner. From then on it may only be as long as
//! is served within [`Limits::lasting`]. The bounds by count are for memory alone.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// No turn was given for this long: it is not the callers who are too many.
const STALLED: Duration = Duration::from_millis(250);

/// How long and how many may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// In all.
    pub(super) waiting: usize,
    /// In one line.
    pub(super) line: usize,
    /// For how long a line may be of any length.
    pub(super) burst: Duration,
    /// The wait that a line may cost that has lasted longer.
    pub(super) lasting: Duration,
    /// A line of so many is not too long, whatever it costs.
    pub(super) short: usize,
}

/// Who is to blame for a refusal, which tells a caller what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Those in this line: others are served.
    Line,
    /// The server as a whole has more to do than it can.
    Server,
}

/// Whether a turn can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It can, and is.
    Taken,
    /// This line has its share: another may go first.
    NotThis,
    /// There is no room, for nobody.
    Nothing,
}

/// The lines.
#[derive(Debug)]
pub(super) struct Lines<W> {
    limits: Limits,
    /// Those with somebody in it.
    by_key: HashMap<u64, Line<W>>,
    /// The keys of the same, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: usize,
    /// When a turn was given last, or the first waiter came.
    last_turn: Instant,
}

#[derive(Debug)]
struct Line<W> {
    waiters: VecDeque<Waiter<W>>,
    /// Somebody has stood here since then, without a pause.
    since: Instant,
}

#[derive(Debug)]
struct Waiter<W> {
    who: W,
    amount: u64,
    arrived: Instant,
}

impl<W> Lines<W> {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, by_key: HashMap::new(), turns: VecDeque::new(), waiting: 0, last_turn: now }
    }

    /// Those who wait, some of whom may have gone.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// May one more wait in this line?
    pub(super) fn judge(&self, key: u64, now: Instant) -> Result<(), Blame> {
        let line = self.by_key.get(&key);
        let length = line.map_or(0, |line| line.waiters.len());
        let lasting = length >= self.limits.short
            && line.is_some_and(|line| line.wait(now) > self.limits.lasting)
            && line.is_some_and(|line| now.duration_since(line.since) >= self.limits.burst);
        if lasting || length >= self.limits.line || self.waiting >= self.limits.waiting {
            return Err(self.blame(key, now));
        }
        Ok(())
    }

    /// Whose fault it is that somebody in this line waits: the line's own when it is at least half of all that wait and
    /// turns are given.
    pub(super) fn blame(&self, key: u64, now: Instant) -> Blame {
        let own = self.by_key.get(&key).map_or(0, |line| line.waiters.len());
        let stalled = now.duration_since(self.last_turn) > STALLED;
        if own > 0 && own * 2 >= self.waiting && !stalled { Blame::Line } else { Blame::Server }
    }

    /// To the end of a line.
    pub(super) fn push(&mut self, key: u64, amount: u64, waiter: W, now: Instant) {
        if self.waiting == 0 {
            self.last_turn = now;
        }
        let turns = &mut self.turns;
        let line = self.by_key.entry(key).or_insert_with(|| {
            turns.push_back(key);
            Line { waiters: VecDeque::new(), since: now }
        });
        line.waiters.push_back(Waiter { who: waiter, amount, arrived: now });
        self.waiting += 1;
    }

    /// Those at the front of this line who have gone no longer stand there.
    pub(super) fn forget_gone(&mut self, key: u64, gone: impl Fn(&W) -> bool) {
        let Some(line) = self.by_key.get_mut(&key) else { return };
        while line.waiters.pop_front_if(|first| gone(&first.who)).is_some() {
            self.waiting -= 1;
        }
        if line.waiters.is_empty() {
            self.by_key.remove(&key);
            self.turns.retain(|turn| *turn != key);
        }
    }

    /// The next in turn for whom there is room: one of each line, then the next line's. Whoever needs more than there is
    /// room for is not overtaken by those who need less.
    pub(super) fn next(
        &mut self,
        now: Instant,
        gone: impl Fn(&W) -> bool,
        mut fits: impl FnMut(u64, u64) -> Fit,
    ) -> Option<W> {
        let mut looked = 0;
        while looked < self.turns.len() {
            let key = *self.turns.front()?;
            self.forget_gone(key, &gone);
            let Some(line) = self.by_key.get_mut(&key) else { continue };
            let amount = line.waiters.front()?.amount;
            match fits(key, amount) {
                Fit::Nothing => return None,
                Fit::NotThis => {
                    looked += 1;
                    self.turns.rotate_left(1);
                }
                Fit::Taken => {
                    let first = line.waiters.pop_front()?;
                    self.waiting -= 1;
                    self.turns.rotate_left(1);
                    if line.waiters.is_empty() {
                        self.by_key.remove(&key);
                        self.turns.pop_back();
                    }
                    self.last_turn = now;
                    return Some(first.who);
                }
            }
        }
        None
    }
}

impl<W> Line<W> {
    /// How long the first has waited.
    fn wait(&self, now: Instant) -> Duration {
        self.waiters.front().map_or(Duration::ZERO, |first| now.duration_since(first.arrived))
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
