//! The head of a request as bytes, checked once more byte by byte: whatever was stored, no value can add a header or a
//! second request.

use crate::{
    client::{HeaderValue, Request},
    failure::Failure,
};
use postrider_model::{headers::is_token, outcome::Outcome, url::Scheme};
use secrecy::ExposeSecret;

/// Names that decide where a message ends or who it is for: the client's alone.
const FRAMING: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
];

/// Writes the head into `out`: request line, `Host`, the given headers in order and spelling, `Content-Length`.
/// Nothing is written when anything in it is not allowed on the wire.
pub(crate) fn write(request: &Request, dev: bool, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.clear();
    let path = request.url.path_and_query();
    let authority = request.url.authority();
    if !path.starts_with('/') || !visible(path) || authority.is_empty() || !visible(authority) {
        return Err(invalid("the stored URL cannot be sent: save it again".to_owned()));
    }
    for part in ["POST ", path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for header in &request.headers {
        let value = match &header.value {
            HeaderValue::Plain(value) => value.as_str(),
            HeaderValue::Secret(value) => value.expose_secret(),
        };
        check(&header.name, value)?;
        if header.name.eq_ignore_ascii_case("authorization") && request.url.scheme() == Scheme::Http && !dev {
            return Err(invalid(
                "credentials are sent over https only: change the URL or remove them".to_owned(),
            ));
        }
        for part in [&header.name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"Content-Length: ");
    push_decimal(out, request.body.len());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(())
}

fn check(name: &str, value: &str) -> Result<(), Failure> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(invalid("a header's name has characters that cannot be sent".to_owned()));
    }
    if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
        return Err(invalid(format!("the header `{name}` is set by the client and cannot be given")));
    }
    // RFC 9110, section 5.5, without obs-text: servers disagree about its meaning.
    if !value.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e)) {
        return Err(invalid(format!("the value of the header `{name}` has characters that cannot be sent")));
    }
    Ok(())
}

fn invalid(detail: String) -> Failure {
    Failure::new(Outcome::ConfigInvalid, detail)
}

fn visible(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
}

fn push_decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{header, request_to};
    use proptest::prelude::*;

    const URL: &str = "https://hooks.example.com:8443/a/b?c=d";

    fn written(request: &Request) -> Result<String, Failure> {
        let mut out = vec![b'x'; 10];
        write(request, false, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_head_keeps_order_and_spelling() {
        let mut request = request_to(URL);
        request.headers =
            vec![header("X-Custom-ID", "1"), header("webhook-id", "msg_1"), header("Empty", "")];
        request.body = vec![b'.'; 1234].into();
        assert_eq!(
            written(&request).unwrap(),
            "POST /a/b?c=d HTTP/1.1\r\nHost: hooks.example.com:8443\r\nX-Custom-ID: 1\r\nwebhook-id: msg_1\r\nEmpty: \r\n\
             Content-Length: 1234\r\n\r\n"
        );
    }

    /// What would break the framing fails this attempt, without a byte on the wire.
    #[test]
    fn header_injection_is_refused() {
        for (name, value) in [
            ("X-A", "1\r\nX-B: 2"),
            ("X-A", "1\n"),
            ("X-A", "\0"),
            ("X-A", "ü"),
            ("X-A", "\u{7f}"),
            ("X-A\r\nX-B", "1"),
            ("X A", "1"),
            ("X-A:", "1"),
            ("", "1"),
            ("Content-Length", "0"),
            ("transfer-Encoding", "chunked"),
            ("HOST", "evil.example.com"),
        ] {
            let mut request = request_to(URL);
            request.headers = vec![header(name, value)];
            let failure = written(&request).unwrap_err();
            assert_eq!(failure.outcome, Outcome::ConfigInvalid, "{name:?}: {value:?}");
            assert!(!failure.detail.contains("X-B"), "{}", failure.detail);
        }
    }

    /// A credential does not travel in clear, but in development it does.
    #[test]
    fn authorization_is_not_sent_over_http() {
        let mut request = request_to("http://hooks.example.com/");
        request.headers = vec![header("authorization", "Bearer x")];
        assert_eq!(written(&request).unwrap_err().outcome, Outcome::ConfigInvalid);
        assert!(write(&request, true, &mut Vec::new()).is_ok());
    }

    proptest! {
        #[test]
        fn a_written_head_has_exactly_its_headers(name in "\\PC{0,12}", value in any::<String>(), length in any::<u32>()) {
            let mut request = request_to(URL);
            request.headers = vec![header(&name, &value)];
            if let Ok(head) = written(&request) {
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut parsed = httparse::Request::new(&mut headers);
                prop_assert!(parsed.parse(head.as_bytes()).unwrap().is_complete());
                prop_assert_eq!(parsed.headers.len(), 3);
                prop_assert_eq!(parsed.headers[1].name, name);
            }
            let mut out = Vec::new();
            push_decimal(&mut out, length as usize);
            prop_assert_eq!(String::from_utf8(out).unwrap(), length.to_string());
        }
    }
}
