//! Behaviours of event_types.
