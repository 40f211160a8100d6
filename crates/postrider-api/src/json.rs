//! Reading JSON bodies: bounded in size, time and depth, exactly one value, errors that name the member.

use crate::{
    error::{ApiError, Problem},
    state::ApiState,
};
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use postrider_model::{limits, payload};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::error::Category;
use serde_path_to_error::Segment;
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Largest body of a configuration request, in bytes; event types with schemas are the largest.
pub const CONFIGURATION_BYTES: usize = 1024 * 1024;
/// A body must have arrived after this time.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is made room for before anything of a body has come, in bytes: whoever announces more has to send it.
const FIRST_BYTES: u64 = 16 * 1024;
/// What an answer repeats of a name that it refuses.
const NAME_CHARACTERS: usize = 64;

/// A JSON body of at most `LIMIT` bytes. `content-type` is not looked at: clients leave it out or send others.
#[derive(Debug)]
pub struct JsonBody<T, const LIMIT: usize = CONFIGURATION_BYTES>(pub T);

/// The same for operations whose body can be left out: nothing or `null` reads as the default.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<T: DeserializeOwned, const LIMIT: usize> FromRequest<ApiState> for JsonBody<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, ApiError> {
        parse(&read(request, LIMIT).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<ApiState> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, ApiError> {
        let bytes = read(request, CONFIGURATION_BYTES).await?;
        let text = bytes.trim_ascii();
        if text.is_empty() || text == b"null" {
            return Ok(Self(T::default()));
        }
        parse(&bytes).map(Self)
    }
}

/// The body's bytes; 413 beyond `limit`, also for a body without an announced length, 408 when it does not arrive. What is
/// left then is read by [`crate::unread`].
pub async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let (head, body) = request.into_parts();
    read_body(&head.headers, body, limit).await
}

/// The same for a request that was taken apart.
pub async fn read_body(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::json(
            vec![],
            "compressed bodies are not read: send it without `content-encoding`",
        )
        .into());
    }
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large());
    }
    let deadline = Instant::now() + BODY_TIME;
    // A copy of its own: what hyper gives would keep all that was read with it.
    let expected = announced.unwrap_or_default().min(FIRST_BYTES);
    let mut bytes = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(ApiError::body_timeout()),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_))) => {
                return Err(ApiError::bad_request(
                    "incomplete_body",
                    "The request body ended early or is malformed.",
                ));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(ApiError::too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// An answer in JSON of about `room` bytes.
pub fn answer(status: StatusCode, value: &impl Serialize, room: usize) -> Result<Response, ApiError> {
    let mut bytes = Vec::with_capacity(room);
    serde_json::to_writer(&mut bytes, value).map_err(|error| ApiError::internal(&error))?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Reads one JSON value. Unknown members are ignored; a member given twice, a second value and excessive nesting are
/// refused. Messages name the place and what is expected, never what was sent: it may be a secret.
pub fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    if payload::check_depth(bytes).is_err() {
        return Err(Problem::json(vec![], format!("nested deeper than {} levels", limits::JSON_DEPTH)).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::json(vec![], format!("not valid UTF-8 after byte {}", error.valid_up_to()))
    })?;
    if text.trim_ascii().is_empty() {
        return Err(Problem::json(vec![], "the body is empty: send a JSON object").into());
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    // Once more, keeping track of where it goes wrong: too dear for every request.
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| problem(&error))?;
    json.end().map_err(|error| {
        Problem::json(
            vec![],
            format!(
                "more follows after the JSON value, from line {} column {}",
                error.line(),
                error.column()
            ),
        )
    })?;
    Ok(value)
}

fn problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let mut path: Vec<String> = error
        .path()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("[{index}]")),
            Segment::Map { key } => Some(shorten(key)),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect();
    let cause = error.inner();
    let text = cause.to_string();
    // serde_json appends the place in the text.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    if cause.classify() != Category::Data {
        let place = format!("line {} column {}", cause.line(), cause.column());
        return Problem::json(path, format!("not valid JSON: {text} ({place})"));
    }
    let message =
        if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            path.push(name.to_owned());
            "is required".to_owned()
        } else if text.starts_with("invalid ") || text.starts_with("unknown variant ") {
            text.rsplit_once(", expected ").map_or_else(
                || "has the wrong type".to_owned(),
                |(_, what)| format!("expected {}", spelled(what)),
            )
        } else {
            text.to_owned()
        };
    Problem::json(path, message)
}

/// The start of a name that a caller made up, enough to find it.
fn shorten(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARACTERS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What serde calls types, as a caller of an HTTP API calls them.
fn spelled(what: &str) -> &str {
    match what {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, zero or more",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "`true` or `false`",
        other => other.strip_prefix("struct ").map_or(other, |_| "an object"),
    }
}

/// For `#[serde(deserialize_with)]`: a map whose keys are all different, so that a caller does not lose one of two
/// values unnoticed.
pub fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(UniqueVisitor(std::marker::PhantomData))
}

/// The same where `null` is allowed.
pub fn unique_or_null<'de, D, V>(deserializer: D) -> Result<Option<BTreeMap<String, V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    #[derive(serde::Deserialize)]
    #[serde(bound = "V: serde::Deserialize<'de>")]
    struct Unique<V>(#[serde(deserialize_with = "unique")] BTreeMap<String, V>);
    let map: Option<Unique<V>> = Deserialize::deserialize(deserializer)?;
    Ok(map.map(|map| map.0))
}

struct UniqueVisitor<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom("the same name is given twice"));
            }
            map.insert(key, access.next_value()?);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "read only to be checked")]
        name: String,
        #[serde(default, deserialize_with = "unique_or_null")]
        metadata: Option<BTreeMap<String, String>>,
        #[serde(default)]
        list: Vec<u8>,
        payload: Option<Box<RawValue>>,
    }

    fn refusal(text: &str) -> String {
        format!("{:?}", parse::<Sample>(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn raw_members_keep_their_bytes() {
        let sample: Sample =
            parse(br#"{"name":"x","payload":{ "n": 1e400, "s":"\/" },"metadata":null,"other":[1]}"#).unwrap();
        assert_eq!(sample.payload.unwrap().get(), r#"{ "n": 1e400, "s":"\/" }"#);
        assert_eq!((sample.metadata, sample.list), (None, vec![]));
    }

    #[test]
    fn a_problem_names_its_place_and_never_the_value() {
        for (text, expected) in [
            (r#"{"name":"x","list":[1,"canary"]}"#, r#"["body", "list", "[1]"]"#),
            (r#"{"name":{"canary":1}}"#, r#"["body", "name"]"#),
            ("{}", r#"["body", "name"]"#),
            (r#"{"name":"x","metadata":{"a":7}}"#, r#"["body", "metadata", "a"]"#),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected) && !refusal.contains("canary"), "{text}: {refusal}");
        }
    }

    /// What a caller sent does not come back at length.
    #[test]
    fn a_problem_repeats_at_most_the_start_of_a_name() {
        let name = "ü".repeat(100_000);
        let refusal = refusal(&format!(r#"{{"name":"x","metadata":{{"{name}":7}}}}"#));
        assert!(
            refusal.contains("metadata") && refusal.contains("ü…") && refusal.len() < 1000,
            "{}",
            refusal.len()
        );
    }

    /// P02, P04, P05.
    #[test]
    fn malformed_bodies_are_refused() {
        for text in [
            "",
            "  ",
            "null",
            "[]",
            "{\"name\":\"x\"}{}",
            "{\"name\":\"x\",\"name\":\"y\"}",
            "{\"name\":\"x\",\"metadata\":{\"a\":\"1\",\"a\":\"2\"}}",
            "\u{feff}{\"name\":\"x\"}",
            "{\"name\":NaN}",
            "{\"name\":\"x\"",
        ] {
            assert!(refusal(text).contains("value_error.jsondecode"), "{text}");
        }
        assert!(parse::<Sample>(b"{\"name\":\"\xff\"}").is_err());
    }
}
