//! Handlers of metrics.
