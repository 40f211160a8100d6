//! Handlers of health.
