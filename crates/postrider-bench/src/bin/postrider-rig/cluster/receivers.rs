//! The endpoints: one server that answers for each in its manner and notes who sent what.

use super::book::{Delivery, Notebook, now};
use crate::connection;
use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use std::{hash::Hasher as _, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::sleep;

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// At once.
    Quick,
    /// After a while, so that something is always under way.
    Slow,
    /// The first attempts of some messages fail.
    Flaky,
    /// Everything fails for a second of each fifteen.
    Moody,
}

/// When and how a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    after: Duration,
    status: u16,
}

/// Starts it: endpoints by number at `/endpoint/<number>`.
pub(crate) async fn start(manners: Vec<Manner>, notebook: &Notebook) -> Result<SocketAddr> {
    let (manners, notebook): (Arc<[Manner]>, _) = (manners.into(), notebook.clone());
    connection::serve(move |request: Request<Incoming>| {
        let (manners, notebook) = (Arc::clone(&manners), notebook.clone());
        async move {
            let Some((delivery, manner, node)) = read(&request, &manners) else {
                let strange = format!("a request to {} by {:?}", request.uri(), request.headers());
                notebook.book().strange.push(strange);
                return Response::new(Full::default());
            };
            // Before the body: a request whose head came may be a delivery.
            let at = now();
            let place = notebook.book().arrive(&delivery, node, at);
            // Like the head, so small that it comes with it, or the node has died.
            let whole = http_body_util::BodyExt::collect(request.into_body()).await;
            let reply = reply(manner, &delivery.1, place, at);
            sleep(reply.after).await;
            // Not reached when the connection ends meanwhile: this ends with it.
            if whole.is_ok() {
                notebook.book().answer(&delivery, place, reply.status, now());
            }
            answer(reply.status)
        }
    })
    .await
}

fn read(request: &Request<Incoming>, manners: &[Manner]) -> Option<(Delivery, Manner, usize)> {
    let text = |name: &str| request.headers().get(name)?.to_str().ok();
    let endpoint: usize = request.uri().path().strip_prefix("/endpoint/")?.parse().ok()?;
    let node = text(header::USER_AGENT.as_str())?.strip_prefix("rig/")?.parse().ok()?;
    Some(((endpoint, text("webhook-id")?.to_owned()), *manners.get(endpoint)?, node))
}

fn reply(manner: Manner, message: &str, place: usize, at: i64) -> Reply {
    // As good as random, and the same for each attempt of a message.
    let mut hash = std::hash::DefaultHasher::new();
    hash.write(message.as_bytes());
    let chance = hash.finish();
    let millis = Duration::from_millis;
    match manner {
        Manner::Quick => Reply { after: Duration::ZERO, status: 200 },
        Manner::Slow => Reply { after: millis(50 + chance % 300), status: 200 },
        // An answer that speaks of the message: no reason to leave the endpoint alone.
        Manner::Flaky if place < 2 && chance.is_multiple_of(6) => Reply { after: millis(5), status: 422 },
        Manner::Moody if at.rem_euclid(15_000_000) < 1_000_000 => {
            Reply { after: Duration::ZERO, status: 500 }
        }
        Manner::Flaky | Manner::Moody => Reply { after: millis(5), status: 200 },
    }
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manner_succeeds_in_the_end() {
        for manner in [Manner::Quick, Manner::Slow, Manner::Flaky, Manner::Moody] {
            for message in ["a", "b", "c", "d", "e", "f", "g"] {
                assert_eq!(reply(manner, message, 2, 2_000_000).status, 200, "{manner:?}");
            }
        }
        let first = |message| reply(Manner::Flaky, message, 0, 0).status;
        assert!(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"].map(first).contains(&422));
        assert_eq!(reply(Manner::Moody, "a", 5, 15_500_000).status, 500);
    }
}
