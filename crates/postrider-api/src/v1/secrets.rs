//! Handlers of secrets.
