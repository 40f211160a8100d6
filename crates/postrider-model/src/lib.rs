//! The domain in types, and its decisions as pure functions: no I/O, no clock, no randomness, no async.
//!
//! The cast, by noun:
//! - [`environment`], [`application`], [`endpoint`], [`event_type`], [`message`]: what is configured and published;
//! - [`delivery`] and [`attempt`]: the duty to bring one message to one endpoint, and what each request came to;
//! - [`outcome`]: the one enumeration of how an attempt can end;
//! - [`filter`] (which endpoints get a message), [`retry`] (what happens after an attempt), [`breaker`] (when to leave an
//!   endpoint alone), [`throttle`] (how often to send to it), [`signature`], [`headers`], [`url`], [`payload`],
//!   [`redact`]: the decisions;
//! - [`id`], [`time`], [`limits`]: the values everything else is made of.
//!
//! Whoever calls brings the time and the randomness.

pub mod access;
pub mod application;
pub mod attempt;
pub mod breaker;
pub mod delivery;
pub mod endpoint;
pub mod environment;
pub mod event_type;
pub mod filter;
pub mod headers;
pub mod id;
pub mod limits;
pub mod message;
pub mod oauth;
pub mod outcome;
pub mod payload;
pub mod redact;
pub mod retry;
pub mod signature;
pub mod throttle;
pub mod time;
pub mod url;
