//! Bodies of requests against a clock: a client that drips bytes gives its place up. Bodies of answers, which end the
//! turn of their request.

use super::patience::Turn;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Time that any body may take.
const BASE: Duration = Duration::from_secs(30);
/// Slowest pace after that, in bytes a second.
const PACE: u64 = 1024;

/// A body that ends with an error when it takes longer than 30 s and a second per KiB received.
pub(super) struct Paced {
    body: Incoming,
    received: u64,
    started: Option<Instant>,
    limit: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, received: 0, started: None, limit: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        // Only a body that makes one wait gets a timer: the usual one is there with the head.
        let started = *this.started.get_or_insert_with(Instant::now);
        let end = started + BASE + Duration::from_secs(this.received / PACE);
        let limit = this.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if limit.deadline() != end {
            limit.as_mut().reset(end);
        }
        ready!(limit.as_mut().poll(context));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; its request runs until it has been handed over.
pub(super) struct Held {
    body: axum::body::Body,
    _turn: Turn,
}

impl Held {
    pub(super) fn new(body: axum::body::Body, turn: Turn) -> Self {
        Self { body, _turn: turn }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
