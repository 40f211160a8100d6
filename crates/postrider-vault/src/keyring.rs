//! The operator's keys.

use std::path::Path;

/// Key encryption keys by name; one of them is primary and wraps new data keys.
#[derive(Debug)]
pub struct Keyring {}

/// Why a keyring cannot be used; the text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct KeyringError(pub String);

impl Keyring {
    /// Reads a keyring file: `primary = "…"` and `[keys]` of names to base64 of 32 bytes. Refuses a file that others
    /// can read, a short key, a missing primary.
    pub fn load(_path: &Path) -> Result<Self, KeyringError> {
        todo!()
    }

    /// Creates a keyring file with one random key, mode 0600; never overwrites.
    pub fn create(_path: &Path) -> Result<Self, KeyringError> {
        todo!()
    }

    /// Names of the keys with their check values (8 bytes of HMAC), to compare with what a database remembers.
    pub fn check_values(&self) -> Vec<(String, [u8; 8])> {
        todo!()
    }
}
