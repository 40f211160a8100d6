//! Handlers of headers.
