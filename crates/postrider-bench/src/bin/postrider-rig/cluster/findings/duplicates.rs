//! Nothing arrives twice without a reason: what was in flight at a fault, or answered and not yet stored, may; no other.

use super::{Matched, name, some};
use crate::{
    cluster::{
        book::{Arrival, Book, Micros},
        faults::Window,
        world::Endpoint,
    },
    report::Report,
};

/// How long before a fault an answer may have come whose result was not stored yet, on a busy machine.
const BEFORE: Micros = 3_000_000;
/// How long after a fault was made good a node may not know of it yet.
const AFTER: Micros = 3_000_000;
/// Deliveries of one endpoint that a node has in flight at most.
const PLACES: usize = 100;

/// Checks it.
pub(super) fn check(
    report: &mut Report,
    book: &Book,
    matched: &Matched<'_>,
    windows: &[Window],
    endpoints: &[Endpoint],
) {
    let mut repeated = vec![0; windows.len()];
    let (mut unexplained, mut all) = (Vec::new(), 0);
    for (delivery, arrivals) in &book.arrivals {
        let unstored = matched.unstored.get(delivery).map_or(&[][..], Vec::as_slice);
        let mut unanswered = matched.unanswered.get(delivery).copied().unwrap_or(0);
        let first = arrivals.iter().position(|arrival| arrival.status / 100 == 2);
        all += first.map_or(0, |first| arrivals.len() - first - 1);
        for arrival in unstored {
            if let Some(place) = windows.iter().position(|window| cut_off(window, arrival)) {
                repeated[place] += 1;
            } else if unanswered > 0 {
                unanswered -= 1;
            } else {
                unexplained.push(format!("{}: {arrival:?} of {arrivals:?}", name(delivery, endpoints)));
            }
        }
    }
    report.row("requests after a success", all);
    report.row("requests that are not in the history, explained by a fault", repeated.iter().sum::<usize>());
    let (open, answered) = windows
        .iter()
        .map(|window| in_flight(book, window))
        .fold((0, 0), |(open, answered), (one, other)| (open + one, answered + other));
    report.row("in flight when the faults began; answered in the 3 s before", format!("{open}; {answered}"));
    let what = "requests that are not in the history, and that no fault explains";
    report.row(what, unexplained.len());
    report.check(unexplained.is_empty(), some(what, &unexplained));
    for (window, repeated) in windows.iter().zip(repeated) {
        let places = PLACES * endpoints.len() * window.nodes.len();
        let what = format!("{:?} of nodes {:?}", window.kind, window.nodes);
        report.check(
            repeated <= places,
            format!("{what}: {repeated} requests repeated, {places} can be in flight"),
        );
    }
}

/// The fault may have kept the result of this request from being stored.
fn cut_off(window: &Window, arrival: &Arrival) -> bool {
    window.nodes.contains(&arrival.node)
        && arrival.at <= window.healed + AFTER
        && arrival.answered.is_none_or(|answered| answered >= window.began - BEFORE)
}

/// Requests that were under way when it began, and that had just been answered: perhaps not stored yet.
fn in_flight(book: &Book, window: &Window) -> (usize, usize) {
    let before = |arrival: &&Arrival| arrival.at <= window.began && cut_off(window, arrival);
    let open = |arrival: &&Arrival| arrival.answered.is_none_or(|answered| answered >= window.began);
    let (open, answered): (Vec<&Arrival>, _) =
        book.arrivals.values().flatten().filter(before).partition(open);
    (open.len(), answered.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::faults::Kind;

    #[test]
    fn a_fault_explains_what_its_nodes_had_in_flight_and_nothing_else() {
        let window = Window {
            kind: Kind::Pause,
            nodes: vec![1],
            began: 20_000_000,
            healed: 40_000_000,
            settled: 50_000_000,
            owed: 0,
            served: None,
            delivered: None,
            orderly: true,
        };
        let arrival = |node, at: Micros, answered: Option<Micros>| Arrival {
            node,
            at: at * 1_000_000,
            status: 200,
            answered: answered.map(|at| at * 1_000_000),
        };
        assert!(cut_off(&window, &arrival(1, 19, Some(20))), "answered into the pause");
        assert!(cut_off(&window, &arrival(1, 18, Some(18))), "perhaps not stored");
        assert!(cut_off(&window, &arrival(1, 2, None)), "never answered");
        assert!(!cut_off(&window, &arrival(1, 10, Some(11))), "stored long ago");
        assert!(!cut_off(&window, &arrival(0, 19, Some(20))), "another node");
        assert!(!cut_off(&window, &arrival(1, 45, Some(46))), "after it");
    }
}
