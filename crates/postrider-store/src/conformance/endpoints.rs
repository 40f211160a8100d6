//! Behaviours of endpoints.
