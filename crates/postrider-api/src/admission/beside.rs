//! The gates of everything that is not publishing: reads and changes each have a bound of their own, so that neither keeps
//! the other, or publishing, from being served. One token has half of a gate at most.
//!
//! Health, metrics and documentation pass always. A publish passes too: it has its own gates, behind authentication. Test
//! sends, which wait for seconds and do nothing meanwhile, have another gate for that reason.

use super::{Admission, PATIENCE_BESIDE, Pass, Reason};
use crate::error::ApiError;
use http::{HeaderMap, HeaderValue, Method, header};
use std::hash::BuildHasher as _;
use tokio::time::Instant;

/// Who has to pass where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Passes,
    Reads,
    Changes,
    Tests,
}

impl Admission {
    /// A place for the time of a request, if it needs one.
    pub(crate) async fn beside(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Pass<'_>>, ApiError> {
        let (gate, reason) = match classify(method, path) {
            Class::Passes => return Ok(None),
            Class::Reads => (&self.reads, Reason::Reads),
            Class::Changes => (&self.changes, Reason::Changes),
            Class::Tests => (&self.tests, Reason::Changes),
        };
        let arrived = Instant::now();
        let token = self.keys.hash_one(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes));
        if let Ok(pass) = gate.enter(token, 1).await {
            return Ok(Some(pass));
        }
        self.count(reason);
        self.hold(arrived + PATIENCE_BESIDE).await;
        Err(reason.answer())
    }
}

fn classify(method: &Method, path: &str) -> Class {
    let path = path.trim_end_matches('/');
    let below = path.strip_prefix("/api/v1/").unwrap_or_default();
    if below.is_empty() || below == "health" || below.starts_with("health/") {
        return Class::Passes;
    }
    match *method {
        Method::GET | Method::HEAD => Class::Reads,
        Method::POST if path.ends_with("/msg") => Class::Passes,
        Method::POST if path.ends_with("/msg/test-attempt") => Class::Tests,
        _ => Class::Changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_and_what_operators_look_at_pass() {
        for (method, path, class) in [
            (Method::POST, "/api/v1/app/a/msg", Class::Passes),
            (Method::POST, "/api/v1/app/a/msg/", Class::Passes),
            (Method::POST, "/api/v1/app/a/endpoint/e/msg/test-attempt", Class::Tests),
            (Method::GET, "/api/v1/health", Class::Passes),
            (Method::GET, "/api/v1/health/ping/", Class::Passes),
            (Method::GET, "/metrics", Class::Passes),
            (Method::GET, "/docs", Class::Passes),
            (Method::GET, "/api/v1/app/a/msg", Class::Reads),
            (Method::GET, "/api/v1/healthy", Class::Reads),
            (Method::GET, "/api/v1/app", Class::Reads),
            (Method::POST, "/api/v1/app", Class::Changes),
            (Method::POST, "/api/v1/app/a/msg/m/endpoint/e/resend", Class::Changes),
            (Method::DELETE, "/api/v1/app/a/msg", Class::Changes),
        ] {
            assert_eq!(classify(&method, path), class, "{method} {path}");
        }
    }
}
