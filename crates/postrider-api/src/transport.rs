//! What every request passes on its way in and out: spelling of the path, host names, loops, time, panics, CORS, and JSON for
//! whatever finds no handler. One function, not six layers: each would box its future and clone all those below it.

use crate::{error::ApiError, state::ApiState, unread, v1::messages};
use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Uri, header, uri::PathAndQuery};
use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowHeaders, Any as AnyOrigin, CorsLayer};

/// A handler has answered after this time, reading the body included.
const HANDLER_TIME: Duration = Duration::from_secs(35);
/// How the `User-Agent` of deliveries begins, unless the operator chose another.
const DELIVERY_AGENT: &[u8] = b"Postrider/";
/// How long browsers may remember a CORS answer.
const CORS_AGE: Duration = Duration::from_mins(10);

/// The whole API: answers requests. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

struct Parts {
    routes: Router,
    state: ApiState,
    /// Messages can be published here.
    publishes: bool,
}

impl Api {
    /// Puts the routes behind everything that is the same for all of them.
    pub(crate) fn new(routes: Router<ApiState>, state: ApiState) -> Self {
        let routes = routes
            .fallback(async || ApiError::entity_not_found())
            .method_not_allowed_fallback(async || ApiError::method_not_allowed())
            .with_state(state.clone());
        Self(Arc::new(Parts { routes, state, publishes: true }))
    }

    /// Some of the routes only, on a node that serves no API.
    pub(crate) fn without_api(routes: Router<ApiState>, state: ApiState) -> Self {
        let elsewhere =
            async || ApiError::not_found("This node serves no API (`server.roles`): ask one that does.");
        let routes = routes.fallback(elsewhere).with_state(state.clone());
        Self(Arc::new(Parts { routes, state, publishes: false }))
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request) -> Response {
        if !request.headers().contains_key(header::ORIGIN) {
            return self.guarded(request).await;
        }
        // A page in a browser asks.
        let api = self.clone();
        let guarded = service_fn(move |request| {
            let api = api.clone();
            async move { Ok(api.guarded(request).await) }
        });
        let answer: Result<_, Infallible> = Box::pin(cors().layer(guarded).oneshot(request)).await;
        answer.unwrap_or_else(|never| match never {})
    }

    /// Answers whatever happens: refused before it reaches a handler, too late, after a panic. In any case, what the client
    /// is still sending is read on.
    async fn guarded(&self, request: Request) -> Response {
        let (request, rest) = unread::lend(request);
        let answer = async {
            if is_delivery(&request) {
                return ApiError::loop_detected().into_response();
            }
            if !is_under_our_name(&request, &self.0.state.config.public_hosts) {
                return ApiError::misdirected().into_response();
            }
            self.in_time(request).await
        };
        let response =
            AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| answer_panic(&*panic));
        unread::read_on(rest).await;
        response
    }

    async fn in_time(&self, request: Request) -> Response {
        match tokio::time::timeout(HANDLER_TIME, self.handled(request)).await {
            Ok(response) => response,
            Err(_) => {
                ApiError::unavailable("The server took too long; whether anything was done is not known, ask again with the same idempotency key.", Duration::from_secs(1))
                    .into_response()
            }
        }
    }

    async fn handled(&self, request: Request) -> Response {
        let Parts { routes, state, publishes } = &*self.0;
        let uri = request.uri().clone();
        if *publishes && let Some(application) = messages::published_to(request.method(), uri.path()) {
            return messages::publish_to(state, application, request).await;
        }
        match state.admission.beside(request.method(), uri.path(), request.headers()).await {
            Ok(_pass) => {
                // The sizes of all other handlers' futures are not this one's.
                let answer = Box::pin(routes.clone().oneshot(without_trailing_slash(request))).await;
                answer.unwrap_or_else(|never| match never {})
            }
            Err(refusal) => refusal.into_response(),
        }
    }
}

impl tower::Service<Request> for Api {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

fn cors() -> CorsLayer {
    // Bearer tokens only and no cookies, so any page may call.
    CorsLayer::new()
        .allow_origin(AnyOrigin)
        .allow_methods(AnyOrigin)
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(CORS_AGE)
}

/// `/api/v1/app/` is `/api/v1/app`: clients write both, and none follows a redirect with its body.
fn without_trailing_slash(mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return request;
    }
    let target = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    if let Ok(target) = PathAndQuery::try_from(target) {
        parts.path_and_query = Some(target);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// A delivery that comes back would publish itself again and again. The outbound client refuses our own
/// addresses; a load balancer's or a proxy's is recognised only here.
fn is_delivery(request: &Request) -> bool {
    let headers = request.headers();
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    agent.starts_with(DELIVERY_AGENT) && headers.contains_key("webhook-id")
}

/// Was the request sent to one of these names? Health and metrics are asked for by address; no names means any.
fn is_under_our_name(request: &Request, names: &[String]) -> bool {
    let path = request.uri().path();
    names.is_empty()
        || path.starts_with("/api/v1/health")
        || path == "/metrics"
        || host(request).is_some_and(|host| names.iter().any(|name| name.eq_ignore_ascii_case(host)))
}

/// The name that the request was sent to, without its port.
fn host(request: &Request) -> Option<&str> {
    if let Some(host) = request.uri().host() {
        return Some(host);
    }
    let value = request.headers().get(header::HOST)?.to_str().ok()?;
    let end = value.rfind(':').filter(|at| !value[*at..].contains(']')).unwrap_or(value.len());
    Some(&value[..end])
}

fn answer_panic(panic: &(dyn Any + Send)) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    ApiError::internal(&format_args!("panic: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_slashes_are_dropped_without_touching_the_query() {
        for (given, expected) in [
            ("/a/b/?x=/", "/a/b?x=/"),
            ("/a//", "/a"),
            ("/", "/"),
            ("//", "//"),
            ("/a", "/a"),
            ("/a%2F", "/a%2F"),
        ] {
            let request = Request::builder().uri(given).body(Body::empty()).unwrap();
            assert_eq!(without_trailing_slash(request).uri().to_string(), expected);
        }
    }

    #[test]
    fn the_host_is_read_without_its_port() {
        for (given, expected) in [
            ("a.example:8071", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            let request = Request::builder().uri("/").header("host", given).body(Body::empty()).unwrap();
            assert_eq!(host(&request), Some(expected));
        }
    }
}
