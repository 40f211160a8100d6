//! What a caller says of an endpoint, read and checked; which event types exist is asked of the store.

use super::{
    credentials::{check_clear_text, check_headers, generate_secret, has_sensitive},
    fields,
};
use crate::{
    config::Config,
    error::{ApiError, Problem, Problems},
    json::unique_or_null,
    patch::Patch,
    state::ApiState,
};
use postrider_model::{
    application::Metadata,
    endpoint::Endpoint,
    event_type::{EventType, EventTypeName},
    filter::Filter,
    headers::{CustomHeader, CustomHeaders, is_sensitive_name},
    id::{EndpointKind, Kind},
    limits,
    message::Channel,
    retry::RetryOverride,
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::endpoints::{EndpointFields, NewEndpoint};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use utoipa::ToSchema;

/// An endpoint as a caller describes it in full. Replacing ignores `secret` and `headers`, which have their own
/// operations.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointIn {
    /// Where messages go.
    #[schema(format = "uri", max_length = 2048, example = "https://example.com/webhooks")]
    url: String,
    /// Shown to people.
    #[serde(default)]
    description: Option<String>,
    /// Messages per second.
    #[serde(default)]
    #[schema(minimum = 1)]
    throttle_rate: Option<u16>,
    /// Older name of `throttleRate`.
    #[serde(default)]
    #[schema(minimum = 1, deprecated)]
    rate_limit: Option<u16>,
    /// Your own name for it, unique in the application; usable wherever its id is.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, pattern = r"^[a-zA-Z0-9\-_.]+$")]
    uid: Option<String>,
    /// Gets nothing while `true`.
    #[serde(default)]
    disabled: Option<bool>,
    /// Only messages of these types; all when left out.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 500)]
    event_types: Option<Vec<String>>,
    /// Older name of `eventTypes`.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 500, deprecated)]
    filter_types: Option<Vec<String>>,
    /// Only messages with one of these channels; all when left out.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 10)]
    channels: Option<Vec<String>>,
    /// Signing secret, `whsec_…` or `whsk_…`; generated when left out.
    #[serde(default)]
    #[schema(write_only, format = Password, example = "example-not-a-secret")]
    secret: Option<String>,
    /// Your own data, at most 4096 bytes as JSON.
    #[serde(default, deserialize_with = "unique_or_null")]
    metadata: Option<Metadata>,
    /// Custom headers that are sent with each message.
    #[serde(default, deserialize_with = "unique_or_null")]
    #[schema(write_only)]
    headers: Option<BTreeMap<String, String>>,
    /// Kept for clients of the first generation; without meaning.
    #[serde(default)]
    #[schema(minimum = 1, deprecated)]
    version: Option<u16>,
    /// Waits between attempts in seconds, fractions allowed; `[]` means one attempt. The server's when left out.
    #[serde(default)]
    #[schema(max_items = 50)]
    retry_schedule: Option<Vec<f64>>,
    /// Age in seconds at which a delivery is given up, with or without `retrySchedule`. When left out, it is derived from
    /// `retrySchedule`, or the server's when that is left out too.
    #[serde(default)]
    deadline_seconds: Option<f64>,
}

/// Changes to an endpoint: what is left out stays, `null` clears.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPatch {
    /// Where messages go. Another scheme, host or port is refused while the endpoint has sensitive headers.
    #[serde(default)]
    #[schema(value_type = String, required = false, format = "uri")]
    url: Patch<String>,
    /// Shown to people.
    #[serde(default)]
    #[schema(value_type = String, required = false)]
    description: Patch<String>,
    /// Messages per second.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    throttle_rate: Patch<u16>,
    /// Older name of `throttleRate`.
    #[serde(default)]
    #[schema(value_type = Option<u16>, deprecated)]
    rate_limit: Patch<u16>,
    /// Your own name for it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    uid: Patch<String>,
    /// Gets nothing while `true`; `false` also ends what the server decided.
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    disabled: Patch<bool>,
    /// Only messages of these types.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    event_types: Patch<Vec<String>>,
    /// Older name of `eventTypes`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, deprecated)]
    filter_types: Patch<Vec<String>>,
    /// Only messages with one of these channels.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    channels: Patch<Vec<String>>,
    /// Replaces all metadata.
    #[serde(default, deserialize_with = "super::fields::patch_map")]
    #[schema(value_type = Metadata, required = false)]
    metadata: Patch<Metadata>,
    /// Kept for clients of the first generation; without meaning.
    #[serde(default)]
    #[schema(value_type = u16, required = false, deprecated)]
    version: Patch<u16>,
    /// Waits between attempts in seconds; `null` returns to the server's and leaves `deadlineSeconds` as it is.
    #[serde(default)]
    #[schema(value_type = Option<Vec<f64>>)]
    retry_schedule: Patch<Vec<f64>>,
    /// Age in seconds at which a delivery is given up; `null` derives it from `retrySchedule`, or returns to the server's
    /// when that is `null` too.
    #[serde(default)]
    #[schema(value_type = Option<f64>)]
    deadline_seconds: Patch<f64>,
}

impl EndpointIn {
    /// What is set at creation only: the signing secret (generated unless given) and the custom headers.
    pub(crate) fn credentials(&mut self, config: &Config) -> Result<(SigningSecret, CustomHeaders), Problem> {
        let secret = match self.secret.take() {
            None => generate_secret(config.default_signature_type),
            Some(text) => SigningSecret::parse(&text).map_err(|reason| Problem::body("secret", reason))?,
        };
        let headers = self.headers.take().unwrap_or_default().into_iter().map(|(name, value)| CustomHeader {
            sensitive: is_sensitive_name(&name),
            name,
            value: value.into(),
        });
        Ok((secret, check_headers(headers.collect())?))
    }

    /// Checked.
    pub(crate) fn check(self, rules: &UrlRules) -> Result<EndpointFields, ApiError> {
        let mut problems = Problems::default();
        let url = problems.check(url(&self.url, rules));
        let description = problems.check(fields::text("description", self.description.unwrap_or_default()));
        let throttle_rate = problems.check(fields::throttle(self.throttle_rate, self.rate_limit));
        let uid = self.uid.and_then(|text| problems.check(fields::uid("uid", &text, EndpointKind::PREFIX)));
        let event_types = problems.check(event_types(self.event_types.or(self.filter_types)));
        let channels = problems.check(channels(self.channels));
        let metadata = problems.check(fields::metadata(self.metadata.unwrap_or_default()));
        let legacy_version = problems.check(version(self.version.unwrap_or(1)));
        let retry = problems.check(retry(
            self.retry_schedule.map_or(Patch::Absent, Patch::Set),
            self.deadline_seconds.map_or(Patch::Absent, Patch::Set),
            RetryOverride::default(),
        ));
        problems.finish()?;
        let checked = || {
            Some(EndpointFields {
                uid,
                url: url?,
                description: description?,
                throttle_rate: throttle_rate?,
                filter: Filter { event_types: event_types?, channels: channels? },
                disabled: self.disabled.unwrap_or(false),
                metadata: metadata?,
                retry: retry?,
                legacy_version: legacy_version?,
            })
        };
        checked().ok_or_else(|| ApiError::internal(&"a member without a problem has no value"))
    }

    /// Checked for creation.
    pub(crate) fn check_new(mut self, config: &Config) -> Result<NewEndpoint, ApiError> {
        let (secret, headers) = self.credentials(config)?;
        let fields = self.check(&config.url_rules)?;
        if has_sensitive(&headers) {
            check_clear_text(&fields.url, &config.url_rules, "url")?;
        }
        Ok(NewEndpoint { fields, secret, headers })
    }
}

impl EndpointPatch {
    /// Does it choose event types?
    pub(crate) fn chooses_event_types(&self) -> bool {
        self.event_types.is_sent() || self.filter_types.is_sent()
    }

    /// The endpoint with the changes, checked.
    pub(crate) fn merge(self, current: Endpoint, rules: &UrlRules) -> Result<EndpointFields, Problem> {
        let uid = match self.uid {
            Patch::Absent => current.uid,
            Patch::Null => None,
            Patch::Set(text) => Some(fields::uid("uid", &text, EndpointKind::PREFIX)?),
        };
        // An unchanged URL is not judged again: rules may have become stricter, and sending judges anyway.
        let url = match fields::not_null("url", self.url, current.url.as_str().to_owned())? {
            same if same == current.url.as_str() => current.url,
            other => url(&other, rules)?,
        };
        let names = if self.event_types.is_sent() { self.event_types } else { self.filter_types };
        let event_types = match names {
            Patch::Absent => current.filter.event_types,
            names => event_types(names.into_set())?,
        };
        let channels = match self.channels {
            Patch::Absent => current.filter.channels,
            names => channels(names.into_set())?,
        };
        Ok(EndpointFields {
            uid,
            url,
            description: fields::text(
                "description",
                fields::not_null("description", self.description, current.description)?,
            )?,
            throttle_rate: fields::patch_throttle(
                self.throttle_rate,
                self.rate_limit,
                current.throttle_rate,
            )?,
            filter: Filter { event_types, channels },
            disabled: fields::not_null("disabled", self.disabled, current.disabled.is_some())?,
            metadata: fields::metadata(fields::not_null("metadata", self.metadata, current.metadata)?)?,
            retry: retry(self.retry_schedule, self.deadline_seconds, current.retry)?,
            legacy_version: version(fields::not_null("version", self.version, current.legacy_version)?)?,
        })
    }
}

/// 422 unless every type exists, is not archived, and can be seen by the caller.
pub(crate) async fn require_event_types(
    state: &ApiState,
    caller: &crate::auth::Caller,
    names: &BTreeSet<EventTypeName>,
) -> Result<(), ApiError> {
    for name in names {
        let found = state.store.event_type(&caller.identity.environment, name).await?;
        let visible = |found: &EventType| super::event_types::is_visible(found, caller.feature_flags());
        if !found.is_some_and(|found| !found.archived && visible(&found)) {
            return Err(Problem::body(
                "eventTypes",
                format!("there is no event type `{}` (or it is archived): create it first", name.as_str()),
            )
            .into());
        }
    }
    Ok(())
}

fn url(text: &str, rules: &UrlRules) -> Result<EndpointUrl, Problem> {
    EndpointUrl::parse(text, rules).map_err(|refusal| Problem::body("url", refusal.reason))
}

fn event_types(names: Option<Vec<String>>) -> Result<BTreeSet<EventTypeName>, Problem> {
    let Some(names) = names else { return Ok(BTreeSet::new()) };
    if names.is_empty() || names.len() > limits::FILTER_EVENT_TYPES {
        return Err(Problem::body(
            "eventTypes",
            format!(
                "expected 1 to {} names; leave it out or send null for all types",
                limits::FILTER_EVENT_TYPES
            ),
        ));
    }
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            EventTypeName::parse(name).ok_or_else(|| {
                Problem::at(
                    "body",
                    &["eventTypes", &format!("[{index}]")],
                    "expected 1 to 256 characters of a-z, A-Z, 0-9, `-`, `_` and `.`",
                )
            })
        })
        .collect()
}

fn channels(names: Option<Vec<String>>) -> Result<BTreeSet<Channel>, Problem> {
    let Some(names) = names else { return Ok(BTreeSet::new()) };
    if names.is_empty() || names.len() > limits::CHANNELS {
        return Err(Problem::body(
            "channels",
            format!("expected 1 to {} names; leave it out or send null for all channels", limits::CHANNELS),
        ));
    }
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            Channel::parse(name).ok_or_else(|| {
                Problem::at(
                    "body",
                    &["channels", &format!("[{index}]")],
                    "expected 1 to 128 characters of a-z, A-Z, 0-9, `-`, `_`, `.`, `:` and `+`",
                )
            })
        })
        .collect()
}

fn version(version: u16) -> Result<u16, Problem> {
    if version == 0 { Err(Problem::body("version", "must be at least 1")) } else { Ok(version) }
}

/// What an endpoint sets of its own about retries, changed. The two members do not depend on each other.
fn retry(
    schedule: Patch<Vec<f64>>,
    deadline: Patch<f64>,
    current: RetryOverride,
) -> Result<RetryOverride, Problem> {
    let duration = |member: &'static str, seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| Problem::body(member, "expected seconds, zero or more"))
    };
    let is_schedule = !deadline.is_sent() && current.deadline.is_none();
    let waits = schedule.try_apply(current.waits, |waits| {
        waits.into_iter().map(|wait| duration("retrySchedule", wait)).collect::<Result<_, _>>()
    })?;
    let deadline = deadline.try_apply(current.deadline, |seconds| duration("deadlineSeconds", seconds))?;
    let own = RetryOverride { waits, deadline };
    own.check().map_err(|reason| {
        Problem::body(if is_schedule { "retrySchedule" } else { "deadlineSeconds" }, reason)
    })?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EndpointFields, ApiError> {
        let body: EndpointIn = crate::json::parse(text.as_bytes())?;
        body.check(&UrlRules::default())
    }

    #[test]
    fn an_endpoint_needs_only_a_url() {
        let fields =
            read(r#"{"url":"https://Example.com","uid":null,"metadata":null,"eventTypes":null,"unknown":1}"#)
                .unwrap();
        assert_eq!(fields.url.as_str(), "https://example.com/");
        assert_eq!(fields.retry, RetryOverride::default());
        assert_eq!((fields.legacy_version, fields.disabled), (1, false));
    }

    #[test]
    fn one_answer_names_all_problems() {
        let error = read(
            r#"{"url":"ftp://x","uid":"ep_x","channels":[],"eventTypes":["a b"],"version":0,"throttleRate":0}"#,
        );
        let text = format!("{:?}", error.unwrap_err());
        for member in ["url", "uid", "channels", "[0]", "version", "throttleRate"] {
            assert!(text.contains(&format!("{member:?}")), "{member}: {text}");
        }
    }

    /// P16.
    #[test]
    fn retry_schedules_are_bounded() {
        let new = |waits, deadline| {
            let sent = |value: Option<f64>| value.map_or(Patch::Absent, Patch::Set);
            let waits = Option::<Vec<f64>>::map_or(waits, Patch::Absent, Patch::Set);
            retry(waits, sent(deadline), RetryOverride::default())
        };
        let waits = |waits| new(Some(waits), None).unwrap().waits;
        assert_eq!(waits(vec![0.001, 5.0]), Some(vec![Duration::from_millis(1), Duration::from_secs(5)]));
        assert_eq!(waits(vec![]), Some(vec![]));
        for (waits, deadline) in [
            (Some(vec![-1.0]), None),
            (Some(vec![f64::NAN]), None),
            (Some(vec![f64::INFINITY]), None),
            (Some(vec![1e30]), None),
            (Some(vec![1.0; 1_000_000]), None),
            (Some(vec![600_000.0; 50]), None),
            (Some(vec![1.0]), Some(0.0)),
            (Some(vec![1.0]), Some(-1.0)),
            (None, Some(0.0)),
            (None, Some(1e30)),
        ] {
            assert!(new(waits, deadline).is_err(), "{deadline:?}");
        }
    }

    #[test]
    fn schedule_and_deadline_are_set_and_cleared_each_for_itself() {
        let second = Duration::from_secs(1);
        let own = |waits: Option<Vec<Duration>>, deadline| RetryOverride { waits, deadline };
        let both = own(Some(vec![second]), Some(9 * second));
        for (schedule, deadline, current, expected) in [
            (Patch::Absent, Patch::Absent, both.clone(), both.clone()),
            (Patch::Null, Patch::Absent, both.clone(), own(None, Some(9 * second))),
            (Patch::Absent, Patch::Null, both.clone(), own(Some(vec![second]), None)),
            (Patch::Null, Patch::Null, both.clone(), RetryOverride::default()),
            (Patch::Absent, Patch::Set(9.0), own(Some(vec![second]), None), both.clone()),
            (Patch::Absent, Patch::Set(9.0), RetryOverride::default(), own(None, Some(9 * second))),
            (Patch::Set(vec![1.0]), Patch::Absent, own(None, Some(9 * second)), both.clone()),
        ] {
            let changed = retry(schedule, deadline, current.clone()).unwrap();
            assert_eq!(changed, expected, "{current:?}");
        }
    }

    #[test]
    fn wrong_types_are_named() {
        for text in [
            r#"{"url":"https://example.com","throttleRate":"10"}"#,
            r#"{"url":"https://example.com","throttleRate":-1}"#,
            r#"{"url":"https://example.com","throttleRate":1e309}"#,
            r#"{"url":"https://example.com","throttleRate":65536}"#,
        ] {
            assert!(format!("{:?}", read(text).unwrap_err()).contains("throttleRate"), "{text}");
        }
    }
}
