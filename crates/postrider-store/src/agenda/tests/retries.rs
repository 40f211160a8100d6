//! First attempts and retries of one endpoint: neither keeps the other waiting.

use super::*;

fn retry(message: u32, due: i64) -> Handed {
    Handed { attempts: 1, ..handed(1, message, due) }
}

fn messages(taken: &[(Lease, Handed)]) -> Vec<MessageId> {
    taken.iter().map(|(lease, _)| lease.delivery.message).collect()
}

fn ids(numbers: &[u32]) -> Vec<MessageId> {
    numbers.iter().map(|number| delivery(1, *number).message).collect()
}

/// An agenda with a hundred thousand retries of endpoint 1 due, of which a claim has some in memory.
fn with_retries() -> Agenda {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::Retries, 0, 100_000), at(0));
    let wanted = to_read(&mut agenda, 0);
    assert_eq!(wanted.iter().map(|wanted| wanted.part).collect::<Vec<_>>(), [Part::Retries]);
    let deliveries = (101..=110).map(|message| retry(message, 0)).collect();
    agenda.found(Found { endpoint: endpoint(1), part: Part::Retries, deliveries, next: Some(at(0)) }, at(0));
    agenda
}

#[test]
fn first_attempts_and_retries_take_turns() {
    let mut agenda = with_retries();
    for message in 1..=3 {
        agenda.hand_over(handed(1, message, 1), false, at(1));
    }
    assert_eq!(messages(&take(&mut agenda, 8, PLENTY, 1)), ids(&[1, 101, 2, 102, 3, 103, 104, 105]));
    agenda.hand_over(handed(1, 4, 2), false, at(2));
    assert_eq!(messages(&take(&mut agenda, 1, PLENTY, 2)), ids(&[4]), "also from one claim to the next");
    agenda.hand_over(handed(1, 5, 2), false, at(2));
    assert_eq!(messages(&take(&mut agenda, 1, PLENTY, 2)), ids(&[106]));
    assert_eq!(messages(&take(&mut agenda, 1, PLENTY, 2)), ids(&[5]));
}

#[test]
fn a_fresh_message_is_served_from_memory_whatever_waits_of_retries_in_the_database() {
    let mut agenda = Agenda::new(1_000_000, 7);
    agenda.add(on_disk(0, 1, Part::Retries, 0, 100_000), at(0));
    agenda.hand_over(handed(1, 1, 1), false, at(1));
    let taken = agenda.take(&room(PLENTY, PLENTY), at(1));
    assert_eq!((messages(&taken.deliveries), taken.wanted.len()), (ids(&[1]), 1));
    agenda.hand_over(handed(1, 2, 1), false, at(1));
    assert_eq!(messages(&take(&mut agenda, PLENTY, PLENTY, 1)), ids(&[2]), "while the retries are read");
}

#[test]
fn retries_are_served_while_a_backlog_of_first_attempts_is_read() {
    let mut agenda = with_retries();
    agenda.add(on_disk(0, 1, Part::First, 0, 100_000), at(0));
    let taken = agenda.take(&room(2, PLENTY), at(1));
    assert_eq!(messages(&taken.deliveries), ids(&[101, 102]));
    assert_eq!(taken.wanted.iter().map(|wanted| wanted.part).collect::<Vec<_>>(), [Part::First]);
    agenda.found(
        Found { endpoint: endpoint(1), part: Part::First, deliveries: vec![handed(1, 1, 0)], next: None },
        at(1),
    );
    assert_eq!(messages(&take(&mut agenda, 2, PLENTY, 1)), ids(&[1, 103]));
}

#[test]
fn what_is_given_back_waits_in_its_own_part() {
    let mut agenda = with_retries();
    agenda.hand_over(handed(1, 1, 1), false, at(1));
    agenda.hand_over(handed(1, 2, 1), false, at(1));
    let taken = take(&mut agenda, 4, PLENTY, 1);
    assert_eq!(messages(&taken), ids(&[1, 101, 2, 102]));
    agenda.released(&taken[0].0, at(1));
    let again = agenda.take(&room(PLENTY, PLENTY), at(1));
    assert_eq!(
        again.wanted.iter().map(|wanted| wanted.part).collect::<Vec<_>>(),
        [Part::First, Part::Retries]
    );
    assert!(again.wanted[0].leased.contains(&delivery(1, 2)), "those that are out");
}

#[test]
fn a_failed_first_attempt_is_a_retry_and_leaves_the_others_in_memory() {
    let mut agenda = Agenda::new(1_000_000, 7);
    for message in 1..=3 {
        agenda.hand_over(handed(1, message, 0), false, at(0));
    }
    let taken = take(&mut agenda, 1, PLENTY, 0);
    agenda.recorded(&taken[0].0, Some(at(0)), at(0));
    agenda.hand_over(handed(1, 4, 0), false, at(0));
    assert_eq!(messages(&take(&mut agenda, PLENTY, PLENTY, 0)), ids(&[2, 3, 4]));
}
