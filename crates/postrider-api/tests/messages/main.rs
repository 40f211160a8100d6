//! The router over an embedded store, by behaviour.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod documents;
mod history;
mod publishing;
mod server;
mod tenancy;
