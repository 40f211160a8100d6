//! Handlers of applications.
