//! Which attempts have begun: notes in an unlogged table, that whoever takes over from a dead node counts deaths by.
//!
//! A note is queued just before an attempt's first byte and written by a task of its own within a millisecond or so,
//! together with all others that wait: beginning an attempt waits for nothing. A process that dies in between leaves no
//! note, and that death is not counted. Rows hold the notes of one write; a row goes some time after its last attempt
//! ended, together with others. Notes of recorded attempts may stay for as long: the delivery's count of attempts tells.
//! Each row has a number of its own: updating one in place would be slow while somebody holds a transaction open.

use crate::{
    address::Address,
    connection::{Own, Use},
    failure::Failure,
};
use futures_util::future;
use postrider_model::{
    delivery::DeliveryId,
    id::{EndpointId, Ksuid, MessageId},
    time::Timestamp,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// As much of a URL as a note keeps.
const URL_BYTES: usize = 512;
/// Bytes before the URL.
const HEAD: usize = 20 + 20 + 4 + 4 + 8;
/// Bytes of notes in one row, which must fit into a page: the column is neither compressed nor stored apart.
const ROW_BYTES: usize = 7_000;
/// What a note takes in a row beside its own bytes.
const NOTE_BYTES: usize = 8;
/// Rows that one write adds at most.
const ROWS: usize = 20;
/// Rows that are deleted together, or fewer after a while.
const DELETE: usize = 50;
const DELETE_AFTER: Duration = Duration::from_millis(200);
/// How long after a failed write the next one is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// An attempt that had begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) delivery: DeliveryId,
    pub(crate) number: u32,
    pub(crate) started_at: Timestamp,
    /// Cut to what a note keeps.
    pub(crate) url: String,
}

/// The notes of this node.
#[derive(Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    wake: Notify,
    written: Notify,
}

#[derive(Default)]
struct State {
    next_slot: u32,
    next_batch: i64,
    /// Not written yet.
    fresh: BTreeMap<u32, Vec<u8>>,
    /// In which row a written note lies.
    rows: HashMap<u32, i64>,
    /// What lies in a row and has not ended.
    batches: HashMap<i64, HashMap<u32, Vec<u8>>>,
    /// Rows to delete.
    empty: Vec<i64>,
    /// They must not wait for others: one may hold an attempt that was given back, or somebody waits for it.
    hurry: bool,
    /// Rows that hold a note of an attempt that was given back: to be written without it.
    stale: Vec<i64>,
    writing: bool,
}

/// What one write does.
#[derive(Default)]
struct Write {
    insert: Vec<(i64, Vec<Vec<u8>>)>,
    delete: Vec<i64>,
    replace: Vec<(i64, Vec<Vec<u8>>)>,
}

impl InFlight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an attempt; returns the note's number.
    pub(crate) fn begin(&self, begun: &Begun) -> u32 {
        let mut state = self.state();
        let slot = state.next_slot;
        state.next_slot = slot.wrapping_add(1);
        state.fresh.insert(slot, write_note(begun));
        drop(state);
        self.wake.notify_one();
        slot
    }

    /// The attempt was recorded.
    pub(crate) fn recorded(&self, slot: u32) {
        let mut state = self.state();
        state.end(slot);
        // The first one starts the time after which they go.
        let wake = state.empty.len() == 1 || state.deletes();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The attempt was given back: its note must not count as a death.
    pub(crate) fn given_back(&self, slot: u32) {
        let mut state = self.state();
        if let Some(batch) = state.end(slot) {
            if state.batches.contains_key(&batch) {
                state.stale.push(batch);
            }
            state.hurry = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits until everything noted so far is written.
    pub(crate) async fn settled(&self) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            {
                let mut state = self.state();
                state.hurry = true;
                let idle = !state.writing && state.fresh.is_empty();
                if idle && state.stale.is_empty() && state.empty.is_empty() {
                    return;
                }
            }
            self.wake.notify_one();
            written.await;
        }
    }

    /// Forgets everything: another node has taken over, or this one begins anew.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        let next_slot = state.next_slot;
        *state = State { next_slot, ..State::default() };
    }

    /// Writes notes as they come, for as long as the task lives.
    pub(crate) async fn run(self: Arc<Self>, address: Address, node: impl Fn() -> Vec<u8>) {
        let mut own = Own::new(address, Use::Notes);
        loop {
            let write = self.state().take();
            let Some(write) = write else {
                self.written.notify_waiters();
                self.rest().await;
                continue;
            };
            if let Err(failure) = store(&mut own, &node(), &write).await {
                let error = postrider_store::StoreError::from(failure);
                tracing::debug!(%error, "notes of begun attempts could not be written");
                own.give_up();
                self.state().give_back(write);
                tokio::time::sleep(PAUSE).await;
            } else {
                self.state().writing = false;
            }
        }
    }

    /// Until there is something to write.
    async fn rest(&self) {
        let woken = self.wake.notified();
        if self.state().empty.is_empty() {
            woken.await;
        } else if tokio::time::timeout(DELETE_AFTER, woken).await.is_err() {
            self.state().hurry = true;
        }
    }
}

impl State {
    /// Takes a note away; tells in which row it lay, when it was written. An empty row is to be deleted.
    fn end(&mut self, slot: u32) -> Option<i64> {
        if self.fresh.remove(&slot).is_some() {
            return None;
        }
        let batch = self.rows.remove(&slot)?;
        let notes = self.batches.get_mut(&batch)?;
        notes.remove(&slot);
        if notes.is_empty() {
            self.batches.remove(&batch);
            self.empty.push(batch);
        }
        Some(batch)
    }

    /// Is it time to delete rows?
    fn deletes(&self) -> bool {
        self.empty.len() >= DELETE || (self.hurry && !self.empty.is_empty())
    }

    fn take(&mut self) -> Option<Write> {
        let mut write = Write::default();
        if self.deletes() {
            write.delete = std::mem::take(&mut self.empty);
        }
        self.hurry = false;
        let mut stale = std::mem::take(&mut self.stale);
        stale.sort_unstable();
        stale.dedup();
        let notes = |notes: &HashMap<u32, Vec<u8>>| notes.values().cloned().collect::<Vec<_>>();
        write.replace =
            stale.into_iter().filter_map(|batch| Some((batch, notes(self.batches.get(&batch)?)))).collect();
        while write.insert.len() < ROWS && !self.fresh.is_empty() {
            write.insert.push(self.take_row());
        }
        if write.insert.is_empty() && write.delete.is_empty() && write.replace.is_empty() {
            return None;
        }
        self.writing = true;
        Some(write)
    }

    /// As many fresh notes as a row holds.
    fn take_row(&mut self) -> (i64, Vec<Vec<u8>>) {
        let mut bytes = 0;
        let mut row = HashMap::new();
        while let Some(first) = self.fresh.first_entry() {
            bytes += first.get().len() + NOTE_BYTES;
            if bytes > ROW_BYTES && !row.is_empty() {
                break;
            }
            let (slot, note) = first.remove_entry();
            row.insert(slot, note);
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        self.rows.extend(row.keys().map(|slot| (*slot, batch)));
        let notes = row.values().cloned().collect();
        self.batches.insert(batch, row);
        (batch, notes)
    }

    /// A write failed: what it was to do is to be done again.
    fn give_back(&mut self, write: Write) {
        self.writing = false;
        for (batch, _) in write.insert {
            for (slot, note) in self.batches.remove(&batch).unwrap_or_default() {
                self.rows.remove(&slot);
                self.fresh.insert(slot, note);
            }
        }
        self.hurry |= !write.delete.is_empty();
        self.empty.extend(write.delete);
        self.stale.extend(write.replace.into_iter().map(|(batch, _)| batch));
    }
}

async fn store(own: &mut Own, node: &[u8], write: &Write) -> Result<(), Failure> {
    let connection = own.get().await?;
    if !write.insert.is_empty() {
        let text = "INSERT INTO in_flight (node, batch, notes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let statement = connection.prepare(text).await?;
        let asked = write.insert.iter().map(|(batch, notes)| {
            let statement = &statement;
            async move { connection.client().execute(statement, &[&node, batch, notes]).await }
        });
        connection.timed(future::try_join_all(asked)).await?;
    }
    if !write.delete.is_empty() {
        let text = "DELETE FROM in_flight WHERE node = $1 AND batch = ANY ($2)";
        connection.execute(text, &[&node, &write.delete]).await?;
    }
    for (batch, notes) in &write.replace {
        let text = "UPDATE in_flight SET notes = $3 WHERE node = $1 AND batch = $2";
        connection.execute(text, &[&node, batch, notes]).await?;
    }
    Ok(())
}

fn write_note(begun: &Begun) -> Vec<u8> {
    let mut length = begun.url.len().min(URL_BYTES);
    while !begun.url.is_char_boundary(length) {
        length -= 1;
    }
    let mut note = Vec::with_capacity(HEAD + length);
    note.extend_from_slice(begun.delivery.message.ksuid().as_bytes());
    note.extend_from_slice(begun.delivery.endpoint.ksuid().as_bytes());
    note.extend_from_slice(&begun.delivery.generation.to_be_bytes());
    note.extend_from_slice(&begun.number.to_be_bytes());
    note.extend_from_slice(&begun.started_at.as_micros().to_be_bytes());
    note.extend_from_slice(&begun.url.as_bytes()[..length]);
    note
}

/// A note of its bytes.
pub(crate) fn read_note(note: &[u8]) -> Option<Begun> {
    let id = |range: std::ops::Range<usize>| Some(Ksuid::from_bytes(note.get(range)?.try_into().ok()?));
    Some(Begun {
        delivery: DeliveryId {
            message: MessageId::new(id(0..20)?),
            endpoint: EndpointId::new(id(20..40)?),
            generation: u32::from_be_bytes(note.get(40..44)?.try_into().ok()?),
        },
        number: u32::from_be_bytes(note.get(44..48)?.try_into().ok()?),
        started_at: Timestamp::from_micros(i64::from_be_bytes(note.get(48..HEAD)?.try_into().ok()?)),
        url: std::str::from_utf8(note.get(HEAD..)?).ok()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(number: u32, url: &str) -> Begun {
        let delivery = DeliveryId {
            message: MessageId::new(Ksuid::from_bytes([1; 20])),
            endpoint: EndpointId::new(Ksuid::from_bytes([2; 20])),
            generation: 3,
        };
        Begun {
            delivery,
            number,
            started_at: Timestamp::from_micros(1_767_225_600_000_000),
            url: url.to_owned(),
        }
    }

    #[test]
    fn a_note_reads_back_and_a_long_url_is_cut() {
        let short = begun(7, "https://example.com/a");
        assert_eq!(read_note(&write_note(&short)), Some(short));
        let long = read_note(&write_note(&begun(1, &"ü".repeat(2000)))).unwrap();
        assert_eq!(long.url.len(), URL_BYTES / 2 * 2);
        assert_eq!(read_note(&[0; 10]), None);
    }

    #[test]
    fn what_ended_before_it_was_written_is_never_written() {
        let notes = InFlight::default();
        let slot = notes.begin(&begun(1, ""));
        notes.recorded(slot);
        assert!(notes.state().take().is_none());
    }

    #[test]
    fn a_row_goes_with_its_last_note_and_is_rewritten_when_one_is_given_back() {
        let notes = InFlight::default();
        let slots = [notes.begin(&begun(1, "a")), notes.begin(&begun(2, "b")), notes.begin(&begun(3, "c"))];
        let (batch, written) = notes.state().take().unwrap().insert.remove(0);
        assert_eq!(written.len(), 3);
        notes.recorded(slots[0]);
        assert!(notes.state().take().is_none(), "the delivery's count of attempts tells");
        notes.given_back(slots[1]);
        let write = notes.state().take().unwrap();
        assert_eq!((write.replace.len(), write.replace[0].0, write.replace[0].1.len()), (1, batch, 1));
        notes.recorded(slots[2]);
        assert!(notes.state().take().is_none(), "it waits for others that are to go");
        notes.state().hurry = true;
        assert_eq!(notes.state().take().unwrap().delete, [batch]);
    }

    #[test]
    fn a_row_whose_last_note_was_given_back_goes_at_once() {
        let notes = InFlight::default();
        let slot = notes.begin(&begun(1, "a"));
        let batch = notes.state().take().unwrap().insert[0].0;
        notes.given_back(slot);
        assert_eq!(notes.state().take().unwrap().delete, [batch]);
    }

    #[test]
    fn a_row_fits_into_a_page() {
        let notes = InFlight::default();
        for number in 0..100 {
            notes.begin(&begun(number, &"a".repeat(1000)));
        }
        let write = notes.state().take().unwrap();
        assert_eq!(write.insert.iter().map(|(_, row)| row.len()).sum::<usize>(), 100);
        for (_, row) in &write.insert {
            assert!(row.iter().map(|note| note.len() + NOTE_BYTES).sum::<usize>() < 8_000);
        }
    }

    #[test]
    fn a_failed_write_is_done_again() {
        let notes = InFlight::default();
        let slot = notes.begin(&begun(1, "a"));
        let write = notes.state().take().unwrap();
        notes.state().give_back(write);
        assert_eq!(notes.state().take().unwrap().insert[0].1.len(), 1);
        notes.recorded(slot);
        notes.state().hurry = true;
        assert_eq!(notes.state().take().unwrap().delete.len(), 1);
    }
}
