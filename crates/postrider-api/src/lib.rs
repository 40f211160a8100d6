//! The HTTP API: routes, authentication, errors, paging, idempotency, OpenAPI.
//!
//! The cast:
//! - [`router`]: the table of contents; what every request passes on its way in and out stands in [`transport`];
//! - [`v1`]: one file per noun: requests, responses, handlers;
//! - [`auth`]: who calls and what they may do; [`scope`]: the application and endpoint that a path names;
//! - [`admission`]: how much is worked on at one time, who waits, and who is told to come back;
//! - [`json`], [`query`], [`patch`]: reading what a caller sent; [`paging`], [`idempotency`]: the rules of lists and of
//!   repeated requests; [`error`]: every answer that is not a success;
//! - [`openapi`]: the description of all operations, and the page that shows it;
//! - [`state`], [`config`], [`ports`]: what the binary brings.
//!
//! No SQL and no outgoing connection here: durable state goes through the store's contract, the rest through ports.

pub mod admission;
pub mod auth;
pub mod config;
mod docs_page;
pub mod error;
pub mod idempotency;
pub mod json;
pub mod openapi;
pub mod paging;
pub mod patch;
pub mod ports;
pub mod query;
pub mod router;
pub mod scope;
pub mod state;
pub mod transport;
mod unread;
pub mod v1;

pub use config::Config;
pub use router::{operating_router, router};
pub use state::ApiState;
pub use transport::Api;
