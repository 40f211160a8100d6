//! What opens, what must not, and the published vectors.

use super::*;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use std::sync::LazyLock;

static KEYRING: LazyLock<(tempfile::TempDir, Keyring)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
    (folder, keyring)
});

const BINDING: Binding<'_> = Binding {
    environment: "org_a",
    application: "app_a",
    kind: "signing.hmac",
    id: "1",
    owner_table: "endpoint",
    owner_id: "ep_a",
    version: 3,
};

fn fixed_key() -> DataKey {
    let mut key = [0; KEY_BYTES];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::try_from(at).unwrap();
    }
    DataKey { id: *b"datakey1", key: Zeroizing::new(key) }
}

fn text(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Data key 00 01 … 1f with id `datakey1`, salt 32 × 0xaa, nonce 12 × 0xbb. Computed with another implementation
/// (HKDF and AES-GCM of the Python package `cryptography`).
#[test]
fn the_published_vectors_hold() {
    let key = fixed_key();
    for (value, expected) in [VECTOR_OF_A_SECRET, VECTOR_OF_NOTHING] {
        let blob = key.seal_with(&BINDING, value, [0xaa; SALT_BYTES], [0xbb; NONCE_BYTES]);
        assert_eq!(crate::hex(&blob), expected);
        assert_eq!(key.open(&BINDING, &text(expected)).unwrap().expose_secret(), value);
    }
    assert_eq!(crate::hex(&key.fingerprint(b"whsec_test")), FINGERPRINT_VECTOR);
}

const VECTOR_OF_A_SECRET: (&[u8], &str) = (
    b"whsec_test",
    "0101646174616b657931aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbb7e5c1098ec7499c141d825aa9370bb120ef31d3dd271d098c0f",
);
const VECTOR_OF_NOTHING: (&[u8], &str) = (
    b"",
    "0101646174616b657931aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbb07c46ccad4a9782dc91e547309bcae53",
);
const FINGERPRINT_VECTOR: &str = "863cf14eb063c4c0";

#[test]
fn a_data_key_survives_wrapping_and_opens_only_for_its_environment() {
    let (key, wrapped) = DataKey::generate(&KEYRING.1, "org_a");
    assert_eq!(wrapped.id, key.id());
    let again = DataKey::unwrap(&KEYRING.1, "org_a", &wrapped).unwrap();
    let blob = key.seal(&BINDING, b"value");
    assert_eq!(again.open(&BINDING, &blob).unwrap().expose_secret(), b"value");
    assert_eq!(again.fingerprint(b"value"), key.fingerprint(b"value"));
    assert_eq!(DataKey::unwrap(&KEYRING.1, "org_b", &wrapped).unwrap_err(), VaultError::Damaged);
    let moved = WrappedKey { id: *b"other id", ..wrapped.clone() };
    assert_eq!(DataKey::unwrap(&KEYRING.1, "org_a", &moved).unwrap_err(), VaultError::Damaged);
    let missing = WrappedKey { kek: "gone".to_owned(), ..wrapped };
    assert_eq!(
        DataKey::unwrap(&KEYRING.1, "org_a", &missing).unwrap_err(),
        VaultError::MissingKey("gone".to_owned())
    );
}

/// K01: the same key name with other key material opens nothing.
#[test]
fn another_keyring_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let other = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
    let (_, wrapped) = DataKey::generate(&KEYRING.1, "org_a");
    assert!(matches!(DataKey::unwrap(&other, "org_a", &wrapped), Err(VaultError::MissingKey(_))));
    let forged = WrappedKey { kek: other.primary().to_owned(), ..wrapped };
    assert_eq!(DataKey::unwrap(&other, "org_a", &forged).unwrap_err(), VaultError::Damaged);
}

/// K03.
#[test]
fn every_truncation_and_every_flipped_byte_of_a_wrapped_key_is_noticed() {
    let (_, wrapped) = DataKey::generate(&KEYRING.1, "org_a");
    for length in 0..wrapped.blob.len() {
        let short = WrappedKey { blob: wrapped.blob[..length].to_vec(), ..wrapped.clone() };
        assert_eq!(
            DataKey::unwrap(&KEYRING.1, "org_a", &short).unwrap_err(),
            VaultError::Damaged,
            "{length}"
        );
    }
    for at in 0..wrapped.blob.len() {
        let mut flipped = wrapped.clone();
        flipped.blob[at] ^= 0x40;
        assert_eq!(DataKey::unwrap(&KEYRING.1, "org_a", &flipped).unwrap_err(), VaultError::Damaged, "{at}");
    }
    let long = WrappedKey { blob: [&wrapped.blob[..], &[0]].concat(), ..wrapped };
    assert_eq!(DataKey::unwrap(&KEYRING.1, "org_a", &long).unwrap_err(), VaultError::Damaged);
}

/// K03.
#[test]
fn every_truncation_and_every_flipped_byte_of_a_sealed_value_is_noticed() {
    let key = fixed_key();
    let blob = key.seal(&BINDING, b"the value");
    for length in 0..blob.len() {
        assert_eq!(key.open(&BINDING, &blob[..length]).unwrap_err(), VaultError::Damaged, "{length}");
    }
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut flipped = blob.clone();
            flipped[at] ^= 1 << bit;
            let error = key.open(&BINDING, &flipped).unwrap_err();
            let in_key_id = (2..2 + ID_BYTES).contains(&at);
            assert_eq!(matches!(error, VaultError::OtherDataKey(_)), in_key_id, "byte {at}, bit {bit}");
        }
    }
    assert_eq!(data_key_id(&blob), Some(key.id()));
    assert_eq!(data_key_id(&blob[..69]), None);
}

/// K03.
#[test]
fn a_value_moved_to_another_row_does_not_open() {
    let key = fixed_key();
    let blob = key.seal(&BINDING, b"the value");
    for moved in [
        Binding { environment: "org_b", ..BINDING },
        Binding { application: "app_b", ..BINDING },
        Binding { application: "", ..BINDING },
        Binding { kind: "signing.ed25519", ..BINDING },
        Binding { id: "2", ..BINDING },
        Binding { owner_table: "application", ..BINDING },
        Binding { owner_id: "ep_b", ..BINDING },
        Binding { version: 4, ..BINDING },
        // Characters moved from one field to the next: lengths are part of what is bound.
        Binding { environment: "org_aapp", application: "_a", ..BINDING },
        Binding { owner_table: "endpointep", owner_id: "_a", ..BINDING },
    ] {
        assert_eq!(key.open(&moved, &blob).unwrap_err(), VaultError::Damaged, "{moved:?}");
    }
    assert!(key.open(&BINDING, &blob).is_ok());
}

#[test]
fn the_same_value_never_seals_to_the_same_bytes() {
    let key = fixed_key();
    let blobs: std::collections::BTreeSet<_> = (0..100).map(|_| key.seal(&BINDING, b"same")).collect();
    assert_eq!(blobs.len(), 100);
}

/// K05.
#[test]
fn no_debug_form_or_error_shows_key_or_value() {
    let canary = b"CANARY-7f3a-value";
    let (key, wrapped) = DataKey::generate(&KEYRING.1, "org_a");
    let blob = key.seal(&BINDING, canary);
    let opened = key.open(&BINDING, &blob).unwrap();
    let error = key.open(&Binding { version: 9, ..BINDING }, &blob).unwrap_err();
    let other = DataKey::generate(&KEYRING.1, "org_a").0.open(&BINDING, &blob).unwrap_err();
    let shown = format!("{key:?} {wrapped:?} {opened:?} {error:?} {error} {other:?} {other} {BINDING:?}");
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", &key.key[..])[1..20]), "{shown}");
    assert!(!shown.contains(&crate::hex(&key.key[..8])), "{shown}");
}

proptest! {
    #[test]
    fn every_value_opens_again(value in prop::collection::vec(any::<u8>(), 0..5000), version: u32) {
        let key = fixed_key();
        let binding = Binding { version, ..BINDING };
        let opened = key.open(&binding, &key.seal(&binding, &value)).unwrap();
        prop_assert_eq!(opened.expose_secret(), &value[..]);
    }

    /// K03.
    #[test]
    fn any_bytes_give_an_error_and_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), formed: bool, ours: bool) {
        if formed {
            for (to, from) in bytes.iter_mut().zip([FORMAT, AES_256_GCM_HKDF]) {
                *to = from;
            }
        }
        let key = fixed_key();
        if ours {
            for (to, from) in bytes.iter_mut().skip(2).zip(key.id()) {
                *to = from;
            }
        }
        prop_assert!(key.open(&BINDING, &bytes).is_err());
        let _ = data_key_id(&bytes);
        let wrapped = WrappedKey { id: key.id(), kek: KEYRING.1.primary().to_owned(), blob: bytes };
        prop_assert_eq!(DataKey::unwrap(&KEYRING.1, "org_a", &wrapped).unwrap_err(), VaultError::Damaged);
    }
}
