//! The publisher's side of the tour: calls the API over HTTP and shows what it calls.

use super::narrator::Narrator;
use crate::local::{self, Answer, Place};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::{net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(50);

/// A publisher with its API key.
pub(super) struct Publisher {
    place: Place,
    token: SecretString,
}

impl Publisher {
    pub(super) fn new(address: SocketAddr, token: SecretString) -> Self {
        Self { place: Place::Tcp(address), token }
    }

    /// Makes a call, shows it, and returns the answer's body if its status is the expected one.
    pub(super) async fn call(
        &self,
        say: &Narrator,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Result<Value> {
        say.call(method, path, body.as_ref(), status);
        let answer = self.send(method, path, body).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(
            answer.status == status,
            "{method} {path} answered {} instead of {status}: {text}",
            answer.status
        );
        Ok(answer.json())
    }

    /// Asks again and again until the answer is as expected.
    pub(super) async fn until(
        &self,
        path: &str,
        patience: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let started = Instant::now();
        loop {
            let value = self.send("GET", path, None).await?.json();
            if is(&value) {
                return Ok(value);
            }
            ensure!(started.elapsed() < patience, "GET {path} still answers {value}");
            sleep(POLL).await;
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token.expose_secret()))
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        local::request(&self.place, request).await.with_context(|| format!("{method} {path}"))
    }
}
