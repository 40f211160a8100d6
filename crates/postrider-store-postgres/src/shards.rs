//! Shards of endpoints: every endpoint belongs to one of 64, and every shard to one node at a time.

use postrider_model::id::EndpointId;

/// How many there are: as many nodes can share the work. Rows of the table `shard`; never changed.
pub(crate) const SHARDS: u8 = 64;

/// The shard of an endpoint: from the random part of its id.
pub(crate) fn of(endpoint: EndpointId) -> i16 {
    i16::from(endpoint.ksuid().as_bytes()[19] % SHARDS)
}

/// Some shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shards(u64);

impl Shards {
    /// Is the endpoint's shard among them?
    pub(crate) fn cover(self, endpoint: EndpointId) -> bool {
        self.has(of(endpoint))
    }

    /// Is this one among them?
    pub(crate) fn has(self, shard: i16) -> bool {
        u32::try_from(shard).is_ok_and(|shard| self.0.checked_shr(shard).is_some_and(|bits| bits & 1 == 1))
    }

    /// With one more.
    #[must_use]
    pub(crate) fn with(self, shard: i16) -> Self {
        let bit = u32::try_from(shard).ok().and_then(|shard| 1_u64.checked_shl(shard)).unwrap_or(0);
        Self(self.0 | bit)
    }

    /// Without those.
    #[must_use]
    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// With those.
    #[must_use]
    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// How many.
    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Each.
    pub(crate) fn list(self) -> Vec<i16> {
        (0..i16::from(SHARDS)).filter(|shard| self.has(*shard)).collect()
    }
}

impl FromIterator<i16> for Shards {
    fn from_iter<I: IntoIterator<Item = i16>>(shards: I) -> Self {
        shards.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::Ksuid;

    #[test]
    fn shards_come_and_go() {
        let some: Shards = [0, 7, 63].into_iter().collect();
        assert_eq!(some.list(), [0, 7, 63]);
        assert_eq!(some.without([7].into_iter().collect()).list(), [0, 63]);
        assert_eq!(some.and([1].into_iter().collect()).count(), 4);
        assert!(!some.has(64) && !some.has(-1));
    }

    #[test]
    fn every_endpoint_has_a_shard() {
        for last in 0..=u8::MAX {
            let mut bytes = [0; 20];
            bytes[19] = last;
            assert!((0..64).contains(&of(EndpointId::new(Ksuid::from_bytes(bytes)))));
        }
    }
}
