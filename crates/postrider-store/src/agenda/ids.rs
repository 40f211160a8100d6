//! Maps and sets of ids. Every id here was made by this server, with random bytes: nobody can choose ids that collide, so
//! that a quick hash does, and it is most of what the agenda costs.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
pub(super) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// An odd number without a pattern: the fraction of the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds eight bytes at a time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct IdHasher(u64);

impl IdHasher {
    fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(SPREAD);
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.fold(number);
    }

    /// Lengths and variants: few, and the same for all.
    fn write_usize(&mut self, number: usize) {
        self.0 ^= number as u64;
    }

    fn write_isize(&mut self, number: isize) {
        self.0 ^= number.unsigned_abs() as u64;
    }

    /// The table takes its place from the low bits and a tag from the high ones.
    fn finish(&self) -> u64 {
        let mixed = self.0.wrapping_mul(SPREAD);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{
        delivery::DeliveryId,
        id::{EndpointId, Ksuid, MessageId},
        time::Timestamp,
    };
    use std::hash::BuildHasher as _;

    fn hash(item: impl std::hash::Hash) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(item)
    }

    /// At least as many different places as random hashes would have, less a tenth.
    #[test]
    fn ids_spread_over_a_table() {
        let made = crate::Ids::default();
        let at = Timestamp::from_micros(1_800_000_000_000_000);
        let endpoint = EndpointId::new(Ksuid::from_bytes([3; 20]));
        let messages: Vec<MessageId> = (0..65_536).map(|_| made.next(at)).collect();
        let of_messages: Vec<u64> = messages.iter().map(hash).collect();
        let delivery = |message: &MessageId| DeliveryId { message: *message, endpoint, generation: 0 };
        let of_deliveries: Vec<u64> = messages.iter().map(|message| hash(delivery(message))).collect();
        for hashes in [of_messages, of_deliveries] {
            let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
            let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 48).collect();
            for places in [low.len(), high.len()] {
                assert!(places > 37_000, "{places} of 65,536 places");
            }
        }
    }
}
