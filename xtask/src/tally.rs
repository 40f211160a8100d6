//! Results of tests, read from what their runners print: `cargo test` and the Test Anything Protocol.

use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One test.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// What a line of output says, if it is one with a result.
    pub(crate) fn from_line(line: &str) -> Self {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let before = rest.split(';').find_map(|part| part.trim().strip_suffix(word))?;
                before.split_whitespace().next_back()?.parse().ok()
            };
            return Self { passed: count("passed").unwrap_or(0), failed: count("failed").unwrap_or(0) };
        }
        let is =
            |word: &str| line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        Self { passed: u64::from(is("ok")), failed: u64::from(is("not ok")) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_and_of_the_test_anything_protocol_are_counted() {
        let read = |line| {
            let tally = Tally::from_line(line);
            (tally.passed, tally.failed)
        };
        assert_eq!(
            read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"),
            (12, 0)
        );
        assert_eq!(read("test result: FAILED. 3 passed; 2 failed; 0 ignored"), (3, 2));
        assert_eq!(read("ok - python svix 2.9.1: health"), (1, 0));
        assert_eq!(read("not ok - health: it is not"), (0, 1));
        for line in ["okay", "test model::x ... ok", "running 3 tests", "", "note: not ok"] {
            assert_eq!(read(line), (0, 0), "{line}");
        }
    }
}
