//! The only crate that opens a socket to an address that a user gave: deliveries, token requests, test sends.
//!
//! The cast (the way of a request):
//! - [`Outbound`] holds what lives as long as the process: resolver, address policy, TLS configuration, pools, tokens;
//! - [`client`]: one request from start to outcome under one deadline;
//! - [`address`]: which addresses may be dialled, a pure table; [`cidr`]: the operator's rules;
//! - [`resolver`]: names to addresses, bounded in time and number, behind a trait so that tests bring their own;
//! - `connect`: judge the URL, resolve, vet every address, dial the vetted ones, check the peer; `tls`: then TLS;
//! - `pool`: idle connections, by environment, application and origin; `stream`: their bytes;
//! - `request_head`, `response_head`, `body`: HTTP/1.1 as pure functions; `http`: the same on a connection;
//! - [`oauth`]: access tokens: fetched once for many waiters, cached, renewed early; `token_request`,
//!   `token_response`: what is asked and what is accepted; `token_cache`: how long it is used.
//!
//! Guaranteed: no address is dialled that was not vetted in the same attempt; no redirect is followed; no answer is
//! decompressed, read beyond its caps or waited for beyond the deadline; no environment's connection or token serves
//! another.

pub mod address;
mod body;
pub mod cidr;
pub mod client;
pub mod config;
mod connect;
mod failure;
mod http;
pub mod oauth;
mod pool;
mod request_head;
pub mod resolver;
mod response_head;
mod stream;
#[cfg(test)]
mod testing;
pub mod tls;
mod token_cache;
mod token_request;
mod token_response;

pub use client::{Exchange, Header, HeaderValue, Outbound, Request, SetupError};
pub use config::Config;
