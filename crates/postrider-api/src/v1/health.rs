//! Is this node able to do its work? Red when claimable work has waited for 30 s or the store cannot write.

use crate::state::ApiState;
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use postrider_model::time::Timestamp;
use postrider_store::health::Backlog;
use serde::Serialize;
use std::time::Duration;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use utoipa::ToSchema;

/// Work that could be claimed and is not for this long means that nobody claims.
const UNCLAIMED: Duration = Duration::from_secs(30);
/// A durable write that takes longer counts as failed.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// The outcome of a test write is reused for this long: anybody may ask, and each one costs a synced commit.
const WRITE_REUSE: Duration = Duration::from_millis(500);

/// The last test write: when, and what was wrong with it.
#[derive(Debug, Default)]
pub struct LastWrite(Mutex<Option<(Instant, Option<&'static str>)>>);

/// The state of this node.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthOut {
    /// `ok` or `sick`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// What is wrong, a sentence each.
    reasons: Vec<String>,
}

/// A node that cannot do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct SickOut {
    /// `unhealthy`.
    #[schema(value_type = String, example = "unhealthy")]
    code: &'static str,
    /// All reasons in one sentence.
    detail: String,
    #[serde(flatten)]
    #[schema(inline)]
    health: HealthOut,
}

/// Is this node able to do its work?
#[utoipa::path(
    get,
    path = "/api/v1/health",
    tag = "Health",
    operation_id = "v1.health.get",
    security(()),
    responses(
        (status = 200, description = "It is.", body = HealthOut),
        (status = 503, description = "It is not, for these reasons.", body = SickOut),
    ),
)]
pub async fn get(State(state): State<ApiState>) -> Response {
    let mut reasons = Vec::new();
    if let Some(problem) = write_problem(&state).await {
        reasons.push(problem.to_owned());
    }
    match state.store.backlog().await {
        Err(_) => reasons.push("the store cannot be read".to_owned()),
        Ok(backlog) => reasons.extend(unclaimed(&backlog, state.store.clock().now())),
    }
    if state.pulse.live().since_last_round.is_some_and(|since| since > UNCLAIMED) {
        reasons.push("the scheduler stands still; restart the node if it stays so".to_owned());
    }
    if reasons.is_empty() {
        return Json(HealthOut { status: "ok", reasons }).into_response();
    }
    let detail = reasons.join("; ");
    let health = HealthOut { status: "sick", reasons };
    (StatusCode::SERVICE_UNAVAILABLE, Json(SickOut { code: "unhealthy", detail, health })).into_response()
}

/// Does this process answer?
#[utoipa::path(
    get,
    path = "/api/v1/health/ping",
    tag = "Health",
    operation_id = "v1.health.ping",
    security(()),
    responses((status = 204, description = "It does.")),
)]
pub async fn ping() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// The lock is held during the write: of many callers, one writes and all get its outcome.
async fn write_problem(state: &ApiState) -> Option<&'static str> {
    let mut last = state.last_write.0.lock().await;
    if let Some((at, problem)) = *last
        && at.elapsed() < WRITE_REUSE
    {
        return problem;
    }
    let problem = match timeout(WRITE_TIME, state.store.check_write()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::warn!(cause = %error, "health: the store cannot write");
            Some("the store cannot write; see the log and the free space of its disk")
        }
        Err(_) => Some("the store takes too long to write; see the load of its disk"),
    };
    *last = Some((Instant::now(), problem));
    problem
}

fn unclaimed(backlog: &Backlog, now: Timestamp) -> Option<String> {
    let waited = now.since(backlog.oldest_due?);
    (waited > UNCLAIMED)
        .then(|| format!("deliveries that could be made have waited for {} s", waited.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_nobody_claims_is_a_reason() {
        let due = Timestamp::from_micros(1_000_000);
        let backlog = Backlog { pending: 1, oldest_due: Some(due) };
        assert_eq!(unclaimed(&backlog, due.plus(Duration::from_secs(30))), None);
        assert!(unclaimed(&backlog, due.plus(Duration::from_secs(31))).is_some());
        assert_eq!(unclaimed(&Backlog { pending: 1, oldest_due: None }, due), None);
    }
}
