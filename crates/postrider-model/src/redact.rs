//! Removes the secrets of an attempt from what the endpoint answered, before it is stored.

use bytes::Bytes;

/// Replaces every occurrence of a secret of at least 8 bytes in `body` by `[redacted]`: raw, base64 (standard and URL
/// alphabet, with or without padding), percent-encoded and JSON-escaped. Returns `body` itself when there is none.
pub fn redact(_body: Bytes, _secrets: &[&str]) -> Bytes {
    todo!()
}
