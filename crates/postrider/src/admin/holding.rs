//! The hold on deliveries over the administration: how it stands, and each step of beginning or ending it.

use super::{refusal, refused};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use postrider_model::{id::EndpointId, time::Timestamp};
use postrider_store::{
    Store, StoreError,
    hold::{Decision, Hold, Place, Step},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Deliveries of one step: some hundredths of a second of the writer's time.
const BATCH: usize = 2_000;

/// A step to make.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// `hold`, `release`, `drop` or `retime`.
    pub what: String,
    /// Of `hold`: why.
    pub reason: Option<String>,
    /// Of `drop`: RFC 3339; when the hold began by default.
    pub due_before: Option<String>,
    /// Of `retime`: RFC 3339.
    pub from: Option<String>,
    /// Of `retime`: RFC 3339.
    pub until: Option<String>,
    /// Where the last step said to go on.
    pub next: Option<Next>,
}

/// Where to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Next {
    endpoint: String,
    retries: bool,
    done: u64,
    of: u64,
}

impl From<Place> for Next {
    fn from(place: Place) -> Self {
        let Place { endpoint, retries, done, of } = place;
        Self { endpoint: endpoint.to_string(), retries, done, of }
    }
}

impl Next {
    fn place(&self) -> Option<Place> {
        let endpoint = EndpointId::parse(&self.endpoint)?;
        Some(Place { endpoint, retries: self.retries, done: self.done, of: self.of })
    }
}

/// The routes.
pub(super) fn routes(store: Arc<dyn Store>) -> Router {
    Router::new().route("/hold", get(stand)).route("/hold/step", post(step)).with_state(store)
}

async fn stand(State(store): State<Arc<dyn Store>>) -> Response {
    match store.hold().await {
        Ok(hold) => Json(json!({ "hold": hold.as_ref().map(shown) })).into_response(),
        Err(error) => refused(&error.into()),
    }
}

fn shown(hold: &Hold) -> Value {
    json!({
        "since": hold.since.to_rfc3339(),
        "reason": hold.reason,
        "deliveries": hold.deliveries,
        "overdue": hold.overdue,
        "oldestDue": hold.oldest_due.map(Timestamp::to_rfc3339),
    })
}

async fn step(State(store): State<Arc<dyn Store>>, Json(ask): Json<Ask>) -> Response {
    match carry_out(store.as_ref(), &ask).await {
        Ok(Step { moved, cancelled, next }) => {
            Json(json!({ "moved": moved, "cancelled": cancelled, "next": next.map(Next::from) }))
                .into_response()
        }
        Err(Refused::Asked(detail)) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &detail),
        Err(Refused::Store(error)) => refused(&error.into()),
    }
}

enum Refused {
    Asked(String),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn carry_out(store: &dyn Store, ask: &Ask) -> Result<Step, Refused> {
    let place = match &ask.next {
        Some(next) => {
            Some(next.place().ok_or_else(|| Refused::Asked("`next` is no place to go on".to_owned()))?)
        }
        None => None,
    };
    if ask.what == "hold" {
        let reason = ask.reason.as_deref().unwrap_or("the operator asked for it");
        return Ok(store.put_on_hold(reason, place, BATCH).await?);
    }
    let decision = decision(store, ask)?;
    Ok(store.decide(decision, place, BATCH).await?)
}

fn decision(store: &dyn Store, ask: &Ask) -> Result<Decision, Refused> {
    match ask.what.as_str() {
        "release" => Ok(Decision::Release),
        "drop" => {
            let named = ask.due_before.as_deref().map(instant).transpose()?;
            let due_before = named.or(store.held_since()).unwrap_or_else(|| store.clock().now());
            Ok(Decision::Drop { due_before })
        }
        "retime" => {
            let (Some(from), Some(until)) = (&ask.from, &ask.until) else {
                return Err(Refused::Asked("`retime` needs `from` and `until`".to_owned()));
            };
            Ok(Decision::Retime { from: instant(from)?, until: instant(until)? })
        }
        other => Err(Refused::Asked(format!("`{other}` is neither hold, release, drop nor retime"))),
    }
}

fn instant(text: &str) -> Result<Timestamp, Refused> {
    Timestamp::parse(text)
        .ok_or_else(|| Refused::Asked(format!("`{text}` is no instant: write it as 2026-11-23T18:00:00Z")))
}
