//! The history of a message as a test reads it.

use serde_json::Value;

/// A published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// Its application, id or uid.
    pub app: String,
    /// Its id.
    pub id: String,
}

/// Attempts of a message, oldest first.
#[derive(Debug, Clone)]
pub struct Attempts(pub Vec<Value>);

impl Attempts {
    /// HTTP statuses; 0 where no answer came.
    pub fn statuses(&self) -> Vec<u64> {
        self.0.iter().map(|attempt| attempt["responseStatusCode"].as_u64().unwrap_or(0)).collect()
    }

    /// Outcome classes.
    pub fn outcomes(&self) -> Vec<String> {
        self.0.iter().map(|attempt| attempt["outcome"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest one.
    pub fn last(&self) -> &Value {
        self.0.last().expect("the message has no attempt yet")
    }
}
