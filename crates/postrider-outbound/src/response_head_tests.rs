//! Heads as pure text: framing, keep-alive, and bytes in any portion.

use super::*;
use proptest::prelude::*;

fn head(text: &str) -> Result<Head, Malformed> {
    HeadScan::default().next(text.as_bytes()).map(|found| found.expect("a complete head").0)
}

fn framing(fields: &str) -> (Framing, bool) {
    let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap();
    (head.framing, head.keep_alive)
}

#[test]
fn the_fields_say_where_the_body_ends() {
    for (fields, expected) in [
        ("", (Framing::UntilClose, false)),
        ("Content-Length: 5\r\n", (Framing::Length(5), true)),
        ("content-length: 5, 5\r\nContent-Length: 5\r\n", (Framing::Length(5), true)),
        ("Transfer-Encoding: chunked\r\n", (Framing::Chunked, true)),
        ("Transfer-Encoding: gzip, Chunked\r\n", (Framing::Chunked, true)),
        ("Transfer-Encoding: xchunked\r\n", (Framing::UntilClose, false)),
        ("Transfer-Encoding: chunked, gzip\r\n", (Framing::UntilClose, false)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", (Framing::Chunked, false)),
        ("Connection: close\r\nContent-Length: 5\r\n", (Framing::Length(5), false)),
        ("Connection: x, CLOSE\r\nContent-Length: 5\r\n", (Framing::Length(5), false)),
    ] {
        assert_eq!(framing(fields), expected, "{fields}");
    }
}

#[test]
fn some_statuses_have_no_body_whatever_they_say() {
    for status in [100, 103, 204, 304] {
        let head = head(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n")).unwrap();
        assert_eq!(head.framing, Framing::Empty, "{status}");
    }
}

/// E18: a server that announces a body where there is none may send one, which would be taken for the next answer.
#[test]
fn a_connection_with_an_announced_body_that_is_none_is_not_kept() {
    for status in [204, 304] {
        for (field, kept) in [
            ("", true),
            ("Content-Length: 0\r\n", true),
            ("Content-Length: 5\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
        ] {
            let head = head(&format!("HTTP/1.1 {status} X\r\n{field}\r\n")).unwrap();
            assert_eq!((head.framing, head.keep_alive), (Framing::Empty, kept), "{status} {field}");
        }
    }
}

#[test]
fn http_1_0_keeps_a_connection_only_when_it_says_so() {
    assert!(!head("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().keep_alive);
    assert!(
        head("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").unwrap().keep_alive
    );
    assert!(
        !head("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap()
            .keep_alive
    );
}

#[test]
fn json_is_recognised_by_its_media_type() {
    for (value, expected) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/token+json", true),
        ("text/html", false),
        ("application/jsonp", false),
        ("+json", false),
        ("", false),
    ] {
        let head = head(&format!("HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n")).unwrap();
        assert_eq!(head.is_json, expected, "{value}");
    }
}

#[test]
fn a_head_is_found_whatever_ends_its_lines() {
    for text in ["HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", "HTTP/1.1 200 OK\nA: b\n\nbody"] {
        let (_, length) = HeadScan::default().next(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[length..], "body");
    }
}

#[test]
fn a_head_beyond_its_cap_is_read_no_further_than_its_status_line() {
    let full = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; HEAD_BYTES]].concat();
    assert!(HeadScan::default().next(&full[..HEAD_BYTES - 1]).unwrap().is_none());
    let (head, length) = HeadScan::default().next(&full[..HEAD_BYTES]).unwrap().unwrap();
    assert_eq!((head.status, head.framing, head.keep_alive), (200, Framing::Unreadable, false));
    assert_eq!(length, HEAD_BYTES);
    let endless = [b"HTTP/1.1 200 ".to_vec(), vec![b'a'; HEAD_BYTES]].concat();
    assert!(HeadScan::default().next(&endless[..HEAD_BYTES]).is_err(), "the status line itself has no end");
}

proptest! {
    /// The same bytes give the same head however they arrive.
    #[test]
    fn portions_do_not_matter(value in "[ -~]{0,40}", cut in 0_usize..80) {
        let text = format!("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX: {value}\r\nContent-Length: 0\r\n\r\n");
        let whole = HeadScan::default().next(text.as_bytes());
        let mut scan = HeadScan::default();
        let cut = cut.min(text.len() - 1);
        prop_assert_eq!(scan.next(&text.as_bytes()[..cut]), Ok(None));
        prop_assert_eq!(scan.next(text.as_bytes()), whole);
        let mut scan = HeadScan::default();
        for end in 0..text.len() {
            prop_assert_eq!(scan.next(&text.as_bytes()[..end]), Ok(None));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = HeadScan::default().next(&bytes);
        let _ = HeadScan::default().next(&[b"HTTP/1.1 200 OK\r\n", &bytes[..], b"\r\n\r\n"].concat());
    }
}
