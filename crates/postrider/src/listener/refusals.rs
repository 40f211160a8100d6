//! A body for the refusals that hyper writes itself. Of a head that it cannot read or that is too large no handler hears;
//! hyper answers with a bare status, on which clients that read every error as JSON fall over.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How hyper's own refusals go on after the status line. Answers of handlers begin with their content type.
const BARE: &[u8] = b"connection: close\r\ncontent-length: 0\r\n";

/// A stream on which bare refusals get their body.
pub(super) struct Told<S> {
    stream: S,
    /// A refusal with its body, of which `written` bytes are out.
    refusal: Vec<u8>,
    written: usize,
}

impl<S> Told<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, refusal: Vec::new(), written: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Told<S> {
    /// Ready when nothing of a refusal is left to write.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.refusal.len() {
            let rest = &self.refusal[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes a bare refusal over; the flush that follows writes it.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        let Some(refusal) = with_body(bytes) else { return false };
        (self.refusal, self.written) = (refusal, 0);
        true
    }
}

/// The answer with a body, if these bytes are a bare refusal and nothing else.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let (line, fields) = bytes.split_at(line);
    let rest = fields.strip_prefix(BARE)?;
    let alone = rest.windows(4).position(|window| window == b"\r\n\r\n") == Some(rest.len().checked_sub(4)?);
    let (code, detail) = match status {
        _ if !alone => return None,
        b"14" => ("uri_too_long", "The path and query of the request are too long."),
        b"31" => (
            "headers_too_large",
            "Path, query and header fields are too large together, or the header fields too many.",
        ),
        _ => ("generic_error", "The head of the request cannot be read as HTTP/1.1."),
    };
    let body = format!(r#"{{"code":"{code}","detail":"{detail}"}}"#);
    let head =
        format!("content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    Some([line, head.as_bytes(), rest, body.as_bytes()].concat())
}

impl<S: AsyncRead + Unpin> AsyncRead for Told<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Told<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(context))?;
        if this.takes(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(context))?;
        if let Some(first) = parts.first()
            && this.takes(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What a server that answers `handled` with 404 and no body says to these bytes, on a stream that takes few at a time.
    async fn answer(request: &[u8]) -> String {
        let (client, server) = tokio::io::duplex(7);
        let service = hyper::service::service_fn(async |_: http::Request<hyper::body::Incoming>| {
            let mut response = http::Response::new(String::new());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
            Ok::<_, Infallible>(response)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .max_headers(3)
            .max_header_size(8192)
            .serve_connection(hyper_util::rt::TokioIo::new(Told::new(server)), service);
        let (mut reader, mut writer) = tokio::io::split(client);
        let exchange = async {
            let mut text = String::new();
            let ask = async { drop(writer.write_all(request).await) };
            let (read, ()) = tokio::join!(reader.read_to_string(&mut text), ask);
            read.unwrap();
            text
        };
        tokio::join!(connection, exchange).1
    }

    /// Each answer that is not 2xx is JSON, also where no handler was asked.
    #[tokio::test]
    async fn heads_that_cannot_be_read_are_refused_in_json() {
        let fields = "a: b\r\n".repeat(10);
        for (request, status, code) in [
            ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "generic_error"),
            (format!("GET / HTTP/1.1\r\n{fields}\r\n"), 431, "headers_too_large"),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(66_000)), 431, "headers_too_large"),
            ("GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(), 400, "generic_error"),
        ] {
            let text = answer(request.as_bytes()).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(value["code"], code, "{text}");
            assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        }
    }

    #[tokio::test]
    async fn answers_of_handlers_pass_as_they_are() {
        let text = answer(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("text/plain"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }
}
