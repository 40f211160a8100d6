//! Envelope encryption: data keys wrapped by the operator's keys, values sealed by data keys. No storage, no policy.
//!
//! ```text
//! value = 0x01 | 0x01 (AES-256-GCM) | data key id (8) | salt (32) | nonce (12) | ciphertext | tag (16)
//! key   = HKDF-SHA256(ikm = data key, salt, info = "postrider/secret/v1", 32)
//! AAD   = "postrider/secret/v1" LP(environment) LP(application) LP(id) LP(kind) LP(owner_table) LP(owner_id) u32be(version)
//! data key, wrapped = 0x01 | 0x01 | LP8(KEK name) | nonce (12) | AES-256-GCM(KEK, data key) with tag (16)
//! AAD   = "postrider/dek/v1" LP(environment) data key id (8)
//! LP    = u16be length and bytes; LP8 = one length byte and bytes
//! ```
//!
//! A fresh salt gives every value a key of its own, so that nonces cannot collide under one key. The values in
//! `seal/tests.rs` are the test vectors for other implementations.

use crate::{
    first_8,
    keyring::{KEY_BYTES, Kek, Keyring},
    push_field, random,
};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
};
use secrecy::SecretSlice;
use std::fmt;
use zeroize::{Zeroize as _, Zeroizing};

const FORMAT: u8 = 1;
const AES_256_GCM_HKDF: u8 = 1;
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const ID_BYTES: usize = 8;
const SECRET_INFO: &[u8] = b"postrider/secret/v1";
const DEK_INFO: &[u8] = b"postrider/dek/v1";
const FINGERPRINT_INFO: &[u8] = b"postrider/fingerprint/v1";

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

/// An environment's key, open in memory; wiped on drop.
pub struct DataKey {
    id: [u8; ID_BYTES],
    key: Zeroizing<[u8; KEY_BYTES]>,
}

/// The id only.
impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DataKey").field("id", &crate::hex(&self.id)).finish_non_exhaustive()
    }
}

impl DataKey {
    /// A new random data key and its wrapped form.
    pub fn generate(keyring: &Keyring, environment: &str) -> (Self, WrappedKey) {
        let key = Self { id: random(), key: Zeroizing::new(random()) };
        let wrapped = key.wrap(keyring, environment, random());
        (key, wrapped)
    }

    /// Opens a wrapped data key.
    pub fn unwrap(keyring: &Keyring, environment: &str, wrapped: &WrappedKey) -> Result<Self, VaultError> {
        let kek = keyring.get(&wrapped.kek).ok_or_else(|| VaultError::MissingKey(wrapped.kek.clone()))?;
        let rest = wrapped.blob.strip_prefix(&[FORMAT, AES_256_GCM_HKDF]).ok_or(VaultError::Damaged)?;
        let (length, rest) = rest.split_first().ok_or(VaultError::Damaged)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(VaultError::Damaged)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Damaged)?;
        if name != wrapped.kek.as_bytes() || sealed.len() != KEY_BYTES + TAG_BYTES {
            return Err(VaultError::Damaged);
        }
        let opened = decrypt(kek.bytes(), *nonce, &dek_aad(environment, wrapped.id), sealed)?;
        let mut bytes = <[u8; KEY_BYTES]>::try_from(opened.as_slice()).map_err(|_| VaultError::Damaged)?;
        let key = Zeroizing::new(bytes);
        bytes.zeroize();
        Ok(Self { id: wrapped.id, key })
    }

    /// Its id, as sealed values name it.
    pub fn id(&self) -> [u8; 8] {
        self.id
    }

    /// Seals a value.
    pub fn seal(&self, binding: &Binding<'_>, value: &[u8]) -> Vec<u8> {
        self.seal_with(binding, value, random(), random())
    }

    fn seal_with(
        &self,
        binding: &Binding<'_>,
        value: &[u8],
        salt: [u8; SALT_BYTES],
        nonce: [u8; NONCE_BYTES],
    ) -> Vec<u8> {
        let key = derive(&*self.key, &salt, SECRET_INFO);
        let mut blob = vec![FORMAT, AES_256_GCM_HKDF];
        blob.extend_from_slice(&self.id);
        blob.extend_from_slice(&salt);
        encrypt(&key, nonce, &secret_aad(binding), value, &mut blob);
        blob
    }

    /// Opens a value.
    pub fn open(&self, binding: &Binding<'_>, blob: &[u8]) -> Result<SecretSlice<u8>, VaultError> {
        let parts = Parts::read(blob).ok_or(VaultError::Damaged)?;
        if *parts.data_key_id != self.id {
            return Err(VaultError::OtherDataKey(crate::hex(parts.data_key_id)));
        }
        let key = derive(&*self.key, parts.salt, SECRET_INFO);
        let opened = decrypt(&key, *parts.nonce, &secret_aad(binding), parts.sealed)?;
        // A copy of exact size: boxing must not move it and leave bytes behind.
        Ok(SecretSlice::from(opened.to_vec()))
    }

    /// First 8 bytes of a keyed MAC of a value: compares values without showing them. Of use within one environment
    /// only.
    pub fn fingerprint(&self, value: &[u8]) -> [u8; 8] {
        let key = derive(&*self.key, &[], FINGERPRINT_INFO);
        first_8(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), value).as_ref())
    }

    fn wrap(&self, keyring: &Keyring, environment: &str, nonce: [u8; NONCE_BYTES]) -> WrappedKey {
        let name = keyring.primary();
        let mut blob = vec![FORMAT, AES_256_GCM_HKDF, u8::try_from(name.len()).unwrap_or(u8::MAX)];
        blob.extend_from_slice(name.as_bytes());
        // A keyring always holds its primary key: that is checked when it is read.
        let kek = keyring.get(name).map_or(&[0; KEY_BYTES], Kek::bytes);
        encrypt(kek, nonce, &dek_aad(environment, self.id), &*self.key, &mut blob);
        WrappedKey { id: self.id, kek: name.to_owned(), blob }
    }
}

/// The data key id that a sealed value names, to find its data key. `None` when it is no sealed value.
pub fn data_key_id(blob: &[u8]) -> Option<[u8; 8]> {
    Parts::read(blob).map(|parts| *parts.data_key_id)
}

/// A sealed value, taken apart.
struct Parts<'a> {
    data_key_id: &'a [u8; ID_BYTES],
    salt: &'a [u8; SALT_BYTES],
    nonce: &'a [u8; NONCE_BYTES],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(blob: &'a [u8]) -> Option<Self> {
        let rest = blob.strip_prefix(&[FORMAT, AES_256_GCM_HKDF])?;
        let (data_key_id, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        (sealed.len() >= TAG_BYTES).then_some(Self { data_key_id, salt, nonce, sealed })
    }
}

fn secret_aad(binding: &Binding<'_>) -> Vec<u8> {
    let mut aad = SECRET_INFO.to_vec();
    let Binding { environment, application, kind, id, owner_table, owner_id, version } = *binding;
    for field in [environment, application, id, kind, owner_table, owner_id] {
        push_field(&mut aad, field.as_bytes());
    }
    aad.extend_from_slice(&version.to_be_bytes());
    aad
}

fn dek_aad(environment: &str, id: [u8; ID_BYTES]) -> Vec<u8> {
    let mut aad = DEK_INFO.to_vec();
    push_field(&mut aad, environment.as_bytes());
    aad.extend_from_slice(&id);
    aad
}

/// HKDF-SHA256 to 32 bytes.
pub(crate) fn derive(key: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|output| output.fill(&mut *derived))
        // The one possible error is an output longer than 255 digests.
        .expect("32 bytes can be derived");
    derived
}

fn cipher(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"))
}

/// Appends nonce, ciphertext and tag to `to`.
fn encrypt(key: &[u8; KEY_BYTES], nonce: [u8; NONCE_BYTES], aad: &[u8], value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&nonce);
    let mut sealed = value.to_vec();
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
        // AES-GCM refuses only texts beyond 64 GiB.
        .expect("a value in memory can be sealed");
    to.append(&mut sealed);
}

fn decrypt(
    key: &[u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = cipher(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| VaultError::Damaged)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests;
