//! Standard Webhooks signatures: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) over `id.timestamp.body`.

use crate::{id::MessageId, time::Timestamp};
use secrecy::SecretString;

/// A key that signs an endpoint's messages. Cannot be printed.
#[derive(Clone)]
pub struct SigningSecret {
    _inner: (),
}

impl SigningSecret {
    /// Reads `whsec_` + base64 of 24 to 75 bytes, bare base64 of that length, or `whsk_` + base64 of 64 bytes
    /// (Ed25519 seed and public key).
    pub fn parse(_text: &str) -> Result<Self, String> {
        todo!()
    }

    /// A new HMAC secret from 24 random bytes.
    pub fn hmac(_random: [u8; 24]) -> Self {
        todo!()
    }

    /// A new Ed25519 secret from a random seed.
    pub fn ed25519(_seed: [u8; 32]) -> Self {
        todo!()
    }

    /// The text form that [`Self::parse`] reads back: what the vault seals.
    pub fn to_text(&self) -> SecretString {
        todo!()
    }

    /// What the owner of the endpoint needs to verify: `whsec_…` for HMAC, `whpk_…` (the public key) for Ed25519.
    pub fn verification_key(&self) -> SecretString {
        todo!()
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// The value of `webhook-signature`: one signature per secret, separated by spaces.
pub fn sign(_secrets: &[&SigningSecret], _message: MessageId, _at: Timestamp, _body: &[u8]) -> String {
    todo!()
}
