//! Every answer that is not a success: status and JSON as clients of the Svix API expect them.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use postrider_store::{StoreError, WriteError};
use serde::Serialize;
use std::{borrow::Cow, time::Duration};
use utoipa::{IntoResponses, ToSchema};

/// When a caller may look whether there is space again: somebody has to make it.
const FULL_AGAIN: Duration = Duration::from_secs(30);

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    body: Body,
    retry_after: Option<Duration>,
    close: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Coded { code: &'static str, detail: Cow<'static, str> },
    Problems(Vec<Problem>),
}

/// One thing that is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ValidationError)]
pub struct Problem {
    /// Path to the value: `body`, `query` or `path`, then names; `[0]` stands for an index.
    loc: Vec<String>,
    /// What is wrong and what is accepted.
    msg: Cow<'static, str>,
    /// Stable name of the kind of problem.
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Problem {
    /// A value that reads but is not accepted.
    pub fn at(root: &str, names: &[&str], msg: impl Into<Cow<'static, str>>) -> Self {
        let loc = std::iter::once(root).chain(names.iter().copied()).map(str::to_owned).collect();
        Self { loc, msg: msg.into(), kind: "value_error" }
    }

    /// The same for a member of the body.
    pub fn body(name: &str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self::at("body", &[name], msg)
    }

    /// The same for a query parameter.
    pub fn query(name: &str, msg: impl Into<Cow<'static, str>>) -> Self {
        Self::at("query", &[name], msg)
    }

    /// JSON that cannot be read as what is expected; `path` starts below the body.
    pub fn json(path: Vec<String>, msg: impl Into<Cow<'static, str>>) -> Self {
        let loc = std::iter::once("body".to_owned()).chain(path).collect();
        Self { loc, msg: msg.into(), kind: "value_error.jsondecode" }
    }

    /// Another kind than `value_error`.
    #[must_use]
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }
}

/// Gathers problems, so that one answer names all of them.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Keeps the problem and gives `None`, or the value.
    pub fn check<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }

    /// One more problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Nothing was wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same problems with the member of the body that holds the checked object in front.
    #[must_use]
    pub fn within(mut self, member: &str) -> Self {
        for problem in &mut self.0 {
            problem.loc.insert(1.min(problem.loc.len()), member.to_owned());
        }
        self
    }

    /// The 422.
    pub fn into_error(self) -> ApiError {
        ApiError::invalid(self.0)
    }

    /// The 422, if there was any problem.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.0)) }
    }
}

impl ApiError {
    fn coded(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, body: Body::Coded { code, detail: detail.into() }, retry_after: None, close: false }
    }

    /// 400 with a code of its own, as clients of the Svix API know it.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::coded(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no token, or not one of ours.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::coded(StatusCode::UNAUTHORIZED, "authentication_failed", detail)
    }

    /// 403: a valid token that may not do this. The code has a space on the wire.
    pub fn forbidden() -> Self {
        Self::coded(
            StatusCode::FORBIDDEN,
            "insufficient access",
            "Insufficient access for the given operation.",
        )
    }

    /// 404; also for what belongs to somebody else.
    pub fn not_found(detail: &'static str) -> Self {
        Self::coded(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 404 with the text that fits every kind of thing.
    pub fn entity_not_found() -> Self {
        Self::not_found("Entity not found")
    }

    /// 409: a name is taken, or two writes met.
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::coded(StatusCode::CONFLICT, code, detail)
    }

    /// 413, and the connection is closed: its sender may still be sending.
    pub fn too_large() -> Self {
        let mut error =
            Self::coded(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "Request payload is too large.");
        error.close = true;
        error
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout() -> Self {
        let mut error = Self::coded(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The request body did not arrive in time; send it again.",
        );
        error.close = true;
        error
    }

    /// 422 with all that is wrong.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: Body::Problems(problems),
            retry_after: None,
            close: false,
        }
    }

    /// 429.
    pub fn too_many_requests(detail: &'static str, retry_after: Duration) -> Self {
        let mut error = Self::coded(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        error.retry_after = Some(retry_after);
        error
    }

    /// 421: called under a name that is not this server's.
    pub fn misdirected() -> Self {
        Self::coded(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected_request",
            "This server is not called by this name; add it to `api.public_hosts` in the configuration.",
        )
    }

    /// 508: an endpoint leads back to this server.
    pub fn loop_detected() -> Self {
        Self::coded(
            StatusCode::LOOP_DETECTED,
            "loop_detected",
            "This is a delivery of a webhook server, not a call: change the URL of the endpoint that leads here.",
        )
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::coded(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
    }

    /// 501 for what is not built yet.
    pub fn not_implemented() -> Self {
        Self::coded(
            StatusCode::NOT_IMPLEMENTED,
            "not_implemented",
            "This API endpoint is not yet implemented.",
        )
    }

    /// 504: what was asked for is stored, but its result did not come in time.
    pub fn no_result_yet(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::coded(StatusCode::GATEWAY_TIMEOUT, code, detail)
    }

    /// 503: ask again.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        let mut error = Self::coded(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        error.retry_after = Some(retry_after);
        error
    }

    /// 503: too much is asked for at the moment; nothing was done.
    pub fn overloaded(detail: &'static str, retry_after: Duration) -> Self {
        let mut error = Self::coded(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
        error.retry_after = Some(retry_after);
        error
    }

    /// 429: one application publishes more than its part.
    pub fn publishing_too_fast(retry_after: Duration) -> Self {
        let mut error = Self::coded(
            StatusCode::TOO_MANY_REQUESTS,
            "publishing_too_fast",
            "More is published to this application than is served beside the others; nothing was stored, publish again \
             with the same idempotency key.",
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// 500: logs the cause once, with a reference that the caller gets too, and tells the caller nothing else.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let reference = format!("{:016x}", rand::random::<u64>());
        tracing::error!(request.id = %reference, cause = %cause, "a request failed inside");
        Self::coded(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            format!("Internal Server Error (the operator finds the cause in the log under {reference})"),
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self::invalid(vec![problem])
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable { retry_after, .. } => {
                tracing::warn!(cause = %error, "the store is not available");
                Self::unavailable("The server is busy or closing; ask again.", *retry_after)
            }
            StoreError::Full { .. } => {
                // The store has said so once; every caller would say it again.
                tracing::debug!(cause = %error, "the store is full");
                let mut error = Self::coded(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "storage_full",
                    "The server has no space left, nothing was stored; its operator must free some.",
                );
                error.retry_after = Some(FULL_AGAIN);
                error
            }
            StoreError::Inconsistent { .. } | StoreError::Sealed { .. } | StoreError::Internal { .. } => {
                Self::internal(&error)
            }
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Taken => Self::conflict("conflict", "A conflict has occurred"),
            WriteError::Stale => {
                Self::conflict("conflict", "It was changed by someone else meanwhile; read it and try again")
            }
            WriteError::Missing => Self::entity_not_found(),
            WriteError::Limit(detail) => Self::bad_request("limit_reached", detail),
            WriteError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Body::Coded { code, detail } => Json(ErrorBody { code, detail }).into_response(),
            Body::Problems(detail) => Json(ValidationErrorBody { detail }).into_response(),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            // Rounded up: a client that comes back earlier is refused again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error with a stable code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HttpError)]
pub struct ErrorBody {
    /// Stable name of the error.
    #[schema(value_type = String, example = "not_found")]
    code: &'static str,
    /// What happened, and where there is one, the way out.
    #[schema(value_type = String, example = "Entity not found")]
    detail: Cow<'static, str>,
}

/// Everything that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HTTPValidationError)]
pub struct ValidationErrorBody {
    /// One item per problem.
    detail: Vec<Problem>,
}

/// The errors that every operation can answer, for the OpenAPI document.
#[derive(IntoResponses)]
pub enum Errors {
    /// The request cannot be carried out as it stands.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// No token, or not a valid one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The token may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such thing, or it belongs to somebody else.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// A name is taken, or two writes met.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The request is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// Values that are not accepted, each with its place.
    #[response(status = 422)]
    Invalid(ValidationErrorBody),
    /// Too many failed authentications from this address, or more published to an application than is served beside the
    /// others: ask again after the time in `Retry-After`.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// A failure inside; the detail carries the reference of the log entry.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// Ask again after the time in `Retry-After`.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// No space left; nothing was stored.
    #[response(status = 507)]
    Full(ErrorBody),
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(error: ApiError) -> (u16, String, Option<String>) {
        let response = error.into_response();
        let status = response.status().as_u16();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let retry =
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap(), retry)
    }

    #[tokio::test]
    async fn errors_have_the_documented_bodies() {
        let (status, body, _) = text(ApiError::not_found("Application not found")).await;
        assert_eq!(
            (status, body.as_str()),
            (404, r#"{"code":"not_found","detail":"Application not found"}"#)
        );
        let (status, body, _) = text(Problem::body("uid", "is taken").into()).await;
        assert_eq!(
            (status, body.as_str()),
            (422, r#"{"detail":[{"loc":["body","uid"],"msg":"is taken","type":"value_error"}]}"#)
        );
    }

    #[tokio::test]
    async fn a_failure_inside_is_logged_but_not_told() {
        let error = StoreError::Inconsistent { table: "canary", column: "x", row: "1".into() };
        let (status, body, _) = text(error.into()).await;
        assert_eq!(status, 500);
        assert!(body.contains("server_error") && !body.contains("canary"), "{body}");
    }

    #[tokio::test]
    async fn a_busy_store_says_when_to_come_back() {
        let error =
            StoreError::Unavailable { detail: "canary".into(), retry_after: Duration::from_millis(1500) };
        let (status, body, retry) = text(error.into()).await;
        assert_eq!((status, retry.as_deref()), (503, Some("2")));
        assert!(!body.contains("canary"));
        let (status, body, retry) = text(StoreError::Full { detail: "canary".into() }.into()).await;
        assert_eq!((status, retry.as_deref()), (507, Some("30")));
        assert!(body.contains("storage_full") && !body.contains("canary"), "{body}");
    }
}
