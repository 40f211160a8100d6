//! Answers of token endpoints: what is a token, and what any other answer means.

use super::*;
use bytes::Bytes;
use postrider_model::attempt::Phases;
use proptest::prelude::*;
use secrecy::ExposeSecret;

fn exchange(status: u16, body: &str) -> Exchange {
    Exchange {
        outcome: if status == 200 { Outcome::Succeeded } else { Outcome::HttpError },
        detail: String::new(),
        status: Some(status),
        retry_after: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        truncated: false,
        phases: Phases::default(),
        sent: true,
    }
}

fn granted(body: &str) -> Result<Grant, Refusal> {
    accept(&exchange(200, body), true)
}

fn kind(status: u16, body: &str) -> RefusalKind {
    accept(&exchange(status, body), true).unwrap_err().kind
}

fn with_life(expires_in: &str) -> Option<u64> {
    let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{expires_in}}}"#);
    granted(&body).ok().map(|grant| grant.life.as_secs())
}

#[test]
fn a_token_is_taken_as_it_is() {
    let grant = granted(
        r#"{"access_token":"aA0-._~+/==","token_type":"bEARER","expires_in":3600,"scope":"x","refresh_token":"r","x":{"y":[]}}"#,
    )
    .unwrap();
    assert_eq!((grant.value.expose_secret(), grant.life.as_secs()), ("aA0-._~+/==", 3600));
}

/// O04: integers in every spelling, nothing else.
#[test]
fn expires_in_is_an_integer_in_any_spelling() {
    for (text, life) in [
        ("3600", Some(3600)),
        ("\"3600\"", Some(3600)),
        ("3600.0", Some(3600)),
        ("36e2", Some(3600)),
        ("1", Some(1)),
        ("0", Some(0)),
        ("-1", Some(0)),
        ("\"-1\"", Some(0)),
        ("1000000000", Some(24 * 3600)),
        ("3.7", None),
        ("1e300", None),
        ("18446744073709551615", None),
        ("null", None),
        ("[]", None),
        ("true", None),
        ("\"abc\"", None),
        ("\"\"", None),
        ("\"3600.0\"", None),
        ("\"99999999999999999999\"", None),
    ] {
        assert_eq!(with_life(text), life, "{text}");
    }
    let absent = granted(r#"{"access_token":"t","token_type":"Bearer"}"#).unwrap();
    assert_eq!(absent.life, ASSUMED_LIFE);
}

/// O09, O11: nothing that cannot be a bearer token in a header.
#[test]
fn what_is_no_bearer_token_is_invalid() {
    let token = |value: &str| format!(r#"{{"access_token":"{value}","token_type":"Bearer"}}"#);
    let long = "a".repeat(TOKEN_BYTES + 1);
    for value in ["", "a b", "a\\r\\nX: y", "ü", "=", "a=b", "a\\u0000", long.as_str()] {
        assert_eq!(kind(200, &token(value)), RefusalKind::Invalid, "{value}");
    }
    assert!(granted(&token(&"a".repeat(TOKEN_BYTES))).is_ok());
    for kind_of_token in ["\"mac\"", "\"DPoP\"", "\"Bearer\\r\\nX: y\"", "\"\"", "5"] {
        let body = format!(r#"{{"access_token":"t","token_type":{kind_of_token}}}"#);
        assert_eq!(kind(200, &body), RefusalKind::Invalid, "{kind_of_token}");
    }
    let deep = format!(
        r#"{{"access_token":"t","token_type":"Bearer","x":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for body in [
        r#"{"access_token":"t"}"#,
        r#"{"token_type":"Bearer"}"#,
        r#"{"access_token":"t","access_token":"u","token_type":"Bearer"}"#,
        r#"{"access_token":"t","token_type":"Bearer","x":1,"x":2}"#,
        r#"{"access_token":"t","token_type":"Bearer","error":null}"#,
        r#"{"error":"invalid_client"}"#,
        r#"["access_token"]"#,
        "<html>",
        "",
        "\u{feff}{}",
        &deep,
    ] {
        assert_eq!(kind(200, body), RefusalKind::Invalid, "{body:.60}");
    }
}

/// O09: HTML with status 200, and an answer that did not end.
#[test]
fn an_answer_must_be_json_and_complete() {
    let good = r#"{"access_token":"t","token_type":"Bearer"}"#;
    assert_eq!(accept(&exchange(200, good), false).unwrap_err().kind, RefusalKind::Invalid);
    let cut = Exchange { truncated: true, ..exchange(200, good) };
    assert_eq!(accept(&cut, true).unwrap_err().kind, RefusalKind::Invalid);
}

/// O14, and the classes of 3.5.
#[test]
fn every_status_has_its_meaning() {
    let token = r#"{"access_token":"t","token_type":"Bearer"}"#;
    for (status, expected) in [
        (201, RefusalKind::Invalid),
        (204, RefusalKind::Invalid),
        (302, RefusalKind::Invalid),
        (400, RefusalKind::Invalid),
        (404, RefusalKind::Invalid),
        (408, RefusalKind::Unavailable { retry_after: None }),
        (429, RefusalKind::Unavailable { retry_after: None }),
        (500, RefusalKind::Unavailable { retry_after: None }),
        (503, RefusalKind::Unavailable { retry_after: None }),
    ] {
        assert_eq!(kind(status, token), expected, "{status}");
    }
    for status in [400, 401] {
        assert_eq!(kind(status, r#"{"error":"invalid_client"}"#), RefusalKind::Rejected);
    }
}

/// O12, O13: the code is repeated only if it is registered, and nothing else ever.
#[test]
fn only_registered_error_codes_are_repeated() {
    let described = r#"{"error":"invalid_client","error_description":"secret was hunter2"}"#;
    let refusal = accept(&exchange(401, described), true).unwrap_err();
    assert!(
        refusal.reason.contains("(invalid_client)") && !refusal.reason.contains("hunter2"),
        "{}",
        refusal.reason
    );
    let long = "x".repeat(10_000);
    for error in ["<script>", "hunter2", "a\\r\\nb", long.as_str()] {
        let refusal = accept(&exchange(400, &format!(r#"{{"error":"{error}"}}"#)), true).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Rejected);
        assert!(refusal.reason.contains("(other)") && refusal.reason.len() < 200, "{}", refusal.reason);
    }
}

/// O19: a wait is believed up to an hour.
#[test]
fn retry_after_is_digits_and_at_most_an_hour() {
    let asked = |text: &str| {
        let exchange = Exchange { retry_after: Some(text.as_bytes().to_vec()), ..exchange(429, "") };
        match accept(&exchange, true).unwrap_err().kind {
            RefusalKind::Unavailable { retry_after } => retry_after.map(|wait| wait.as_secs()),
            _ => None,
        }
    };
    assert_eq!(asked("7"), Some(7));
    assert_eq!(asked("99999999"), Some(3600));
    for text in ["-1", "inf", "1.5", "", "99999999999999999999", "soon"] {
        assert_eq!(asked(text), None, "{text}");
    }
}

/// A token host that is blocked and one that does not exist read the same.
#[test]
fn a_blocked_token_host_reads_like_one_that_does_not_exist() {
    let reason = |outcome| {
        let exchange = Exchange { outcome, status: None, detail: "10.0.0.1".to_owned(), ..exchange(200, "") };
        accept(&exchange, false).unwrap_err().reason
    };
    assert_eq!(reason(Outcome::Blocked), reason(Outcome::Dns));
    assert!(!reason(Outcome::Dns).contains("10.0.0.1"));
}

proptest! {
    #[test]
    fn arbitrary_answers_never_panic(status in 100_u16..600, body in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:a-z0-9.]{0,60}") {
        let mut exchange = exchange(status, &text);
        let _ = accept(&exchange, true);
        exchange.body = body.into();
        let _ = accept(&exchange, true);
    }
}
