//! Tokens of API keys.
//!
//! A token is `prk_` + 27 base62 characters of the key's id + `_` + 43 base62 characters of secret + 6 of CRC-32. No
//! dot stands in it: client libraries read the text after a dot as the name of a hosted region.

use crate::keyring::Keyring;
use postrider_model::id::ApiKeyId;
use secrecy::SecretString;

/// What a database keeps of an API key besides its clear columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The KEK that the pepper is derived from.
    pub kek: String,
    /// Keyed MAC of environment, key id and secret.
    pub secret_mac: [u8; 32],
    /// Keyed MAC of the row's clear columns and `secret_mac`: who can write rows still cannot mint or widen a key.
    pub row_mac: [u8; 32],
}

/// Makes the token of a key. `row` is a canonical text of everything that decides what the key may do.
pub fn mint(_keyring: &Keyring, _id: ApiKeyId, _row: &str) -> (SecretString, Verifier) {
    todo!()
}

/// The key id that a token names; `None` when it does not have the form of a token (checksum included).
pub fn key_id(_token: &str) -> Option<ApiKeyId> {
    todo!()
}

/// Does the token belong to this row? Constant time; `None` as verifier does the same work and answers `false`.
pub fn verify(_keyring: &Keyring, _token: &str, _row: &str, _verifier: Option<&Verifier>) -> bool {
    todo!()
}
