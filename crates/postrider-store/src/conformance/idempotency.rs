//! Behaviours of idempotency.
