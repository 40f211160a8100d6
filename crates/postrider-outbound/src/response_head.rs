//! The head of a response: found, parsed and reduced to what matters. Pure; reads nothing itself.

/// Largest head: what common servers and proxies allow at most.
pub(crate) const HEAD_BYTES: usize = 32 * 1024;
/// Most header fields of a head.
const FIELDS: usize = 64;
/// Longest `Retry-After` that is kept; the longest valid one is a date of 29 bytes.
const RETRY_AFTER_BYTES: usize = 64;
/// How every answer starts.
const START: &[u8] = b"HTTP/1.";

/// What matters of a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// 100 to 599.
    pub(crate) status: u16,
    /// Where the body ends.
    pub(crate) framing: Framing,
    /// The connection may serve another request if the body ends as `framing` says.
    pub(crate) keep_alive: bool,
    pub(crate) retry_after: Option<Vec<u8>>,
    /// `application/json` or a type ending in `+json`.
    pub(crate) is_json: bool,
}

/// Where a body ends (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// The head cannot be read beyond its status line.
    Unreadable,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why bytes are no response head, to follow "the answer".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Finds the end of a head while bytes arrive, looking at each byte once: a server that sends one byte at a time
/// cannot make us parse again and again.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// Bytes that were searched.
    seen: usize,
}

impl HeadScan {
    /// The head and its length, or `None` when more bytes are needed. `bytes` starts at the head and only grows.
    ///
    /// The status line decides: a final answer whose fields are too many, too long or invalid still counts, else a
    /// receiver that took the message and answers with a giant header would get it again for days. Nothing more is read
    /// from such a connection.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
        self.find(bytes).or_else(|malformed| match final_status(bytes) {
            Some(status) => Ok(Some((Head::unreadable(status), bytes.len()))),
            None => Err(malformed),
        })
    }

    fn find(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
        let known = bytes.len().min(START.len());
        if bytes[..known] != START[..known] {
            return Err(Malformed("is not HTTP/1.1"));
        }
        while let Some(end) = find_end(bytes, self.seen) {
            self.seen = end;
            if end > HEAD_BYTES {
                break;
            }
            if let Some(head) = parse(&bytes[..end])? {
                self.seen = 0;
                return Ok(Some((head, end)));
            }
        }
        // An empty line can begin with the last bytes of now.
        self.seen = self.seen.max(bytes.len().saturating_sub(2));
        if bytes.len() >= HEAD_BYTES { Err(Malformed("has a head of more than 32 KiB")) } else { Ok(None) }
    }
}

impl Head {
    fn unreadable(status: u16) -> Self {
        Self { status, framing: Framing::Unreadable, keep_alive: false, retry_after: None, is_json: false }
    }
}

/// The status of a final answer (200 to 599) whose status line is whole and valid.
fn final_status(bytes: &[u8]) -> Option<u16> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = [&bytes[..=end], b"\r\n"].concat();
    parse(&line).ok().flatten().map(|head| head.status).filter(|status| *status >= 200)
}

/// The index after the first empty line at or after `from`.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        at += found + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn parse(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("has more than 64 header fields")),
        Err(httparse::Error::Status | httparse::Error::Version) => {
            return Err(Malformed("has no valid status line"));
        }
        Err(_) => return Err(Malformed("has an invalid header")),
    }
    let status = response.code.unwrap_or(0);
    if !(100..=599).contains(&status) {
        return Err(Malformed("has a status outside 100 to 599"));
    }
    reduce(status, response.version == Some(1), response.headers).map(Some)
}

fn reduce(status: u16, is_1_1: bool, fields: &[httparse::Header<'_>]) -> Result<Head, Malformed> {
    let mut length: Option<u64> = None;
    let mut coding: Option<bool> = None;
    let (mut close, mut keep) = (false, false);
    let mut head =
        Head { status, framing: Framing::UntilClose, keep_alive: false, retry_after: None, is_json: false };
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            length = Some(content_length(field.value, length)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            // The last coding of the last field decides.
            coding =
                Some(elements(field.value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked")));
        } else if field.name.eq_ignore_ascii_case("connection") {
            close |= elements(field.value).any(|option| option.eq_ignore_ascii_case(b"close"));
            keep |= elements(field.value).any(|option| option.eq_ignore_ascii_case(b"keep-alive"));
        } else if field.name.eq_ignore_ascii_case("retry-after") {
            if head.retry_after.is_none() && field.value.len() <= RETRY_AFTER_BYTES {
                head.retry_after = Some(field.value.to_vec());
            }
        } else if field.name.eq_ignore_ascii_case("content-type") {
            head.is_json = is_json(field.value);
        }
    }
    head.framing = match (status, coding, length) {
        (100..=199 | 204 | 304, _, _) => Framing::Empty,
        (_, Some(true), _) => Framing::Chunked,
        (_, Some(false), _) | (_, None, None) => Framing::UntilClose,
        (_, None, Some(length)) => Framing::Length(length),
    };
    // Two ways to tell the length are an attempt to make two readers disagree (RFC 9112, section 6.1).
    let ambiguous = coding.is_some() && (length.is_some() || !is_1_1);
    // A body announced where there is none (204, 304) may still come, and would be taken for the next answer.
    let announced =
        head.framing == Framing::Empty && (coding.is_some() || length.is_some_and(|length| length > 0));
    head.keep_alive =
        !ambiguous && !announced && !close && (is_1_1 || keep) && head.framing != Framing::UntilClose;
    Ok(head)
}

/// One or more equal decimal numbers (RFC 9112, section 6.3).
fn content_length(value: &[u8], mut known: Option<u64>) -> Result<u64, Malformed> {
    const INVALID: Malformed = Malformed("has an invalid Content-Length");
    for element in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if element.is_empty() || !element.iter().all(u8::is_ascii_digit) {
            return Err(INVALID);
        }
        let number =
            std::str::from_utf8(element).ok().and_then(|text| text.parse::<u64>().ok()).ok_or(INVALID)?;
        // The greatest number is what a subtraction gone wrong looks like.
        if number == u64::MAX {
            return Err(INVALID);
        }
        match known {
            Some(other) if other != number => {
                return Err(Malformed("has contradicting Content-Length headers"));
            }
            _ => known = Some(number),
        }
    }
    known.ok_or(INVALID)
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn is_json(value: &[u8]) -> bool {
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/json")
        || (media_type.len() > 5 && media_type[media_type.len() - 5..].eq_ignore_ascii_case(b"+json"))
}

#[cfg(test)]
#[path = "response_head_tests.rs"]
mod tests;
