//! HTTP/1.1 requests read as bytes: header names keep their spelling, which no server library shows.

use crate::receiver::Received;
use bytes::Bytes;
use std::{io, time::Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most header fields.
const FIELDS: usize = 200;
/// Longest request: far above anything that a test sends.
const REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// Reads one request; `None` when the other side closed before it began. What follows it stays in `buffer`.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Received>> {
    loop {
        if let Some((mut received, head, length)) = parse(buffer)? {
            while buffer.len() < head + length {
                more(stream, buffer).await?;
            }
            received.body = Bytes::copy_from_slice(&buffer[head..head + length]);
            buffer.drain(..head + length);
            return Ok(Some(received));
        }
        match more(stream, buffer).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && buffer.is_empty() => {
                return Ok(None);
            }
            other => other?,
        }
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<()> {
    if buffer.len() > REQUEST_BYTES {
        return Err(io::Error::other("the request is too long"));
    }
    let mut chunk = vec![0; 16 * 1024];
    match stream.read(&mut chunk).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            buffer.extend_from_slice(&chunk[..read]);
            Ok(())
        }
    }
}

/// The request without its body, the length of its head, and that of its body; `None` while the head is incomplete.
fn parse(buffer: &[u8]) -> io::Result<Option<(Received, usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let head = match request.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(head) => head,
    };
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Ok(0), |(_, value)| value.parse()).map_err(io::Error::other)?;
    let received = Received {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers,
        body: Bytes::new(),
        at: Instant::now(),
    };
    Ok(Some((received, head, length)))
}
