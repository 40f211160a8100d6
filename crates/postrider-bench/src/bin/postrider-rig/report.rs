//! Figures and broken promises, as they are printed.

use crate::Verdict;
use std::fmt::{Display, Write as _};

/// What a rig found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(String, String)>,
    violations: Vec<String>,
}

impl Report {
    /// Adds a figure.
    pub(crate) fn row(&mut self, name: &str, value: impl Display) {
        self.rows.push((name.to_owned(), format!("{value}")));
    }

    /// Adds a broken promise, as a sentence.
    pub(crate) fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// The same unless it holds.
    pub(crate) fn check(&mut self, holds: bool, text: impl Into<String>) {
        if !holds {
            self.violation(text);
        }
    }

    /// No promise was broken.
    pub(crate) fn held(&self) -> bool {
        self.violations.is_empty()
    }

    /// What is printed at the end.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut text = String::from("\n| figure | value |\n|---|---|\n");
        for (name, value) in &self.rows {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        for violation in &self.violations {
            let _ = writeln!(text, "\nVIOLATION: {violation}");
        }
        if self.violations.is_empty() {
            text.push_str("\nAll promises held.\n");
        }
        Verdict::Ran { text, held: self.held() }
    }
}
