//! Instants as microseconds since the Unix epoch, and their RFC 3339 text.

use std::time::Duration;

/// A wall-clock instant: microseconds since 1970-01-01T00:00:00Z. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest instant that can be written in every offset of RFC 3339: 9999-12-30T22:00:00Z.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// From microseconds since the epoch, clamped to what RFC 3339 can write.
    pub const fn from_micros(micros: i64) -> Self {
        if micros > Self::MAX.0 {
            Self::MAX
        } else if micros < 0 {
            Self(0)
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, as `webhook-timestamp` carries them.
    pub const fn as_seconds(self) -> i64 {
        self.0 / 1_000_000
    }

    /// This instant and `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(duration)))
    }

    /// This instant and `duration` earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(micros(duration)))
    }

    /// Time from `earlier` to this instant; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with six decimals, the one form of this API: `2026-01-01T00:00:00.000000Z`.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .map_or_else(|_| String::from("1970-01-01T00:00:00.000000Z"), |instant| format!("{instant:.6}"))
    }

    /// Reads RFC 3339, with `T` or a space (and a `+` that a query string turned into a space), and the form
    /// `2026-01-01 00:00:00.123456 UTC` that some clients print.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > 64 {
            return None;
        }
        let mut text = text.strip_suffix(" UTC").map_or_else(|| text.to_owned(), |rest| format!("{rest}Z"));
        // `…T00:00:00 02:00`: the plus sign of an offset, lost in an unescaped query.
        if let Some(at) = text.rfind(' ')
            && at > 11
        {
            text.replace_range(at..=at, "+");
        }
        let instant: jiff::Timestamp = text.parse().ok()?;
        let micros = instant.as_microsecond();
        (0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_date_form_that_clients_send_is_read() {
        let expected = Timestamp::from_micros(1_767_225_600_123_456);
        for text in [
            "2026-01-01T00:00:00.123456Z",
            "2026-01-01T00:00:00.123456+00:00",
            "2026-01-01T00:00:00.123456 00:00",
            "2026-01-01T02:00:00.123456+02:00",
            "2026-01-01 00:00:00.123456 UTC",
            "2026-01-01T00:00:00.123456789Z",
        ] {
            assert_eq!(Timestamp::parse(text), Some(expected), "{text}");
        }
        assert_eq!(expected.to_rfc3339(), "2026-01-01T00:00:00.123456Z");
    }

    #[test]
    fn garbage_and_impossible_dates_are_refused() {
        for text in [
            "",
            "yesterday",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "1767225600",
            "2026-02-30T00:00:00Z",
            "🦀 2026-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1600-01-01T00:00:00Z",
            &"9".repeat(100),
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_the_range_can_be_written_and_read() {
        for (instant, text) in [
            (Timestamp::from_micros(i64::MIN), "1970-01-01T00:00:00.000000Z"),
            (Timestamp::from_micros(i64::MAX), "9999-12-30T22:00:00.000000Z"),
        ] {
            assert_eq!(instant.to_rfc3339(), text);
            assert_eq!(Timestamp::parse(text), Some(instant));
        }
        assert_eq!(Timestamp::parse("9999-12-31T23:59:59Z"), None);
    }

    proptest! {
        /// ING-12: what the API prints comes back as a query parameter.
        #[test]
        fn every_instant_reads_back(micros in 0_i64..Timestamp::MAX.0) {
            let instant = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse(&instant.to_rfc3339()), Some(instant));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,70}", date in "[0-9TZ:+. -]{0,40}") {
            let _ = (Timestamp::parse(&text), Timestamp::parse(&date));
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_micros(5).minus(Duration::MAX), Timestamp::from_micros(0));
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }
}
