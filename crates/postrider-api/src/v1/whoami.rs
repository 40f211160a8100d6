//! Handlers of whoami.
