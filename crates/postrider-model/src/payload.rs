//! Checks on JSON that passes through untouched: the bytes that were published are the bytes that are signed and sent.

use crate::limits;
use serde::de::IgnoredAny;
use std::fmt;

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadRefusal {
    /// Not one JSON value in UTF-8.
    Malformed(String),
    /// Valid JSON, but not an object.
    NotAnObject,
    /// Nested deeper than [`JSON_DEPTH`](crate::limits::JSON_DEPTH).
    TooDeep,
    /// Larger than [`PAYLOAD_BYTES`](crate::limits::PAYLOAD_BYTES).
    TooLarge,
}

impl fmt::Display for PayloadRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(formatter, "not valid JSON: {reason}"),
            Self::NotAnObject => {
                formatter.write_str("must be a JSON object; put other values into a member of one")
            }
            Self::TooDeep => write!(formatter, "nested deeper than {} levels", limits::JSON_DEPTH),
            Self::TooLarge => write!(
                formatter,
                "larger than {} bytes; publish a link to what is larger",
                limits::PAYLOAD_BYTES
            ),
        }
    }
}

impl std::error::Error for PayloadRefusal {}

/// Checks nesting only, iteratively, in one pass over bytes that need not be valid JSON.
///
/// Up to the first syntax error this sees the same strings and brackets as any JSON parser, so a parser that follows
/// cannot descend deeper than what was counted here.
pub fn check_depth(json: &[u8]) -> Result<(), PayloadRefusal> {
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'[' | b'{' | b']' | b'}')) {
        let byte = rest[at];
        rest = &rest[at + 1..];
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
        if depth > limits::JSON_DEPTH {
            return Err(PayloadRefusal::TooDeep);
        }
    }
    Ok(())
}

/// What follows the closing quote of the string that `rest` begins within; nothing when it never ends.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}

/// Checks a published payload that a parser has read as one JSON value, no deeper than allowed, and left as it was: size, and
/// that it is an object.
pub fn check_value(json: &str) -> Result<(), PayloadRefusal> {
    if json.len() > limits::PAYLOAD_BYTES {
        return Err(PayloadRefusal::TooLarge);
    }
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'{') => Ok(()),
        _ => Err(PayloadRefusal::NotAnObject),
    }
}

/// Checks a published payload: size, depth, and that it is one JSON object. Its numbers, spacing, key order and
/// duplicate keys are left as they are.
pub fn check(json: &[u8]) -> Result<(), PayloadRefusal> {
    if json.len() > limits::PAYLOAD_BYTES {
        return Err(PayloadRefusal::TooLarge);
    }
    check_depth(json)?;
    let text = std::str::from_utf8(json)
        .map_err(|error| PayloadRefusal::Malformed(format!("byte {} is not UTF-8", error.valid_up_to())))?;
    // `IgnoredAny` checks the grammar without building or interpreting anything: no number is rounded, and escapes
    // such as a lone surrogate are syntax only.
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| PayloadRefusal::Malformed(error.to_string()))?;
    check_value(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(open: &str, close: &str, depth: usize) -> Vec<u8> {
        format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    }

    /// P03, P04, ING-3: none of this is judged, only passed on.
    #[test]
    fn what_json_allows_is_accepted_however_odd() {
        for json in [
            r"{}",
            " \n\t\r{ } \n",
            r#"{"a":1e400,"b":-0.0,"c":12345678901234567890.10,"d":1E+999999999}"#,
            r#"{"z":1,"a":2,"a":3,"":4}"#,
            r#"{"a":"\ud800","b":"\u0000","c":"\/","d":"\udfff\ud800"}"#,
            r#"{"a":"]]]]}}}}[[[[{{{{\"\\"}"#,
            "{\"a\":\"🦀 ü \u{2028}\"}",
            r#"{"a":[[],{},[null,true,false]]}"#,
        ] {
            assert_eq!(check(json.as_bytes()), Ok(()), "{json}");
        }
        let long_number = format!(r#"{{"n":{}}}"#, "9".repeat(1_000_000));
        assert_eq!(check(long_number.as_bytes()), Ok(()));
    }

    /// P02, P05
    #[test]
    fn what_is_not_one_object_is_refused() {
        for json in ["null", "[]", "1", "\"{}\"", "true", " [{}] "] {
            assert_eq!(check(json.as_bytes()), Err(PayloadRefusal::NotAnObject), "{json}");
        }
        for json in [
            "",
            " ",
            "{",
            "}",
            "{}{}",
            r#"{"a":1}{"b":2}"#,
            "{} x",
            "\u{feff}{}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\u{0}\"}",
            r#"{"a":"\x41"}"#,
            r#"{"a":"\u12"}"#,
            "{a:1}",
            "{\"a\":+1}",
            "nul",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "// x\n{}",
            "{\"a\":Infinity}",
        ] {
            assert!(matches!(check(json.as_bytes()), Err(PayloadRefusal::Malformed(_))), "{json:?}");
        }
    }

    /// P04
    #[test]
    fn bytes_that_are_not_utf8_are_refused_inside_strings_too() {
        for bytes in [
            &b"{\"a\":\"\xff\"}"[..],
            b"\xff",
            b"{\"a\":\"\xed\xa0\x80\"}",
            b"{\"a\":\"\xc0\xaf\"}",
            b"{\"\xf5\":1}",
        ] {
            assert!(matches!(check(bytes), Err(PayloadRefusal::Malformed(_))), "{bytes:?}");
        }
        assert_eq!(
            check(b"{\"a\":\"\xff\"}").unwrap_err().to_string(),
            "not valid JSON: byte 6 is not UTF-8"
        );
    }

    /// P01
    #[test]
    fn the_size_is_bounded_to_the_byte() {
        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)).into_bytes();
        assert_eq!(check(&sized(limits::PAYLOAD_BYTES)), Ok(()));
        assert_eq!(check(&sized(limits::PAYLOAD_BYTES + 1)), Err(PayloadRefusal::TooLarge));
    }

    /// P02
    #[test]
    fn nesting_is_bounded_without_recursion() {
        assert_eq!(check(&nested("{\"a\":", "}", limits::JSON_DEPTH)), Ok(()));
        assert_eq!(check(&nested("{\"a\":", "}", limits::JSON_DEPTH + 1)), Err(PayloadRefusal::TooDeep));
        assert_eq!(check_depth(&nested("[", "]", limits::JSON_DEPTH)), Ok(()));
        for bomb in ["[", "{\"a\":", "[{\"a\":"] {
            assert_eq!(check(bomb.repeat(100_000).as_bytes()), Err(PayloadRefusal::TooDeep));
        }
        // Brackets within strings, and closed ones, do not count.
        assert_eq!(check_depth(format!("{{\"a\":\"{}\"}}", "[".repeat(1000)).as_bytes()), Ok(()));
        assert_eq!(check_depth("[]".repeat(1000).as_bytes()), Ok(()));
        assert_eq!(check_depth(b"]]]]"), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_checks_panic(bytes: Vec<u8>, text in "[\\[\\]{}\":,\\\\ua0-9 ]{0,60}") {
            let _ = check(&bytes);
            let _ = check(text.as_bytes());
        }

        #[test]
        fn validity_is_that_of_serde_json(text in "[\\[\\]{}\":,\\\\nul0-9. ]{0,24}") {
            let text = format!("{{\"a\":{text}}}");
            let expected = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes()).is_ok(), expected);
        }
    }
}
