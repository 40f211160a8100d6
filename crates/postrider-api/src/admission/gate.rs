//! A gate: so much may be inside at one time, one key may have a share of it, and the others wait in [lines](super::line).
//!
//! While nobody waits, going in and out costs two atomic operations each and no lock.

use super::line::{Blame, Fit, Limits, Lines};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Counters of shares. Two keys that meet in one have one share together, which is rare while few are inside.
const SHARES: usize = 4096;

/// A gate.
#[derive(Debug)]
pub(super) struct Gate {
    most: AtomicU64,
    inside: AtomicU64,
    /// What one key may have inside.
    share: u64,
    shares: Box<[AtomicU64]>,
    patience: Duration,
    /// The same as the lines know it, to be read without their lock.
    waiting: AtomicUsize,
    lines: Mutex<Lines<oneshot::Sender<()>>>,
}

/// What was let in; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    key: u64,
    amount: u64,
}

impl Gate {
    /// `most` inside, of which one key has `share` at most; nobody waits longer than `patience`.
    pub(super) fn new(most: u64, share: u64, patience: Duration, limits: Limits) -> Self {
        let counters = if share < most { SHARES } else { 0 };
        Self {
            most: AtomicU64::new(most),
            inside: AtomicU64::new(0),
            share: share.min(most),
            shares: (0..counters).map(|_| AtomicU64::new(0)).collect(),
            patience,
            waiting: AtomicUsize::new(0),
            lines: Mutex::new(Lines::new(limits, Instant::now())),
        }
    }

    /// Would it make sense to wait? Asked before anything is done for a caller.
    pub(super) fn judge(&self, key: u64) -> Result<(), Blame> {
        if self.waiting.load(Relaxed) == 0 {
            return Ok(());
        }
        let mut lines = self.lines();
        lines.forget_gone(key, oneshot::Sender::is_closed);
        self.waiting.store(lines.len(), SeqCst);
        lines.judge(key, Instant::now()).map_err(|blame| self.or_its_share(key, 1, blame))
    }

    /// Lets in, or waits for a turn.
    pub(super) async fn enter(&self, key: u64, amount: u64) -> Result<Pass<'_>, Blame> {
        let amount = amount.min(self.share);
        if self.waiting.load(SeqCst) == 0 && self.take(key, amount) == Fit::Taken {
            return Ok(Pass { gate: self, key, amount });
        }
        let arrived = Instant::now();
        let mut waiting = self.line_up(key, amount, arrived)?;
        match timeout_at(arrived + self.patience, &mut waiting.turn).await {
            Ok(Ok(())) => Ok(Pass { gate: self, key, amount }),
            // The turn may have come in the same moment; then `waiting` gives it back.
            Ok(Err(_)) | Err(_) => Err(self.blame(key, amount)),
        }
    }

    /// What is inside.
    pub(super) fn inside(&self) -> u64 {
        self.inside.load(Relaxed)
    }

    /// What may be inside.
    pub(super) fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }

    /// So much may be inside from now on. What is inside already stays.
    pub(super) fn set_most(&self, most: u64) {
        let before = self.most.swap(most, SeqCst);
        if most > before && self.waiting.load(SeqCst) > 0 {
            self.serve(&mut self.lines(), Instant::now());
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    fn line_up(&self, key: u64, amount: u64, now: Instant) -> Result<Waiting<'_>, Blame> {
        let (ticket, turn) = oneshot::channel();
        let mut lines = self.lines();
        lines.forget_gone(key, oneshot::Sender::is_closed);
        lines.judge(key, now).map_err(|blame| self.or_its_share(key, amount, blame))?;
        lines.push(key, amount, ticket, now);
        // From here on whoever leaves looks at the lines; who left just before that made room that nobody has seen.
        self.waiting.store(lines.len(), SeqCst);
        self.serve(&mut lines, now);
        Ok(Waiting { gate: self, key, amount, turn })
    }

    fn blame(&self, key: u64, amount: u64) -> Blame {
        let blame = self.lines().blame(key, Instant::now());
        self.or_its_share(key, amount, blame)
    }

    /// Who has its share inside waits for itself.
    fn or_its_share(&self, key: u64, amount: u64, blame: Blame) -> Blame {
        let inside = self.share_of(key).map_or(0, |inside| inside.load(Relaxed));
        if inside > 0 && inside.saturating_add(amount) > self.share { Blame::Line } else { blame }
    }

    /// Lets in who is next, as long as there is room.
    fn serve(&self, lines: &mut Lines<oneshot::Sender<()>>, now: Instant) {
        let mut given = None;
        while let Some(ticket) = lines.next(now, oneshot::Sender::is_closed, |key, amount| {
            let fit = self.take(key, amount);
            given = (fit == Fit::Taken).then_some((key, amount));
            fit
        }) {
            // Gone in this very moment: its room is for the next one.
            if ticket.send(()).is_err()
                && let Some((key, amount)) = given
            {
                self.put_back(key, amount);
            }
        }
        self.waiting.store(lines.len(), SeqCst);
    }

    fn take(&self, key: u64, amount: u64) -> Fit {
        let more = |inside: u64| inside.checked_add(amount).filter(|sum| *sum <= self.share);
        if let Some(inside) = self.share_of(key)
            && inside.fetch_update(SeqCst, SeqCst, more).is_err()
        {
            return Fit::NotThis;
        }
        let most = self.most.load(SeqCst);
        let more = |inside: u64| inside.checked_add(amount).filter(|sum| *sum <= most);
        if self.inside.fetch_update(SeqCst, SeqCst, more).is_err() {
            if let Some(inside) = self.share_of(key) {
                inside.fetch_sub(amount, SeqCst);
            }
            return Fit::Nothing;
        }
        Fit::Taken
    }

    fn put_back(&self, key: u64, amount: u64) {
        if let Some(inside) = self.share_of(key) {
            inside.fetch_sub(amount, SeqCst);
        }
        self.inside.fetch_sub(amount, SeqCst);
    }

    fn leave(&self, key: u64, amount: u64) {
        self.put_back(key, amount);
        if self.waiting.load(SeqCst) > 0 {
            self.serve(&mut self.lines(), Instant::now());
        }
    }

    fn share_of(&self, key: u64) -> Option<&AtomicU64> {
        let counters = u64::try_from(self.shares.len()).unwrap_or(u64::MAX);
        self.shares.get(usize::try_from(key.checked_rem(counters)?).unwrap_or_default())
    }

    fn lines(&self) -> MutexGuard<'_, Lines<oneshot::Sender<()>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Less is needed than was asked for.
    pub(super) fn shrink(&mut self, amount: u64) {
        let surplus = self.amount.saturating_sub(amount);
        if surplus > 0 {
            self.amount -= surplus;
            self.gate.leave(self.key, surplus);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.key, self.amount);
    }
}

/// Somebody in a line, who may go away at any moment.
struct Waiting<'a> {
    gate: &'a Gate,
    key: u64,
    amount: u64,
    turn: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turn.close();
        // A turn that was given and not taken is for the next one.
        if self.turn.try_recv().is_ok() {
            self.gate.leave(self.key, self.amount);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
