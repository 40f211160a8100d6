//! Envelope encryption.

use crate::keyring::Keyring;
use secrecy::SecretSlice;

/// What a sealed value belongs to; it opens for nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The environment, `org_…`.
    pub environment: &'a str,
    /// The application, or empty for values of the environment itself.
    pub application: &'a str,
    /// Kind of secret, for example `signing.hmac`.
    pub kind: &'a str,
    /// The secret's own id within its owner.
    pub id: &'a str,
    /// The table of the owner.
    pub owner_table: &'a str,
    /// The owner.
    pub owner_id: &'a str,
    /// Version of the value.
    pub version: u32,
}

/// A data key as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Random id.
    pub id: [u8; 8],
    /// The KEK that wraps it.
    pub kek: String,
    /// The wrapped key.
    pub blob: Vec<u8>,
}

/// Why a value cannot be opened. Says which key, never what was inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The keyring has no key of this name.
    #[error("the keyring has no key `{0}`")]
    MissingKey(String),
    /// The value was sealed with another data key.
    #[error("sealed with data key {0}, which is not this one")]
    OtherDataKey(String),
    /// Truncated, of an unknown format, altered, or moved to another row.
    #[error("the sealed value is damaged or belongs to another row")]
    Damaged,
}

/// An environment's key, open in memory.
pub struct DataKey {}

impl DataKey {
    /// A new random data key and its wrapped form.
    pub fn generate(_keyring: &Keyring, _environment: &str) -> (Self, WrappedKey) {
        todo!()
    }

    /// Opens a wrapped data key.
    pub fn unwrap(_keyring: &Keyring, _environment: &str, _wrapped: &WrappedKey) -> Result<Self, VaultError> {
        todo!()
    }

    /// Seals a value.
    pub fn seal(&self, _binding: &Binding<'_>, _value: &[u8]) -> Vec<u8> {
        todo!()
    }

    /// Opens a value.
    pub fn open(&self, _binding: &Binding<'_>, _blob: &[u8]) -> Result<SecretSlice<u8>, VaultError> {
        todo!()
    }

    /// First 8 bytes of a keyed MAC of a value: compares values without showing them.
    pub fn fingerprint(&self, _value: &[u8]) -> [u8; 8] {
        todo!()
    }
}

/// The data key id that a sealed value names, to find its data key.
pub fn data_key_id(_blob: &[u8]) -> Option<[u8; 8]> {
    todo!()
}
