//! What was published and what arrived: the memory of the rig, which outlives every life of the server.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// Shared by publisher, receiver and the rig itself.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    book: Arc<Mutex<Book>>,
}

/// Everything that was noted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Endpoints that each message goes to.
    pub(crate) endpoints: u8,
    /// The life of the server that runs now, from 0.
    pub(crate) life: u32,
    /// Messages that were published so far, acknowledged or not: the last serial number.
    published: u64,
    /// Publications without an answer: accepted or not, nobody knows.
    pub(crate) unanswered: u64,
    /// Publications that were refused.
    pub(crate) refused: u64,
    /// Answers to publications by status, since somebody last took them.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Acknowledged messages by id.
    pub(crate) acknowledged: HashMap<String, Acknowledged>,
    /// Arrivals by endpoint and message id, in order.
    pub(crate) arrivals: HashMap<(u8, String), Vec<Arrival>>,
    /// Deliveries of acknowledged messages that have not arrived yet.
    pub(crate) owed: HashSet<(u8, String)>,
    /// When the first message of an earlier life arrived, by life.
    pub(crate) first_redelivery: BTreeMap<u32, Instant>,
    /// Requests that arrived and were not answered yet.
    open: HashSet<(u8, String)>,
    /// How often the server died during an attempt of this delivery.
    deaths: HashMap<(u8, String), u32>,
    /// Deliveries that the last death cut off for their first time, and that have not arrived again.
    awaited: HashSet<(u8, String)>,
    /// When all of them had arrived again, by life.
    pub(crate) all_redelivered: BTreeMap<u32, Instant>,
    /// Requests that cannot have come from a message of ours.
    pub(crate) strange: Vec<String>,
}

/// An acknowledged message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) serial: u64,
    /// The life in which it was published.
    pub(crate) life: u32,
}

/// A request that reached the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) serial: u64,
    /// The life of the server that sent it.
    pub(crate) life: u32,
}

impl Ledger {
    pub(crate) fn new(endpoints: u8) -> Self {
        Self { book: Arc::new(Mutex::new(Book::new(endpoints))) }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    pub(crate) fn new(endpoints: u8) -> Self {
        Self { endpoints, ..Self::default() }
    }

    /// A new message: its serial number and the life that it is published in.
    pub(crate) fn publish(&mut self) -> Acknowledged {
        self.published += 1;
        Acknowledged { serial: self.published, life: self.life }
    }

    /// The server acknowledged a message, perhaps after it had delivered it.
    pub(crate) fn acknowledge(&mut self, id: &str, message: Acknowledged) {
        self.acknowledged.insert(id.to_owned(), message);
        let deliveries = (0..self.endpoints).map(|endpoint| (endpoint, id.to_owned()));
        self.owed.extend(deliveries.filter(|delivery| !self.arrivals.contains_key(delivery)));
    }

    /// A request reached an endpoint. The payload says what was published and when.
    pub(crate) fn arrive(&mut self, endpoint: u8, id: String, message: Acknowledged, at: Instant) {
        if message.life < self.life {
            self.first_redelivery.entry(self.life).or_insert(at);
        }
        let delivery = (endpoint, id);
        self.owed.remove(&delivery);
        if self.awaited.remove(&delivery) && self.awaited.is_empty() {
            self.all_redelivered.insert(self.life, at);
        }
        self.open.insert(delivery.clone());
        let arrival = Arrival { serial: message.serial, life: self.life };
        self.arrivals.entry(delivery).or_default().push(arrival);
    }

    /// The answer to a request is on its way.
    pub(crate) fn answer(&mut self, endpoint: u8, id: &str) {
        self.open.remove(&(endpoint, id.to_owned()));
    }

    /// The server died: what it had open must arrive again. `begun` are the attempts that it had noted as begun, which is
    /// more: some requests had not arrived yet. Returns how many deliveries are awaited.
    ///
    /// Only those of a first death count: after the second one a delivery is suspect and runs alone among its kind, after
    /// the third it is quarantined.
    pub(crate) fn die(&mut self, begun: Vec<(u8, String)>) -> usize {
        for delivery in begun {
            *self.deaths.entry(delivery).or_default() += 1;
        }
        let open = std::mem::take(&mut self.open);
        self.awaited = open.into_iter().filter(|delivery| self.deaths.get(delivery) == Some(&1)).collect();
        self.awaited.len()
    }

    /// Something that the last death cut off has not arrived again.
    pub(crate) fn awaits_redelivery(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Some of it.
    pub(crate) fn some_awaited(&self) -> Vec<String> {
        self.awaited.iter().take(5).map(|(endpoint, id)| format!("{id} to endpoint {endpoint}")).collect()
    }

    /// A message of an earlier life is owed.
    pub(crate) fn owes_from_before(&self) -> bool {
        self.owed
            .iter()
            .any(|(_, id)| self.acknowledged.get(id).is_some_and(|message| message.life < self.life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_death_cut_off_is_awaited_until_all_of_it_has_arrived_again() {
        let mut book = Book::new(1);
        let messages = [book.publish(), book.publish(), book.publish()];
        for (id, message) in ["a", "b", "c"].into_iter().zip(messages) {
            book.arrive(0, id.to_owned(), message, Instant::now());
        }
        book.answer(0, "c");
        let begun = || ["a", "b", "c", "d"].map(|id| (0, id.to_owned())).to_vec();
        assert_eq!(book.die(begun()), 2, "c was answered, d has not arrived");
        book.life = 1;
        book.arrive(0, "a".to_owned(), messages[0], Instant::now());
        assert!(book.awaits_redelivery() && book.all_redelivered.is_empty());
        book.arrive(0, "b".to_owned(), messages[1], Instant::now());
        assert!(!book.awaits_redelivery() && book.all_redelivered.contains_key(&1));
        let fourth = book.publish();
        book.arrive(0, "d".to_owned(), fourth, Instant::now());
        assert_eq!(book.die(begun()), 0, "at the second death they are suspects");
    }
}
