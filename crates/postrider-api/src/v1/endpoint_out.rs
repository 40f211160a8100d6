//! An endpoint as the API shows it: never a credential.

use postrider_model::{
    application::Metadata, endpoint::Endpoint, event_type::EventTypeName, message::Channel,
};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// An endpoint as it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOut {
    /// Its id.
    #[schema(pattern = "^ep_[A-Za-z0-9]{27}$")]
    id: String,
    /// Your own name for it.
    uid: Option<String>,
    /// Where messages go, normalised.
    #[schema(format = "uri")]
    url: String,
    /// Shown to people.
    description: String,
    /// Messages per second.
    throttle_rate: Option<u16>,
    /// Older name of `throttleRate`.
    #[schema(deprecated)]
    rate_limit: Option<u16>,
    /// Gets nothing while `true`.
    disabled: bool,
    /// Why it is disabled: `requested` or `gone`.
    disabled_reason: Option<&'static str>,
    /// The same as a sentence, with the way out.
    disabled_detail: Option<&'static str>,
    /// Since when it is disabled.
    #[schema(format = DateTime)]
    disabled_at: Option<String>,
    /// Only messages of these types; `null` means all.
    event_types: Option<Vec<String>>,
    /// Older name of `eventTypes`.
    #[schema(deprecated)]
    filter_types: Option<Vec<String>>,
    /// Only messages with one of these channels; `null` means all.
    channels: Option<Vec<String>>,
    /// Your own data.
    metadata: Metadata,
    /// Its messages are sent with an OAuth2 token.
    has_oauth: bool,
    /// Waits between attempts in seconds; `null` means the server's.
    retry_schedule: Option<Vec<f64>>,
    /// Age in seconds at which a delivery is given up; `null` derives it from `retrySchedule`, or means the server's when that is `null` too.
    deadline_seconds: Option<f64>,
    /// Kept for clients of the first generation; without meaning.
    #[schema(deprecated)]
    version: u16,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl EndpointOut {
    /// The endpoint, and whether it has OAuth2 settings.
    pub(crate) fn new(endpoint: Endpoint, has_oauth: bool) -> Self {
        let event_types = names(endpoint.filter.event_types.iter().map(EventTypeName::as_str));
        Self {
            id: endpoint.id.to_string(),
            uid: endpoint.uid.map(|uid| uid.as_str().to_owned()),
            url: endpoint.url.as_str().to_owned(),
            description: endpoint.description,
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            disabled: endpoint.disabled.is_some(),
            disabled_reason: endpoint.disabled.as_ref().map(|disabled| disabled.reason.name()),
            disabled_detail: endpoint.disabled.as_ref().map(|disabled| disabled.reason.explanation()),
            disabled_at: endpoint.disabled.map(|disabled| disabled.at.to_rfc3339()),
            filter_types: event_types.clone(),
            event_types,
            channels: names(endpoint.filter.channels.iter().map(Channel::as_str)),
            metadata: endpoint.metadata,
            has_oauth,
            deadline_seconds: endpoint.retry.deadline.map(|deadline| deadline.as_secs_f64()),
            retry_schedule: endpoint
                .retry
                .waits
                .map(|waits| waits.iter().map(Duration::as_secs_f64).collect()),
            version: endpoint.legacy_version,
            created_at: endpoint.created_at.to_rfc3339(),
            updated_at: endpoint.updated_at.to_rfc3339(),
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let names: Vec<String> = names.map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}
