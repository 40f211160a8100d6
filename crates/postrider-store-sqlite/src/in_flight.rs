//! Which attempts have begun: a file of fixed-size slots that outlives the process.
//!
//! A slot is written just before an attempt's first byte and used again once its result is durable. Written without a
//! sync: the page cache survives `kill -9`, and after a power loss nobody can blame a delivery. What stands there at the
//! next start, and has no result, was being attempted when the process died.

use crate::data_dir::PRIVATE;
use postrider_model::{
    delivery::DeliveryId,
    id::{EndpointId, Ksuid, MessageId},
    time::Timestamp,
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Bytes of a slot: a checksum, the fields, and as much of the URL as fits.
const SLOT: usize = 512;
const HEAD: usize = 4 + 20 + 20 + 4 + 4 + 8 + 2;
/// Slots read at start at most; more cannot have been in flight.
const MOST: usize = 100_000;

/// An attempt that had begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) delivery: DeliveryId,
    pub(crate) number: u32,
    pub(crate) started_at: Timestamp,
    /// Cut to what fits a slot.
    pub(crate) url: String,
}

/// The file.
#[derive(Debug)]
pub(crate) struct InFlight {
    path: PathBuf,
    file: File,
    free: Mutex<Free>,
}

/// Slots that can be used: those given back, and those behind the end.
#[derive(Debug, Default)]
struct Free {
    returned: Vec<u32>,
    end: u32,
}

impl InFlight {
    /// Opens the file and reads what an earlier process left; `None` when it was closed in an orderly way.
    pub(crate) fn open(path: PathBuf) -> io::Result<(Self, Option<Vec<Begun>>)> {
        let left = match std::fs::read(&path) {
            Ok(bytes) => Some(bytes.chunks(SLOT).take(MOST).filter_map(read_slot).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(&path)?;
        Ok((Self { path, file, free: Mutex::default() }, left))
    }

    /// Forgets what was left, once it has been dealt with.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Writes a slot; returns its number.
    pub(crate) fn begin(&self, begun: &Begun) -> io::Result<u32> {
        let slot = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.returned.pop().unwrap_or_else(|| {
                free.end = free.end.saturating_add(1);
                free.end - 1
            })
        };
        let mut bytes = [0; SLOT];
        let length = write_slot(begun, &mut bytes);
        let written = self.file.write_all_at(&bytes[..length], offset(slot));
        if written.is_err() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(slot);
        }
        written.map(|()| slot)
    }

    /// The attempt's result is durable: the slot can be used again. What stands there is outdated by the result, and need
    /// not be cleared: that would be one more system call for each attempt.
    pub(crate) fn recorded(&self, slot: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(slot);
    }

    /// Clears the slot of an attempt that ended without a result. When that fails the slot is not used again: at worst the next start counts one death too many.
    pub(crate) fn end(&self, slot: u32) {
        match self.file.write_all_at(&[0; 4], offset(slot)) {
            Ok(()) => self.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(slot),
            Err(error) => tracing::warn!(%error, "a slot of the in-flight file could not be cleared"),
        }
    }

    /// Orderly end: the missing file says so to the next start.
    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Where the file of a data directory lies.
    pub(crate) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("in_flight")
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * SLOT as u64
}

/// Fills the start of a slot; returns how many of its bytes count.
fn write_slot(begun: &Begun, bytes: &mut [u8; SLOT]) -> usize {
    let mut length = begun.url.len().min(SLOT - HEAD);
    while !begun.url.is_char_boundary(length) {
        length -= 1;
    }
    bytes[4..24].copy_from_slice(begun.delivery.message.ksuid().as_bytes());
    bytes[24..44].copy_from_slice(begun.delivery.endpoint.ksuid().as_bytes());
    bytes[44..48].copy_from_slice(&begun.delivery.generation.to_be_bytes());
    bytes[48..52].copy_from_slice(&begun.number.to_be_bytes());
    bytes[52..60].copy_from_slice(&begun.started_at.as_micros().to_be_bytes());
    bytes[60..62].copy_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    bytes[HEAD..HEAD + length].copy_from_slice(&begun.url.as_bytes()[..length]);
    let sum = checksum(&bytes[4..HEAD + length]).to_be_bytes();
    bytes[..4].copy_from_slice(&sum);
    HEAD + length
}

/// `None` for a free slot, and for one that a power loss tore.
fn read_slot(bytes: &[u8]) -> Option<Begun> {
    let sum = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::from(u16::from_be_bytes(bytes.get(60..62)?.try_into().ok()?));
    if sum != checksum(bytes.get(4..HEAD + length)?) {
        return None;
    }
    Some(Begun {
        delivery: DeliveryId {
            message: MessageId::new(Ksuid::from_bytes(bytes.get(4..24)?.try_into().ok()?)),
            endpoint: EndpointId::new(Ksuid::from_bytes(bytes.get(24..44)?.try_into().ok()?)),
            generation: u32::from_be_bytes(bytes.get(44..48)?.try_into().ok()?),
        },
        number: u32::from_be_bytes(bytes.get(48..52)?.try_into().ok()?),
        started_at: Timestamp::from_micros(i64::from_be_bytes(bytes.get(52..60)?.try_into().ok()?)),
        url: std::str::from_utf8(bytes.get(HEAD..HEAD + length)?).ok()?.to_owned(),
    })
}

/// FNV-1a, never zero: zero marks a free slot.
fn checksum(bytes: &[u8]) -> u32 {
    let sum =
        bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    sum.max(1)
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
    fn what_had_begun_and_was_not_cleared_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = InFlight::path(folder.path());
        let (file, left) = InFlight::open(path.clone()).unwrap();
        assert_eq!(left, None);
        let first = file.begin(&begun(1, "https://example.com/a")).unwrap();
        file.begin(&begun(2, &"ü".repeat(2000))).unwrap();
        file.end(first);
        drop(file);
        let (file, left) = InFlight::open(path.clone()).unwrap();
        let left = left.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].number, left[0].url.len()), (2, (SLOT - HEAD) / 2 * 2));
        file.clear().unwrap();
        assert_eq!(file.begin(&begun(3, "")).unwrap(), 0, "slots are used from the start again");
        file.remove().unwrap();
        assert_eq!(InFlight::open(path).unwrap().1, None);
    }

    #[test]
    fn a_torn_slot_is_no_slot() {
        let mut bytes = [0; SLOT];
        write_slot(&begun(1, "https://example.com/"), &mut bytes);
        assert_eq!(read_slot(&bytes), Some(begun(1, "https://example.com/")));
        bytes[30] ^= 1;
        assert_eq!(read_slot(&bytes), None);
        assert_eq!(read_slot(&[0; SLOT]), None);
        assert_eq!(read_slot(&[]), None);
    }
}
