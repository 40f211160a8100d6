//! Behaviours of restarts.
