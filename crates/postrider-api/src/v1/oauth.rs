//! Handlers of oauth.
