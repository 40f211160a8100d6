//! Randomness from a seed: `SplitMix64` (Steele, Lea and Flood 2014), written out so that a seed means the same in every
//! version of every library.

use std::{ops::RangeInclusive, time::Duration};

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for one purpose, so that what one part draws does not shift what another gets.
    pub fn stream(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed ^ purpose.wrapping_mul(0xa076_1d64_78bd_642f));
        Self(mixed.number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        match (high - low).checked_add(1) {
            Some(width) => low + self.number() % width,
            None => self.number(),
        }
    }

    /// A position of a list that is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.number() % (length.max(1) as u64)).unwrap_or(0)
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// True so often in a thousand.
    pub fn permille(&mut self, chance: u64) -> bool {
        self.within(1..=1000) <= chance
    }

    /// So many milliseconds.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// From 0 up to 1.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "both are below 2^53")]
        let fraction = (self.number() >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }

    /// The random part of an id.
    pub fn id_bytes(&mut self) -> [u8; 15] {
        let mut bytes = [0; 15];
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_be_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_is_that_of_the_algorithm() {
        let mut random = Random::new(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| random.number()).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::stream(7, 3);
        for _ in 0..1000 {
            assert!((3..=5).contains(&random.within(3..=5)));
            assert!((0.0..1.0).contains(&random.fraction()));
            assert!(random.index(4) < 4);
        }
        assert!(!random.permille(0) && random.permille(1000));
    }
}
