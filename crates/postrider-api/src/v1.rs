//! Version 1 of the API, one file per noun.

#![allow(unused_qualifications, reason = "what `utoipa::path` makes of `params(…)` names the traits in full")]

pub mod applications;
pub(crate) mod attempt_out;
pub(crate) mod attempts;
pub(crate) mod breaker;
pub(crate) mod credentials;
pub(crate) mod destinations;
pub mod endpoint_in;
pub mod endpoint_out;
pub mod endpoints;
pub mod event_type_in;
pub mod event_types;
pub(crate) mod examples;
mod fields;
pub mod headers;
pub mod health;
pub(crate) mod history;
pub(crate) mod in_message;
pub(crate) mod message_in;
pub(crate) mod message_out;
pub(crate) mod messages;
pub mod metrics;
pub(crate) mod not_built;
pub mod oauth;
pub mod secrets;
pub(crate) mod spelling;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod test_send;
pub(crate) mod throttle;
pub mod whoami;
