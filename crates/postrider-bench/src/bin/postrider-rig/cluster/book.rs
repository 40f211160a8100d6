//! What was published, what arrived and from whom: the memory of the cluster rig. Times are microseconds since 1970, as in the
//! database, which runs on the same machine.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Microseconds since 1970.
pub(crate) type Micros = i64;

/// A message to an endpoint, by the endpoint's number and the message's id.
pub(crate) type Delivery = (usize, String);

/// The time.
pub(crate) fn now() -> Micros {
    jiff::Timestamp::now().as_microsecond()
}

/// The book, shared by all parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notebook(Arc<Mutex<Book>>);

/// Everything that was noted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Endpoints of each application, by number.
    pub(crate) audience: Vec<Vec<usize>>,
    /// Published so far, acknowledged or not: the last serial number.
    pub(crate) published: u64,
    /// Acknowledged messages by id: serial number and application.
    pub(crate) acknowledged: HashMap<String, (u64, usize)>,
    /// When a message was acknowledged last, and the longest times without one, by when they ended.
    last_acknowledged: Micros,
    /// Times without an acknowledged message: when they began and ended.
    pub(crate) silences: Vec<(Micros, Micros)>,
    /// Requests by delivery, in the order of their arrival.
    pub(crate) arrivals: HashMap<Delivery, Vec<Arrival>>,
    /// Deliveries of acknowledged messages without an answered success.
    owed: HashSet<Delivery>,
    /// Answers to publications by status; 0 is none.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// What can never be right, as sentences.
    pub(crate) strange: Vec<String>,
    /// Every start of a node.
    pub(crate) processes: Vec<Process>,
    arrived: usize,
}

/// A request that reached an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The node that sent it.
    pub(crate) node: usize,
    pub(crate) at: Micros,
    pub(crate) status: u16,
    /// When it was answered; `None` when the connection ended before.
    pub(crate) answered: Option<Micros>,
}

/// A process of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) pid: u32,
    pub(crate) from: Micros,
}

/// Silences shorter than this are not worth noting.
const SILENCE: Micros = 1_000_000;

impl Notebook {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// A new message: its serial number.
    pub(crate) fn publish(&mut self) -> u64 {
        self.published += 1;
        self.published
    }

    /// The answer to a publication.
    pub(crate) fn publication_answered(&mut self, status: u16) {
        *self.answers.entry(status).or_default() += 1;
    }

    /// A node acknowledged a message, perhaps after it had been delivered.
    pub(crate) fn acknowledge(&mut self, id: &str, serial: u64, application: usize, at: Micros) {
        if let Some((before, _)) = self.acknowledged.insert(id.to_owned(), (serial, application))
            && before != serial
        {
            self.strange.push(format!("{id} was given to the messages {before} and {serial}"));
        }
        if self.last_acknowledged > 0 && at - self.last_acknowledged > SILENCE {
            self.silences.push((self.last_acknowledged, at));
        }
        self.last_acknowledged = at;
        let owed = self.audience[application].iter().map(|endpoint| (*endpoint, id.to_owned()));
        let arrived = |delivery: &Delivery| {
            self.arrivals.get(delivery).is_some_and(|arrivals| arrivals.iter().any(Arrival::succeeded))
        };
        self.owed.extend(owed.filter(|delivery| !arrived(delivery)));
    }

    /// A request reached an endpoint; returns its place among those of the delivery.
    pub(crate) fn arrive(&mut self, delivery: &Delivery, node: usize, at: Micros) -> usize {
        let arrivals = self.arrivals.entry(delivery.clone()).or_default();
        arrivals.push(Arrival { node, at, status: 0, answered: None });
        self.arrived += 1;
        arrivals.len() - 1
    }

    /// The answer to it is on its way.
    pub(crate) fn answer(&mut self, delivery: &Delivery, place: usize, status: u16, at: Micros) {
        if let Some(arrival) = self.arrivals.get_mut(delivery).and_then(|arrivals| arrivals.get_mut(place)) {
            arrival.status = status;
            arrival.answered = Some(at);
        }
        if status / 100 == 2 {
            self.owed.remove(delivery);
        }
    }

    /// Everything that has not arrived.
    pub(crate) fn owed_now(&self) -> HashSet<Delivery> {
        self.owed.clone()
    }

    /// How many of those have not arrived.
    pub(crate) fn still_owed(&self, some: &HashSet<Delivery>) -> usize {
        some.iter().filter(|delivery| self.owed.contains(*delivery)).count()
    }

    /// Requests so far.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived
    }
}

impl Arrival {
    /// It was answered with a success.
    pub(crate) fn succeeded(&self) -> bool {
        self.answered.is_some() && self.status / 100 == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        Book { audience: vec![vec![0, 1], vec![2]], ..Book::default() }
    }

    #[test]
    fn a_delivery_is_owed_from_the_acknowledgement_until_a_success_was_answered() {
        let mut book = book();
        let serial = book.publish();
        let early = (1, "a".to_owned());
        let place = book.arrive(&early, 0, 5);
        book.answer(&early, place, 200, 6);
        book.acknowledge("a", serial, 0, 7);
        let delivery = (0, "a".to_owned());
        assert_eq!(
            book.owed_now(),
            HashSet::from([delivery.clone()]),
            "the other one came before the answer"
        );
        let place = book.arrive(&delivery, 0, 8);
        book.answer(&delivery, place, 500, 9);
        assert_eq!(book.owed_now().len(), 1);
        let place = book.arrive(&delivery, 0, 10);
        assert_eq!(book.still_owed(&HashSet::from([delivery.clone()])), 1, "arrived, not answered");
        book.answer(&delivery, place, 200, 11);
        assert!(book.owed_now().is_empty());
    }

    #[test]
    fn times_without_an_acknowledged_message_are_noted() {
        let mut book = book();
        for (id, at) in [("a", 1_000_000), ("b", 1_500_000), ("c", 4_000_000)] {
            let serial = book.publish();
            book.acknowledge(id, serial, 1, at);
        }
        assert_eq!(book.silences, [(1_500_000, 4_000_000)]);
    }
}
