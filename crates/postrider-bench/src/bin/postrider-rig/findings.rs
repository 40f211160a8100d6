//! What Postrider promises, checked on what the rig saw. Pure.

use crate::{
    kill::REDELIVERY,
    ledger::{Arrival, Book},
    report::Report,
};
use std::{collections::BTreeMap, time::Duration};

/// Deliveries of one endpoint that a server with default settings has in flight at most.
const IN_FLIGHT_PER_ENDPOINT: usize = 100;

/// One life of the server that ended with a kill.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    pub(crate) life: u32,
    /// Until it listened.
    pub(crate) start_took: Duration,
    /// Until the first message of an earlier life arrived, counted from the start of the process.
    pub(crate) redelivered: Option<Duration>,
    /// Deliveries whose requests the kill before had cut off.
    pub(crate) in_flight: usize,
    /// Some of these that had not arrived again by its end.
    pub(crate) missing: Vec<String>,
    /// Until all of these had arrived again, counted from the start of the process.
    pub(crate) all_redelivered: Option<Duration>,
    /// Until it was killed, counted from the start of the process.
    pub(crate) lived: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Findings {
    endpoints: u8,
    /// The server was asked to stop, and had time to.
    orderly: bool,
    acknowledged: usize,
    unanswered: u64,
    refused: u64,
    lost: Vec<String>,
    /// Deliveries that arrived again, by the kill that explains them.
    repeated_by_kill: BTreeMap<u32, usize>,
    /// Deliveries that arrived twice within one life: nothing explains them.
    repeated_without_kill: usize,
    /// Requests with a body that does not belong to their message.
    strange: Vec<String>,
    restarts: Vec<Restart>,
    drained: Option<Duration>,
    stopped_well: bool,
}

impl Findings {
    pub(crate) fn new(
        book: &Book,
        orderly: bool,
        restarts: Vec<Restart>,
        drained: Option<Duration>,
        stopped_well: bool,
    ) -> Self {
        let mut findings = Self {
            endpoints: book.endpoints,
            orderly,
            acknowledged: book.acknowledged.len(),
            unanswered: book.unanswered,
            refused: book.refused,
            lost: book.owed.iter().map(|(endpoint, id)| format!("{id} to endpoint {endpoint}")).collect(),
            repeated_by_kill: BTreeMap::new(),
            repeated_without_kill: 0,
            strange: book.strange.clone(),
            restarts,
            drained,
            stopped_well,
        };
        for ((_, id), arrivals) in &book.arrivals {
            findings.count_repeats(arrivals);
            let sent = book.acknowledged.get(id).map(|message| message.serial);
            let expected = sent.or_else(|| arrivals.first().map(|arrival| arrival.serial));
            if arrivals.iter().any(|arrival| Some(arrival.serial) != expected) {
                findings.strange.push(format!("{id} arrived with the body of another message"));
            }
        }
        findings
    }

    /// An arrival in a later life than the one before is explained by the kill that ended that one.
    fn count_repeats(&mut self, arrivals: &[Arrival]) {
        for (before, again) in arrivals.iter().zip(arrivals.iter().skip(1)) {
            if again.life > before.life {
                *self.repeated_by_kill.entry(before.life).or_default() += 1;
            } else {
                self.repeated_without_kill += 1;
            }
        }
    }

    /// Every broken promise, as a sentence.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.lost.is_empty() || self.drained.is_none() {
            found.push(format!(
                "{} deliveries of acknowledged messages never arrived: {}",
                self.lost.len(),
                some(&self.lost)
            ));
        }
        if self.repeated_without_kill > 0 {
            found.push(format!("{} deliveries were repeated without a restart", self.repeated_without_kill));
        }
        for (life, repeated) in
            self.repeated_by_kill.iter().filter(|(_, repeated)| **repeated > self.in_flight())
        {
            found.push(format!(
                "end of life {life}: {repeated} deliveries were repeated, {} can be in flight",
                self.in_flight()
            ));
        }
        if !self.strange.is_empty() {
            found.push(format!("{} strange requests: {}", self.strange.len(), some(&self.strange)));
        }
        // A server that is about to stop may refuse.
        if self.refused > 0 && !self.orderly {
            found.push(format!("{} messages were refused", self.refused));
        }
        for restart in self.restarts.iter().filter(|restart| restart.is_late()) {
            let after = restart.redelivered.unwrap_or(restart.lived);
            found.push(format!("life {}: no redelivery within {REDELIVERY:?} ({after:?})", restart.life));
        }
        for restart in self.restarts.iter().filter(|restart| !self.orderly && restart.is_incomplete()) {
            let after = restart.all_redelivered.unwrap_or(restart.lived);
            found.push(format!(
                "life {}: not all {} deliveries in flight came again within {REDELIVERY:?} ({after:?}): {}",
                restart.life,
                restart.in_flight,
                some(&restart.missing)
            ));
        }
        if !self.stopped_well {
            found.push("the server did not end with exit code 0 after SIGTERM".to_owned());
        }
        found
    }

    /// The figures and every broken promise.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        let mut row = |name: &str, value: String| report.row(name, value);
        let deliveries = self.acknowledged * usize::from(self.endpoints);
        let repeated: usize = self.repeated_by_kill.values().sum();
        row(if self.orderly { "stops" } else { "kills" }, self.restarts.len().to_string());
        row("messages acknowledged", self.acknowledged.to_string());
        row("deliveries owed for them", deliveries.to_string());
        row("publications without an answer / refused", format!("{} / {}", self.unanswered, self.refused));
        row("deliveries lost", self.lost.len().to_string());
        row("deliveries repeated after a restart", repeated.to_string());
        let most = self.repeated_by_kill.values().max().copied().unwrap_or(0);
        row("the same, most after one restart", format!("{most} (at most {} in flight)", self.in_flight()));
        row("deliveries repeated without a restart", self.repeated_without_kill.to_string());
        row(
            "start until listening, median / most",
            median_and_most(self.restarts.iter().map(|one| one.start_took)),
        );
        let redelivered: Vec<Duration> = self.restarts.iter().filter_map(|one| one.redelivered).collect();
        row("restarts with a redelivery", redelivered.len().to_string());
        row("start until first redelivery, median / most", median_and_most(redelivered.into_iter()));
        let complete: Vec<Duration> = self.restarts.iter().filter_map(|one| one.all_redelivered).collect();
        let in_flight = self.restarts.iter().map(|one| one.in_flight);
        row(
            "in flight at a kill, in all / most",
            format!("{} / {}", in_flight.clone().sum::<usize>(), in_flight.max().unwrap_or(0)),
        );
        row("restarts after which all of it came again", complete.len().to_string());
        row("start until all in flight came again, median / most", median_and_most(complete.into_iter()));
        let drained =
            self.drained.map_or_else(|| "never".to_owned(), |took| format!("{} ms", took.as_millis()));
        row("last start until everything had arrived", drained);
        for violation in self.violations() {
            report.violation(violation);
        }
        report
    }

    /// Deliveries that the end of a life can cut off.
    fn in_flight(&self) -> usize {
        if self.orderly {
            return 0;
        }
        usize::from(self.endpoints) * IN_FLIGHT_PER_ENDPOINT
    }
}

impl Restart {
    /// It redelivered too late, or lived long enough to have to. The rig lets it live that long only when something was
    /// owed.
    fn is_late(&self) -> bool {
        self.redelivered.map_or(self.lived >= REDELIVERY, |after| after > REDELIVERY) && self.life > 0
    }

    /// Not everything that was in flight came again in time.
    fn is_incomplete(&self) -> bool {
        let missing = self.in_flight > 0 && self.lived >= REDELIVERY;
        self.all_redelivered.map_or(missing, |after| after > REDELIVERY)
    }
}

fn some(texts: &[String]) -> String {
    texts.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn median_and_most(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(most)) => format!("{} ms / {} ms", median.as_millis(), most.as_millis()),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Acknowledged;
    use tokio::time::Instant;

    /// One endpoint, and one message that was acknowledged in life 0, with the lives in which it arrived.
    fn book(arrived_in: &[u32]) -> Book {
        let mut book = Book::new(1);
        let message = book.publish();
        book.acknowledge("a", message);
        arrive(&mut book, "a", message, arrived_in);
        book
    }

    fn arrive(book: &mut Book, id: &str, message: Acknowledged, lives: &[u32]) {
        for life in lives {
            book.life = *life;
            book.arrive(0, id.to_owned(), message, Instant::now());
        }
    }

    fn violations(book: &Book) -> Vec<String> {
        Findings::new(book, false, vec![], Some(Duration::ZERO), true).violations()
    }

    #[test]
    fn a_repeat_is_fine_after_a_kill_and_a_violation_within_a_life() {
        assert_eq!(violations(&book(&[0, 1])), [""; 0]);
        assert_eq!(violations(&book(&[0, 0])), ["1 deliveries were repeated without a restart"]);
        let orderly = Findings::new(&book(&[0, 1]), true, vec![], Some(Duration::ZERO), true);
        assert_eq!(orderly.violations(), ["end of life 0: 1 deliveries were repeated, 0 can be in flight"]);
    }

    #[test]
    fn more_repeats_than_places_are_a_violation() {
        let mut full = book(&[0]);
        for number in 0..=IN_FLIGHT_PER_ENDPOINT {
            let message = full.publish();
            arrive(&mut full, &format!("m{number}"), message, &[3, 5]);
        }
        assert_eq!(violations(&full), ["end of life 3: 101 deliveries were repeated, 100 can be in flight"]);
    }

    #[test]
    fn what_was_acknowledged_and_never_came_is_lost() {
        let lost = violations(&book(&[]));
        assert_eq!(lost, ["1 deliveries of acknowledged messages never arrived: a to endpoint 0"]);
    }

    #[test]
    fn another_body_under_the_same_id_is_strange() {
        let mut mixed = book(&[0]);
        arrive(&mut mixed, "a", Acknowledged { serial: 9, life: 0 }, &[1]);
        assert!(violations(&mixed)[0].contains("the body of another message"), "{mixed:?}");
    }

    #[test]
    fn a_redelivery_after_more_than_two_seconds_is_late() {
        let restart = |redelivered, lived| Restart {
            life: 2,
            start_took: Duration::ZERO,
            redelivered: Some(redelivered).filter(|millis| *millis > 0).map(Duration::from_millis),
            in_flight: 0,
            missing: vec![],
            all_redelivered: None,
            lived: Duration::from_millis(lived),
        };
        assert!(!restart(300, 900).is_late());
        assert!(restart(2_100, 2_200).is_late());
        assert!(restart(0, 2_005).is_late());
        assert!(!restart(0, 700).is_late(), "killed before it could be late");
    }

    #[test]
    fn everything_in_flight_must_come_again_within_two_seconds() {
        let restart = |all: Option<u64>, lived| Restart {
            life: 2,
            start_took: Duration::ZERO,
            redelivered: Some(Duration::ZERO),
            in_flight: 3,
            missing: vec![],
            all_redelivered: all.map(Duration::from_millis),
            lived: Duration::from_millis(lived),
        };
        assert!(!restart(Some(400), 900).is_incomplete());
        assert!(restart(Some(2_100), 2_200).is_incomplete());
        assert!(restart(None, 2_005).is_incomplete());
        assert!(!restart(None, 700).is_incomplete(), "killed before that");
        assert!(!Restart { in_flight: 0, ..restart(None, 2_005) }.is_incomplete());
    }
}
