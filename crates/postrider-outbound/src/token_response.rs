//! What is accepted as the answer of a token endpoint, and what any other answer means. Pure. Repeats nothing of an
//! answer but error codes that RFC 6749 or an extension registered.

use crate::client::Exchange;
use postrider_model::outcome::Outcome;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt, time::Duration};

/// Largest answer of a token endpoint.
pub(crate) const ANSWER_BYTES: usize = 64 * 1024;
/// Longest access token.
const TOKEN_BYTES: usize = 8192;
/// Deepest nesting of an answer.
const DEPTH: usize = 16;
/// Life of a token whose answer names none.
const ASSUMED_LIFE: Duration = Duration::from_mins(5);
/// Longest life that is believed.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// Longest wait that a token endpoint can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// The same for a host that does not exist and one that the address policy refuses: the difference would tell a
/// consumer which internal names exist. The log has it.
const UNREACHABLE: &str =
    "could not be reached: its host does not resolve to an address that this server may call";
/// RFC 6749, section 5.2, and RFC 8707: the codes that are repeated to a person.
const ERROR_CODES: [&str; 8] = [
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// A token as it was granted.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) value: SecretString,
    /// Zero: to be used once.
    pub(crate) life: Duration,
}

/// An answer without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    /// To follow "the token endpoint https://…".
    pub(crate) reason: String,
}

/// What a refusal means for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// It may work soon; the endpoint may say when.
    Unavailable { retry_after: Option<Duration> },
    /// The address policy is against it.
    Unreachable,
    /// The credential was refused.
    Rejected,
    /// The answer is no usable token.
    Invalid,
}

impl Refusal {
    fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    fn invalid(reason: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, reason)
    }
}

/// The token of an exchange, or why there is none.
pub(crate) fn accept(exchange: &Exchange, is_json: bool) -> Result<Grant, Refusal> {
    match exchange.status {
        None => Err(no_answer(exchange)),
        Some(200) => read_grant(exchange, is_json),
        Some(status @ (400 | 401)) => Err(read_error(exchange, status)),
        Some(429) => Err(Refusal::new(
            RefusalKind::Unavailable { retry_after: retry_after(exchange) },
            "answered 429 (too many requests)",
        )),
        Some(status @ (408 | 500..=599)) => Err(Refusal::new(
            RefusalKind::Unavailable { retry_after: retry_after(exchange) },
            format!("answered {status}, a fault of its own"),
        )),
        Some(status @ 300..=399) => Err(Refusal::invalid(format!(
            "answered {status}, a redirect, which is never followed: use the final tokenUrl"
        ))),
        Some(status) => {
            Err(Refusal::invalid(format!("answered {status} instead of a token: check tokenUrl")))
        }
    }
}

fn no_answer(exchange: &Exchange) -> Refusal {
    match exchange.outcome {
        Outcome::Blocked => Refusal::new(RefusalKind::Unreachable, UNREACHABLE),
        Outcome::Dns => Refusal::new(RefusalKind::Unavailable { retry_after: None }, UNREACHABLE),
        Outcome::ResponseMalformed => Refusal::invalid(format!("gave no valid answer: {}", exchange.detail)),
        Outcome::ConfigInvalid => Refusal::invalid(format!("was not asked: {}", exchange.detail)),
        _ => Refusal::new(
            RefusalKind::Unavailable { retry_after: None },
            format!("could not be asked: {}", exchange.detail),
        ),
    }
}

/// Digits only: the date form needs a wall clock, and token endpoints do not use it.
fn retry_after(exchange: &Exchange) -> Option<Duration> {
    let text = std::str::from_utf8(exchange.retry_after.as_deref()?).ok()?;
    let seconds = decimal(text).filter(|seconds| *seconds >= 0)?;
    Some(Duration::from_secs(u64::try_from(seconds).ok()?).min(LONGEST_RETRY_AFTER))
}

/// `-?[0-9]{1,18}`: as a string of digits, never as a floating-point number.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let valid = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

fn read_error(exchange: &Exchange, status: u16) -> Refusal {
    let error =
        if exchange.truncated { None } else { parse(&exchange.body).ok().and_then(|fields| fields.error) };
    let Some(error) = error else {
        return Refusal::invalid(format!("answered {status} without an OAuth2 error: check tokenUrl"));
    };
    let code = ERROR_CODES.iter().find(|code| **code == error).copied().unwrap_or("other");
    let advice = match code {
        "invalid_client" => "check client id, client secret and authentication method",
        "unauthorized_client" | "unsupported_grant_type" => {
            "the client may not use the client_credentials grant"
        }
        "invalid_scope" => "check the scopes",
        "invalid_target" => "check the extra parameters audience and resource",
        "temporarily_unavailable" => "it will be asked again",
        _ => "check the OAuth2 settings",
    };
    Refusal::new(RefusalKind::Rejected, format!("refused the client credentials ({code}): {advice}"))
}

fn read_grant(exchange: &Exchange, is_json: bool) -> Result<Grant, Refusal> {
    if !is_json {
        return Err(Refusal::invalid("answered something that is not JSON: check tokenUrl"));
    }
    if exchange.truncated {
        return Err(Refusal::invalid("sent an answer that is too large or did not end"));
    }
    let fields = parse(&exchange.body)?;
    if fields.error.is_some() {
        return Err(Refusal::invalid("answered 200 with an error inside"));
    }
    if !fields.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(Refusal::invalid(
            "granted a token whose token_type is not Bearer, the only supported one",
        ));
    }
    let value = fields.access_token.unwrap_or_default();
    if !is_b64token(&value) {
        return Err(Refusal::invalid("granted no access_token that can be sent in a header"));
    }
    let life = match fields.expires_in {
        None => ASSUMED_LIFE,
        Some(number) => lifetime(&number)
            .ok_or_else(|| Refusal::invalid("granted a token with an unreadable expires_in"))?,
    };
    Ok(Grant { value: value.into(), life })
}

/// RFC 6750, section 2.1.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let character =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && text.len() <= TOKEN_BYTES && body.bytes().all(character)
}

/// An integer, a number with an integer value, or a decimal string; zero and less is zero.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?))?,
        Value::String(text) => decimal(text)?,
        _ => return None,
    };
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST_LIFE))
}

/// A float without a fraction, within what floats count exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.abs() > EXACT || number.fract() != 0.0 {
        return None;
    }
    // Through text, since a cast would need an exception from the lint against lossy casts.
    format!("{number:.0}").parse().ok()
}

/// The members that matter.
#[derive(Default)]
struct Fields {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    error: Option<String>,
}

fn parse(body: &[u8]) -> Result<Fields, Refusal> {
    if too_deep(body) {
        return Err(Refusal::invalid("sent JSON that is nested too deeply"));
    }
    // The parser's own message could repeat what the endpoint sent.
    serde_json::from_slice(body).map_err(|_| Refusal::invalid("sent no valid JSON object"))
}

/// Brackets outside strings, without recursion.
fn too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return true;
        }
    }
    false
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "access_token" => fields.access_token = Some(map.next_value()?),
                "token_type" => fields.token_type = Some(map.next_value()?),
                "expires_in" => fields.expires_in = Some(map.next_value()?),
                // Whatever its type, its presence makes the answer an error.
                "error" => {
                    fields.error = Some(map.next_value::<Value>()?.as_str().unwrap_or("other").to_owned());
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            // Two readers could each believe another of the two.
            if !seen.insert(name) {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[path = "token_response_tests.rs"]
mod tests;
