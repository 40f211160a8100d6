//! Idempotency: a repeated request finds what the first one created.

use aws_lc_rs::digest;
use postrider_model::limits;
use std::time::Duration;

/// A request's key as it is stored: a digest over method, path with query, and the caller's key. Scoped by environment
/// through the call that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// SHA-256.
    pub digest: [u8; 32],
    /// How long the answer is remembered.
    pub lifetime: Duration,
}

impl IdempotencyKey {
    /// `key` is the header's value. Keys that client libraries make for a single call (`auto_…`) are kept shorter.
    pub fn new(method: &str, path_and_query: &str, key: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [method, path_and_query, key] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        let lifetime =
            if key.starts_with("auto_") { limits::IDEMPOTENCY_AGE_AUTO } else { limits::IDEMPOTENCY_AGE };
        Self { digest: bytes, lifetime }
    }
}

/// What a creating call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created<T> {
    /// The thing as it stands.
    pub item: T,
    /// A request with the same idempotency key had created it before; nothing was done now.
    pub replayed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_requests_share_a_digest_by_moving_characters() {
        let keys = [
            ("POST", "/a", "bc"),
            ("POST", "/ab", "c"),
            ("POS", "T/a", "bc"),
            ("POST", "/a", "bc "),
            ("", "", ""),
        ];
        let digests: BTreeSet<_> =
            keys.iter().map(|(method, path, key)| IdempotencyKey::new(method, path, key).digest).collect();
        assert_eq!(digests.len(), keys.len());
    }

    #[test]
    fn keys_that_a_client_makes_for_one_call_are_kept_shorter() {
        let auto = IdempotencyKey::new("POST", "/", "auto_1").lifetime;
        assert!(auto < IdempotencyKey::new("POST", "/", "1").lifetime);
    }
}
