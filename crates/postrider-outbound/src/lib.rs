//! The only crate that opens a socket to an address that a user gave: deliveries, token requests, test sends.
//!
//! The cast (the way of a request):
//! - [`Outbound`] holds what lives as long as the process: resolver, address policy, TLS configuration, pools, tokens;
//! - `address`: which addresses may be dialled, a pure table;
//! - `resolver`: names to addresses, bounded in time, records and depth, behind a trait so that tests bring their own;
//! - `connect`: resolve, vet every address, dial the vetted one, check the peer, TLS;
//! - `pool`: idle connections, by environment, application, origin and policy;
//! - `http`: the HTTP/1.1 client: writes a request, reads a capped response;
//! - [`client`]: one request from start to outcome under one deadline;
//! - [`oauth`]: access tokens: fetched once for many waiters, cached, renewed early.

pub mod client;
pub mod config;
pub mod oauth;
pub mod resolver;

pub use client::{Exchange, Header, HeaderValue, Outbound, Request};
pub use config::Config;
