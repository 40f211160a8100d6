//! Connections of each address: one client cannot take all places.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts open connections by address. As many entries as connections at most, whose number is bounded.
pub(super) struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place; given back when dropped. `None`: one that is not counted.
pub(super) struct Place(Option<(Arc<Places>, IpAddr)>);

impl Place {
    /// For whoever speaks for many.
    pub(super) fn uncounted() -> Self {
        Self(None)
    }
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Takes a place; `None` when the address has as many as it may.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let count = taken.entry(address).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((Arc::clone(self), address))))
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, address)) = &self.0 else { return };
        let mut taken = places.taken();
        if let Some(count) = taken.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let places = Places::new(2);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let first = places.take(one);
        let second = places.take(one);
        assert!(first.is_some() && second.is_some());
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some(), "another address has its own");
        drop(first);
        assert!(places.take(one).is_some());
        drop(second);
        assert!(places.taken().is_empty(), "nothing is remembered of addresses without connections");
    }
}
