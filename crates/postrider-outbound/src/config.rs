//! What an operator can set about outgoing requests.

/// Settings of outgoing requests.
#[derive(Debug, Clone, Default)]
pub struct Config {}
