//! Behaviours of access.
