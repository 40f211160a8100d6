//! Numbers of an endpoint over a window of time.

use crate::{
    error::{ApiError, Errors, Problems},
    query::Query,
    scope::{EndpointPath, InEndpoint},
    state::ApiState,
};
use axum::{Json, extract::State};
use postrider_model::time::Timestamp;
use postrider_store::page::Window;
use serde::Serialize;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// The longest window, and the one by default.
const LONGEST: Duration = Duration::from_hours(28 * 24);
/// What a window may be longer: for callers that computed its start a moment ago.
const LONGEST_SLACK: Duration = Duration::from_mins(5);
/// What the clocks of callers may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_mins(1);
const HOUR_MICROS: i64 = 3600 * 1_000_000;

/// A window of time, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct WindowParams {
    /// Start; 28 days before `until` by default, and at most.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// End; now by default, and at the latest.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
}

/// Numbers of an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointStats)]
pub(crate) struct EndpointStatsOut {
    /// Successful attempts.
    success: u64,
    /// Messages without an attempt yet.
    pending: u64,
    /// Messages between two attempts.
    sending: u64,
    /// Failed attempts.
    fail: u64,
    /// Messages whose delivery was cancelled.
    canceled: u64,
}

/// Numbers of an endpoint's attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointAttemptStats {
    /// Successful attempts.
    success: u64,
    /// Failed attempts.
    fail: u64,
    /// Messages whose delivery was cancelled.
    canceled: u64,
}

/// Get numbers of an endpoint
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/stats", tag = "Endpoint",
    operation_id = "v1.endpoint.get-stats",
    params(EndpointPath, WindowParams),
    responses((status = 200, description = "OK", body = EndpointStatsOut), Errors),
)]
pub(crate) async fn get(
    State(state): State<ApiState>,
    within: InEndpoint,
    query: Query,
) -> Result<Json<EndpointStatsOut>, ApiError> {
    let (since, until) = asked(&query, state.store.clock().now())?;
    let window = Window { from: Some(since), until: Some(until) };
    let numbers = state.store.endpoint_stats(&within.scope, within.endpoint.id, window).await?;
    Ok(Json(EndpointStatsOut {
        success: numbers.succeeded,
        pending: numbers.waiting,
        sending: numbers.retrying,
        fail: numbers.failed,
        canceled: numbers.cancelled,
    }))
}

/// Get numbers of an endpoint's attempts
///
/// The window is widened to full hours.
#[utoipa::path(
    get, path = "/api/v1/app/{app_id}/endpoint/{endpoint_id}/attempt-stats", tag = "Endpoint",
    operation_id = "v1.endpoint.get-attempt-stats",
    params(EndpointPath, WindowParams),
    responses((status = 200, description = "OK", body = EndpointAttemptStats), Errors),
)]
pub(crate) async fn attempts(
    State(state): State<ApiState>,
    within: InEndpoint,
    query: Query,
) -> Result<Json<EndpointAttemptStats>, ApiError> {
    let (since, until) = asked(&query, state.store.clock().now())?;
    let window = full_hours(since, until);
    let numbers = state.store.endpoint_stats(&within.scope, within.endpoint.id, window).await?;
    Ok(Json(EndpointAttemptStats {
        success: numbers.succeeded,
        fail: numbers.failed,
        canceled: numbers.cancelled,
    }))
}

fn asked(query: &Query, now: Timestamp) -> Result<(Timestamp, Timestamp), ApiError> {
    let mut problems = Problems::default();
    let since = problems.check(query.date("since"));
    let until = problems.check(query.date("until"));
    let (since, until) = super::history::complete(since.zip(until), problems)?;
    range(since, until, now).map_err(|reason| ApiError::bad_request("invalid_range", reason))
}

/// The window from `since` to `until`, or why there is none.
fn range(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), &'static str> {
    let end = until.unwrap_or(now);
    if end > now.plus(CLOCK_SKEW) {
        return Err("'until' cannot be in the future");
    }
    let start = since.unwrap_or_else(|| end.minus(LONGEST));
    if start > end {
        return Err("'since' cannot be after 'until'");
    }
    if end.since(start) > LONGEST + LONGEST_SLACK {
        return Err("'since' cannot be more than 28 days prior to 'until'");
    }
    // What is asked for up to now includes what happens in this instant.
    let end = if until.is_none() { end.plus(CLOCK_SKEW) } else { end };
    Ok((start, end))
}

fn full_hours(since: Timestamp, until: Timestamp) -> Window {
    let floor = |at: i64| at - at.rem_euclid(HOUR_MICROS);
    let from = floor(since.as_micros());
    let until = floor(until.as_micros() + HOUR_MICROS - 1);
    Window { from: Some(Timestamp::from_micros(from)), until: Some(Timestamp::from_micros(until)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_767_227_400_000_000);

    #[test]
    fn a_window_is_at_most_28_days_and_not_in_the_future() {
        let day = |count: u64| NOW.minus(Duration::from_hours(count * 24));
        let minute = Duration::from_mins(1);
        for (since, until, expected) in [
            (None, None, Ok((day(28), NOW.plus(CLOCK_SKEW)))),
            (None, Some(day(2)), Ok((day(30), day(2)))),
            (Some(day(1)), Some(NOW.plus(minute)), Ok((day(1), NOW.plus(minute)))),
            (Some(day(28).minus(minute * 5)), Some(NOW), Ok((day(28).minus(minute * 5), NOW))),
            (Some(day(1)), Some(NOW.plus(minute * 2)), Err("'until' cannot be in the future")),
            (Some(day(1)), Some(day(2)), Err("'since' cannot be after 'until'")),
            (Some(day(29)), None, Err("'since' cannot be more than 28 days prior to 'until'")),
        ] {
            assert_eq!(range(since, until, NOW), expected, "{since:?} {until:?}");
        }
    }

    #[test]
    fn attempts_are_counted_in_full_hours() {
        let half_past = NOW;
        let hour = Timestamp::from_micros(1_767_225_600_000_000);
        let next = hour.plus(Duration::from_hours(1));
        assert_eq!(full_hours(half_past, half_past), Window { from: Some(hour), until: Some(next) });
        assert_eq!(full_hours(hour, next), Window { from: Some(hour), until: Some(next) });
    }
}
