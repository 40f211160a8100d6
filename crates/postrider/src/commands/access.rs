//! `api-key`, `jwt` and `health`: through the admin socket of the running server, or on the store when none runs.

use super::{print, reached::Reached, read};
use crate::{
    admin::CreateKey,
    cli::{ApiKeyCommand, Settings},
    failure::Failure,
    local::{self, Place},
};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use postrider_model::environment::EnvironmentId;
use serde_json::{Value, json};
use std::{fmt::Write as _, time::Duration};

/// Life of a generated JWT, as svix-server gives it.
const JWT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

pub(super) async fn api_key(command: ApiKeyCommand) -> Result<(), Failure> {
    match command {
        ApiKeyCommand::Create { settings, environment, name, application, publish, days } => {
            let key = CreateKey { environment, name, application, publish, days };
            let key = serde_json::to_value(&key).map_err(|error| Failure::other(error.to_string()))?;
            let created = call(&settings, "POST", "/api-keys", Some(&key)).await?;
            print(&format!(
                "{}\n\nThis is the key {} of {}. The token above is shown only now.\n",
                text(&created["token"]),
                text(&created["id"]),
                text(&created["environment"])
            ))
        }
        ApiKeyCommand::List { settings, environment } => {
            let path = format!("/api-keys{}", query(environment.as_deref())?);
            let keys = call(&settings, "GET", &path, None).await?;
            print(&table(keys.as_array().map(Vec::as_slice).unwrap_or_default()))
        }
        ApiKeyCommand::Revoke { settings, environment, id } => {
            let path = format!("/api-keys/{}{}", segment(&id)?, query(environment.as_deref())?);
            let revoked = call(&settings, "DELETE", &path, None).await?;
            print(&format!("{} is revoked.\n", text(&revoked["id"])))
        }
    }
}

/// Asks the running server; exit code 0 when it is well.
pub(super) async fn health(settings: &Settings) -> Result<(), Failure> {
    let socket = read(settings, Vec::new())?.config.server.admin_socket();
    let request = http::Request::get("/health").body(http_body_util::Full::default());
    let request = request.map_err(|error| Failure::other(error.to_string()))?;
    let answer = local::request(&Place::Unix(socket.clone()), request)
        .await
        .map_err(|error| Failure::other(format!("no server answers at {}: {error}", socket.display())))?;
    print(&format!("{}\n", answer.json()))?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(Failure::other(format!("not well (status {})", answer.status)))
    }
}

/// Prints a token that is accepted while `api.jwt_secret` stays what it is, in the form that svix-server prints.
pub(super) fn jwt(settings: &Settings, environment: &str) -> Result<(), Failure> {
    let environment = EnvironmentId::parse(environment)
        .ok_or_else(|| Failure::other(format!("`{environment}` is not an environment (`org_…`)")))?;
    let config = read(settings, Vec::new())?.config;
    let secret = config.api.jwt_secret.ok_or_else(|| {
        Failure::config("`api.jwt_secret` is not set: without it, the server accepts API keys only (`postrider api-key create`)")
    })?;
    let now = postrider_store::Clock::default().now();
    let claims = json!({
        "iss": "svix-server",
        "sub": environment.as_str(),
        "iat": now.as_seconds(),
        "nbf": now.as_seconds(),
        "exp": now.plus(JWT_LIFE).as_seconds(),
    });
    let signed = [json!({ "alg": "HS256", "typ": "JWT" }), claims]
        .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
        .join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()), signed.as_bytes());
    print(&format!("Token (Bearer): {signed}.{}\n", URL_SAFE_NO_PAD.encode(tag)))
}

async fn call(settings: &Settings, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let reached = Reached::of(settings).await?;
    let answer = reached.administration.call(method, path, body).await;
    reached.close().await;
    answer
}

/// A part of a path or query that needs no escaping; the server says what is wrong with the rest.
fn segment(text: &str) -> Result<&str, Failure> {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if plain {
        Ok(text)
    } else {
        Err(Failure::other(format!("`{text}` is not an id: letters, digits, `-` and `_`")))
    }
}

fn query(environment: Option<&str>) -> Result<String, Failure> {
    environment
        .map_or_else(|| Ok(String::new()), |name| segment(name).map(|name| format!("?environment={name}")))
}

fn table(keys: &[Value]) -> String {
    let mut lines = format!("{:<32} {:<12} {:<28} {:<9} {}\n", "key", "scope", "created", "state", "name");
    for key in keys {
        let state = if key["revokedAt"].is_null() { "valid" } else { "revoked" };
        // Writing to a String does not fail.
        let _ = writeln!(
            lines,
            "{:<32} {:<12} {:<28} {:<9} {}",
            text(&key["id"]),
            text(&key["scope"]),
            text(&key["createdAt"]),
            state,
            text(&key["name"])
        );
    }
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
