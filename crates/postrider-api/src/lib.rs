//! The HTTP API: routes, authentication, errors, paging, idempotency, OpenAPI.

pub mod ports;
