//! How the tour is told: numbered steps, requests as they are, colours on a terminal only.

use crate::{dev::say, inbox::Arrival};
use serde_json::Value;
use std::{cell::Cell, io::IsTerminal as _};

/// Widest line of running text.
const WIDTH: usize = 100;
/// Headers of a webhook that the tour shows; the others are plumbing.
const SHOWN: [&str; 7] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "authorization",
    "x-acme-tenant",
    "x-api-key",
    "content-type",
];

/// Tells the tour on standard output.
pub(super) struct Narrator {
    colours: bool,
    step: Cell<u32>,
    out: fn(&str),
}

impl Narrator {
    pub(super) fn new() -> Self {
        Self { colours: std::io::stdout().is_terminal(), step: Cell::new(0), out: say }
    }

    pub(super) fn title(&self, text: &str) {
        (self.out)(&format!("\n{}\n", self.paint("1", text)));
    }

    pub(super) fn step(&self, text: &str) {
        self.step.set(self.step.get() + 1);
        (self.out)(&format!("\n{}\n", self.paint("1;36", &format!("{}. {text}", self.step.get()))));
    }

    pub(super) fn text(&self, text: &str) {
        (self.out)(&format!("{}\n", wrapped(text, "   ")));
    }

    /// Something that was promised and has been checked.
    pub(super) fn held(&self, text: &str) {
        let wrapped = wrapped(text, "     ");
        (self.out)(&format!("   {} {}\n", self.paint("32", "✓"), wrapped.trim_start()));
    }

    /// A call of the API and the status of its answer.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>, status: u16) {
        (self.out)(&format!("   {} {status}\n", self.paint("33", &format!("{method} {path} →"))));
        if let Some(body) = body {
            (self.out)(&format!("     {}\n", shown(body)));
        }
    }

    /// A webhook as it arrived.
    pub(super) fn request(&self, arrival: &Arrival) {
        (self.out)(&format!("   {}\n", self.paint("35", "POST /webhooks HTTP/1.1")));
        for name in SHOWN {
            (self.out)(&format!("     {name}: {}\n", arrival.header(name)));
        }
        (self.out)(&format!("\n     {}\n", String::from_utf8_lossy(&arrival.body)));
    }

    pub(super) fn answer(&self, text: &str) {
        (self.out)(&format!("   {} {text}\n", self.paint("35", "→")));
    }

    /// A recorded attempt.
    pub(super) fn attempt(&self, number: u32, row: &Value) {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let line = format!(
            "attempt {number}: {} at {}, HTTP {} in {} ms, response {:?}",
            text("statusText"),
            text("timestamp"),
            row["responseStatusCode"],
            row["responseDurationMs"],
            text("response"),
        );
        (self.out)(&format!("   {}\n", self.paint("33", &line)));
        // Our own additions to the attempt: the outcome's class, a sentence, and where the time went.
        for (name, what) in [("outcome", "outcome"), ("detail", "that is"), ("timings", "time went to")] {
            match &row[name] {
                Value::Null => {}
                Value::String(text) if text.is_empty() => {}
                Value::String(text) => (self.out)(&format!("     {what}: {text}\n")),
                value => (self.out)(&format!("     {what}: {}\n", durations(value))),
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// JSON on one line when it fits, else one member a line.
fn shown(body: &Value) -> String {
    let line = body.to_string();
    match body.as_object() {
        Some(members) if line.chars().count() + 5 > WIDTH => {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("\n       \"{name}\": {value}")).collect();
            format!("{{{}\n     }}", members.join(","))
        }
        _ => line,
    }
}

/// `{"tlsMs": null, "connectMs": 0.2, "firstByteMs": 1.5}` as "connect 0.20 ms, first byte 1.50 ms", in the order of an
/// attempt; what did not happen is left out.
fn durations(timings: &Value) -> String {
    let parts = ["token", "dns", "connect", "tls", "firstByte", "total"];
    let spoken = |part: &str| match part {
        "dns" | "tls" => part.to_uppercase(),
        "firstByte" => "first byte".to_owned(),
        part => part.to_owned(),
    };
    let known = parts.iter().filter_map(|part| {
        let time = timings[format!("{part}Ms")].as_f64()?;
        Some(format!("{} {time:.2} ms", spoken(part)))
    });
    known.collect::<Vec<_>>().join(", ")
}

fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() + indent.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read_in_the_order_of_an_attempt() {
        let timings = serde_json::json!({ "connectMs": 0.21, "dnsMs": null, "firstByteMs": 1.5, "tlsMs": 3.0, "totalMs": 5.04 });
        assert_eq!(durations(&timings), "connect 0.21 ms, TLS 3.00 ms, first byte 1.50 ms, total 5.04 ms");
    }

    #[test]
    fn a_body_that_is_too_wide_has_one_line_a_member() {
        let wide = serde_json::json!({ "first": "a".repeat(60), "second": ["b".repeat(60)] });
        let text = shown(&wide);
        assert!(text.lines().count() == 4 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wide);
        assert!(!shown(&serde_json::json!({ "name": "Acme" })).contains('\n'));
    }

    #[test]
    fn long_text_is_wrapped_without_losing_a_word() {
        let text = "word ".repeat(60);
        let lines = wrapped(&text, "  ");
        assert!(lines.lines().all(|line| line.len() <= WIDTH && line.starts_with("  word")), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 60);
    }
}
