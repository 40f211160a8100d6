//! The examples of the documents are run: each `sh` block against a server and a receiver, page by page, and its output
//! compared with the `json` block that follows. What the document shows must be there; `…` stands for anything.

use postrider_testing::{Receiver, TestServer};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, process::Command};

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
            tokio::task::spawn_blocking(move || check(&page, &example, &url, &token, &receiver))
                .await
                .unwrap();
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
    let printed =
        serde_json::Deserializer::from_str(&text).into_iter::<Value>().filter_map(Result::ok).last();
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
            example.shown =
                Some(serde_json::from_str(shown).unwrap_or_else(|error| panic!("{error} in\n{shown}")));
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
            printed.len() == shown.len()
                && printed.iter().zip(shown).all(|(printed, shown)| covers(printed, shown))
        }
        (Value::String(printed), Value::String(shown)) => match shown.split_once('…') {
            Some((start, end)) => printed.starts_with(start) && printed.ends_with(end),
            None => printed == shown,
        },
        (Value::Number(printed), Value::Number(shown)) => printed.as_f64() == shown.as_f64(),
        (printed, shown) => printed == shown,
    }
}

const PAGES: [&str; 8] = [
    "README.md",
    "endpoints.md",
    "delivery.md",
    "monitoring.md",
    "oauth2.md",
    "receivers.md",
    "operating.md",
    "errors.md",
];

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The path with a neutral name for each parameter, without its query.
fn neutral(path: &str) -> String {
    let path = path.split('?').next().unwrap_or(path);
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// Calls in code spans: `POST /api/v1/app`, `GET …/stats`.
fn calls(text: &str) -> BTreeSet<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2).filter_map(|span| span.split_once(' '));
    spans
        .filter(|(method, _)| ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(method))
        .map(|(method, path)| (method.to_lowercase(), neutral(path)))
        .collect()
}

#[test]
fn every_call_that_the_documents_name_exists() {
    let document: Value = serde_json::from_str(&postrider_api::openapi::openapi_json()).unwrap();
    let mut known = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        known.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), neutral(path))));
    }
    for name in PAGES {
        let prose: String = page(name).split("\n```").step_by(2).collect();
        let calls = calls(&prose);
        assert!(name != "README.md" || calls.len() > 15, "{calls:?}");
        for (method, path) in calls {
            let exists = match path.strip_prefix('…') {
                Some(end) => known.iter().any(|(own, known)| *own == method && known.ends_with(end)),
                None => known.contains(&(method.clone(), path.clone())),
            };
            assert!(exists, "{name} names `{method} {path}`, which the API does not have");
        }
    }
}

/// The anchor that renderers give a heading.
fn anchor(line: &str) -> String {
    let title = line.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

#[test]
fn every_link_into_a_page_leads_to_a_heading() {
    for name in PAGES {
        for target in page(name).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { name } else { file };
            // Whether the file exists is asked by `cargo xtask tidy`.
            let known = heading.is_empty()
                || page(file).lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(known, "{name} links to {target}, a heading that {file} does not have");
        }
    }
}
