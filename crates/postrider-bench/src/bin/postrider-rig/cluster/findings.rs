//! The promises of a cluster, checked on what the rig saw and on what is stored. Pure.

mod duplicates;
mod late;

use super::{
    book::{Arrival, Book, Delivery},
    faults::{Kind, Window},
    history::{Attempt, Ended, History},
    world::Endpoint,
};
use crate::report::Report;
use clap::ValueEnum as _;
use std::{collections::HashMap, fmt::Debug, time::Duration};

/// Codes of outcomes, as the model numbers them.
const SUCCEEDED: u8 = 0;
/// See [`SUCCEEDED`].
const INTERRUPTED: u8 = 15;
/// As many deaths set a delivery aside.
const POISON: u32 = 3;
/// The longest time without an acknowledged message while somebody could serve: a request to a node in trouble may be waited
/// for before another one is asked, by all publishers at once, and locks of a node that stands still go after a while.
const SILENCE: Duration = Duration::from_secs(15);

/// Figures and every broken promise.
pub(crate) fn report(book: &Book, history: &History, windows: &[Window], endpoints: &[Endpoint]) -> Report {
    let mut report = Report::default();
    report.row("messages acknowledged", book.acknowledged.len());
    report.row("deliveries owed for them", owed(book).count());
    report.row("answers to publications, by status (0: none)", format!("{:?}", book.answers));
    report.row("requests that arrived", book.arrived());
    accepted(&mut report, book, history);
    delivered(&mut report, book, history);
    for (delivery, ended) in &history.deliveries {
        let attempts = history.attempts.get(delivery).map_or(&[][..], Vec::as_slice);
        if let Some(why) = inconsistent(ended, attempts) {
            let arrivals = book.arrivals.get(delivery);
            let name = name(delivery, endpoints);
            report.violation(format!("{name} is inconsistent: {why}: {attempts:?}, arrived: {arrivals:?}"));
        }
    }
    let matched = Matched::of(book, history);
    unseen(&mut report, &matched, endpoints);
    duplicates::check(&mut report, book, &matched, windows, endpoints);
    late::check(&mut report, book, history, &matched, endpoints);
    listed(&mut report, history);
    recovered(&mut report, book, windows);
    report.check(book.strange.is_empty(), some("strange", &book.strange));
    report
}

/// Every delivery that an acknowledged message owes.
fn owed(book: &Book) -> impl Iterator<Item = Delivery> + '_ {
    book.acknowledged.iter().flat_map(|(id, (_, application))| {
        book.audience[*application].iter().map(|endpoint| (*endpoint, id.clone()))
    })
}

/// Each message was accepted once, and every acknowledged one is there.
fn accepted(report: &mut Report, book: &Book, history: &History) {
    let missing: Vec<&String> =
        book.acknowledged.keys().filter(|id| !history.messages.contains_key(*id)).collect();
    report.row("acknowledged messages that are not in the database", missing.len());
    report.check(missing.is_empty(), some("acknowledged messages that are not in the database", &missing));
    let mut by_serial: HashMap<u64, Vec<&String>> = HashMap::new();
    for (id, serial) in &history.messages {
        by_serial.entry(*serial).or_default().push(id);
    }
    let twice: Vec<_> = by_serial.into_iter().filter(|(_, ids)| ids.len() > 1).collect();
    report.row("messages accepted twice for one key", twice.len());
    report.check(twice.is_empty(), some("messages that were accepted twice for one key", &twice));
}

/// Everything owed was answered with a success, except what too many deaths set aside.
fn delivered(report: &mut Report, book: &Book, history: &History) {
    let set_aside = |delivery: &Delivery| {
        history.deliveries.get(delivery).is_some_and(|ended| {
            ended.deaths >= POISON
                && ended.reason.as_ref().is_some_and(|reason| reason.contains("quarantined"))
        })
    };
    let lost: Vec<Delivery> = book.owed_now().into_iter().filter(|delivery| !set_aside(delivery)).collect();
    report.row("deliveries lost", lost.len());
    report.check(lost.is_empty(), some("deliveries of acknowledged messages that never arrived", &lost));
    let aside = history.deliveries.keys().filter(|delivery| set_aside(delivery)).count();
    report.row("deliveries set aside after three deaths", aside);
    report
        .check(history.pending.is_empty(), some("deliveries that are pending at the end", &history.pending));
    let unstored: Vec<Delivery> = owed(book)
        .filter(|delivery| !set_aside(delivery))
        .filter(|delivery| history.deliveries.get(delivery).is_none_or(|ended| ended.reason.is_some()))
        .collect();
    report.check(unstored.is_empty(), some("deliveries that are not delivered in the database", &unstored));
}

/// What is wrong with a delivery's attempts.
fn inconsistent(ended: &Ended, attempts: &[Attempt]) -> Option<String> {
    let numbers: Vec<usize> = attempts.iter().map(|attempt| attempt.number).collect();
    if !numbers.iter().copied().eq(1..=numbers.len()) {
        return Some(format!("its attempts are numbered {numbers:?}"));
    }
    if ended.attempts != attempts.len() {
        return Some(format!("it counts {} attempts", ended.attempts));
    }
    let successes = attempts.iter().filter(|attempt| attempt.outcome == SUCCEEDED).count();
    let last = attempts.last().map(|attempt| attempt.outcome == SUCCEEDED);
    match &ended.reason {
        None if successes != 1 || last != Some(true) => {
            Some("delivered, and not by its last attempt alone".to_owned())
        }
        Some(reason) if successes > 0 => Some(format!("an attempt succeeded, and it is {reason}")),
        _ => None,
    }
}

/// Attempts in the history and the requests that they were.
pub(super) struct Matched<'a> {
    /// Requests that stand in the history with their answers, by delivery.
    pairs: HashMap<&'a Delivery, Vec<(Attempt, Arrival)>>,
    /// Requests that do not.
    unstored: HashMap<&'a Delivery, Vec<Arrival>>,
    /// Attempts without an answer that were no deaths: their requests may have arrived.
    unanswered: HashMap<&'a Delivery, usize>,
    /// Attempts with an answer that no request got.
    unseen: Vec<(&'a Delivery, Attempt)>,
}

/// A request arrives this much before its attempt began at most: the database's clock is known as well as that.
const BEFORE: i64 = 60_000;

impl<'a> Matched<'a> {
    fn of(book: &'a Book, history: &'a History) -> Self {
        let mut matched = Self {
            pairs: HashMap::new(),
            unstored: HashMap::new(),
            unanswered: HashMap::new(),
            unseen: Vec::new(),
        };
        for (delivery, arrivals) in &book.arrivals {
            let mut open = arrivals.clone();
            let attempts = history.attempts.get(delivery).map_or(&[][..], Vec::as_slice);
            for attempt in attempts.iter().filter(|attempt| attempt.status > 0) {
                let fits = |arrival: &Arrival| {
                    arrival.status == attempt.status && arrival.at >= attempt.started - BEFORE
                };
                match open.iter().position(fits) {
                    Some(place) => {
                        let pair = (*attempt, open.remove(place));
                        matched.pairs.entry(delivery).or_default().push(pair);
                    }
                    None => matched.unseen.push((delivery, *attempt)),
                }
            }
            let unanswered = attempts
                .iter()
                .filter(|attempt| attempt.status == 0 && attempt.outcome != INTERRUPTED)
                .count();
            matched.unanswered.insert(delivery, unanswered);
            matched.unstored.insert(delivery, open);
        }
        let nowhere = |(delivery, _): &(&Delivery, _)| !book.arrivals.contains_key(*delivery);
        for (delivery, attempts) in history.attempts.iter().filter(nowhere) {
            let answered = attempts.iter().filter(|attempt| attempt.status > 0);
            matched.unseen.extend(answered.map(|attempt| (delivery, *attempt)));
        }
        matched
    }
}

fn unseen(report: &mut Report, matched: &Matched<'_>, endpoints: &[Endpoint]) {
    let unseen: Vec<String> = matched
        .unseen
        .iter()
        .map(|(delivery, attempt)| format!("{}: {attempt:?}", name(delivery, endpoints)))
        .collect();
    report.check(unseen.is_empty(), some("answers in the history that no receiver gave", &unseen));
}

/// The API lists what is stored.
fn listed(report: &mut Report, history: &History) {
    if let Some(why) = &history.unlisted {
        return report.violation(format!("the API could not be read to the end: {why}"));
    }
    let stored = |attempts: &Vec<Attempt>| {
        (attempts.len(), attempts.iter().filter(|attempt| attempt.outcome == SUCCEEDED).count())
    };
    let mut differ: Vec<String> = history
        .attempts
        .iter()
        .filter(|(delivery, attempts)| history.listed.get(*delivery) != Some(&stored(attempts)))
        .map(|(delivery, attempts)| {
            format!("{delivery:?}: stored {:?}, listed {:?}", stored(attempts), history.listed.get(delivery))
        })
        .collect();
    differ.extend(
        history
            .listed
            .keys()
            .filter(|one| !history.attempts.contains_key(*one))
            .map(|one| format!("{one:?}")),
    );
    report.row(
        "attempts in the database and in the API",
        history.attempts.values().map(Vec::len).sum::<usize>(),
    );
    report.check(differ.is_empty(), some("deliveries whose attempts the API lists otherwise", &differ));
}

/// It went on by itself, soon, and what only one node suffered kept nobody else.
fn recovered(report: &mut Report, book: &Book, windows: &[Window]) {
    for kind in Kind::value_variants() {
        let of_kind: Vec<&Window> = windows.iter().filter(|window| window.kind == *kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let served = most(of_kind.iter().filter_map(|window| window.served));
        let delivered = most(of_kind.iter().filter_map(|window| window.delivered));
        let text = format!("{} times; {served} ms / {delivered} ms", of_kind.len());
        report.row(&format!("{kind:?}: until every node served again / all owed had arrived, at most"), text);
    }
    for window in windows {
        let what = format!("{:?} of nodes {:?} at {}", window.kind, window.nodes, clock(window.began));
        report.check(window.served.is_some(), format!("{what}: a node did not serve again in time"));
        let owed = window.owed;
        let text = format!("{what}: not all {owed} deliveries that were owed afterwards arrived in time");
        report.check(window.delivered.is_some(), text);
        report.check(window.orderly, format!("{what}: it did not end with exit code 0 after SIGTERM"));
    }
    let limit = i64::try_from(SILENCE.as_micros()).unwrap_or(i64::MAX);
    for (from, to) in &book.silences {
        let silent = to - from - excused(windows, *from, *to);
        let text = format!("no message was acknowledged for {} ms from {}", silent / 1000, clock(*from));
        report.check(silent <= limit, text);
    }
    let longest = book.silences.iter().map(|(from, to)| to - from).max().unwrap_or(0);
    report.row("longest time without an acknowledged message", format!("{} ms", longest / 1000));
}

/// How much of a time nobody could serve: the database, or all nodes, were away.
fn excused(windows: &[Window], from: i64, to: i64) -> i64 {
    let all =
        windows.iter().filter(|window| matches!(window.kind, Kind::KillAll | Kind::Restart | Kind::Failover));
    all.map(|window| (window.healed.min(to) - window.began.max(from)).max(0)).sum()
}

fn most(times: impl Iterator<Item = Duration>) -> String {
    times.max().map_or_else(|| "never".to_owned(), |time| time.as_millis().to_string())
}

/// The time as the logs show it.
fn clock(at: i64) -> String {
    jiff::Timestamp::from_microsecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn name(delivery: &Delivery, endpoints: &[Endpoint]) -> String {
    let endpoint = endpoints.get(delivery.0).map_or("?", |endpoint| endpoint.id.as_str());
    format!("{} to {endpoint} (number {})", delivery.1, delivery.0)
}

/// How many, and the first ones.
fn some<T: Debug>(what: &str, all: &[T]) -> String {
    format!("{what}: {}, among them {:?}", all.len(), &all[..all.len().min(5)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: usize, outcome: u8) -> Attempt {
        Attempt { number, started: 0, outcome, status: 200, committed: 0 }
    }

    #[test]
    fn attempts_are_numbered_without_gaps_and_only_the_last_one_succeeds() {
        let ended = |attempts| Ended { reason: None, attempts, deaths: 0 };
        for (attempts, holds) in [
            (vec![attempt(1, 1), attempt(2, INTERRUPTED), attempt(3, SUCCEEDED)], true),
            (vec![attempt(1, SUCCEEDED), attempt(2, SUCCEEDED)], false),
            (vec![attempt(1, INTERRUPTED), attempt(1, SUCCEEDED)], false),
            (vec![attempt(2, SUCCEEDED)], false),
            (vec![attempt(1, SUCCEEDED), attempt(2, INTERRUPTED)], false),
            (vec![], false),
        ] {
            assert_eq!(inconsistent(&ended(attempts.len()), &attempts).is_none(), holds, "{attempts:?}");
        }
        assert!(inconsistent(&ended(2), &[attempt(1, SUCCEEDED)]).is_some());
        let failed = Ended { reason: Some("state 2 quarantined".to_owned()), attempts: 1, deaths: 3 };
        assert!(inconsistent(&failed, &[attempt(1, INTERRUPTED)]).is_none());
        assert!(inconsistent(&failed, &[attempt(1, SUCCEEDED)]).is_some());
    }
}
