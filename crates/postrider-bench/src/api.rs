//! What scenarios set up and read through the API.

use crate::{connection::Connection, server::Access};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// One connection to a server.
pub(crate) struct Api {
    access: Access,
    connection: Connection,
}

impl Api {
    /// Opens it.
    pub(crate) async fn open(access: &Access) -> Result<Self> {
        Ok(Self { access: access.clone(), connection: Connection::open(access.address).await? })
    }

    /// Creates an application; returns its id.
    pub(crate) async fn application(&mut self, name: &str) -> Result<String> {
        self.create("/api/v1/app", &json!({ "name": name })).await
    }

    /// Creates an endpoint; returns its id.
    pub(crate) async fn endpoint(&mut self, application: &str, url: &str) -> Result<String> {
        self.create(&format!("/api/v1/app/{application}/endpoint"), &json!({ "url": url })).await
    }

    /// Creates something; returns its id.
    async fn create(&mut self, path: &str, body: &Value) -> Result<String> {
        let answer = self.call(Method::POST, path, Some(body)).await?;
        Ok(answer["id"].as_str().context("an answer without an id")?.to_owned())
    }

    /// Reads something.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.access.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.access.token))
            .header(header::CONTENT_TYPE, "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let (status, answer) = self.connection.send(request).await.with_context(|| path.to_owned())?;
        ensure!(status / 100 == 2, "{path} answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer)? })
    }
}
