//! The circuit breaker of an endpoint, as it stands on the node that serves it.

use crate::{
    error::{ApiError, Errors},
    ports::{BreakerState, Standing},
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use postrider_model::{id::EndpointId, time::Timestamp};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// When to ask again when nobody could tell.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The circuit breaker of an endpoint.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EndpointBreakerOut)]
pub(crate) struct BreakerOut {
    /// What it lets through.
    state: BreakerState,
    /// What opened it: `timeout`, `connect`, `host_not_deliverable`, `failing`, `overloaded`, `refusing`,
    /// `token_unavailable` or `token_rejected`.
    #[schema(example = "timeout")]
    trouble: Option<&'static str>,
    /// When it was first opened since the endpoint was last well.
    #[schema(format = DateTime)]
    open_since: Option<String>,
    /// When the next delivery is sent as a probe. It may have passed: then the next one that is due is the probe.
    #[schema(format = DateTime)]
    next_probe_at: Option<String>,
    /// How often it was opened since the endpoint was last well; each time, the pause doubles.
    trips: u32,
    /// Deliveries to the endpoint that run at the same time at most.
    places: usize,
}

/// Get the circuit breaker of an endpoint
///
/// An endpoint that is in trouble is left alone for a while; its deliveries wait, and no attempt of them is counted. This
/// state is kept in memory, by the node that serves the endpoint; whichever node is asked asks that one. 503 when it does
/// not answer.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/breaker", tag = "Endpoint",
    operation_id = "v1.endpoint.get-breaker",
    params(EndpointPath),
    responses((status = 200, description = "OK", body = BreakerOut), Errors),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    within: InEndpoint,
) -> Result<Json<BreakerOut>, ApiError> {
    Ok(Json(BreakerOut::of(&standing(&state, within.endpoint.id).await?)))
}

/// How the node that serves an endpoint treats it, or 503.
pub(crate) async fn standing(state: &ApiState, endpoint: EndpointId) -> Result<Standing, ApiError> {
    state.pulse.standing(endpoint).await.ok_or_else(|| {
        ApiError::unavailable(
            "the node that delivers to this endpoint did not say how it stands (nodes must hear each other, which they \
             cannot behind a pooler in transaction mode): ask again, or ask a node that delivers to it",
            ASK_AGAIN,
        )
    })
}

impl BreakerOut {
    fn of(standing: &Standing) -> Self {
        let Standing { state, pause, .. } = *standing;
        let time = |at: Timestamp| at.to_rfc3339();
        Self {
            state,
            trouble: pause.map(|pause| pause.trouble.name()),
            open_since: pause.map(|pause| time(pause.since)),
            next_probe_at: pause.filter(|_| state == BreakerState::Open).map(|pause| time(pause.until)),
            trips: pause.map_or(0, |pause| pause.trips),
            places: standing.places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::breaker::{Breaker, Finding, Trouble};
    use serde_json::json;

    fn shown(breaker: Breaker) -> serde_json::Value {
        serde_json::to_value(BreakerOut::of(&Standing::of(breaker, 10, None))).unwrap()
    }

    #[test]
    fn each_state_is_shown_with_what_is_known_of_it() {
        let now = Timestamp::from_micros(1_767_225_600_000_000);
        let trouble = Finding::Trouble(Trouble::Timeout, None);
        let closed = Breaker::default();
        let open = (0..5).fold(closed, |breaker, _| breaker.after(trouble, now, 0.0));
        let probing = open.probing(1);
        let recovering = probing.after_probe(1, Finding::Well, now, 0.0);
        let since = "2026-01-01T00:00:00.000000Z";
        assert_eq!(
            shown(open),
            json!({
                "state": "open", "trouble": "timeout", "openSince": since, "trips": 1, "places": 10,
                "nextProbeAt": "2026-01-01T00:00:10.000000Z",
            })
        );
        assert_eq!(
            shown(probing),
            json!({
                "state": "half_open", "trouble": "timeout", "openSince": since, "trips": 1, "places": 10,
                "nextProbeAt": null,
            })
        );
        for (breaker, state) in [(closed, "closed"), (recovering, "recovering")] {
            assert_eq!(
                shown(breaker),
                json!({
                    "state": state, "trouble": null, "openSince": null, "trips": 0, "places": 10,
                    "nextProbeAt": null,
                })
            );
        }
    }
}
