//! What a client is still sending when its answer stands is read and thrown away for a while: closing the connection at once
//! would reset it, and the client would see a broken pipe where it should read why it was refused.

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::header;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// What is read and thrown away at most.
const BYTES: usize = 16 * 1024 * 1024;
/// The same as a time.
const TIME: Duration = Duration::from_secs(2);

/// Lends the body to a handler: what is left of it comes back.
pub(crate) fn lend(request: Request) -> (Request, Option<Rest>) {
    if request.body().is_end_stream() {
        return (request, None);
    }
    let rest = Rest::default();
    // A client that waits for `100 Continue` sends nothing before somebody reads.
    let sending = !request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| Body::new(Lent { body, sending, ended: false, rest: rest.clone() }));
    (request, Some(rest))
}

/// Reads on, if the handler did not read the body to its end.
pub(crate) async fn read_on(rest: Option<Rest>) {
    if let Some(mut body) = rest.and_then(|rest| rest.take()) {
        drain(&mut body).await;
    }
}

/// Where a body goes that was dropped before its end.
#[derive(Clone, Default)]
pub(crate) struct Rest(Arc<Mutex<Option<Body>>>);

impl Rest {
    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A body that comes back when it is dropped before its end.
struct Lent {
    body: Body,
    sending: bool,
    ended: bool,
    rest: Rest,
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.sending = true;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            this.ended = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.sending && !self.ended && !self.body.is_end_stream() {
            let body = std::mem::take(&mut self.body);
            *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

async fn drain(body: &mut Body) {
    let deadline = Instant::now() + TIME;
    let mut left = BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
