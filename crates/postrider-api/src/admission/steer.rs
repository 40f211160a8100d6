//! How many publishes are worked on at one time, so that deliveries keep up. Pure.
//!
//! A publish and a delivery share processors and commits. However many publishers ask, only so many may be let in that
//! what was accepted goes out at once; the others wait in line. What that number is, nobody knows in advance: it is found
//! by taking an eighth away while first attempts begin late, and giving back a little while they do not.

/// One of so many turns stays, however late deliveries are.
const LEAST: u64 = 8;
/// What is given back at a time.
const STEP: u64 = 32;
/// More than this of a thousand attempts are late: deliveries do not keep up.
const LATE: u32 = 250;
/// Fewer than this: they do.
const PROMPT: u32 = 100;

/// The turns from now on, of `most`. `late`: how many of a thousand of the last first attempts began late; `None` when
/// there were none.
pub(super) fn next(turns: u64, most: u64, late: Option<u32>) -> u64 {
    match late {
        Some(late) if late > LATE => (turns - turns.div_ceil(8)).max(most.div_ceil(LEAST)),
        Some(late) if late > PROMPT => turns,
        Some(_) | None => (turns + most.div_ceil(STEP)).min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_shrink_while_deliveries_are_late_and_grow_while_they_are_not() {
        for (turns, late, expected) in [
            (128, Some(251), 112),
            (100, Some(1000), 87),
            (17, Some(1000), 16),
            (16, Some(1000), 16),
            (60, Some(250), 60),
            (60, Some(101), 60),
            (60, Some(100), 64),
            (60, None, 64),
            (126, Some(0), 128),
            (128, Some(0), 128),
        ] {
            assert_eq!(next(turns, 128, late), expected, "{turns} turns, {late:?} late");
        }
    }

    #[test]
    fn one_turn_is_left_of_few() {
        assert_eq!((next(1, 1, Some(1000)), next(2, 2, Some(1000)), next(1, 2, None)), (1, 1, 2));
    }

    #[test]
    fn all_turns_are_back_within_seconds_and_gone_within_one() {
        let rounds = |from, late, until| {
            std::iter::successors(Some(from), |turns| Some(next(*turns, 128, late)))
                .take_while(|turns| *turns != until)
                .count()
        };
        assert!(rounds(128, Some(1000), 16) <= 20);
        assert!(rounds(16, Some(0), 128) <= 28);
    }
}
