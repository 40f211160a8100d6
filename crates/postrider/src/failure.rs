//! Why a command ends without success: one text for the operator, and the exit code.

use crate::config::ConfigError;

/// Exit code of a wrong or missing configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code of a server whose disk failed (`EX_SOFTWARE` of sysexits.h): it must start anew, as supervisors do by
/// themselves.
pub const EXIT_BROKEN: u8 = 70;
/// Exit code of everything else.
pub const EXIT_FAILURE: u8 = 1;

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    /// The process' exit code.
    pub code: u8,
    /// For the operator: what is wrong and the way out.
    pub text: String,
}

impl Failure {
    /// The configuration, or something that it names, must be put right first.
    pub fn config(text: impl Into<String>) -> Self {
        Self { code: EXIT_CONFIG, text: text.into() }
    }

    /// Nothing can be made durable until the process starts anew.
    pub fn broken(detail: &str) -> Self {
        let text = format!("{detail}; ending now: what was acknowledged is on the disk, what was not is not");
        Self { code: EXIT_BROKEN, text }
    }

    /// Anything else.
    pub fn other(text: impl Into<String>) -> Self {
        Self { code: EXIT_FAILURE, text: text.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(error.0)
    }
}
