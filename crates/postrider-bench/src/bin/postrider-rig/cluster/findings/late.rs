//! No late result lands: what a node stored was committed before others ended it.

use super::{Matched, clock, name, some};
use crate::{
    cluster::{
        book::{Book, Micros},
        history::{History, Registered},
        world::Endpoint,
    },
    report::Report,
};

/// Between two clocks that are one: the database's and the nodes'.
const BETWEEN: Micros = 50_000;

/// Checks it.
pub(super) fn check(
    report: &mut Report,
    book: &Book,
    history: &History,
    matched: &Matched<'_>,
    endpoints: &[Endpoint],
) {
    let (mut late, mut checked) = (Vec::new(), 0_usize);
    for (delivery, pairs) in &matched.pairs {
        for (attempt, arrival) in pairs.iter().filter(|(attempt, _)| attempt.committed > 0) {
            let Some(sender) = sender(book, history, arrival.node, attempt.started) else { continue };
            checked += 1;
            if let Some(ended) = sender.ended.filter(|ended| attempt.committed > *ended) {
                late.push(format!(
                    "{}: attempt {} of node {} was stored at {}, and the node had been ended at {}",
                    name(delivery, endpoints),
                    attempt.number,
                    arrival.node,
                    clock(attempt.committed),
                    clock(ended)
                ));
            }
        }
    }
    let ended = history.nodes.iter().filter(|node| node.ended.is_some()).count();
    report.row("nodes that registered, and that were ended", format!("{}, {ended}", history.nodes.len()));
    report.row("results checked against the end of their node", checked);
    report.row("late results that landed", late.len());
    report.check(late.is_empty(), some("results that were stored after their node was ended", &late));
}

/// As whom a node's process was registered at that time. A process that ended before it listened, because the database was
/// away, is in the database alone: it may have been any node's.
fn sender<'a>(book: &Book, history: &'a History, node: usize, at: Micros) -> Option<&'a Registered> {
    let of_node = book.processes.iter().filter(|process| process.node == node);
    let pids: Vec<u32> = of_node.map(|process| process.pid).collect();
    let unknown = |pid| !book.processes.iter().any(|process| process.pid == pid);
    let registered = history.nodes.iter().filter(|row| pids.contains(&row.pid) || unknown(row.pid));
    registered.filter(|row| row.started <= at + BETWEEN).max_by_key(|row| row.started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::book::Process;

    #[test]
    fn the_sender_is_the_last_registration_of_the_process_before_the_attempt() {
        let process = |node, pid| Process { node, pid, from: 0 };
        let mut book = Book::default();
        book.processes = vec![process(0, 7), process(1, 8), process(0, 9)];
        let row = |pid, started: Micros| Registered { pid, started: started * 1_000_000, ended: None };
        let history =
            History { nodes: vec![row(7, 1), row(8, 2), row(7, 5), row(9, 9)], ..History::default() };
        let started = |node, at: Micros| {
            sender(&book, &history, node, at * 1_000_000).map(|row| row.started / 1_000_000)
        };
        assert_eq!(started(0, 4), Some(1));
        assert_eq!(started(0, 6), Some(5), "it began anew");
        assert_eq!(started(0, 10), Some(9), "another process");
        assert_eq!(started(1, 1), None);
        let mut unknown = history;
        unknown.nodes.push(row(77, 10));
        assert_eq!(sender(&book, &unknown, 0, 10_000_000).map(|row| row.pid), Some(77), "it never listened");
    }
}
