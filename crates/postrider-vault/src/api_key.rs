//! Tokens of API keys.
//!
//! A token is `prk_` + 27 base62 characters of the key's id + `_` + 43 base62 characters of secret + 6 of CRC-32 (over
//! all that stands before). No dot stands in it: client libraries read the text after a dot as the name of a hosted
//! region. The secret has 256 random bits, so a fast MAC is the right way to keep it; the checksum lets scanners of
//! source code find leaked tokens without asking anyone.

use crate::{keyring::Keyring, push_field, random, seal::derive};
use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    hmac,
};
use postrider_model::id::{ApiKeyId, ApiKeyKind, Kind};
use secrecy::SecretString;
use zeroize::Zeroizing;

const PREFIX: &str = "prk_";
const ID_CHARACTERS: usize = 27;
const SECRET_CHARACTERS: usize = 43;
const CHECKSUM_CHARACTERS: usize = 6;
const TOKEN_CHARACTERS: usize = PREFIX.len() + ID_CHARACTERS + 1 + SECRET_CHARACTERS + CHECKSUM_CHARACTERS;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PEPPER_INFO: &[u8] = b"postrider/api-key-pepper";
const MAC_BYTES: usize = 32;

/// What a database keeps of an API key besides its clear columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The KEK that the pepper is derived from.
    pub kek: String,
    /// Keyed MAC of key id and secret.
    pub secret_mac: [u8; 32],
    /// Keyed MAC of the key id, the row's clear columns and `secret_mac`: who can write rows still cannot mint, widen or
    /// move a key.
    pub row_mac: [u8; 32],
}

/// Makes the token of a key. `row` is a canonical text of everything that decides what the key may do: environment,
/// scope, flags, expiry.
pub fn mint(keyring: &Keyring, id: ApiKeyId, row: &str) -> (SecretString, Verifier) {
    let mut token = String::with_capacity(TOKEN_CHARACTERS);
    token.push_str(PREFIX);
    token.push_str(id.to_string().strip_prefix(ApiKeyKind::PREFIX).unwrap_or_default());
    token.push('_');
    let secret = base62::<SECRET_CHARACTERS>(&*Zeroizing::new(random::<32>()));
    token.push_str(&secret);
    token.push_str(&base62::<CHECKSUM_CHARACTERS>(&crc32(token.as_bytes()).to_be_bytes()));
    let kek = keyring.primary().to_owned();
    let pepper = pepper(keyring, &kek);
    let secret_mac = secret_mac(&pepper, id, secret.as_bytes());
    let row_mac = row_mac(&pepper, id, row, &secret_mac);
    (SecretString::from(token), Verifier { kek, secret_mac, row_mac })
}

/// A token that was found genuine, remembered so that the next look at it costs one hash. The secret has 256 random bits:
/// its hash tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen([u8; 32]);

impl Seen {
    /// Remembers a token.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    /// Is it the same token? Constant time.
    pub fn is(&self, token: &str) -> bool {
        constant_time::verify_slices_are_equal(&self.0, digest(&SHA256, token.as_bytes()).as_ref()).is_ok()
    }
}

/// The key id that a token names; `None` when it does not have the form of a token (checksum included).
pub fn key_id(token: &str) -> Option<ApiKeyId> {
    read(token).map(|(id, _)| id)
}

/// Does the token belong to this row? Constant time; `None` as verifier does the same work and answers `false`.
pub fn verify(keyring: &Keyring, token: &str, row: &str, verifier: Option<&Verifier>) -> bool {
    let Some((id, secret)) = read(token) else {
        return false;
    };
    let known = verifier.is_some_and(|verifier| keyring.get(&verifier.kek).is_some());
    let (kek, expected_secret, expected_row) = match verifier {
        Some(verifier) if known => (verifier.kek.as_str(), verifier.secret_mac, verifier.row_mac),
        _ => (keyring.primary(), [0; MAC_BYTES], [0; MAC_BYTES]),
    };
    let pepper = pepper(keyring, kek);
    let secret_mac = secret_mac(&pepper, id, secret.as_bytes());
    let row_mac = row_mac(&pepper, id, row, &secret_mac);
    let same_secret = constant_time::verify_slices_are_equal(&secret_mac, &expected_secret).is_ok();
    let same_row = constant_time::verify_slices_are_equal(&row_mac, &expected_row).is_ok();
    known & same_secret & same_row
}

/// Id and secret of a well-formed token.
fn read(token: &str) -> Option<(ApiKeyId, &str)> {
    if token.len() != TOKEN_CHARACTERS || !token.is_ascii() {
        return None;
    }
    let (body, checksum) = token.split_at_checked(TOKEN_CHARACTERS - CHECKSUM_CHARACTERS)?;
    if *base62::<CHECKSUM_CHARACTERS>(&crc32(body.as_bytes()).to_be_bytes()) != checksum {
        return None;
    }
    let (id, secret) = body.strip_prefix(PREFIX)?.split_at_checked(ID_CHARACTERS)?;
    let id = ApiKeyId::parse(&format!("{}{id}", ApiKeyKind::PREFIX))?;
    let secret = secret.strip_prefix('_')?;
    secret.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some((id, secret))
}

fn pepper(keyring: &Keyring, kek: &str) -> hmac::Key {
    // Callers name a key of the keyring; the empty key stands in where none exists, and its MACs are never stored.
    let bytes: &[u8] = keyring.get(kek).map_or(&[], |kek| kek.bytes());
    hmac::Key::new(hmac::HMAC_SHA256, &*derive(bytes, &[], PEPPER_INFO))
}

fn secret_mac(pepper: &hmac::Key, id: ApiKeyId, secret: &[u8]) -> [u8; MAC_BYTES] {
    mac(pepper, &[b"secret", id.ksuid().as_bytes(), secret])
}

fn row_mac(pepper: &hmac::Key, id: ApiKeyId, row: &str, secret_mac: &[u8; MAC_BYTES]) -> [u8; MAC_BYTES] {
    // The row is hashed apart: a long list of flags does not fit a length prefix of two bytes.
    let row = digest(&SHA256, row.as_bytes());
    mac(pepper, &[b"row", id.ksuid().as_bytes(), row.as_ref(), secret_mac])
}

fn mac(pepper: &hmac::Key, fields: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut input = Zeroizing::new(Vec::new());
    for field in fields {
        push_field(&mut input, field);
    }
    let mut bytes = [0; MAC_BYTES];
    bytes.copy_from_slice(hmac::sign(pepper, &input).as_ref());
    bytes
}

/// A big-endian number in `N` base62 digits; `N` must be enough for it.
fn base62<const N: usize>(number: &[u8]) -> Zeroizing<String> {
    let mut digits = Zeroizing::new([0_u8; N]);
    for byte in number {
        let mut carry = u32::from(*byte);
        for digit in digits.iter_mut().rev() {
            carry += u32::from(*digit) * 256;
            *digit = u8::try_from(carry % 62).unwrap_or(0);
            carry /= 62;
        }
    }
    Zeroizing::new(digits.iter().map(|digit| char::from(ALPHABET[usize::from(*digit)])).collect())
}

/// CRC-32 as in zip and PNG (ISO 3309, reflected, polynomial 0xEDB88320).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ CRC_STEPS[usize::from(crc.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(u32::MAX, step)
}

/// What a byte does to the sum: every request has a token to be looked at.
const CRC_STEPS: [u32; 256] = {
    let mut steps = [0; 256];
    let mut byte = 0;
    while byte < steps.len() {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        steps[byte] = crc;
        byte += 1;
    }
    steps
};

#[cfg(test)]
mod tests;
