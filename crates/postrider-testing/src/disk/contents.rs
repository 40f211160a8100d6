//! What a power cut leaves of one file. Pure.
//!
//! A change that no sync has covered may be on the disk in any of its sectors, whatever came before or after it: each
//! sector of the file holds its last synced version or any later one.

use rand::{RngExt, rngs::StdRng};

/// What a disk writes at once, in bytes: a smaller part is never torn.
const SECTOR: usize = 512;

/// One file: what is synced for certain, and the changes since.
#[derive(Debug, Default)]
pub(super) struct Contents {
    synced: Vec<u8>,
    waiting: Vec<Change>,
}

/// A change of a file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// What becomes of the changes that wait.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    /// In order, up to a moment within one of them.
    InOrder,
    /// Each sector of each change for itself, in percent.
    Scattered(u32),
}

impl Contents {
    pub(super) fn of(synced: Vec<u8>) -> Self {
        Self { synced, waiting: Vec::new() }
    }

    pub(super) fn change(&mut self, change: Change) {
        self.waiting.push(change);
    }

    /// Everything so far is on the disk.
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.waiting) {
            apply(&mut self.synced, &change);
        }
    }

    /// A sync failed: what waited is partly on the disk, and no later sync will write the rest. The system shows it until
    /// the next start all the same.
    pub(super) fn fail_to_sync(&mut self, random: &mut StdRng) {
        self.synced = self.after_cut(random);
        self.waiting.clear();
    }

    /// What the disk may hold if the power goes now.
    pub(super) fn after_cut(&self, random: &mut StdRng) -> Vec<u8> {
        let fate = match random.random_range(0..10) {
            0 => Fate::Nothing,
            1 => Fate::Everything,
            2..=4 => Fate::InOrder,
            5 => Fate::Scattered(10),
            6 | 7 => Fate::Scattered(50),
            _ => Fate::Scattered(90),
        };
        self.under(fate, random)
    }

    fn under(&self, fate: Fate, random: &mut StdRng) -> Vec<u8> {
        let mut image = self.synced.clone();
        // What lies between the old end and a new one without ever having been written: zeros, or what was there before.
        let filler: u8 = if random.random_bool(0.5) { 0 } else { random.random() };
        let whole = match fate {
            Fate::Nothing => 0,
            Fate::InOrder => random.random_range(0..=self.waiting.len()),
            Fate::Everything | Fate::Scattered(_) => self.waiting.len(),
        };
        for (number, change) in self.waiting.iter().enumerate() {
            match (fate, change) {
                (Fate::Scattered(percent), Change::Write { offset, bytes }) => {
                    for (offset, part) in sectors(*offset, bytes) {
                        if random.random_range(0..100) < percent {
                            write(&mut image, offset, part, filler);
                        }
                    }
                }
                (Fate::Scattered(percent), Change::Resize(size)) => {
                    let kept = random.random_range(0..100) < percent;
                    image.resize(if kept { *size } else { image.len() }, filler);
                }
                (_, change) if number < whole => apply(&mut image, change),
                // The one that the cut came into.
                (Fate::InOrder, Change::Write { offset, bytes }) if number == whole => {
                    let parts: Vec<_> = sectors(*offset, bytes).collect();
                    let written = random.random_range(0..=parts.len());
                    for (offset, part) in parts.into_iter().take(written) {
                        write(&mut image, offset, part, filler);
                    }
                }
                _ => {}
            }
        }
        image
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => write(image, *offset, bytes, 0),
        Change::Resize(size) => image.resize(*size, 0),
    }
}

fn write(image: &mut Vec<u8>, offset: usize, bytes: &[u8], filler: u8) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, filler);
    }
    image[offset..end].copy_from_slice(bytes);
}

/// The parts of a write that lie in different sectors.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR - offset % SECTOR).min(bytes.len());
    let (head, tail) = bytes.split_at(first);
    let tail = tail.chunks(SECTOR).enumerate();
    std::iter::once((offset, head))
        .chain(tail.map(move |(number, part)| (offset + first + number * SECTOR, part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn of(letter: u8) -> Vec<u8> {
        vec![letter; 4 * SECTOR]
    }

    fn unsynced() -> Contents {
        let mut contents = Contents::of(of(b'a'));
        contents.change(Change::Write { offset: 100, bytes: vec![b'b'; 3 * SECTOR] });
        contents.change(Change::Write { offset: 2 * SECTOR, bytes: vec![b'c'; SECTOR] });
        contents
    }

    #[test]
    fn what_was_synced_survives_every_cut() {
        let mut contents = unsynced();
        contents.sync();
        let synced = contents.synced.clone();
        assert_eq!(
            (synced[100], synced[2 * SECTOR], synced[3 * SECTOR - 1], synced[3 * SECTOR]),
            (b'b', b'c', b'c', b'b')
        );
        contents.change(Change::Write { offset: 4 * SECTOR, bytes: of(b'd') });
        contents.change(Change::Resize(20 * SECTOR));
        for seed in 0..200 {
            let image = contents.after_cut(&mut StdRng::seed_from_u64(seed));
            assert_eq!(image[..4 * SECTOR], synced[..], "seed {seed}");
        }
    }

    #[test]
    fn each_sector_holds_its_synced_version_or_a_later_one() {
        let contents = unsynced();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let image = contents.after_cut(&mut StdRng::seed_from_u64(seed));
            assert_eq!(image.len(), 4 * SECTOR);
            assert!(image[..100].iter().all(|byte| *byte == b'a'), "nobody wrote there");
            let third = &image[2 * SECTOR..3 * SECTOR];
            assert!(third.iter().all(|byte| *byte == third[0]), "a sector is never torn");
            seen.insert((image[100], image[SECTOR], image[2 * SECTOR]));
        }
        assert!(seen.contains(&(b'a', b'a', b'a')) && seen.contains(&(b'b', b'b', b'c')), "{seen:?}");
        assert!(seen.contains(&(b'a', b'b', b'c')), "a later sector without an earlier one: {seen:?}");
        assert!(seen.contains(&(b'b', b'a', b'c')), "a later change without an earlier one: {seen:?}");
    }

    #[test]
    fn a_later_sync_does_not_write_what_a_failed_one_gave_up() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut contents = unsynced();
            contents.fail_to_sync(&mut StdRng::seed_from_u64(seed));
            contents.sync();
            lost += usize::from(contents.synced[SECTOR] == b'a');
        }
        assert!(lost > 0 && lost < 100, "{lost}");
    }

    #[test]
    fn a_file_can_lose_its_end_and_get_it_back() {
        let mut contents = Contents::of(of(b'a'));
        contents.change(Change::Resize(0));
        let lengths: std::collections::BTreeSet<usize> =
            (0..100).map(|seed| contents.after_cut(&mut StdRng::seed_from_u64(seed)).len()).collect();
        assert_eq!(lengths, [0, 4 * SECTOR].into());
    }
}
