//! Tables of who waits and who is refused.

use super::*;

const LIMITS: Limits = Limits {
    waiting: 8,
    line: 4,
    burst: Duration::from_secs(1),
    lasting: Duration::from_millis(20),
    short: 0,
};
const FLOOD: u64 = 1;
const OTHER: u64 = 2;

/// Waiters are numbers; those from 100 on have gone.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is the caller's")]
fn gone(waiter: &u32) -> bool {
    *waiter >= 100
}

fn lines(limits: Limits) -> (Lines<u32>, Instant) {
    let now = Instant::now();
    (Lines::new(limits, now), now)
}

fn next(lines: &mut Lines<u32>, now: Instant) -> Option<u32> {
    lines.next(now, gone, |_, _| Fit::Taken)
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn turns_go_round_the_lines_and_along_each_in_order() {
    let (mut lines, now) = lines(LIMITS);
    for (key, waiter) in [(FLOOD, 1), (FLOOD, 2), (FLOOD, 3), (OTHER, 10), (OTHER, 11), (3, 20)] {
        lines.push(key, 1, waiter, now);
    }
    let served: Vec<_> = std::iter::from_fn(|| next(&mut lines, now)).collect();
    assert_eq!(served, [1, 10, 20, 2, 11, 3]);
    assert_eq!((lines.len(), lines.by_key.len(), lines.turns.len()), (0, 0, 0));
}

#[test]
fn those_who_have_gone_take_no_turn() {
    let (mut lines, now) = lines(LIMITS);
    for (key, waiter) in [(FLOOD, 100), (FLOOD, 1), (OTHER, 101), (3, 102), (FLOOD, 103)] {
        lines.push(key, 1, waiter, now);
    }
    assert_eq!((next(&mut lines, now), next(&mut lines, now)), (Some(1), None));
    assert_eq!((lines.len(), lines.by_key.len(), lines.turns.len()), (0, 0, 0));
}

#[test]
fn one_that_needs_more_than_there_is_room_for_is_not_overtaken() {
    let (mut lines, now) = lines(LIMITS);
    lines.push(FLOOD, 9, 1, now);
    lines.push(OTHER, 1, 2, now);
    let fits = |_, amount| if amount > 5 { Fit::Nothing } else { Fit::Taken };
    assert_eq!(lines.next(now, gone, fits), None);
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_line_that_has_its_share_keeps_no_other_waiting() {
    let (mut lines, now) = lines(LIMITS);
    lines.push(FLOOD, 1, 1, now);
    lines.push(OTHER, 1, 2, now);
    let fits = |key, _| if key == FLOOD { Fit::NotThis } else { Fit::Taken };
    assert_eq!(lines.next(now, gone, fits), Some(2));
    assert_eq!(lines.next(now, gone, fits), None);
    assert_eq!(next(&mut lines, now), Some(1));
}

/// A burst may wait, whatever it costs; a line that lasts may cost 20 ms.
#[test]
fn a_burst_is_served_and_a_lasting_line_is_cut() {
    for (lasts, first_waits, expected) in [
        (999, 900, Ok(())),
        (1000, 20, Ok(())),
        (1000, 21, Err(Blame::Line)),
        (60_000, 10, Ok(())),
        (60_000, 30, Err(Blame::Line)),
    ] {
        let (mut lines, start) = lines(LIMITS);
        let end = start + milliseconds(lasts);
        lines.push(FLOOD, 1, 1, start);
        lines.push(FLOOD, 1, 2, end.checked_sub(milliseconds(first_waits)).unwrap());
        assert_eq!(next(&mut lines, end), Some(1));
        assert_eq!(lines.judge(FLOOD, end), expected, "after {lasts} ms, waiting {first_waits} ms");
        assert_eq!(lines.judge(OTHER, end), Ok(()), "another line has only begun");
    }
}

/// Where a turn takes long, everybody waits long, and it is nobody's fault.
#[test]
fn a_short_line_is_not_cut_however_slow_the_work_is() {
    let (mut lines, start) = lines(Limits { short: 2, ..LIMITS });
    let later = start + milliseconds(5000);
    lines.push(FLOOD, 1, 1, start);
    assert_eq!(lines.judge(FLOOD, later), Ok(()));
    lines.push(FLOOD, 1, 2, start);
    assert!(lines.judge(FLOOD, later).is_err());
}

#[test]
fn a_line_that_got_empty_may_be_a_burst_again() {
    let (mut lines, start) = lines(LIMITS);
    lines.push(FLOOD, 1, 1, start);
    let later = start + milliseconds(5000);
    assert!(lines.judge(FLOOD, later).is_err());
    assert_eq!(next(&mut lines, later), Some(1));
    lines.push(FLOOD, 1, 2, later);
    assert_eq!(lines.judge(FLOOD, later + milliseconds(900)), Ok(()));
}

#[test]
fn the_bounds_by_count_hold_for_a_line_and_for_all() {
    let (mut lines, now) = lines(LIMITS);
    for waiter in 1..=4 {
        assert_eq!(lines.judge(FLOOD, now), Ok(()));
        lines.push(FLOOD, 1, waiter, now);
    }
    assert_eq!(lines.judge(FLOOD, now), Err(Blame::Line));
    for key in 10..14 {
        assert_eq!(lines.judge(key, now), Ok(()));
        lines.push(key, 1, 1, now);
    }
    assert_eq!(lines.judge(20, now), Err(Blame::Server));
}

#[test]
fn the_line_is_to_blame_when_it_is_most_of_what_waits_and_turns_are_given() {
    for (own, others, stalled_for, expected) in [
        (3, 0, 0, Blame::Line),
        (3, 3, 0, Blame::Line),
        (3, 4, 0, Blame::Server),
        (0, 4, 0, Blame::Server),
        (3, 0, 250, Blame::Line),
        (3, 0, 251, Blame::Server),
    ] {
        let (mut lines, now) = lines(LIMITS);
        for waiter in 0..own {
            lines.push(FLOOD, 1, waiter, now);
        }
        for waiter in 0..others {
            lines.push(OTHER, 1, waiter, now);
        }
        let blame = lines.blame(FLOOD, now + milliseconds(stalled_for));
        assert_eq!(blame, expected, "{own} here, {others} elsewhere, no turn for {stalled_for} ms");
    }
}
