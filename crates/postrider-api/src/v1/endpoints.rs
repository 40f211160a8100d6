//! Handlers of endpoints.
