//! Which tokens are accepted, and that a writer of rows gains nothing.

use super::*;
use postrider_model::{id::Ksuid, time::Timestamp};
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use std::sync::LazyLock;

static KEYRING: LazyLock<(tempfile::TempDir, Keyring)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
    (folder, keyring)
});

const ROW: &str = "org_a\nenvironment\nnever";

fn id(last: u8) -> ApiKeyId {
    let mut bytes = *Ksuid::floor(Timestamp::from_micros(1_767_225_600_000_000)).as_bytes();
    bytes[19] = last;
    ApiKeyId::new(Ksuid::from_bytes(bytes))
}

fn with_checksum(body: &str) -> String {
    format!("{body}{}", *base62::<CHECKSUM_CHARACTERS>(&crc32(body.as_bytes()).to_be_bytes()))
}

#[test]
fn a_minted_token_names_its_key_and_verifies() {
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    let token = token.expose_secret();
    assert_eq!(token.len(), TOKEN_CHARACTERS);
    assert!(token.starts_with("prk_") && !token.contains('.'), "{token}");
    assert_eq!(key_id(token), Some(id(1)));
    assert!(verify(&KEYRING.1, token, ROW, Some(&verifier)));
    assert_ne!(mint(&KEYRING.1, id(1), ROW).0.expose_secret(), token);
}

/// K10.
#[test]
fn a_token_with_a_wrong_character_anywhere_is_no_token() {
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    let token = token.expose_secret();
    for at in 0..token.len() {
        let mut wrong = token.as_bytes().to_vec();
        wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert_eq!(key_id(&wrong), None, "{at}");
        assert!(!verify(&KEYRING.1, &wrong, ROW, Some(&verifier)));
    }
    for wrong in [
        String::new(),
        "prk_".to_owned(),
        format!("{token}x"),
        token[..80].to_owned(),
        "🦀".repeat(21),
        "x".repeat(1 << 20),
    ] {
        assert_eq!(key_id(&wrong), None);
    }
}

/// K10.
#[test]
fn a_well_formed_token_with_another_secret_is_refused() {
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    let body = &token.expose_secret()[..TOKEN_CHARACTERS - CHECKSUM_CHARACTERS];
    let (head, last) = body.split_at(body.len() - 1);
    let guessed = with_checksum(&format!("{head}{}", if last == "x" { "y" } else { "x" }));
    assert_eq!(key_id(&guessed), Some(id(1)));
    assert!(!verify(&KEYRING.1, &guessed, ROW, Some(&verifier)));
    assert!(!verify(&KEYRING.1, token.expose_secret(), ROW, None));
}

/// K11.
#[test]
fn rows_that_were_copied_edited_or_made_up_are_refused() {
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    let (other_token, other) = mint(&KEYRING.1, id(2), ROW);
    let (token, other_token) = (token.expose_secret(), other_token.expose_secret());
    for row in ["org_b\nenvironment\nnever", "org_a\nenvironment\n1767225600", "", &ROW.repeat(5000)] {
        assert!(!verify(&KEYRING.1, token, row, Some(&verifier)), "{row}");
    }
    assert!(!verify(&KEYRING.1, token, ROW, Some(&other)));
    assert!(!verify(&KEYRING.1, other_token, ROW, Some(&verifier)));
    // The secret of a known token under the id of another key.
    let secret = &token[PREFIX.len() + ID_CHARACTERS..TOKEN_CHARACTERS - CHECKSUM_CHARACTERS];
    let spliced = with_checksum(&format!("{}{secret}", &other_token[..PREFIX.len() + ID_CHARACTERS]));
    assert_eq!(key_id(&spliced), Some(id(2)));
    assert!(!verify(&KEYRING.1, &spliced, ROW, Some(&verifier)));
    for forged in [
        Verifier { secret_mac: [0; 32], row_mac: [0; 32], ..verifier.clone() },
        Verifier { row_mac: other.row_mac, ..verifier.clone() },
        Verifier { kek: "gone".to_owned(), ..verifier.clone() },
        Verifier { kek: "gone".to_owned(), secret_mac: [0; 32], row_mac: [0; 32] },
        Verifier { kek: String::new(), ..verifier.clone() },
    ] {
        assert!(!verify(&KEYRING.1, token, ROW, Some(&forged)), "{forged:?}");
    }
}

#[test]
fn a_verifier_of_another_keyring_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = Keyring::create(&folder.path().join("keyring.toml")).unwrap();
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    assert!(!verify(&other, token.expose_secret(), ROW, Some(&verifier)));
    let renamed = Verifier { kek: other.primary().to_owned(), ..verifier };
    assert!(!verify(&other, token.expose_secret(), ROW, Some(&renamed)));
}

/// K05.
#[test]
fn no_debug_form_shows_a_token() {
    let (token, verifier) = mint(&KEYRING.1, id(1), ROW);
    let shown = format!("{token:?} {verifier:?}");
    assert!(!shown.contains(&token.expose_secret()[PREFIX.len() + ID_CHARACTERS..][..12]), "{shown}");
}

#[test]
fn the_checksum_is_the_one_of_zip_and_png() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn base62_has_room_for_the_largest_numbers() {
    assert_eq!(*base62::<CHECKSUM_CHARACTERS>(&[0xff; 4]), "4gfFC3");
    assert_eq!(base62::<SECRET_CHARACTERS>(&[0xff; 32]).len(), SECRET_CHARACTERS);
    assert_ne!(base62::<SECRET_CHARACTERS>(&[0xff; 32]).as_bytes()[0], b'0');
    assert_eq!(*base62::<SECRET_CHARACTERS>(&[0; 32]), "0".repeat(43));
}

proptest! {
    #[test]
    fn any_text_gives_an_answer_and_no_panic(text in ".{0,100}", body in "prk_[0-9A-Za-z_]{71}") {
        prop_assert_eq!(key_id(&text), None);
        let _ = key_id(&with_checksum(&body));
        prop_assert!(!verify(&KEYRING.1, &with_checksum(&body), ROW, None));
    }
}
