//! Standard Webhooks signatures: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) over `id.timestamp.body`.

use crate::{id::MessageId, time::Timestamp};
use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString, zeroize::Zeroizing};
use std::{fmt, ops::RangeInclusive, sync::Arc};

const HMAC_PREFIX: &str = "whsec_";
const ED25519_PREFIX: &str = "whsk_";
const ED25519_PUBLIC_PREFIX: &str = "whpk_";
/// Bytes of an HMAC secret: what Svix accepts (32 to 100 characters of base64).
const HMAC_BYTES: RangeInclusive<usize> = 24..=75;
const ED25519_SEED_BYTES: usize = 32;
const ED25519_BYTES: usize = 64;
/// Longest text that can be a secret: nothing longer is decoded.
const TEXT_BYTES: usize = 128;

const ACCEPTED: &str = "a secret is `whsec_` and the base64 of 24 to 75 bytes, that base64 alone, or `whsk_` and the base64 \
                        of an Ed25519 key (32 bytes seed, 32 bytes public key)";

/// A key that signs an endpoint's messages, ready to sign: parsing and key set-up happen once. Cannot be printed;
/// the bytes are wiped when the last clone is dropped.
#[derive(Clone)]
pub struct SigningSecret(Arc<Key>);

enum Key {
    Hmac { bytes: SecretSlice<u8>, key: Box<hmac::Key> },
    Ed25519 { bytes: SecretSlice<u8>, pair: Ed25519KeyPair },
}

impl SigningSecret {
    /// Reads `whsec_` + base64 of 24 to 75 bytes, bare base64 of that length, or `whsk_` + base64 of 64 bytes
    /// (Ed25519 seed and public key). The error says what is accepted and never repeats the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(encoded) = text.strip_prefix(ED25519_PREFIX) {
            return Self::from_key_pair(&decode(encoded)?);
        }
        if text.starts_with(ED25519_PUBLIC_PREFIX) {
            return Err(format!("this is a public key, which cannot sign; {ACCEPTED}"));
        }
        let bytes = decode(text.strip_prefix(HMAC_PREFIX).unwrap_or(text))?;
        if !HMAC_BYTES.contains(&bytes.len()) {
            return Err(format!("the secret has {} bytes; {ACCEPTED}", bytes.len()));
        }
        Ok(Self::from_hmac_bytes(&bytes))
    }

    /// A new HMAC secret from 24 random bytes.
    pub fn hmac(random: [u8; 24]) -> Self {
        Self::from_hmac_bytes(&*Zeroizing::new(random))
    }

    /// A new Ed25519 secret from a random seed.
    pub fn ed25519(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        match Ed25519KeyPair::from_seed_unchecked(&*seed) {
            Ok(pair) => Self::from_pair(&*seed, pair),
            // 32 bytes are always a seed; a library that refuses them leaves us without Ed25519, not without signatures.
            Err(_) => Self::from_hmac_bytes(&*seed),
        }
    }

    fn from_hmac_bytes(bytes: &[u8]) -> Self {
        Self(Arc::new(Key::Hmac {
            key: Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
            bytes: bytes.to_vec().into(),
        }))
    }

    fn from_key_pair(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != ED25519_BYTES {
            return Err(format!("the key has {} bytes; {ACCEPTED}", bytes.len()));
        }
        let (seed, public) = bytes.split_at(ED25519_SEED_BYTES);
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public)
            .map_err(|_| format!("the public part of the key does not belong to its seed; {ACCEPTED}"))?;
        Ok(Self::from_pair(seed, pair))
    }

    fn from_pair(seed: &[u8], pair: Ed25519KeyPair) -> Self {
        let mut bytes = Vec::with_capacity(ED25519_BYTES);
        bytes.extend_from_slice(seed);
        bytes.extend_from_slice(pair.public_key().as_ref());
        Self(Arc::new(Key::Ed25519 { bytes: bytes.into(), pair }))
    }

    /// The text form that [`Self::parse`] reads back: what the vault seals.
    pub fn to_text(&self) -> SecretString {
        match &*self.0 {
            Key::Hmac { bytes, .. } => encode(HMAC_PREFIX, bytes.expose_secret()),
            Key::Ed25519 { bytes, .. } => encode(ED25519_PREFIX, bytes.expose_secret()),
        }
    }

    /// What the owner of the endpoint needs to verify: `whsec_…` for HMAC, `whpk_…` (the public key) for Ed25519.
    pub fn verification_key(&self) -> SecretString {
        match &*self.0 {
            Key::Hmac { bytes, .. } => encode(HMAC_PREFIX, bytes.expose_secret()),
            Key::Ed25519 { pair, .. } => encode(ED25519_PUBLIC_PREFIX, pair.public_key().as_ref()),
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

fn decode(encoded: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    if encoded.len() > TEXT_BYTES {
        return Err(format!("the secret is too long; {ACCEPTED}"));
    }
    if encoded.contains(['-', '_']) {
        return Err(format!(
            "the secret is not in the standard base64 alphabet (`+` and `/`, not the URL-safe `-` and `_`); {ACCEPTED}"
        ));
    }
    STANDARD
        .decode(encoded)
        .map(Zeroizing::new)
        .map_err(|_| format!("the secret is not padded standard base64; {ACCEPTED}"))
}

fn encode(prefix: &str, bytes: &[u8]) -> SecretString {
    // The exact size: a string that grows would leave a copy behind.
    let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(prefix);
    STANDARD.encode_string(bytes, &mut text);
    text.into()
}

/// The value of `webhook-signature`: one signature per secret, separated by spaces.
pub fn sign(secrets: &[&SigningSecret], message: MessageId, at: Timestamp, body: &[u8]) -> String {
    sign_text(secrets, &message.to_string(), at.as_seconds(), body)
}

/// [`sign`] for an id that is any text without a dot: for test vectors and for verifying what others signed.
pub fn sign_text(secrets: &[&SigningSecret], id: &str, at_seconds: i64, body: &[u8]) -> String {
    let head = format!("{id}.{at_seconds}.");
    // `v1a,` and 88 characters are the longest signature.
    let mut value = String::with_capacity(secrets.len() * 93);
    // Ed25519 reads its input twice, so it needs it in one piece: copied once for all keys. HMAC needs no copy.
    let mut signed_text: Option<Vec<u8>> = None;
    for secret in secrets {
        if !value.is_empty() {
            value.push(' ');
        }
        match &*secret.0 {
            Key::Hmac { key, .. } => {
                let mut context = hmac::Context::with_key(key);
                context.update(head.as_bytes());
                context.update(body);
                value.push_str("v1,");
                STANDARD.encode_string(context.sign(), &mut value);
            }
            Key::Ed25519 { pair, .. } => {
                let text = signed_text.get_or_insert_with(|| [head.as_bytes(), body].concat());
                value.push_str("v1a,");
                STANDARD.encode_string(pair.sign(text), &mut value);
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Ksuid;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use proptest::prelude::*;

    /// The key pair of the compatibility suite.
    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    fn parse(text: &str) -> SigningSecret {
        SigningSecret::parse(text).unwrap()
    }

    fn verifies_as_ed25519(public: &str, signed: &str, signature: &str) -> bool {
        let key = STANDARD.decode(public.strip_prefix("whpk_").unwrap()).unwrap();
        let signature = STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &signature).is_ok()
    }

    #[test]
    fn the_vector_of_the_standard_is_reproduced() {
        let secret = parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let value =
            sign_text(&[&secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_ed25519_key_shows_its_public_key_only_and_its_signature_verifies() {
        let secret = parse(PRIVATE);
        assert_eq!(secret.verification_key().expose_secret(), PUBLIC);
        assert_eq!(secret.to_text().expose_secret(), PRIVATE);
        let value = sign_text(&[&secret], "msg_1", 7, b"{}");
        assert!(verifies_as_ed25519(PUBLIC, "msg_1.7.{}", &value));
        assert!(!verifies_as_ed25519(PUBLIC, "msg_1.8.{}", &value));
    }

    #[test]
    fn during_a_rotation_every_key_signs() {
        let (old, new) = (SigningSecret::hmac([1; 24]), SigningSecret::ed25519([2; 32]));
        let value = sign_text(&[&new, &old, &new], "msg_1", 7, b"body");
        let parts: Vec<_> = value.split(' ').collect();
        assert_eq!(parts.len(), 3);
        assert!(verifies_as_ed25519(new.verification_key().expose_secret(), "msg_1.7.body", parts[0]));
        assert_eq!(parts[1], sign_text(&[&old], "msg_1", 7, b"body"));
        assert_eq!(sign_text(&[], "msg_1", 7, b"body"), "");
    }

    #[test]
    fn a_bare_secret_is_the_same_as_one_with_its_prefix() {
        let (bare, prefixed) =
            (parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert_eq!(bare.to_text().expose_secret(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(sign_text(&[&bare], "m", 1, b""), sign_text(&[&prefixed], "m", 1, b""));
    }

    #[test]
    fn everything_else_is_refused_without_repeating_it() {
        let encoded = |bytes: usize| STANDARD.encode(vec![0xfb; bytes]);
        let mut mismatched = STANDARD.decode(PRIVATE.strip_prefix("whsk_").unwrap()).unwrap();
        mismatched[40] ^= 1;
        for text in [
            String::new(),
            "whsec_".into(),
            "whsk_".into(),
            "hunter2hunter2hunter2hunter2hunter2".into(),
            encoded(23),
            encoded(76),
            format!("whsec_{}", encoded(23)),
            format!("whsec_{}", encoded(76)),
            format!("whsec_{} ", encoded(24)),
            format!("whsec_{}", encoded(25).trim_end_matches('=')),
            format!("WHSEC_{}", encoded(24)),
            format!("whsk_{}", encoded(32)),
            format!("whsk_{}", encoded(64)),
            format!("whsk_{}", STANDARD.encode(&mismatched)),
            PUBLIC.into(),
            "a".repeat(1_000_000),
            "schlüssel".into(),
        ] {
            let reason = SigningSecret::parse(&text).unwrap_err();
            assert!(reason.contains("whsec_") && reason.len() < 400, "{reason}");
            assert!(text.len() < 10 || !reason.contains(&text), "{reason}");
        }
        let url_safe = encoded(24).replace('+', "-").replace('/', "_");
        assert!(SigningSecret::parse(&url_safe).unwrap_err().contains("URL-safe"));
        assert!(SigningSecret::parse(&format!("whsec_{url_safe}")).unwrap_err().contains("URL-safe"));
        for bytes in [24, 25, 32, 64, 75] {
            assert!(SigningSecret::parse(&encoded(bytes)).is_ok(), "{bytes}");
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = parse(PRIVATE);
        assert_eq!(format!("{secret:?} {:?}", secret.to_text()), "[secret] SecretBox<str>([REDACTED])");
    }

    proptest! {
        #[test]
        fn every_hmac_signature_verifies_with_the_reference_library(random: [u8; 24], id: [u8; 20], body: String) {
            let secret = SigningSecret::hmac(random);
            let reference = standardwebhooks::Webhook::new(secret.verification_key().expose_secret()).unwrap();
            let message = MessageId::new(Ksuid::from_bytes(id));
            let at = Timestamp::from_micros(1_767_225_600_999_999);
            let expected = reference.sign(&message.to_string(), 1_767_225_600, body.as_bytes()).unwrap();
            prop_assert_eq!(sign(&[&secret], message, at, body.as_bytes()), expected);
        }

        #[test]
        fn every_secret_reads_back(random: [u8; 24], seed: [u8; 32]) {
            for secret in [SigningSecret::hmac(random), SigningSecret::ed25519(seed)] {
                let read = parse(secret.to_text().expose_secret());
                let (first, second) = (secret.to_text(), read.to_text());
                prop_assert_eq!(first.expose_secret(), second.expose_secret());
                prop_assert_eq!(sign_text(&[&read], "m", 1, b"x"), sign_text(&[&secret], "m", 1, b"x"));
            }
        }
    }
}
