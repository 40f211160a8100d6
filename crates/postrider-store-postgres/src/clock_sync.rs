//! The database's clock: what all nodes schedule by. The store's clock shows it, as far as it is known: it is compared
//! with each renewal of the lease, and found to have been set when it does not go as this node's monotonic clock does.

use crate::{Shared, connection::Connection, failure::Failure, values::at};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Smaller differences are the way there and back.
const TOLERANCE: i64 = 10_000;
/// Steps smaller than this are not worth a look at what waits: the shortest wait is longer.
const STEP: i64 = 2_000_000;

/// By how much the store's clock was moved to show the database's, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Offset {
    known: AtomicI64,
    /// What the database's clock showed, and when.
    last: Mutex<Option<(i64, Instant)>>,
    /// For tests: how wrong the database's clock goes.
    skew: AtomicI64,
}

impl Offset {
    /// The database's time in microseconds, as an expression.
    pub(crate) fn now_sql(&self) -> String {
        let now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        match self.skew.load(Ordering::Relaxed) {
            0 => now.to_owned(),
            skew => format!("({now} + ({skew}))"),
        }
    }

    /// As if somebody had set the database's clock.
    #[cfg(feature = "testing")]
    pub(crate) fn set_skew(&self, microseconds: i64) {
        self.skew.store(microseconds, Ordering::Relaxed);
    }
}

/// The database is about to be asked for its time.
pub(crate) struct Asked {
    system: i64,
    at: Instant,
}

impl Asked {
    /// Just before the question.
    pub(crate) fn now() -> Self {
        Self { system: system(), at: Instant::now() }
    }

    /// The answer is there: moves the store's clock to it. Tells by how much the database's clock was set back, when it
    /// was.
    pub(crate) fn answered(&self, shared: &Shared, theirs: i64) -> Option<Duration> {
        let (took, after) = (self.at.elapsed(), system());
        let way = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        shift(shared, theirs - (self.system + (after - self.system) / 2), way.max(after - self.system));
        let mut last = shared.offset.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace((theirs, self.at));
        drop(last);
        let step = before.map_or(0, |(then, at)| theirs - then - micros(self.at.duration_since(at)));
        let back = Duration::from_micros(step.unsigned_abs());
        // Counted from before the question: the answer cannot be earlier than that.
        (step <= -STEP).then_some(back)
    }
}

/// Compares this machine's clock with the database's and moves the store's by the difference.
pub(crate) async fn compare(shared: &Shared, connection: &Connection) -> Result<Option<Duration>, Failure> {
    let text = format!("SELECT {}", shared.offset.now_sql());
    connection.prepare(&text).await?;
    let asked = Asked::now();
    let Some(row) = connection.first_row(&text, &[]).await? else { return Ok(None) };
    Ok(asked.answered(shared, at(&row, 0)?))
}

fn shift(shared: &Shared, offset: i64, way: i64) {
    let known = shared.offset.known.load(Ordering::Relaxed);
    let moved = offset - known;
    if moved.abs() <= TOLERANCE.max(way) {
        return;
    }
    shared.offset.known.store(offset, Ordering::Relaxed);
    let by = Duration::from_micros(moved.unsigned_abs());
    if moved > 0 {
        shared.clock.advance(by);
    } else {
        shared.clock.set_back(by);
    }
    tracing::info!(
        microseconds = offset,
        "the database's clock differs from this machine's; its time counts"
    );
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn system() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "compared with the database's clock, not used as the time")]
    let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(system.as_micros()).unwrap_or(i64::MAX)
}
