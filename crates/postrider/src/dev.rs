//! What `serve --dev` adds: a fresh API key, a receiver to send to, and lines to paste.

use crate::{failure::Failure, inbox::Inbox, node::Node};
use http::StatusCode;
use postrider_model::{
    access::{Caller, Scope},
    environment::EnvironmentId,
};
use postrider_store::{Store, access::NewApiKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::{fs, io::Write as _, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::Path};

/// The environment of development.
pub const ENVIRONMENT: &str = "org_dev";
/// The name of its key, by which the last one is found and replaced.
const KEY_NAME: &str = "development";
/// Address and key of the running server, for scripts; in the data directory.
pub const FILE: &str = "dev.json";

/// One call of the first steps.
#[derive(Debug)]
pub struct Step {
    /// What it does.
    pub what: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: &'static str,
    /// Body.
    pub body: Option<Value>,
}

/// Makes a new development key and revokes the earlier ones.
pub async fn key(store: &dyn Store) -> Result<SecretString, Failure> {
    let environment =
        EnvironmentId::parse(ENVIRONMENT).ok_or_else(|| Failure::other("no development environment"))?;
    let failed =
        |error: &dyn std::fmt::Display| Failure::other(format!("cannot make a development key: {error}"));
    let earlier = store.api_keys(&environment).await.map_err(|error| failed(&error))?;
    for key in earlier.iter().filter(|key| key.name == KEY_NAME && key.revoked_at.is_none()) {
        store.revoke_api_key(&environment, key.id).await.map_err(|error| failed(&error))?;
    }
    let caller = Caller { environment, scope: Scope::Environment };
    let new = NewApiKey { caller, name: KEY_NAME.to_owned(), expires_at: None };
    store.create_api_key(new).await.map(|(_, token)| token).map_err(|error| failed(&error))
}

/// Writes address and key where scripts find them, for this user alone.
pub fn write_file(folder: &Path, url: &str, token: &SecretString) -> std::io::Result<()> {
    let path = folder.join(FILE);
    let text = json!({ "url": url, "token": token.expose_secret(), "environment": ENVIRONMENT }).to_string();
    // Written beside and renamed: whoever waits for it never reads half of it.
    let scratch = folder.join(".dev.json.new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    file.write_all(text.as_bytes())?;
    fs::rename(scratch, path)
}

/// Starts the receiver beside the server: one port higher, or any when that is taken. It prints what arrives.
pub async fn receiver(server: SocketAddr) -> Result<String, Failure> {
    let next = SocketAddr::from(([127, 0, 0, 1], server.port().checked_add(1).unwrap_or(0)));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let started = match Inbox::start(next, Box::new(|_| StatusCode::OK)).await {
        Ok(inbox) => Ok(inbox),
        Err(_) => Inbox::start(any, Box::new(|_| StatusCode::OK)).await,
    };
    let mut inbox = started.map_err(|error| Failure::other(format!("cannot start the receiver: {error}")))?;
    let url = inbox.url.clone();
    tokio::spawn(async move {
        while let Some(arrival) = inbox.arrivals.recv().await {
            let body = String::from_utf8_lossy(&arrival.body);
            let body: String = body.chars().filter(|char| !char.is_control()).take(200).collect();
            say(&format!("\nreceiver: {} arrived: {body}\n", arrival.header("webhook-id")));
        }
    });
    Ok(url)
}

/// From an application to its attempts. Every step can be repeated.
pub fn steps(receiver: &str) -> [Step; 4] {
    [
        Step {
            what: "an application: one of your customers",
            method: "POST",
            path: "/api/v1/app?get_if_exists=true",
            body: Some(json!({ "name": "Acme", "uid": "acme" })),
        },
        Step {
            what: "an endpoint: where this customer wants messages; a receiver of this server, which prints them",
            method: "PUT",
            path: "/api/v1/app/acme/endpoint/acme-main",
            body: Some(json!({ "uid": "acme-main", "url": receiver })),
        },
        Step {
            what: "a message: this document has been processed, here is the result",
            method: "POST",
            path: "/api/v1/app/acme/msg",
            body: Some(
                json!({ "eventType": "document.processed", "payload": { "document": 42, "pages": 7 } }),
            ),
        },
        Step {
            what: "what happened: the attempts of the endpoint, newest first",
            method: "GET",
            path: "/api/v1/app/acme/attempt/endpoint/acme-main",
            body: None,
        },
    ]
}

/// The text that `serve --dev` prints when it listens.
pub fn greeting(node: &Node, data_dir: &Path, token: &SecretString, receiver: &str) -> String {
    let token = token.expose_secret();
    let mut text = format!(
        "\nPostrider {} runs at {url} for development, its data in {}.\n\n  API key   {token}\n  API page  {url}/docs\n\n\
         Paste this into another terminal:\n\n  export POSTRIDER_URL={url} RECEIVER_URL={receiver}\n  export POSTRIDER_TOKEN={token}\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display(),
        url = node.url,
        receiver = receiver.trim_end_matches("/webhooks"),
    );
    for step in steps(receiver) {
        text.push_str(&curl(&step));
    }
    text.push_str(
        "\nThe key is new at each start. The examples of docs/ can be pasted too. Ctrl-C stops the server.\n",
    );
    text
}

fn curl(step: &Step) -> String {
    let method = match (step.method, &step.body) {
        ("GET", None) | ("POST", Some(_)) => String::new(),
        (method, _) => format!(" -X {method}"),
    };
    let body =
        step.body.as_ref().map(|body| format!(" -H 'Content-Type: application/json' \\\n    -d '{body}'"));
    format!(
        "\n  # {}\n  curl -sS{method} \"$POSTRIDER_URL{}\" \\\n    -H \"Authorization: Bearer $POSTRIDER_TOKEN\"{}; echo\n",
        step.what,
        step.path,
        body.unwrap_or_default()
    )
}

/// Writes to standard output. Nobody reading is no reason to stop serving.
pub fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_to_paste_name_what_the_steps_call() {
        let steps = steps("http://127.0.0.1:8072/webhooks");
        let text: String = steps.iter().map(curl).collect();
        assert!(text.contains("curl -sS \"$POSTRIDER_URL/api/v1/app?get_if_exists=true\""), "{text}");
        assert!(
            text.contains("curl -sS -X PUT \"$POSTRIDER_URL/api/v1/app/acme/endpoint/acme-main\""),
            "{text}"
        );
        assert!(text.contains("\"url\":\"http://127.0.0.1:8072/webhooks\""), "{text}");
        assert_eq!(text.matches("Authorization: Bearer $POSTRIDER_TOKEN").count(), steps.len());
    }
}
