//! How long a connection may do nothing: rest between requests, take its time over a head, leave an answer unread.
//!
//! hyper's own limit counts the rest before a head as part of it. Clients and load balancers keep connections open for a
//! minute, but nobody needs a minute for a head: so the two are told apart here, below hyper. A request that runs is
//! not timed here; its body has [`super::body`].

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the rest of a head, from its first byte.
    pub(super) head: Duration,
    /// For the first byte of a head, and for a client that does not read its answer.
    pub(super) idle: Duration,
}

/// Begins and ends of a connection's requests: odd while one runs. The service counts, the stream reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    turns: AtomicU64,
    /// Who reads while a request runs: its rest begins when the request ends, which no byte tells it.
    reader: Mutex<Option<Waker>>,
}

impl Turns {
    /// A request begins; it ends when the turn is dropped, with the body of its answer.
    pub(super) fn begin(&self) -> Turn {
        self.0.turns.fetch_add(1, Ordering::AcqRel);
        Turn(self.clone())
    }

    fn now(&self) -> u64 {
        self.0.turns.load(Ordering::Acquire)
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that runs.
pub(super) struct Turn(Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.turns.fetch_add(1, Ordering::AcqRel);
        let reader = self.0.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// A stream that ends when the client does nothing for too long: as if the client had closed it when it rests, with
/// an error within a head.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    turns: Turns,
    /// The turns when `since` and `head` were last right.
    seen: u64,
    /// When the client began to rest: connected, was answered, took a part of its answer.
    since: Instant,
    /// First byte of the head that is being read.
    head: Option<Instant>,
    /// Since when the client has taken nothing of its answer.
    unread: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Patience, turns: Turns) -> Self {
        let seen = turns.now();
        Self { stream, patience, turns, seen, since: Instant::now(), head: None, unread: None, timer: None }
    }

    /// Notes what began or ended since the last look. `true` while a request runs.
    fn running(&mut self) -> bool {
        let turns = self.turns.now();
        if turns != self.seen {
            (self.seen, self.since, self.head) = (turns, Instant::now(), None);
        }
        turns % 2 == 1
    }

    /// Ready at `end`.
    fn poll_end(&mut self, end: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        // An end that moved away is looked up when the timer fires: connections in use need no new timer a request.
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }

    /// After a write or flush: an answer that nobody reads ends the connection, whether its request still runs or not.
    fn wrote<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            (self.since, self.unread) = (Instant::now(), None);
            return written;
        }
        let end = *self.unread.get_or_insert_with(Instant::now) + self.patience.idle;
        ready!(self.poll_end(end, context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if this.running() {
            if read.is_ready() {
                return read;
            }
            *this.turns.reader() = Some(context.waker().clone());
            // Unless the request ended just before that.
            if this.running() {
                return read;
            }
        }
        if read.is_pending() {
            let end = this.head.map_or(this.since + this.patience.idle, |first| first + this.patience.head);
            ready!(this.poll_end(end, context));
            return Poll::Ready(match this.head {
                None => Ok(()),
                Some(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the head came too slowly")),
            });
        }
        if buffer.filled().len() > before && this.head.is_none() {
            this.head = Some(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        // hyper flushes at every look at a connection: with nothing to flush, the client has taken nothing.
        if flushed.is_ready() && this.unread.is_none() {
            return flushed;
        }
        this.wrote(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    /// The client's end, the server's end, and the turns of its requests.
    fn pair() -> (DuplexStream, Patient<DuplexStream>, Turns) {
        let (client, server) = tokio::io::duplex(16);
        let turns = Turns::default();
        (client, Patient::new(server, PATIENCE, turns.clone()), turns)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_rest_between_requests_for_the_idle_time() {
        let (mut client, mut server, turns) = pair();
        let started = Instant::now();
        for _ in 0..3 {
            client.write_all(b"head").await.unwrap();
            assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 4);
            let turn = turns.begin();
            server.write_all(b"answer").await.unwrap();
            drop(turn);
            client.read_exact(&mut [0; 6]).await.unwrap();
            let rest = tokio::time::timeout(Duration::from_secs(70), server.read(&mut [0; 16])).await;
            assert!(rest.is_err(), "closed after {:?}", started.elapsed());
        }
        let end = server.read(&mut [0; 16]).await.unwrap();
        assert_eq!((end, started.elapsed().as_secs()), (0, 3 * 70 + 5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_head_counts_from_its_first_byte_and_dripping_does_not_extend_it() {
        let (mut client, mut server, _turns) = pair();
        let rest = tokio::time::timeout(Duration::from_mins(1), server.read(&mut [0; 16])).await;
        assert!(rest.is_err());
        let started = Instant::now();
        let drip = async {
            while client.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let read = async { while server.read(&mut [0; 1]).await.is_ok() {} };
        tokio::select! { () = drip => {}, () = read => {} }
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_runs_is_not_timed() {
        let (mut client, mut server, turns) = pair();
        client.write_all(b"head").await.unwrap();
        assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 4);
        let turn = turns.begin();
        let running = tokio::time::timeout(Duration::from_hours(1), server.read(&mut [0; 16])).await;
        assert!(running.is_err());
        drop(turn);
        let rest = tokio::time::timeout(Duration::from_secs(74), server.read(&mut [0; 16])).await;
        assert!(rest.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn flushing_nothing_does_not_prolong_a_rest() {
        let (_client, mut server, _turns) = pair();
        let started = Instant::now();
        let mut next = [0; 16];
        while tokio::time::timeout(Duration::from_secs(10), server.read(&mut next)).await.is_err() {
            server.flush().await.unwrap();
        }
        assert_eq!(started.elapsed().as_secs(), 75);
    }

    /// The server may be waiting for the next head before the answer's body is gone.
    #[tokio::test(start_paused = true)]
    async fn a_rest_that_begins_while_somebody_reads_ends_too() {
        let (mut client, mut server, turns) = pair();
        client.write_all(b"head").await.unwrap();
        assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 4);
        let turn = turns.begin();
        let started = Instant::now();
        let answered = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(turn);
        };
        let mut next = [0; 16];
        let (read, ()) = tokio::join!(server.read(&mut next), answered);
        assert_eq!((read.unwrap(), started.elapsed().as_secs()), (0, 5 + 75));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_ends_the_connection_and_one_that_is_read_slowly_does_not() {
        let (mut client, mut server, turns) = pair();
        let _turn = turns.begin();
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_mins(1)).await;
                client.read_exact(&mut [0; 16]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(&[0; 80]), slow);
        written.unwrap();
        let started = Instant::now();
        let error = server.write_all(&[0; 80]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 75));
    }
}
