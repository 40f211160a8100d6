//! How often an endpoint is sent to: at most so many messages in any second, spread evenly. Pure: the caller brings the
//! time and keeps the state.
//!
//! The generic cell rate algorithm (as in ATM's traffic management, ITU-T I.371): one instant says it all, the one at which the next message
//! would be due at an even pace. A message may go out [`TOLERANCE`] before that, so that a sender that wakes up late
//! makes up for it: in any window of a second there are at most `rate` messages, a fiftieth more, and one.

use crate::time::Timestamp;
use std::time::Duration;

/// How much earlier than at an even pace a message may go out: two hundredths of a second's messages.
pub const TOLERANCE: Duration = Duration::from_millis(20);
/// Further ahead than any pace leads (a message a second, and what is reserved): the clock was set back.
const FARTHEST: Duration = Duration::from_secs(5);

const NANOS: i128 = 1_000_000_000;

/// The pace of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    rate: u16,
    /// When the next message is due at an even pace, in nanoseconds since the epoch: microseconds would let a rate
    /// of 60,000 drift by a fiftieth.
    due: i128,
}

impl Throttle {
    /// Nothing was sent yet. `rate` is in messages per second, at least 1 (0 counts as 1).
    pub fn new(rate: u16) -> Self {
        Self { rate: rate.max(1), due: 0 }
    }

    /// The messages per second that it allows.
    pub fn rate(&self) -> u16 {
        self.rate
    }

    /// When the next message may go out, `now` or later, and the state once it has. Who does not send then keeps the
    /// state as it was.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> (Timestamp, Self) {
        let now = nanos(now);
        // A state from before the clock was set back must not hold anything up.
        let due = if self.due > now + nanos_of(FARTHEST) { now } else { self.due.max(now) };
        let at = now.max(due - nanos_of(TOLERANCE));
        (timestamp(at), Self { rate: self.rate, due: due + NANOS / i128::from(self.rate) })
    }

    /// Nothing that was sent matters any more: a new state would do.
    pub fn is_blank(&self, now: Timestamp) -> bool {
        self.due <= nanos(now)
    }
}

fn nanos(at: Timestamp) -> i128 {
    i128::from(at.as_micros()) * 1000
}

fn nanos_of(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// Not before that instant: rounded up to a microsecond.
fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::from_micros(i64::try_from((nanos + 999) / 1000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    /// The instants at which messages go out when there is one to send at each of these.
    fn sent(rate: u16, offered: impl IntoIterator<Item = Timestamp>) -> Vec<Timestamp> {
        let mut throttle = Throttle::new(rate);
        let mut sent = Vec::new();
        for now in offered {
            let (at, after) = throttle.next(now);
            if at <= now {
                throttle = after;
                sent.push(now);
            }
        }
        sent
    }

    fn most_in_a_second(sent: &[Timestamp]) -> usize {
        let second = Duration::from_secs(1);
        let mut first = 0;
        (0..sent.len())
            .map(|last| {
                while sent[last].since(sent[first]) >= second {
                    first += 1;
                }
                last - first + 1
            })
            .max()
            .unwrap_or(0)
    }

    fn allowed(rate: u16) -> usize {
        usize::from(rate) + usize::from(rate).div_ceil(50) + 1
    }

    #[test]
    fn messages_go_out_at_an_even_pace() {
        let every_millisecond = (0..10_000).map(|number| START.plus(Duration::from_millis(number)));
        for rate in [1, 2, 5, 10, 50, 100, 300] {
            let sent = sent(rate, every_millisecond.clone());
            let expected = usize::from(rate) * 10;
            assert!(
                sent.len() >= expected - expected / 50 && sent.len() <= allowed(rate) * 10,
                "{} at {rate}",
                sent.len()
            );
            assert!(most_in_a_second(&sent) <= allowed(rate), "{rate}");
        }
    }

    #[test]
    fn the_first_message_goes_out_at_once_and_tells_when_the_next_may() {
        let throttle = Throttle::new(4);
        let (at, throttle) = throttle.next(START);
        assert_eq!(at, START);
        let (at, _) = throttle.next(START);
        assert_eq!(at, START.plus(Duration::from_millis(230)));
        assert!(!throttle.is_blank(START));
        assert!(throttle.is_blank(START.plus(Duration::from_millis(250))));
    }

    #[test]
    fn a_rest_saves_nothing_up() {
        let mut offered: Vec<Timestamp> = vec![START];
        let later = START.plus(Duration::from_hours(1));
        offered.extend((0..1000).map(|number| later.plus(Duration::from_micros(number))));
        assert_eq!(sent(10, offered).len(), 2, "one at the start, one after the hour");
    }

    #[test]
    fn messages_can_be_reserved_ahead() {
        let mut throttle = Throttle::new(10);
        let mut reserved = Vec::new();
        for _ in 0..5 {
            let (at, after) = throttle.next(START);
            throttle = after;
            reserved.push(at.since(START).as_millis());
        }
        assert_eq!(reserved, [0, 80, 180, 280, 380]);
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let (_, throttle) = Throttle::new(1).next(START);
        let earlier = START.minus(Duration::from_hours(1));
        assert_eq!(throttle.next(earlier).0, earlier);
    }

    #[test]
    fn a_rate_of_nothing_counts_as_one() {
        assert_eq!(Throttle::new(0), Throttle::new(1));
    }

    proptest! {
        /// However messages are offered: never more in a second than the rate, a fiftieth, and one.
        #[test]
        fn no_second_has_too_many(
            rate in prop_oneof![1_u16..20, 1_u16..=u16::MAX],
            gaps in proptest::collection::vec(prop_oneof![Just(0_u64), 0_u64..200, 0_u64..50_000], 1..2000),
        ) {
            let mut now = START;
            let offered = gaps.into_iter().map(|gap| { now = now.plus(Duration::from_micros(gap)); now });
            let sent = sent(rate, offered);
            prop_assert!(most_in_a_second(&sent) <= allowed(rate));
        }

        /// Whoever waits for the time that it is told may send then, late or not, and gets the whole rate.
        #[test]
        fn who_waits_as_told_gets_the_rate(rate in 1_u16..200, late in 0_u64..15) {
            let (mut throttle, mut now) = (Throttle::new(rate), START);
            let mut count = 0_u32;
            while now < START.plus(Duration::from_secs(20)) {
                let (at, after) = throttle.next(now);
                if at <= now {
                    (throttle, count) = (after, count + 1);
                } else {
                    now = at.plus(Duration::from_millis(late));
                }
            }
            let expected = u32::from(rate) * 20;
            prop_assert!(count + 1 >= expected - expected / 50 && count <= expected + expected / 50 + 2, "{count} at {rate}");
        }
    }
}
