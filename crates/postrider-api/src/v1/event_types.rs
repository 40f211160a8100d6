//! Handlers of event_types.
