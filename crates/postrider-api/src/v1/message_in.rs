//! Reading what is published: the envelope is parsed, the payload's bytes are sliced out of the request and stay as they
//! came (never minified, never re-ordered).

use crate::{
    error::{ApiError, Problem, Problems},
    json,
};
use bytes::Bytes;
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    headers,
    id::{Kind as _, MessageKind},
    limits,
    message::{Channel, Tag},
    payload::{self, PayloadRefusal},
    time::Timestamp,
};
use postrider_store::{
    endpoints::AppScope,
    idempotency::IdempotencyKey,
    messages::{Audience, NewMessage},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, collections::BTreeSet, time::Duration};
use utoipa::ToSchema;

/// `deliverAt` is at least this far ahead: below it, publishing later is simpler. Svix's bound.
const DELIVER_AT_LEAST: Duration = Duration::from_mins(1);
/// `deliverAt` is at most this far ahead. Svix's bound.
const DELIVER_AT_MOST: Duration = Duration::from_hours(24);
/// What clocks may differ and requests may take before a bound of `deliverAt` counts.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// Longest retention of a payload that a publisher can ask for, in hours: 90 days.
const RETENTION_HOURS: u64 = 90 * 24;
/// Longest content type, in bytes.
const CONTENT_TYPE_BYTES: usize = 255;
const HOUR: Duration = Duration::from_hours(1);

/// A message to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageIn<'a> {
    /// What kind of message it is; endpoints filter by it. It need not be a known event type.
    #[serde(borrow)]
    #[schema(value_type = String, example = "document.processed")]
    event_type: Cow<'a, str>,
    /// A JSON object of at most 1 MiB. Its bytes are signed and sent exactly as they stand here.
    #[serde(borrow, alias = "data")]
    #[schema(value_type = Object, required)]
    payload: Option<&'a RawValue>,
    /// The publisher's own id, unique in the application: 1 to 256 of letters, digits, `-`, `_`, `.`.
    #[schema(value_type = Option<String>)]
    event_id: Option<Cow<'a, str>>,
    /// 1 to 10 channels that endpoints filter by.
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 10)]
    channels: Option<Vec<Cow<'a, str>>>,
    /// At most 5 tags for finding the message again.
    #[schema(value_type = Option<Vec<String>>, max_items = 5)]
    tags: Option<Vec<Cow<'a, str>>>,
    /// Days after which the payload is deleted, 1 to 90. Not together with `payloadRetentionHours`.
    #[schema(minimum = 1, maximum = 90)]
    payload_retention_period: Option<i64>,
    /// Hours after which the payload is deleted, 1 to 2160.
    #[schema(minimum = 1, maximum = 2160)]
    payload_retention_hours: Option<i64>,
    /// Deliver not before this instant: 1 minute to 24 hours ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    deliver_at: Option<Cow<'a, str>>,
    /// `rawPayload` and a content type, for bodies that are not JSON.
    #[serde(borrow)]
    transformations_params: Option<TransformationsParams<'a>>,
    /// Creates the application if the path names none: its `uid` must be the one of the path.
    #[serde(borrow)]
    #[schema(value_type = Option<super::applications::ApplicationIn>)]
    application: Option<&'a RawValue>,
}

/// How client libraries publish bodies that are not JSON objects (`message_in_raw`); other members are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TransformationsParams<'a> {
    /// Sent instead of `payload`, byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    raw_payload: Option<Cow<'a, str>>,
    /// `content-type` is used; other headers are ignored.
    #[serde(borrow)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// A message that was read and checked.
#[derive(Debug)]
pub(crate) struct Publication<'a> {
    event_id: Option<Uid>,
    event_type: EventTypeName,
    channels: BTreeSet<Channel>,
    tags: BTreeSet<Tag>,
    content_type: Option<String>,
    pub(crate) payload: Bytes,
    /// The payload, if it is a JSON object.
    pub(crate) json: Option<&'a RawValue>,
    payload_lifetime: Option<Duration>,
    deliver_at: Option<Timestamp>,
    /// The application to create if there is none, as it was sent.
    pub(crate) application: Option<&'a RawValue>,
}

impl<'a> Publication<'a> {
    /// Reads a request body. 413 for a payload that is too large, 422 with all other problems.
    pub(crate) fn read(body: &'a Bytes, now: Timestamp) -> Result<Self, ApiError> {
        let mut envelope: MessageIn<'a> = json::parse(body)?;
        let raw = envelope.transformations_params.as_mut().and_then(|params| params.raw_payload.take());
        let params = envelope.transformations_params.as_ref();
        let json = if raw.is_none() { envelope.payload } else { None };
        let payload = match raw {
            Some(raw) => raw_payload(body, raw),
            None => json_payload(body, envelope.payload),
        };
        let payload = match payload {
            Err(Refused::TooLarge) => return Err(ApiError::too_large()),
            Err(Refused::Problem(problem)) => Err(problem),
            Ok(payload) => Ok(payload),
        };
        let mut problems = Problems::default();
        let payload = problems.check(payload);
        let event_id = problems.check(envelope.event_id.as_deref().map(event_id).transpose());
        let event_type = problems.check(event_type(&envelope.event_type));
        let channels = problems.check(channels(envelope.channels.as_deref()));
        let tags = problems.check(tags(envelope.tags.as_deref().unwrap_or_default()));
        let content_type = problems.check(params.map_or(Ok(None), content_type));
        let payload_lifetime =
            problems.check(lifetime(envelope.payload_retention_period, envelope.payload_retention_hours));
        let deliver_at =
            problems.check(envelope.deliver_at.as_deref().map(|at| deliver_at(at, now)).transpose());
        let read = || {
            Some(Self {
                event_id: event_id?,
                event_type: event_type?,
                channels: channels?,
                tags: tags?,
                content_type: content_type?,
                payload: payload?,
                json,
                payload_lifetime: payload_lifetime?,
                deliver_at: deliver_at?,
                application: envelope.application,
            })
        };
        super::history::complete(read(), problems)
    }

    /// Is it to be delivered later?
    pub(crate) fn is_delayed(&self) -> bool {
        self.deliver_at.is_some()
    }

    /// The message for the store.
    pub(crate) fn into_message(
        self,
        scope: AppScope,
        audience: Audience,
        idempotency: Option<IdempotencyKey>,
    ) -> NewMessage {
        NewMessage {
            scope,
            event_id: self.event_id,
            event_type: self.event_type,
            channels: self.channels,
            tags: self.tags,
            content_type: self.content_type,
            payload: self.payload,
            payload_lifetime: self.payload_lifetime,
            deliver_at: self.deliver_at,
            audience,
            idempotency,
        }
    }
}

enum Refused {
    TooLarge,
    Problem(Problem),
}

/// The payload's bytes, sharing the memory of the request.
fn json_payload(body: &Bytes, payload: Option<&RawValue>) -> Result<Bytes, Refused> {
    let problem = |reason: Cow<'static, str>| Refused::Problem(Problem::body("payload", reason));
    let Some(payload) = payload else { return Err(problem("is required: a JSON object".into())) };
    match payload::check_value(payload.get()) {
        Ok(()) => Ok(body.slice_ref(payload.get().as_bytes())),
        Err(PayloadRefusal::TooLarge) => Err(Refused::TooLarge),
        Err(PayloadRefusal::NotAnObject) => Err(problem(
            "must be a JSON object; for any other body use transformationsParams.rawPayload".into(),
        )),
        Err(other) => Err(problem(other.to_string().into())),
    }
}

fn raw_payload(body: &Bytes, raw: Cow<'_, str>) -> Result<Bytes, Refused> {
    if raw.len() > limits::PAYLOAD_BYTES {
        return Err(Refused::TooLarge);
    }
    Ok(match raw {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    })
}

/// An `eventId`.
fn event_id(text: &str) -> Result<Uid, Problem> {
    Uid::parse(text, MessageKind::PREFIX).ok_or_else(|| {
        Problem::body(
            "eventId",
            "must be 1 to 256 of letters, digits, `-`, `_`, `.`, and not begin with `msg_`",
        )
    })
}

/// An `eventType`.
pub(crate) fn event_type(text: &str) -> Result<EventTypeName, Problem> {
    EventTypeName::parse(text)
        .ok_or_else(|| Problem::body("eventType", "must be 1 to 256 of letters, digits, `-`, `_`, `.`"))
}

/// `channels`; absent means none, an empty list is refused because it would read as "none" where "some" was meant.
pub(crate) fn channels(names: Option<&[Cow<'_, str>]>) -> Result<BTreeSet<Channel>, Problem> {
    let Some(names) = names else { return Ok(BTreeSet::new()) };
    if !(1..=limits::CHANNELS).contains(&names.len()) {
        return Err(Problem::body(
            "channels",
            format!("must have 1 to {} items, or be left out", limits::CHANNELS),
        ));
    }
    labels("channels", names, "must be 1 to 128 of letters, digits, `-`, `_`, `.`, `:`, `+`", Channel::parse)
}

fn tags(names: &[Cow<'_, str>]) -> Result<BTreeSet<Tag>, Problem> {
    if names.len() > limits::TAGS {
        return Err(Problem::body("tags", format!("must have at most {} items", limits::TAGS)));
    }
    labels("tags", names, "must be 1 to 128 of letters, digits, `-`, `_`, `.`, `/`, `\\`, `#`", Tag::parse)
}

fn labels<T: Ord>(
    member: &str,
    names: &[Cow<'_, str>],
    rule: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<BTreeSet<T>, Problem> {
    let read = |(index, name): (usize, &Cow<'_, str>)| {
        parse(name).ok_or_else(|| Problem::at("body", &[member, &format!("[{index}]")], rule))
    };
    names.iter().enumerate().map(read).collect()
}

/// The content type that a publisher sets through `transformationsParams.headers`.
fn content_type(params: &TransformationsParams<'_>) -> Result<Option<String>, Problem> {
    let headers = params.headers.iter().flatten();
    let Some((_, value)) = headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    else {
        return Ok(None);
    };
    serde_json::from_str::<String>(value.get())
        .ok()
        .filter(|text| is_content_type(text))
        .map(Some)
        .ok_or_else(|| {
            Problem::at(
                "body",
                &["transformationsParams", "headers", "content-type"],
                "must be a media type such as text/xml or text/plain; charset=utf-8",
            )
        })
}

/// `type/subtype` of RFC 9110 tokens, with parameters of printable ASCII: nothing that could end a header line.
fn is_content_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim_ascii_end();
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(headers::is_token);
    text.len() <= CONTENT_TYPE_BYTES
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

fn lifetime(days: Option<i64>, hours: Option<i64>) -> Result<Option<Duration>, Problem> {
    let within = |member, value: i64, most: u64| {
        u64::try_from(value)
            .ok()
            .filter(|value| (1..=most).contains(value))
            .ok_or_else(|| Problem::body(member, format!("must be a number from 1 to {most}")))
    };
    match (days, hours) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::body(
            "payloadRetentionHours",
            "cannot be given together with payloadRetentionPeriod",
        )),
        (Some(days), None) => {
            within("payloadRetentionPeriod", days, RETENTION_HOURS / 24).map(|days| Some(days_of(days)))
        }
        (None, Some(hours)) => {
            within("payloadRetentionHours", hours, RETENTION_HOURS).map(|hours| Some(hours_of(hours)))
        }
    }
}

fn days_of(days: u64) -> Duration {
    hours_of(days * 24)
}

fn hours_of(hours: u64) -> Duration {
    Duration::from_secs(hours * HOUR.as_secs())
}

fn deliver_at(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let earliest = now.plus(DELIVER_AT_LEAST).minus(CLOCK_SKEW);
    let latest = now.plus(DELIVER_AT_MOST).plus(CLOCK_SKEW);
    Timestamp::parse(text).filter(|at| (earliest..=latest).contains(at)).ok_or_else(|| {
        Problem::body(
            "deliverAt",
            "must be a date and time such as 2026-01-01T00:00:00Z, at least one minute and at most 24 hours ahead",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    fn refused(body: &str) -> (StatusCode, String) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let error = Publication::read(&body, NOW).map(|read| format!("{read:?}")).unwrap_err();
        (error.status(), format!("{error:?}"))
    }

    /// The bytes of the payload are those of the request, and no copy of them either.
    #[test]
    fn a_payload_keeps_its_bytes() {
        let payload = r#"{ "b":1e400, "a" : 12345678901234567890.10,"a":"\ud800\u0000\/é" ,"n":{"x":[ ]}}"#;
        let body = Bytes::from(format!(r#" {{"eventType":"x.y", "payload":  {payload} , "tags":null}} "#));
        let read = Publication::read(&body, NOW).unwrap();
        assert_eq!(read.payload, payload.as_bytes());
        assert!(
            body.as_ptr_range().contains(&read.payload.as_ptr()),
            "the payload shares the request's memory"
        );
    }

    #[test]
    fn all_members_are_read() {
        let body = Bytes::from_static(
            br#"{"eventType":"a.b","payload":{},"eventId":"e-1","channels":["eu","us:1"],"tags":["x/y","x/y"],
                "payloadRetentionHours":2,"deliverAt":"2026-01-01T01:00:00Z","transformationsParams":null,"application":null}"#,
        );
        let read = Publication::read(&body, NOW).unwrap();
        assert_eq!(read.event_id.unwrap().as_str(), "e-1");
        assert_eq!((read.channels.len(), read.tags.len()), (2, 1));
        assert_eq!(read.payload_lifetime, Some(Duration::from_hours(2)));
        assert_eq!(read.deliver_at, Some(NOW.plus(HOUR)));
        assert!(read.content_type.is_none() && read.application.is_none());
    }

    #[test]
    fn a_raw_payload_replaces_the_body_and_sets_its_content_type() {
        let body = Bytes::from_static(
            br#"{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"<a x=\"1\">\u00e9</a>",
                "headers":{"Content-Type":"text/xml; charset=utf-8","x":1},"other":[]}}"#,
        );
        let read = Publication::read(&body, NOW).unwrap();
        assert_eq!(read.payload, "<a x=\"1\">é</a>".as_bytes());
        assert_eq!(read.content_type.as_deref(), Some("text/xml; charset=utf-8"));
        let plain = Bytes::from_static(
            br#"{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"a,b"}}"#,
        );
        let read = Publication::read(&plain, NOW).unwrap();
        assert_eq!((&read.payload[..], read.content_type), (&b"a,b"[..], None));
    }

    /// Nothing that could end a header line, and nothing that is not a media type.
    /// P06.
    #[test]
    fn content_types_are_checked() {
        for text in ["application/json", "text/plain; charset=\"utf-8\"", "application/vnd.x+json ;v=1"] {
            assert!(is_content_type(text), "{text}");
        }
        for text in [
            "",
            "json",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "application/json\r\nX: y",
            "text/plain\0",
            "a/é",
            &"a/".repeat(200),
        ] {
            assert!(!is_content_type(text), "{text}");
        }
        let (status, text) = refused(
            r#"{"eventType":"a","payload":{},"transformationsParams":{"headers":{"content-type":"a/b\r\nX: y"}}}"#,
        );
        assert!(status == StatusCode::UNPROCESSABLE_ENTITY && text.contains("content-type"), "{text}");
    }

    #[test]
    fn what_is_not_accepted_is_named() {
        for (members, name) in [
            (r#""eventType":"a b","payload":{}"#, "eventType"),
            (r#""payload":{}"#, "eventType"),
            (r#""eventType":"a""#, "payload"),
            (r#""eventType":"a","payload":null"#, "payload"),
            (r#""eventType":"a","payload":[]"#, "payload"),
            (r#""eventType":"a","payload":"x""#, "payload"),
            (r#""eventType":"a","payload":{},"eventId":"msg_1""#, "eventId"),
            (r#""eventType":"a","payload":{},"channels":[]"#, "channels"),
            (r#""eventType":"a","payload":{},"channels":["a","b c"]"#, "[1]"),
            (r#""eventType":"a","payload":{},"tags":["1","2","3","4","5","6"]"#, "tags"),
            (r#""eventType":"a","payload":{},"payloadRetentionPeriod":91"#, "payloadRetentionPeriod"),
            (r#""eventType":"a","payload":{},"payloadRetentionHours":0"#, "payloadRetentionHours"),
            (r#""eventType":"a","payload":{},"payloadRetentionHours":-1"#, "payloadRetentionHours"),
            (
                r#""eventType":"a","payload":{},"payloadRetentionHours":1,"payloadRetentionPeriod":1"#,
                "together",
            ),
            (r#""eventType":"a","payload":{},"deliverAt":"2026-01-01T00:00:30Z""#, "deliverAt"),
            (r#""eventType":"a","payload":{},"deliverAt":"2026-01-02T00:01:00Z""#, "deliverAt"),
            (r#""eventType":"a","payload":{},"deliverAt":"soon""#, "deliverAt"),
            (r#""eventType":"a","payload":{},"payload":{}"#, "payload"),
        ] {
            let (status, text) = refused(&format!("{{{members}}}"));
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{members}");
            assert!(text.contains(name), "{members}: {text}");
        }
    }

    #[test]
    fn a_payload_beyond_the_limit_is_too_large() {
        let long = "x".repeat(limits::PAYLOAD_BYTES);
        let (status, _) = refused(&format!(r#"{{"eventType":"a","payload":{{"x":"{long}"}}}}"#));
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let raw = format!(
            r#"{{"eventType":"a","payload":{{}},"transformationsParams":{{"rawPayload":"{long}y"}}}}"#
        );
        assert_eq!(refused(&raw).0, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
