//! Identifiers: a prefix and a KSUID (20 bytes: seconds, 4-ms ticks, 15 random bytes; 27 base62 characters whose order
//! is the order of time).

use crate::time::Timestamp;
use std::{fmt, marker::PhantomData, time::Duration};

/// Seconds between the Unix epoch and the epoch of KSUIDs.
const KSUID_EPOCH_SECONDS: i64 = 1_400_000_000;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const TEXT_LENGTH: usize = 27;
/// Five base62 digits, as many as fit into 32 bits.
const CHUNK: u64 = 62_u64.pow(5);

/// 20 bytes, ordered by time of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ksuid([u8; 20]);

impl Ksuid {
    /// From its bytes, as a store keeps them.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The smallest id of an instant: where `before` and `after` cut a list.
    pub fn floor(at: Timestamp) -> Self {
        let micros = at.as_micros() - KSUID_EPOCH_SECONDS * 1_000_000;
        let mut bytes = [0; 20];
        if micros < 0 {
            return Self(bytes);
        }
        // 32 bits of seconds last until the year 2150.
        let seconds = u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX);
        let tick = u8::try_from(micros % 1_000_000 / 4_000).unwrap_or(u8::MAX);
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4] = tick;
        Self(bytes)
    }

    /// The instant it carries, to 4 ms.
    pub fn timestamp(&self) -> Timestamp {
        let seconds = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        let millis = (i64::from(seconds) + KSUID_EPOCH_SECONDS) * 1000 + i64::from(self.0[4]) * 4;
        Timestamp::from_micros(millis * 1000)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let mut words = [0_u64; 5];
        // Two digits, then five times five: the reverse of `text`.
        let (first, rest) = text.as_bytes().split_at(2);
        for digits in std::iter::once(first).chain(rest.chunks_exact(5)) {
            let mut carry = 0;
            for character in digits {
                carry = carry * 62 + digit(*character)?;
            }
            for word in words.iter_mut().rev() {
                let value = *word * CHUNK + carry;
                *word = value & 0xffff_ffff;
                carry = value >> 32;
            }
            if carry != 0 {
                return None;
            }
        }
        let mut bytes = [0; 20];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes()[4..]);
        }
        Some(Self(bytes))
    }

    fn text(self) -> [u8; TEXT_LENGTH] {
        // Five 32-bit words, divided by 62 to the power of five at a time: 27 digits in six rounds.
        let mut words = [0_u64; 5];
        for (word, bytes) in words.iter_mut().zip(self.0.chunks_exact(4)) {
            *word = u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
        let mut text = [b'0'; TEXT_LENGTH];
        let mut end = TEXT_LENGTH;
        while end > 0 {
            let mut remainder = 0;
            for word in &mut words {
                let value = (remainder << 32) | *word;
                *word = value / CHUNK;
                remainder = value % CHUNK;
            }
            for _ in 0..5.min(end) {
                end -= 1;
                text[end] = ALPHABET[usize::try_from(remainder % 62).unwrap_or(0)];
                remainder /= 62;
            }
        }
        text
    }
}

impl fmt::Display for Ksuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Ksuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Makes ids that grow strictly within a process, also within one tick and when the clock steps back: lists are
/// ordered by id, and what was created later must sort later. After a step back, ids keep the time of the last one
/// until the clock has caught up.
#[derive(Debug, Default)]
pub struct KsuidGenerator {
    last: Option<Ksuid>,
}

impl KsuidGenerator {
    /// The next id for `now`, with 15 `random` bytes.
    pub fn next(&mut self, now: Timestamp, random: [u8; 15]) -> Ksuid {
        let mut bytes = Ksuid::floor(now).0;
        bytes[5..].copy_from_slice(&random);
        // The top bit stays free, so that counting up within one tick cannot reach the next one.
        bytes[5] &= 0x7f;
        let mut id = Ksuid(bytes);
        if let Some(last) = self.last
            && id.0[..5] <= last.0[..5]
        {
            id = increment(last);
        }
        self.last = Some(id);
        id
    }
}

fn digit(character: u8) -> Option<u64> {
    let digit = match character {
        b'0'..=b'9' => character - b'0',
        b'A'..=b'Z' => character - b'A' + 10,
        b'a'..=b'z' => character - b'a' + 36,
        _ => return None,
    };
    Some(digit.into())
}

fn increment(id: Ksuid) -> Ksuid {
    let mut bytes = id.0;
    for byte in bytes.iter_mut().rev() {
        let (sum, overflow) = byte.overflowing_add(1);
        *byte = sum;
        if !overflow {
            break;
        }
    }
    Ksuid(bytes)
}

/// A kind of id: its prefix.
pub trait Kind: Copy + Eq + Ord + std::hash::Hash + Send + Sync + 'static {
    /// The prefix with its underscore, for example `app_`.
    const PREFIX: &'static str;
}

/// An id of one kind of thing; ids of different kinds cannot be mixed up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id<K> {
    ksuid: Ksuid,
    kind: PhantomData<K>,
}

impl<K: Kind> Id<K> {
    /// From the KSUID alone.
    pub const fn new(ksuid: Ksuid) -> Self {
        Self { ksuid, kind: PhantomData }
    }

    /// The KSUID without the prefix: what a store keeps.
    pub const fn ksuid(&self) -> &Ksuid {
        &self.ksuid
    }

    /// The instant of creation, to 4 ms.
    pub fn timestamp(&self) -> Timestamp {
        self.ksuid.timestamp()
    }

    /// Reads `prefix` + 27 base62 characters; anything else is not an id of this kind.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix(K::PREFIX).and_then(Ksuid::parse).map(Self::new)
    }

    /// The smallest id of an instant: every id created then or later is not smaller, every earlier one is.
    pub fn floor(at: Timestamp) -> Self {
        Self::new(Ksuid::floor(at))
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", K::PREFIX, self.ksuid)
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $id:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind;
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
        }
        $(#[$doc])*
        pub type $id = Id<$kind>;
    )*};
}

kinds! {
    /// An application, `app_…`.
    ApplicationKind, ApplicationId, "app_";
    /// An endpoint, `ep_…`.
    EndpointKind, EndpointId, "ep_";
    /// A message, `msg_…`.
    MessageKind, MessageId, "msg_";
    /// An attempt, `atmpt_…`.
    AttemptKind, AttemptId, "atmpt_";
    /// An API key, `key_…`.
    ApiKeyKind, ApiKeyId, "key_";
}

/// Resolution of the time in an id.
pub const TICK: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_reads_back(bytes: [u8; 20]) {
            let id = MessageId::new(Ksuid::from_bytes(bytes));
            prop_assert_eq!(MessageId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn text_order_is_byte_order(a: [u8; 20], b: [u8; 20]) {
            let (a, b) = (Ksuid::from_bytes(a), Ksuid::from_bytes(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn ids_grow_whatever_the_clock_does(steps in prop::collection::vec((0_i64..2_000_000_000_000_000, any::<[u8; 15]>()), 2..50)) {
            let mut generator = KsuidGenerator::default();
            let ids: Vec<_> = steps.into_iter().map(|(now, random)| generator.next(Timestamp::from_micros(now), random)).collect();
            prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn the_published_example_of_the_format_reads() {
        // Largest and smallest value of 20 bytes in base62.
        assert_eq!(Ksuid::from_bytes([0xff; 20]).to_string(), "aWgEPTl1tmebfsQzFP4bxwgy80V");
        assert_eq!(Ksuid::from_bytes([0; 20]).to_string(), "0".repeat(27));
    }

    #[test]
    fn text_and_bytes_of_a_published_pair_agree() {
        // The example of the reference implementation (segmentio/ksuid).
        let bytes = [
            0x06, 0x69, 0xf7, 0xef, 0xb5, 0xa1, 0xcd, 0x34, 0xb5, 0xf9, 0x9d, 0x11, 0x54, 0xfb, 0x68, 0x53,
            0x34, 0x5c, 0x97, 0x35,
        ];
        let id = Ksuid::from_bytes(bytes);
        assert_eq!(id.to_string(), "0ujtsYcgvSTl8PAuAdqWYSMnLOv");
        assert_eq!(Ksuid::parse("0ujtsYcgvSTl8PAuAdqWYSMnLOv"), Some(id));
        assert_eq!(id.timestamp().as_seconds(), 1_507_608_047);
    }

    #[test]
    fn floors_never_fall_as_time_passes() {
        let epoch = KSUID_EPOCH_SECONDS * 1_000_000;
        let instants = [0, 999_999, epoch - 1, epoch, epoch + 4_000, epoch + 1_000_000, i64::MAX]
            .map(Timestamp::from_micros);
        let floors = instants.map(Ksuid::floor);
        assert!(floors.is_sorted());
        assert_eq!(floors[2], Ksuid::from_bytes([0; 20]));
        assert_eq!(floors[4].timestamp(), instants[4]);
    }

    #[test]
    fn what_is_not_an_id_of_the_kind_is_refused() {
        let id = MessageId::floor(Timestamp::from_micros(1_767_225_600_000_000)).to_string();
        for text in [
            "",
            "msg_",
            &id[..30],
            &id.replace("msg_", "app_"),
            "msg_aWgEPTl1tmebfsQzFP4bxwgy80W",
            "msg_🦀",
            "msg_zzzzzzzzzzzzzzzzzzzzzzzzzzz",
            "msg_00000000000000000000000000é",
            "msg_00000000000000000000000000-",
            "MSG_000000000000000000000000000",
        ] {
            assert_eq!(MessageId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_floor_of_an_instant_includes_what_was_created_then() {
        let at = Timestamp::from_micros(1_767_225_600_123_456);
        let id = KsuidGenerator::default().next(at, [7; 15]);
        assert!(Ksuid::floor(at) <= id);
        assert!(Ksuid::floor(at.plus(TICK)) > id);
    }
}
