//! What is published: a request that is ready but for two numbers, the time of publication and a serial number, which the
//! receiver reads from the payload.

use crate::{server::Access, wire};
use std::sync::Arc;

/// What a payload begins with; the time of publication follows, in microseconds since the start of the run. The names of
/// its members are in alphabetical order: a server that sorts them leaves it as it is.
const SENT: &[u8] = b"{\"sent\":\"";
const SENT_DIGITS: usize = 16;
const SERIAL: &[u8] = b"\",\"serial\":\"";
const SERIAL_DIGITS: usize = 12;
const TEXT: &[u8] = b"\",\"text\":\"";
const END: &[u8] = b"\"}";
const BEFORE: &[u8] = b"{\"eventType\":\"bench.sent\",\"payload\":";

/// Requests that publish messages of one size to applications in turn.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The head for each application; one that is meant to get more stands here more often.
    heads: Vec<Arc<[u8]>>,
    body: Vec<u8>,
}

/// What the receiver finds in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Microseconds since the start of the run.
    pub(crate) sent: u64,
    pub(crate) serial: u64,
}

impl Messages {
    /// Message `n` goes to application `n` modulo their number.
    pub(crate) fn new(access: &Access, applications: &[String], payload_bytes: usize) -> Self {
        let body = body(payload_bytes);
        let head = |application: &String| {
            format!(
                "POST /api/v1/app/{application}/msg HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                access.authority,
                access.token,
                body.len()
            )
            .into_bytes()
            .into()
        };
        Self { heads: applications.iter().map(head).collect(), body }
    }

    /// Message number `serial` into `out`.
    pub(crate) fn write(&self, serial: u64, sent: u64, out: &mut Vec<u8>) {
        let turn = usize::try_from(serial).unwrap_or(0) % self.heads.len().max(1);
        out.clear();
        out.extend_from_slice(self.heads.get(turn).map_or(&[], |head| head));
        let sent_at = out.len() + BEFORE.len() + SENT.len();
        let serial_at = sent_at + SENT_DIGITS + SERIAL.len();
        out.extend_from_slice(&self.body);
        wire::write_digits(&mut out[sent_at..sent_at + SENT_DIGITS], sent);
        wire::write_digits(&mut out[serial_at..serial_at + SERIAL_DIGITS], serial);
    }
}

/// The body of a publication with zeros for both numbers. The payload is at least as long as its own parts.
fn body(payload_bytes: usize) -> Vec<u8> {
    let fixed = SENT.len() + SENT_DIGITS + SERIAL.len() + SERIAL_DIGITS + TEXT.len() + END.len();
    let text = vec![b'x'; payload_bytes.saturating_sub(fixed)];
    [BEFORE, SENT, &[b'0'; SENT_DIGITS], SERIAL, &[b'0'; SERIAL_DIGITS], TEXT, &text, END, b"}"].concat()
}

/// Reads a payload; `None` when it is none of ours.
pub(crate) fn stamp(payload: &[u8]) -> Option<Stamp> {
    let rest = payload.strip_prefix(SENT)?;
    let (sent, rest) = rest.split_at_checked(SENT_DIGITS)?;
    let serial = rest.strip_prefix(SERIAL)?.get(..SERIAL_DIGITS)?;
    let number = |digits| wire::decimal(digits).and_then(|number| u64::try_from(number).ok());
    Some(Stamp { sent: number(sent)?, serial: number(serial)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(applications: &[&str], payload_bytes: usize) -> Messages {
        let applications: Vec<_> = applications.iter().map(|id| (*id).to_owned()).collect();
        Messages::new(&Access::of("127.0.0.1:1", "key").unwrap(), &applications, payload_bytes)
    }

    fn payload(request: &[u8]) -> String {
        let text = String::from_utf8(request.to_vec()).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Box<serde_json::value::RawValue> = {
            #[derive(serde::Deserialize)]
            struct Body {
                payload: Box<serde_json::value::RawValue>,
            }
            serde_json::from_str::<Body>(body).unwrap().payload
        };
        body.get().to_owned()
    }

    #[test]
    fn a_payload_has_the_size_that_was_asked_for_and_carries_both_numbers() {
        for bytes in [70, 1024, 10_240] {
            let mut request = Vec::new();
            messages(&["app_1"], bytes).write(42, 1_000_007, &mut request);
            let payload = payload(&request);
            assert_eq!(payload.len(), bytes);
            assert_eq!(stamp(payload.as_bytes()), Some(Stamp { sent: 1_000_007, serial: 42 }));
        }
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let mut request = Vec::new();
        messages(&["app_1"], 100).write(0, 0, &mut request);
        let found = wire::request(&request).unwrap().unwrap();
        assert_eq!((found.path, found.length), ("/api/v1/app/app_1/msg", request.len()));
    }

    #[test]
    fn applications_take_turns() {
        let messages = messages(&["a", "b", "b"], 100);
        let mut request = Vec::new();
        let paths: Vec<_> = (0..4)
            .map(|serial| {
                messages.write(serial, 0, &mut request);
                wire::request(&request).unwrap().unwrap().path.to_owned()
            })
            .collect();
        assert_eq!(
            paths,
            ["/api/v1/app/a/msg", "/api/v1/app/b/msg", "/api/v1/app/b/msg", "/api/v1/app/a/msg"]
        );
    }

    #[test]
    fn a_payload_of_somebody_else_has_no_stamp() {
        assert_eq!(stamp(b"{\"sent\":\"yesterday\"}"), None);
        assert_eq!(stamp(b""), None);
    }
}
