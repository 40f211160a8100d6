//! Who of the other nodes is dead: judged by whether its lease is renewed, as this node's own monotonic clock sees it.
//!
//! The database's clock says when a lease ends, but it may be set: back, and a dead node would keep its work for as long
//! as the clock was set back by; forward, and all leases would be over at once. So whoever has watched a row goes by how
//! long it has not changed. Pure: times are arguments.

use crate::identity::NodeId;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// How long a lease that was over when it was seen first is watched: a node that lives and had no way to the database
/// tries to renew once a second.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// Another node's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) node: NodeId,
    /// By the database's clock, in microseconds; each renewal writes another value.
    pub(super) lease_until: i64,
    /// How long it is renewed for.
    pub(super) lease: Duration,
}

/// What follows from a look at the rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How many others live, as far as one knows.
    pub(super) live: usize,
    /// Who is dead, with the lease that was not renewed.
    pub(super) dead: Vec<Row>,
    /// Somebody may be dead, and will be known to be soon.
    pub(super) doubt: bool,
}

/// What was seen of others' leases.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<NodeId, Seen>,
    looked: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    lease_until: i64,
    since: Instant,
    /// It was over when this node saw it first.
    over: bool,
}

impl Watch {
    /// Looks at the rows of all others that have not ended, at `now` of the database's clock and `at` of this node's.
    /// Whoever has not looked for longer than `pause` has not watched: a node that was paused, or had no way to the
    /// database, does not hold it against others.
    pub(super) fn judge(&mut self, rows: &[Row], now: i64, at: Instant, pause: Duration) -> Verdict {
        let paused = self.looked.is_some_and(|looked| at.duration_since(looked) > pause);
        self.looked = Some(at);
        self.seen.retain(|node, _| rows.iter().any(|row| row.node == *node));
        let mut verdict = Verdict::default();
        for row in rows {
            let over = row.lease_until <= now;
            let fresh = Seen { lease_until: row.lease_until, since: at, over };
            let seen = self.seen.entry(row.node).or_insert(fresh);
            if seen.lease_until != row.lease_until {
                *seen = Seen { over: false, ..fresh };
            } else if paused {
                *seen = fresh;
            }
            let unchanged = at.duration_since(seen.since);
            // Over by both clocks; by this node's own alone it takes a whole lease.
            let long = if !over {
                row.lease
            } else if seen.over {
                GRACE.min(row.lease)
            } else {
                row.lease / 2
            };
            if unchanged >= long {
                verdict.dead.push(*row);
            } else {
                verdict.live += 1;
                verdict.doubt |= over;
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(35);
    const SECOND: i64 = 1_000_000;

    fn row(lease_until: i64) -> Row {
        Row { node: [1; 16], lease_until: lease_until * SECOND, lease: LEASE }
    }

    /// Looks every second, at rows that `rows` tells of the second, with the database's clock at `clock`; returns when
    /// the node was found dead.
    fn dead_after(
        row_at: impl Fn(u64) -> Row,
        clock: impl Fn(u64) -> i64,
        looks: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let (mut watch, begun) = (Watch::default(), Instant::now());
        (0..200).filter(|second| looks(*second)).find(|second| {
            let at = begun + Duration::from_secs(*second);
            !watch.judge(&[row_at(*second)], clock(*second) * SECOND, at, LEASE / 2).dead.is_empty()
        })
    }

    fn seconds(second: u64) -> i64 {
        i64::try_from(second).unwrap()
    }

    #[test]
    fn who_renews_lives_and_who_does_not_is_dead_when_the_lease_is_over() {
        let renews = |second: u64| row(100 + seconds(second / 5) * 5 + 35);
        let straight = |second: u64| 100 + seconds(second);
        let always = |_| true;
        assert_eq!(dead_after(renews, straight, always), None);
        assert_eq!(dead_after(|_| row(135), straight, always), Some(35));
    }

    /// DUR-11
    #[test]
    fn a_clock_that_is_set_neither_ends_the_living_nor_keeps_the_dead() {
        let back = |second: u64| if second < 10 { 10_000 + seconds(second) } else { 6_400 + seconds(second) };
        assert_eq!(
            dead_after(|_| row(10_035), back, |_| true),
            Some(35),
            "its lease lasts an hour by that clock"
        );
        // A living one renews by the new time, once in five seconds.
        let renews = |second: u64| row(back(second / 5 * 5) + 35);
        assert_eq!(dead_after(renews, back, |_| true), None);
        let forward = |second: u64| if second < 12 { 100 + seconds(second) } else { 3_700 + seconds(second) };
        let renews = |second: u64| row(forward(second / 5 * 5) + 35);
        assert_eq!(
            dead_after(renews, forward, |_| true),
            None,
            "between two renewals its lease seems to be over"
        );
    }

    #[test]
    fn a_lease_that_was_over_before_is_watched_for_moments() {
        let straight = |second: u64| 100 + seconds(second);
        assert_eq!(dead_after(|_| row(50), straight, |_| true), Some(3));
        // It had no way to the database, as this node had none.
        let late = |second: u64| if second < 2 { row(50) } else { row(137) };
        assert_eq!(dead_after(late, straight, |second| second < 30), None);
    }

    #[test]
    fn who_was_away_has_not_watched() {
        let straight = |second: u64| 100 + seconds(second);
        let renews_again = |second: u64| if second < 102 { row(135) } else { row(100 + 102 + 35) };
        let away = |second: u64| !(5..100).contains(&second);
        assert_eq!(dead_after(renews_again, straight, |second| away(second) && second < 110), None);
        assert_eq!(dead_after(|_| row(135), straight, away), Some(103));
    }
}
