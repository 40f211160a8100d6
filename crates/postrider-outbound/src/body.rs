//! The body of a response, as far as it is kept. Pure: fed with bytes, says when it is at its end.

use crate::response_head::Framing;

/// Longest line of a chunked body (size and extensions, or a trailer field).
const LINE_BYTES: usize = 1024;
/// Bytes read for one byte of cap at most, so that tiny chunks cannot be endless: a chunk of one byte takes six.
const RAW_FACTOR: usize = 8;

/// A body while it arrives.
#[derive(Debug)]
pub(crate) struct Body {
    kept: Vec<u8>,
    cap: usize,
    raw: usize,
    rest: Rest,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Nothing,
    Unreadable,
    Exactly(u64),
    Everything,
    Chunks(Chunks),
}

/// Where a chunked body stands (RFC 9112, section 7.1).
#[derive(Debug)]
enum Chunks {
    /// In the line that holds the size.
    Size { line: Vec<u8> },
    /// In a chunk of which this much is missing.
    Data { missing: u64 },
    /// Before the line end that follows a chunk; this much of it was seen.
    AfterData { seen: usize },
    /// In the trailer section, in a line of this length; this many bytes of trailers were seen.
    Trailer { line: usize, total: usize },
}

/// What a body can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// More bytes are needed.
    Open,
    /// It ended as it should.
    Ended,
    /// It is longer than what is kept.
    Overlong,
    /// It is no valid body.
    Broken,
}

impl Body {
    /// Keeps at most `cap` bytes.
    pub(crate) fn new(framing: Framing, cap: usize) -> Self {
        let rest = match framing {
            Framing::Empty | Framing::Length(0) => Rest::Nothing,
            Framing::Unreadable => Rest::Unreadable,
            Framing::Length(length) => Rest::Exactly(length),
            Framing::UntilClose => Rest::Everything,
            Framing::Chunked => Rest::Chunks(Chunks::Size { line: Vec::new() }),
        };
        Self { kept: Vec::new(), cap, raw: 0, rest }
    }

    /// Takes what it needs of `bytes` and returns how much that was. What stands behind the end is not taken.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> (usize, BodyState) {
        let (taken, state) = match &mut self.rest {
            Rest::Nothing => (0, BodyState::Ended),
            Rest::Unreadable => (0, BodyState::Broken),
            Rest::Exactly(missing) => {
                let (taken, full) = keep(&mut self.kept, self.cap, bytes, *missing);
                *missing -= taken as u64;
                (taken, if *missing == 0 { BodyState::Ended } else { open_unless(full) })
            }
            Rest::Everything => {
                let (taken, full) = keep(&mut self.kept, self.cap, bytes, u64::MAX);
                (taken, open_unless(full))
            }
            Rest::Chunks(chunks) => feed_chunks(chunks, &mut self.kept, self.cap, bytes),
        };
        self.raw = self.raw.saturating_add(taken);
        let endless = state == BodyState::Open && self.raw > self.cap.saturating_mul(RAW_FACTOR);
        (taken, if endless { BodyState::Overlong } else { state })
    }

    /// The connection ended; was that the end of the body?
    pub(crate) fn close(&self) -> BodyState {
        match self.rest {
            Rest::Nothing | Rest::Everything => BodyState::Ended,
            _ => BodyState::Broken,
        }
    }

    /// What was kept.
    pub(crate) fn into_kept(self) -> Vec<u8> {
        self.kept
    }
}

fn open_unless(full: bool) -> BodyState {
    if full { BodyState::Overlong } else { BodyState::Open }
}

/// Keeps at most `most` bytes and at most up to `cap` in all; also says whether there was more than that.
fn keep(kept: &mut Vec<u8>, cap: usize, bytes: &[u8], most: u64) -> (usize, bool) {
    let offered = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    let taken = offered.min(cap.saturating_sub(kept.len()));
    kept.extend_from_slice(&bytes[..taken]);
    (taken, taken < offered)
}

fn feed_chunks(chunks: &mut Chunks, kept: &mut Vec<u8>, cap: usize, bytes: &[u8]) -> (usize, BodyState) {
    let mut at = 0;
    while at < bytes.len() {
        if let Chunks::Data { missing } = chunks {
            let (taken, full) = keep(kept, cap, &bytes[at..], *missing);
            at += taken;
            *missing -= taken as u64;
            if full {
                return (at, BodyState::Overlong);
            }
            if *missing == 0 {
                *chunks = Chunks::AfterData { seen: 0 };
            }
        } else {
            let byte = bytes[at];
            at += 1;
            match feed_line(chunks, byte) {
                BodyState::Open => {}
                end => return (at, end),
            }
        }
    }
    (at, BodyState::Open)
}

/// One byte of what stands between chunks.
fn feed_line(chunks: &mut Chunks, byte: u8) -> BodyState {
    let next = match chunks {
        Chunks::Size { line } => match byte {
            b'\n' => match chunk_size(line) {
                Some(0) => Chunks::Trailer { line: 0, total: 0 },
                Some(missing) => Chunks::Data { missing },
                None => return BodyState::Broken,
            },
            _ if line.len() < LINE_BYTES => {
                line.push(byte);
                return BodyState::Open;
            }
            _ => return BodyState::Broken,
        },
        Chunks::AfterData { seen } => match (*seen, byte) {
            (0, b'\r') => Chunks::AfterData { seen: 1 },
            (1, b'\n') => Chunks::Size { line: Vec::new() },
            _ => return BodyState::Broken,
        },
        Chunks::Trailer { line, total } => match (*line, byte) {
            // `\r\n` alone, or the bare `\n` that RFC 9112, section 2.2, allows to accept.
            (0 | 1, b'\n') => return BodyState::Ended,
            (_, b'\n') => Chunks::Trailer { line: 0, total: *total },
            (0, b'\r') => Chunks::Trailer { line: 1, total: *total },
            _ if *total < 8 * LINE_BYTES => Chunks::Trailer { line: *line + 2, total: *total + 1 },
            _ => return BodyState::Broken,
        },
        Chunks::Data { .. } => return BodyState::Open,
    };
    *chunks = next;
    BodyState::Open
}

/// Reads `size [;extensions] CR`, the line feed already taken away.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r")?;
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
