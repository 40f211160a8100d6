//! HTTP/1.1 as bytes, as little of it as load needs: where a request or an answer ends, and the few parts of it that are
//! used. No sockets.

use anyhow::{Context, Result, ensure};

/// Headers that a request or an answer may have.
const HEADERS: usize = 48;
/// A head longer than this is an error, not a reason to read on.
const LONGEST_HEAD: usize = 16 * 1024;

/// A complete answer at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It said when to come back (RFC 9110, section 10.2.3).
    pub(crate) retry_after: bool,
    /// The connection ends with it.
    pub(crate) closes: bool,
    /// Where its body begins.
    pub(crate) body_at: usize,
    /// Bytes of head and body.
    pub(crate) length: usize,
}

/// A complete request at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) body: &'a [u8],
    /// Bytes of head and body.
    pub(crate) length: usize,
}

/// The answer that a buffer begins with; `None` until all of it is there.
pub(crate) fn answer(buffer: &[u8]) -> Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = parsed.parse(buffer).context("the server's answer")? else {
        ensure!(buffer.len() < LONGEST_HEAD, "the head of the server's answer has no end");
        return Ok(None);
    };
    let status = parsed.code.unwrap_or(0);
    let (mut body, mut retry_after, mut closes, mut chunked) = (0, false, false, false);
    for header in parsed.headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            body = decimal(header.value).context("the content-length of the server's answer")?;
        } else if is("transfer-encoding") {
            chunked = true;
        } else if is("retry-after") {
            retry_after = true;
        } else if is("connection") {
            closes = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    if chunked {
        // One request at a time is under way, so that the last chunk is the end of what was received.
        let whole = buffer.ends_with(b"0\r\n\r\n");
        let length = buffer.len();
        return Ok(whole.then_some(Answer { status, retry_after, closes, body_at, length }));
    }
    let length = body_at + body;
    Ok((buffer.len() >= length).then_some(Answer { status, retry_after, closes, body_at, length }))
}

/// The request that a buffer begins with; `None` until all of it is there.
pub(crate) fn request(buffer: &[u8]) -> Result<Option<Request<'_>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(body_at) = parsed.parse(buffer).context("a delivery")? else {
        ensure!(buffer.len() < LONGEST_HEAD, "the head of a delivery has no end");
        return Ok(None);
    };
    // Senders tend to write it last.
    let length =
        parsed.headers.iter().rev().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = match length {
        Some(header) => decimal(header.value).context("the content-length of a delivery")?,
        None => 0,
    };
    let length = body_at + body;
    let path = parsed.path.unwrap_or("/");
    Ok(buffer.get(body_at..length).map(|body| Request { path, body, length }))
}

/// A number of digits only.
pub(crate) fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0'))
    })
}

/// Writes a number with leading zeros over the whole of `place`.
pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nbody";
        for end in 0..whole.len() {
            assert_eq!(answer(&whole[..end]).unwrap(), None, "{end} bytes");
        }
        let found = answer(whole).unwrap().unwrap();
        assert_eq!((found.status, found.length, found.retry_after), (202, whole.len(), false));
        assert_eq!(&whole[found.body_at..], b"body");
    }

    #[test]
    fn an_answer_without_a_body_ends_with_its_head() {
        let found =
            answer(b"HTTP/1.1 503 x\r\nretry-after: 1\r\nConnection: close\r\n\r\n").unwrap().unwrap();
        assert!(found.retry_after && found.closes && found.status == 503);
    }

    #[test]
    fn a_chunked_answer_ends_with_its_last_chunk() {
        let head = b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        assert_eq!(answer(&[&head[..], b"4\r\nbody\r\n"].concat()).unwrap(), None);
        assert!(answer(&[&head[..], b"4\r\nbody\r\n0\r\n\r\n"].concat()).unwrap().is_some());
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(answer(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(request(&vec![b'a'; LONGEST_HEAD + 1]).is_err());
        assert!(request(b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n").is_err());
    }

    #[test]
    fn requests_are_taken_one_after_the_other() {
        let first = b"POST /1/0 HTTP/1.1\r\nhost: a\r\nContent-Length: 2\r\n\r\n{}".to_vec();
        let both = [&first[..], &first[..30]].concat();
        let found = request(&both).unwrap().unwrap();
        assert_eq!((found.path, found.body, found.length), ("/1/0", &b"{}"[..], first.len()));
        assert_eq!(request(&both[found.length..]).unwrap(), None);
    }

    #[test]
    fn digits_fill_their_place() {
        let mut place = *b"xxxxx";
        write_digits(&mut place, 207);
        assert_eq!(&place, b"00207");
        assert_eq!(decimal(&place), Some(207));
        assert_eq!(decimal(b"1e3"), None);
    }
}
