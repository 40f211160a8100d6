//! Removes the secrets of an attempt from what the endpoint answered, before it is stored.
//!
//! The body is searched as it is and as a reader would decode it (percent-encoding, form encoding, JSON escapes), each
//! time for every written form of every secret at once: one pass over the body per view, whatever the number of
//! secrets.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use secrecy::SecretString;
use std::{fmt::Write as _, ops::Range};

mod views;

/// Shorter secrets are left alone: replacing every `admin` or `1234` would hide the answer and protect nothing.
const SHORTEST: usize = 8;
const MARKER: &[u8] = b"[redacted]";

/// The password of `Basic …` (RFC 7617), which is not written out in the header's value.
pub fn basic_password(value: &str) -> Option<SecretString> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.into())
}

/// Replaces every occurrence of a secret of at least 8 bytes in `body` by `[redacted]`: raw, base64 (standard and URL
/// alphabet, with or without padding, also in the middle of something longer), hexadecimal, percent-encoded and
/// JSON-escaped, also when the body was cut off within it. Occurrences that overlap or touch become one marker.
/// Returns `body` itself when there is none.
pub fn redact(body: Bytes, secrets: &[&str]) -> Bytes {
    if body.len() < SHORTEST || secrets.iter().all(|secret| secret.len() < SHORTEST) {
        return body;
    }
    let needles = Needles::new(secrets);
    let mut found = Vec::new();
    needles.find(&body, |range| found.push(range));
    for view in views::of(&body) {
        needles.find(&view.bytes, |range| found.push(view.starts[range.start]..view.starts[range.end]));
    }
    if found.is_empty() {
        return body;
    }
    found.sort_unstable_by_key(|range| range.start);
    replace(&body, &found)
}

/// Writes one marker for each group of ranges that overlap or touch; `found` is ordered by start.
fn replace(body: &[u8], found: &[Range<usize>]) -> Bytes {
    let mut clean = Vec::with_capacity(body.len());
    let mut written = 0;
    let mut after_marker = false;
    for range in found {
        if range.start > written || !after_marker {
            clean.extend_from_slice(&body[written..range.start]);
            clean.extend_from_slice(MARKER);
            after_marker = true;
        }
        written = written.max(range.end);
    }
    clean.extend_from_slice(&body[written..]);
    clean.into()
}

/// Every written form of every secret, found by its first eight bytes.
struct Needles {
    /// Ordered by the first eight bytes.
    forms: Vec<(u64, Vec<u8>)>,
    /// A bit for each hash of first eight bytes that occurs: nearly every position of a body ends here.
    filter: Vec<u64>,
}

impl Needles {
    const FILTER_BITS: u32 = 14;

    fn new(secrets: &[&str]) -> Self {
        let mut forms: Vec<(u64, Vec<u8>)> = secrets
            .iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .flat_map(|secret| written_forms(secret.as_bytes()))
            .filter_map(|form| Some((first_eight(&form)?, form)))
            .collect();
        forms.sort_unstable();
        forms.dedup();
        let mut filter = vec![0; 1 << (Self::FILTER_BITS - 6)];
        for (first, _) in &forms {
            let (word, bit) = Self::filter_place(*first);
            filter[word] |= bit;
        }
        Self { forms, filter }
    }

    fn filter_place(first: u64) -> (usize, u64) {
        // Fibonacci hashing: the top bits of a product with the golden ratio.
        let hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - Self::FILTER_BITS);
        (usize::try_from(hash >> 6).unwrap_or(0), 1 << (hash & 63))
    }

    /// Calls `report` with every place where a form stands in `text`, or where `text` ends within one.
    fn find(&self, text: &[u8], mut report: impl FnMut(Range<usize>)) {
        let mut first = 0_u64;
        for (index, byte) in text.iter().enumerate() {
            first = first << 8 | u64::from(*byte);
            let (word, bit) = Self::filter_place(first);
            if self.filter[word] & bit == 0 || index + 1 < SHORTEST {
                continue;
            }
            let start = index + 1 - SHORTEST;
            let rest = &text[start..];
            let from = self.forms.partition_point(|(key, _)| *key < first);
            let longest = self.forms[from..]
                .iter()
                .take_while(|(key, _)| *key == first)
                .map(|(_, form)| &form[..form.len().min(rest.len())])
                .filter(|form| rest.starts_with(form))
                .map(<[u8]>::len)
                .max();
            if let Some(length) = longest {
                report(start..start + length);
            }
        }
    }
}

fn first_eight(form: &[u8]) -> Option<u64> {
    form.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

/// The ways in which an endpoint may write a secret down without escapes.
fn written_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms =
        vec![secret.to_vec(), STANDARD.encode(secret).into_bytes(), URL_SAFE.encode(secret).into_bytes()];
    for upper in [false, true] {
        let hex = secret.iter().fold(String::with_capacity(secret.len() * 2), |mut hex, byte| {
            let _ = if upper { write!(hex, "{byte:02X}") } else { write!(hex, "{byte:02x}") };
            hex
        });
        forms.push(hex.into_bytes());
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret).into_bytes());
        // Within something longer (`user:password`) base64 depends on where in a group of three bytes the secret begins:
        // the characters that hold bits of the secret alone are the same.
        for before in 0..3 {
            let encoded = engine.encode([&[0; 2][..before], secret].concat()).into_bytes();
            let end = (before + secret.len()) * 8 / 6;
            forms.push(encoded[(before * 8).div_ceil(6)..end].to_vec());
        }
    }
    forms
}

#[cfg(test)]
mod tests;
