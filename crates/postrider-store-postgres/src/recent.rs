//! A bounded map that forgets what was not used for longest.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Entries with weights, bounded by their sum.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By last use.
    order: BTreeMap<u64, K>,
    uses: u64,
    weight: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    weight: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    /// Empty; keeps entries of `most` weight in all.
    pub(crate) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), uses: 0, weight: 0, most }
    }

    /// The entry, which now is the youngest.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        let key = self.order.remove(&entry.used)?;
        self.order.insert(self.uses, key);
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    /// Adds or replaces an entry. One that is heavier than all the room is not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.most {
            return;
        }
        while self.weight + weight > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.uses += 1;
        self.weight += weight;
        self.order.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, used: self.uses, weight });
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.weight = 0;
    }

    /// Forgets an entry.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(3);
        for name in ["a", "b", "c"] {
            recent.insert(name, name.len(), 1);
        }
        assert_eq!(recent.get(&"a"), Some(1));
        recent.insert("d", 4, 1);
        assert_eq!((recent.get(&"a"), recent.get(&"b"), recent.get(&"d")), (Some(1), None, Some(4)));
        recent.insert("heavy", 5, 3);
        assert_eq!((recent.get(&"a"), recent.get(&"heavy")), (None, Some(5)));
        recent.insert("too heavy", 6, 4);
        assert_eq!((recent.get(&"too heavy"), recent.get(&"heavy")), (None, Some(5)));
        recent.remove(&"heavy");
        assert_eq!((recent.weight, recent.order.len()), (0, 0));
    }
}
