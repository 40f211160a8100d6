//! An attempt as answers show it: Svix's members, and beside them what went on (outcome, detail, timings).

use super::{
    message_out::{MessageOut, PayloadOut},
    spelling,
    status::{self, Status, StatusOut},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use postrider_model::{
    attempt::{Attempt, Response},
    id::{AttemptId, EndpointId, MessageId},
    outcome::Outcome,
    time::Timestamp,
};
use postrider_store::attempts::ListedAttempt;
use serde::Serialize;
use std::{borrow::Cow, time::Duration};
use utoipa::ToSchema;

/// What a reader with an application-scoped token is told when a host name did not resolve and when its address is
/// blocked alike: the difference would map the operator's network.
const HOST_NOT_DELIVERABLE: &str = "The host of the URL cannot be delivered to: it does not resolve to a public address. \
                                    Check the host name, or ask whoever operates this server.";

/// Who reads the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The publisher or operator: sees every outcome.
    Environment,
    /// The owner of one application's endpoints.
    Application,
}

/// How attempts are to be shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptView {
    /// For whom.
    pub(crate) reader: Reader,
    /// The response body too; else `{}` stands there.
    pub(crate) with_content: bool,
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageAttemptOut {
    /// The attempt's id.
    #[serde(serialize_with = "spelling::text")]
    #[schema(value_type = String, example = "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: AttemptId,
    /// The message.
    #[serde(serialize_with = "spelling::text")]
    #[schema(value_type = String, example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    msg_id: MessageId,
    /// The endpoint.
    #[serde(serialize_with = "spelling::text")]
    #[schema(value_type = String, example = "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    endpoint_id: EndpointId,
    /// The URL that was actually used.
    url: String,
    /// The first bytes of the response body (base64 when they are not UTF-8). Without an HTTP response, what went
    /// wrong instead. `{}` when content was not asked for, `EXPUNGED` once deleted.
    response: String,
    /// HTTP status; 0 when there was no HTTP response.
    response_status_code: u16,
    /// How long the attempt took in all, in milliseconds.
    response_duration_ms: u64,
    #[serde(flatten)]
    status: StatusOut,
    /// 0 scheduled, 1 manual (resend, example, test).
    #[schema(minimum = 0, maximum = 1)]
    trigger_type: u8,
    /// When the attempt started.
    #[serde(serialize_with = "spelling::instant")]
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// The message, with `with_msg=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    msg: Option<MessageOut<'static>>,
    /// Result class: `succeeded`, `http_error`, `timeout`, `tls`, …
    outcome: &'static str,
    /// One sentence: what happened and, where there is one, the way out. Empty on success.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// 1 for the first attempt of the delivery.
    number: u32,
    /// Where the time went.
    timings: TimingsOut,
    /// The response body was longer than what is kept.
    response_truncated: bool,
    /// When the next attempt is due; only on the newest attempt of a message and endpoint.
    #[serde(serialize_with = "spelling::instant_or_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt: Option<Timestamp>,
}

/// Milliseconds of each phase; `null` for a phase that did not happen (a reused connection resolves no name).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "units stand in the names")]
pub(crate) struct TimingsOut {
    /// Getting an OAuth2 access token.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    token_ms: Option<Duration>,
    /// Resolving the host name.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    dns_ms: Option<Duration>,
    /// Opening the TCP connection.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    connect_ms: Option<Duration>,
    /// The TLS handshake.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    tls_ms: Option<Duration>,
    /// From the start of writing the request to the complete response head.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    first_byte_ms: Option<Duration>,
    /// All of it.
    #[serde(serialize_with = "spelling::millis_or_null")]
    #[schema(value_type = Option<f64>)]
    total_ms: Option<Duration>,
}

impl MessageAttemptOut {
    /// An attempt for this reader. `msg`, when the store read it along, comes without its payload.
    pub(crate) fn new(listed: ListedAttempt, view: AttemptView) -> Self {
        let ListedAttempt { attempt, progress, latest, message } = listed;
        let veiled =
            view.reader == Reader::Application && matches!(attempt.outcome, Outcome::Dns | Outcome::Blocked);
        let detail =
            if veiled { Cow::Borrowed(HOST_NOT_DELIVERABLE) } else { Cow::Owned(attempt.detail.clone()) };
        let outcome = match view.reader {
            Reader::Environment => attempt.outcome.name(),
            Reader::Application => attempt.outcome.consumer_name(),
        };
        Self {
            id: attempt.id,
            msg_id: attempt.delivery.message,
            endpoint_id: attempt.delivery.endpoint,
            response: if view.with_content { response_text(&attempt, &detail) } else { "{}".to_owned() },
            response_status_code: attempt.status.unwrap_or(0),
            response_duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            status: StatusOut::new(Status::of_attempt(attempt.outcome == Outcome::Succeeded)),
            trigger_type: attempt.trigger.code(),
            timestamp: attempt.started_at,
            msg: message.map(|message| MessageOut::new(message, PayloadOut::LeftOut)),
            outcome,
            detail,
            number: attempt.number,
            timings: TimingsOut::new(&attempt, veiled),
            response_truncated: attempt.response.truncated,
            next_attempt: if latest { status::next_attempt(&progress) } else { None },
            url: attempt.url,
        }
    }
}

impl TimingsOut {
    /// Phases tell whether a name resolved: a veiled attempt shows the total only.
    fn new(attempt: &Attempt, veiled: bool) -> Self {
        let phases = if veiled { &postrider_model::attempt::Phases::default() } else { &attempt.phases };
        Self {
            token_ms: phases.token,
            dns_ms: phases.dns,
            connect_ms: phases.connect,
            tls_ms: phases.tls,
            first_byte_ms: phases.first_byte,
            total_ms: Some(attempt.duration),
        }
    }
}

/// The `response` member: the body, or the reason why there is none.
fn response_text(attempt: &Attempt, detail: &str) -> String {
    if attempt.response.expunged {
        "EXPUNGED".to_owned()
    } else if attempt.status.is_none() {
        detail.to_owned()
    } else {
        body_text(&attempt.response)
    }
}

/// UTF-8 as it is, also when the cap cut through its last character; else base64.
fn body_text(response: &Response) -> String {
    match std::str::from_utf8(&response.body) {
        Ok(text) => text.to_owned(),
        Err(error) if response.truncated && error.error_len().is_none() => {
            String::from_utf8_lossy(&response.body[..error.valid_up_to()]).into_owned()
        }
        Err(_) => BASE64_STANDARD.encode(&response.body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::message_out::samples::{self, AT};
    use bytes::Bytes;
    use postrider_model::{
        attempt::Phases,
        delivery::{DeliveryId, Progress, State, Trigger},
    };
    use serde_json::{Value, json};

    fn listed(outcome: Outcome, status: Option<u16>, body: &'static [u8], detail: &str) -> ListedAttempt {
        let message = MessageId::floor(AT);
        ListedAttempt {
            attempt: Attempt {
                id: AttemptId::floor(AT),
                delivery: DeliveryId { message, endpoint: EndpointId::floor(AT), generation: 0 },
                number: 1,
                trigger: Trigger::Scheduled,
                url: "https://example.com/hook".to_owned(),
                started_at: AT,
                duration: Duration::from_millis(12),
                outcome,
                detail: detail.to_owned(),
                status,
                response: Response { body: Bytes::from_static(body), truncated: false, expunged: false },
                phases: Phases { dns: Some(Duration::from_micros(1500)), ..Phases::default() },
            },
            progress: Progress { state: State::Pending { next_attempt_at: AT }, attempts: 1, held: false },
            latest: true,
            message: None,
        }
    }

    fn shown(listed: ListedAttempt, reader: Reader) -> Value {
        serde_json::to_value(MessageAttemptOut::new(listed, AttemptView { reader, with_content: true }))
            .unwrap()
    }

    #[test]
    fn an_attempt_has_every_member_that_clients_require() {
        let value = shown(
            listed(Outcome::HttpError, Some(503), b"busy", "The endpoint answered 503."),
            Reader::Environment,
        );
        for member in [
            "endpointId",
            "id",
            "msgId",
            "response",
            "responseDurationMs",
            "responseStatusCode",
            "status",
            "statusText",
            "timestamp",
            "triggerType",
            "url",
        ] {
            assert!(!value[member].is_null(), "{member}");
        }
        assert_eq!(value["status"], 2);
        assert_eq!(value["statusText"], "fail");
        assert_eq!(value["response"], "busy");
        assert_eq!(value["outcome"], "http_error");
        assert_eq!(value["nextAttempt"], "2026-01-01T00:00:00.123456Z");
        assert_eq!(value["timings"]["dnsMs"], json!(1.5));
        assert_eq!(value["timings"]["tlsMs"], Value::Null);
    }

    #[test]
    fn only_the_newest_attempt_tells_the_next_one() {
        let older = ListedAttempt { latest: false, ..listed(Outcome::Timeout, None, b"", "too slow") };
        assert_eq!(shown(older, Reader::Environment).get("nextAttempt"), None);
    }

    #[test]
    fn without_an_http_response_the_reason_stands_in_its_place() {
        let value = shown(listed(Outcome::Timeout, None, b"", "No answer within 15 s."), Reader::Environment);
        assert_eq!(
            (&value["response"], &value["responseStatusCode"]),
            (&json!("No answer within 15 s."), &json!(0))
        );
    }

    /// Failed resolution and a blocked address look exactly alike to the owner of an endpoint.
    #[test]
    fn consumers_cannot_tell_blocked_addresses_from_names_that_do_not_resolve() {
        let mut blocked = listed(Outcome::Blocked, None, b"", "10.0.0.5 is private.");
        blocked.attempt.phases.connect = Some(Duration::from_millis(1));
        let unresolved = listed(Outcome::Dns, None, b"", "NXDOMAIN from 192.0.2.53.");
        assert_eq!(
            shown(blocked.clone(), Reader::Application),
            shown(unresolved.clone(), Reader::Application)
        );
        assert_eq!(shown(blocked.clone(), Reader::Application)["outcome"], "host_not_deliverable");
        assert_eq!(shown(blocked, Reader::Environment)["outcome"], "blocked");
        assert_eq!(shown(unresolved, Reader::Environment)["detail"], "NXDOMAIN from 192.0.2.53.");
    }

    #[test]
    fn bodies_are_text_where_they_can_be_and_base64_where_not() {
        let binary = listed(Outcome::Succeeded, Some(200), b"\xff\x00", "");
        assert_eq!(shown(binary, Reader::Environment)["response"], "/wA=");
        let mut cut = listed(Outcome::Succeeded, Some(200), "aé".as_bytes(), "");
        cut.attempt.response.body.truncate(2);
        cut.attempt.response.truncated = true;
        let value = shown(cut, Reader::Environment);
        assert_eq!((&value["response"], &value["responseTruncated"]), (&json!("a"), &json!(true)));
        let mut expunged = listed(Outcome::Succeeded, Some(200), b"", "");
        expunged.attempt.response.expunged = true;
        assert_eq!(shown(expunged, Reader::Environment)["response"], "EXPUNGED");
    }

    #[test]
    fn content_and_the_message_are_shown_when_asked_for() {
        let mut with_message = listed(Outcome::Succeeded, Some(200), b"ok", "");
        with_message.message = Some(samples::message(b"{}").message);
        let view = AttemptView { reader: Reader::Environment, with_content: false };
        let value = serde_json::to_value(MessageAttemptOut::new(with_message, view)).unwrap();
        assert_eq!((&value["response"], &value["msg"]["payload"]), (&json!("{}"), &json!({})));
    }
}
