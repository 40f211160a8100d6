//! Version 1 of the API, one file per noun.

pub mod applications;
pub mod endpoints;
pub mod event_types;
pub mod headers;
pub mod health;
pub mod metrics;
pub mod oauth;
pub mod secrets;
pub mod whoami;
