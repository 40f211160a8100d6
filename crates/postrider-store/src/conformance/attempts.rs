//! Behaviours of attempts.
