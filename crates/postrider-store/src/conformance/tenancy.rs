//! Behaviours of tenancy.
