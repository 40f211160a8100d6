//! Tests of the redaction: T11, E15.

use super::*;
use proptest::prelude::*;

const SECRET: &str = "s3cr/t+\"k\\y?~ of ü";

fn redacted(body: &str, secrets: &[&str]) -> String {
    String::from_utf8(redact(Bytes::copy_from_slice(body.as_bytes()), secrets).to_vec()).unwrap()
}

fn join(pieces: impl Iterator<Item = String>) -> String {
    pieces.collect::<Vec<_>>().concat()
}

fn hex(text: &str) -> String {
    join(text.bytes().map(|byte| format!("{byte:02x}")))
}

/// The ways in which an answer can repeat a secret.
fn forms(secret: &str) -> Vec<String> {
    let percent = join(secret.bytes().map(|byte| format!("%{byte:02X}")));
    let escaped = join(secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")));
    let json = serde_json::to_string(secret).unwrap();
    vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex(secret),
        hex(secret).to_uppercase(),
        percent.to_lowercase(),
        percent,
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().replace('+', "%20"),
        escaped.to_uppercase().replace("\\U", "\\u"),
        escaped,
        json[1..json.len() - 1].to_owned(),
        json[1..json.len() - 1].replace('/', "\\/"),
    ]
}

#[test]
fn every_written_form_of_a_secret_is_replaced() {
    for secret in [SECRET, "plain-secret", "exactly8", "🦀🦀🦀 crabs"] {
        for form in forms(secret) {
            assert_eq!(redacted(&format!("<{form}>"), &["another secret", secret]), "<[redacted]>", "{form}");
            assert_eq!(redacted(&form, &[secret]), "[redacted]");
        }
    }
}

#[test]
fn a_secret_inside_base64_of_something_longer_is_replaced() {
    for user in ["", "a", "ab", "abc", "abcd"] {
        let basic = STANDARD.encode(format!("{user}:long-password-1:tail"));
        let clean = redacted(&format!("Basic {basic}"), &["long-password-1"]);
        assert!(clean.starts_with("Basic ") && clean.contains("[redacted]"), "{clean}");
        // A few bits of the first and last byte may stay in the characters around it, no whole byte of the middle.
        assert!(clean.len() <= basic.len() - 18 + "Basic [redacted]".len(), "{clean}");
    }
}

#[test]
fn a_body_without_secrets_is_returned_as_it_is() {
    let body = Bytes::from_static(b"{\"ok\":true,\"note\":\"100% + \\u00e9\"}");
    let kept = redact(body.clone(), &["something else"]);
    assert_eq!(kept.as_ptr(), body.as_ptr());
    assert_eq!(redact(body.clone(), &[]).as_ptr(), body.as_ptr());
    assert_eq!(redact(Bytes::new(), &["something else"]), Bytes::new());
}

#[test]
fn short_secrets_are_left_alone() {
    assert_eq!(redacted("password 1234567 is wrong", &["1234567", "", "is"]), "password 1234567 is wrong");
    assert_eq!(redacted("password 12345678 is wrong", &["12345678"]), "password [redacted] is wrong");
}

#[test]
fn overlapping_and_touching_occurrences_become_one_marker() {
    assert_eq!(redacted("xabcdefghijklmnx", &["abcdefghij", "fghijklmn"]), "x[redacted]x");
    assert_eq!(redacted("xabcdefghijx", &["abcdefghij", "cdefghij", "abcdefgh"]), "x[redacted]x");
    assert_eq!(redacted("abcdefghabcdefgh abcdefgh", &["abcdefgh"]), "[redacted] [redacted]");
    assert_eq!(redacted("aaaaaaaaaaaaaaaab", &["aaaaaaaa"]), "[redacted]b");
}

#[test]
fn a_secret_that_the_end_of_the_body_cuts_off_is_replaced() {
    assert_eq!(redacted("got token abcdefghijk", &["abcdefghijklmnopqrstuvwxyz"]), "got token [redacted]");
    assert_eq!(redacted("got token abcdefg", &["abcdefghijklmnopqrstuvwxyz"]), "got token abcdefg");
    assert_eq!(redacted("abcdefghijk not", &["abcdefghijklmnopqrstuvwxyz"]), "abcdefghijk not");
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let body = Bytes::from_static(b"\xff\x00abcdefgh%\\\\u12%zz\xfe%4");
    assert_eq!(redact(body, &["abcdefgh"]), Bytes::from_static(b"\xff\x00[redacted]%\\\\u12%zz\xfe%4"));
}

/// The costliest body that an owner of an endpoint could arrange: each position begins every secret.
#[test]
fn a_body_made_to_be_slow_is_done_quickly() {
    let secrets: Vec<String> = (0..50).map(|index| format!("{}{index}", "a".repeat(320))).collect();
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let body = Bytes::from("a".repeat(20_000));
    // Only the tail is a cut-off secret. Without a bound this test would not end within minutes.
    assert_eq!(redact(body, &secrets).len(), 20_000 - 320 + MARKER.len());
}

proptest! {
    /// The blank keeps what stands before from completing an escape: `\\` and `\\u0041` is no `A`.
    #[test]
    fn no_secret_survives(secret in "[!-~]{8,40}", before in "[ -~]{0,30} ", after in "[ -~]{0,30}", form in 0_usize..15) {
        let body = format!("{before}{}{after}", forms(&secret)[form]);
        let clean = redacted(&body, &[&secret]);
        prop_assert!(!clean.contains(&forms(&secret)[form]), "{}", clean);
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, text in "[%\\\\u+0-9a-fA-Fd8]{0,60}", secret in "[%\\\\u+0-9a-f]{0,12}") {
        redact(Bytes::from(body), &[&secret]);
        redact(Bytes::from(text), &[&secret]);
    }
}
