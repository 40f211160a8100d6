//! Behaviours of retention.
