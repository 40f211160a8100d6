//! One request and its answer on a connection: writes while it reads, so that an early answer is seen, and never reads
//! more than the caps. Knows nothing of addresses, pools or deadlines.

use crate::{
    body::{Body, BodyState},
    connect::{host_text, place},
    failure::{Failure, Progress, Step},
    response_head::{HEAD_BYTES, Head, HeadScan, Malformed},
    tls,
};
use bytes::Bytes;
use postrider_model::{outcome::Outcome, url::EndpointUrl};
use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Most interim answers (100, 103) before the final one.
const INTERIM_ANSWERS: usize = 8;
/// First size of a connection's read buffer: most answers fit.
const INBOX_BYTES: usize = 4 * 1024;

/// Bytes that arrived and were not used yet. Lives as long as its connection.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives back what a large answer made it grow to.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.len() > INBOX_BYTES && self.is_empty() {
            *self = Self::default();
        }
    }

    /// Room for more; the buffer grows up to the size of the largest head.
    fn space(&mut self) -> &mut [u8] {
        if self.start > 0 && self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            let size = (self.bytes.len() * 2).clamp(INBOX_BYTES, HEAD_BYTES);
            self.bytes.resize(size, 0);
        }
        &mut self.bytes[self.end..]
    }

    fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(self.space());
        match Pin::new(io).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.end += count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A request on its way out.
pub(crate) struct Outgoing<'a> {
    head: &'a [u8],
    body: &'a [u8],
    written: usize,
    flushed: bool,
    /// Writing failed. The answer may still be there to read: a server that refuses a request early resets it.
    failed: bool,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(head: &'a [u8], body: &'a [u8]) -> Self {
        Self { head, body, written: 0, flushed: false, failed: false }
    }

    /// Nothing more will be written.
    fn is_over(&self) -> bool {
        self.flushed || self.failed
    }

    /// Writes what the connection takes; ready when all is written, or writing failed.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
        sent: &mut bool,
    ) -> Poll<()> {
        let total = self.head.len() + self.body.len();
        while self.written < total {
            let head = self.head.get(self.written..).unwrap_or_default();
            let body = &self.body[self.written.saturating_sub(self.head.len())..];
            let written = match (head.is_empty(), body.is_empty()) {
                (false, false) => {
                    Pin::new(&mut *io).poll_write_vectored(context, &[IoSlice::new(head), IoSlice::new(body)])
                }
                (false, true) => Pin::new(&mut *io).poll_write(context, head),
                (true, _) => Pin::new(&mut *io).poll_write(context, body),
            };
            match written {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.written += count;
                    *sent = true;
                }
                Poll::Ready(_) => {
                    self.failed = true;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match Pin::new(io).poll_flush(context) {
            Poll::Ready(Ok(())) => self.flushed = true,
            Poll::Ready(Err(_)) => self.failed = true,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

/// Why no answer came on a connection that stood.
#[derive(Debug)]
pub(crate) struct Broken {
    cause: Cause,
    /// Not a single byte came back.
    nothing_came: bool,
    after: std::time::Duration,
}

#[derive(Debug)]
enum Cause {
    /// The other side ended the connection.
    Closed,
    /// The connection failed.
    Lost,
    /// A client certificate is missing: with TLS 1.3 the handshake ends before the other side says so.
    Certificate(io::Error),
    Malformed(Malformed),
}

impl Broken {
    /// The connection broke without a single byte of an answer.
    pub(crate) fn nothing_came(&self) -> bool {
        self.nothing_came && !matches!(self.cause, Cause::Malformed(_))
    }

    /// Since the first byte of the request was to be written.
    pub(crate) fn after(&self) -> std::time::Duration {
        self.after
    }

    pub(crate) fn into_failure(self, url: &EndpointUrl) -> Failure {
        let place = place(url);
        match (self.cause, self.nothing_came) {
            (Cause::Malformed(Malformed(why)), _) => {
                Failure::new(Outcome::ResponseMalformed, format!("the answer of {place} {why}"))
            }
            (Cause::Certificate(error), _) => tls::failure(&error, &host_text(url)),
            (Cause::Closed, true) => {
                Failure::new(Outcome::Connect, format!("{place} closed the connection without an answer"))
            }
            (Cause::Lost, true) => {
                Failure::new(Outcome::Connect, format!("{place} reset the connection without an answer"))
            }
            (_, false) => Failure::new(
                Outcome::Connect,
                format!("{place} broke off in the middle of the answer's head"),
            ),
        }
    }
}

/// Sends the request and reads up to the end of the final answer's head. What follows it stays in `inbox`. The second
/// value says whether the whole request was written: if not, the connection cannot serve another one.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    inbox: &mut Inbox,
    mut outgoing: Outgoing<'_>,
    progress: &mut Progress,
) -> Result<(Head, bool), Broken> {
    let started = Instant::now();
    progress.step = Step::Writing;
    let mut came = false;
    let broken = |cause, came: bool| Broken { cause, nothing_came: !came, after: started.elapsed() };
    let mut scan = HeadScan::default();
    let mut interim = 0;
    loop {
        while let Some((head, length)) =
            scan.next(inbox.filled()).map_err(|malformed| broken(Cause::Malformed(malformed), came))?
        {
            inbox.consume(length);
            if head.status == 101 {
                return Err(broken(Cause::Malformed(Malformed("switches protocols unasked")), came));
            }
            if head.status >= 200 {
                progress.phases.first_byte = Some(started.elapsed());
                return Ok((head, outgoing.flushed));
            }
            interim += 1;
            if interim > INTERIM_ANSWERS {
                return Err(broken(Cause::Malformed(Malformed("has more than 8 interim answers")), came));
            }
        }
        match step(io, inbox, &mut outgoing, progress).await {
            Ok(0) => return Err(broken(Cause::Closed, came)),
            Ok(_) => {
                came = true;
                progress.step = Step::ReadingHead;
            }
            // TLS ended without its own end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(broken(Cause::Closed, came));
            }
            Err(error) if tls::wants_certificate(&error) => {
                return Err(broken(Cause::Certificate(error), came));
            }
            Err(_) => return Err(broken(Cause::Lost, came)),
        }
    }
}

/// Writes what can be written and waits for bytes of the answer; their count, 0 at the end of the connection.
async fn step<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    inbox: &mut Inbox,
    outgoing: &mut Outgoing<'_>,
    progress: &mut Progress,
) -> io::Result<usize> {
    poll_fn(|context| {
        if !outgoing.is_over()
            && outgoing.poll_write(io, context, &mut progress.sent).is_ready()
            && progress.step == Step::Writing
        {
            progress.step = Step::Waiting;
        }
        inbox.poll_fill(io, context)
    })
    .await
}

/// Takes from `inbox` what is there of the body; no waiting.
pub(crate) fn take_arrived(inbox: &mut Inbox, body: &mut Body) -> BodyState {
    let (taken, state) = body.feed(inbox.filled());
    inbox.consume(taken);
    state
}

/// Reads until the body ends or is beyond its caps. The caller bounds the time; what arrived until then is in `body`.
pub(crate) async fn read_body<S: AsyncRead + Unpin>(
    io: &mut S,
    inbox: &mut Inbox,
    body: &mut Body,
) -> BodyState {
    loop {
        let state = take_arrived(inbox, body);
        if state != BodyState::Open {
            return state;
        }
        match poll_fn(|context| inbox.poll_fill(io, context)).await {
            Ok(0) => return body.close(),
            // Servers that end a body by closing often leave out the end of TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return body.close(),
            Err(_) => return BodyState::Broken,
            Ok(_) => {}
        }
    }
}

/// The kept bytes, without an allocation when there are none.
pub(crate) fn kept(body: Body) -> Bytes {
    Bytes::from(body.into_kept())
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
