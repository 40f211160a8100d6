//! Postrider, the self-hosted webhook server: reads the configuration once, wires the parts, drains at shutdown.
//!
//! The cast:
//! - [`cli`] and [`commands`]: what can be typed, and what it does;
//! - [`config`]: one section per part, layered and checked before anything starts;
//! - [`node`]: a running server: store, engine and API wired together, started and stopped in order;
//! - [`listener`]: the API's socket: limits, TLS, proxies, graceful end;
//! - [`admin`] and [`local`]: the administration of a database, also of a running server's, and the client for it;
//! - [`metrics`]: what Prometheus sees of this node;
//! - `standing`: how nodes tell each other how they treat an endpoint;
//! - [`dev`]: what `--dev` adds; [`demo`]: the guided tour; [`inbox`]: the receiver of both;
//! - [`logging`], [`failure`]: what the operator reads; [`process`]: what the system is asked for.
//!
//! No logic of the product lives here.

pub mod admin;
pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod dev;
pub mod failure;
pub mod inbox;
pub mod listener;
pub mod local;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod process;
mod standing;

/// The OpenAPI document of the API, as JSON.
pub fn openapi_document() -> String {
    postrider_api::openapi::openapi_json()
}
