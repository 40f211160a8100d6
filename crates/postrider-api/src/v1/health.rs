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

/// Told while a hold lasts. Anybody may read it: so neither how much waits nor why.
const HELD: &str = "deliveries that were pending are on hold; decide with `postrider deliveries` (status, release, drop, retime)";

/// The last test write: when, and what was wrong with it.
#[derive(Debug, Default)]
pub struct LastWrite(Mutex<Option<(Instant, Option<&'static str>)>>);

/// The state of this node.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthOut {
    /// `ok` or `sick`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// What is wrong, a sentence each.
    reasons: Vec<String>,
    /// Since when deliveries that were pending wait for the operator's decision, after a restore for example; left out
    /// when none do. No fault of the node, which delivers what is published.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    on_hold_since: Option<String>,
    /// What the operator has to decide, a sentence each; left out when nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
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
    let held = held(&state).await;
    let notes = held.iter().map(|_| HELD.to_owned()).collect();
    let on_hold_since = held.map(Timestamp::to_rfc3339);
    if reasons.is_empty() {
        return Json(HealthOut { status: "ok", reasons, on_hold_since, notes }).into_response();
    }
    let detail = reasons.join("; ");
    let health = HealthOut { status: "sick", reasons, on_hold_since, notes };
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

/// Since when a hold lasts. What the store cannot tell now is what this process knew last: the store is a reason already.
async fn held(state: &ApiState) -> Option<Timestamp> {
    match timeout(WRITE_TIME, state.store.still_held_since()).await {
        Ok(Ok(held)) => held,
        _ => state.store.held_since(),
    }
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
