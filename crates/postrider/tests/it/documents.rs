//! The examples of the documents are run: each `sh` block against a server and a receiver, page by page, and its output
//! compared with the `json` block that follows. What the document shows must be there; `…` stands for anything.

use postrider_testing::{Receiver, TestServer};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// A command of a page and what it prints according to the page.
struct Example {
    script: String,
    shown: Option<Value>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_in_the_documents_work_and_print_what_they_show() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut run = 0;
    for entry in fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        let examples = examples(&fs::read_to_string(&path).unwrap_or_default());
        if examples.is_empty() {
            continue;
        }
        let server = TestServer::start().await;
        let receiver = Receiver::start([200]).await;
        for example in examples {
            let page = path.file_name().unwrap().display().to_string();
            let (url, token, receiver) = (server.url(), server.token().to_owned(), receiver.url_with(""));
            tokio::task::spawn_blocking(move || check(&page, &example, &url, &token, &receiver)).await.unwrap();
            server.clock.quiet().await;
            run += 1;
        }
    }
    assert!(run > 10, "only {run} examples were found");
}

fn check(page: &str, example: &Example, url: &str, token: &str, receiver: &str) {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &example.script])
        .env("POSTRIDER_URL", url)
        .env("POSTRIDER_TOKEN", token)
        .env("RECEIVER_URL", receiver)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{page}:\n{}\n{text}{errors}", example.script);
    let Some(shown) = &example.shown else { return };
    let printed = serde_json::Deserializer::from_str(&text).into_iter::<Value>().filter_map(Result::ok).last();
    let printed = printed.unwrap_or_else(|| panic!("{page}: no JSON came from\n{}\n{text}", example.script));
    assert!(covers(&printed, shown), "{page}:\n{}\nprints {printed}\ninstead of {shown}", example.script);
}

/// The `sh` blocks of a page in order, each with the `json` block that follows before the next one.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for block in page.split("\n```").skip(1) {
        if let Some(script) = block.strip_prefix("sh\n") {
            examples.push(Example { script: script.to_owned(), shown: None });
        } else if let (Some(shown), Some(example)) = (block.strip_prefix("json\n"), examples.last_mut())
            && example.shown.is_none()
        {
            example.shown = Some(serde_json::from_str(shown).unwrap_or_else(|error| panic!("{error} in\n{shown}")));
        }
    }
    examples
}

/// Is everything that is shown there?
fn covers(printed: &Value, shown: &Value) -> bool {
    match (printed, shown) {
        (Value::Object(printed), Value::Object(shown)) => {
            shown.iter().all(|(name, shown)| printed.get(name).is_some_and(|printed| covers(printed, shown)))
        }
        (Value::Array(printed), Value::Array(shown)) => {
            printed.len() == shown.len() && printed.iter().zip(shown).all(|(printed, shown)| covers(printed, shown))
        }
        (Value::String(printed), Value::String(shown)) => match shown.split_once('…') {
            Some((start, end)) => printed.starts_with(start) && printed.ends_with(end),
            None => printed == shown,
        },
        (Value::Number(printed), Value::Number(shown)) => printed.as_f64() == shown.as_f64(),
        (printed, shown) => printed == shown,
    }
}
