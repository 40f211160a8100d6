//! A small JSON client for the server under test.

use bytes::Bytes;
use http_body_util::Full;
use postrider::local::{self, Place};
use serde_json::Value;
use std::net::SocketAddr;

/// Calls the API with a token.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The call, for messages.
    pub call: String,
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The body as it came.
    pub bytes: Bytes,
    /// The body as JSON; `null` when it is empty or no JSON.
    pub body: Value,
}

impl Client {
    /// Calls this address.
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self { place: Place::Tcp(address), token: token.map(str::to_owned), headers: Vec::new() }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same with one more header in each request.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    /// `POST` without a body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        self.call("POST", path, None).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("PATCH", path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None).await
    }

    /// Any method with an optional JSON body.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let text = body.map(|body| body.to_string());
        self.raw(method, path, text.map(String::into_bytes)).await
    }

    /// Any method with any bytes.
    pub async fn raw(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Answer {
        self.try_raw(method, path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same, for a server that may be gone.
    pub async fn try_raw(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> std::io::Result<Answer> {
        let mut request = http::Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap();
        let answer = local::request(&self.place, request).await?;
        Ok(Answer {
            call: format!("{method} {path}"),
            status: answer.status,
            body: answer.json(),
            headers: answer.headers,
            bytes: answer.body,
        })
    }
}

impl Answer {
    /// The body, if the status is this one; else the test fails and shows the answer.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status, status, "{} answered {}: {text}", self.call, self.status);
        self.body
    }

    /// The items of a list.
    #[track_caller]
    pub fn items(self) -> Vec<Value> {
        let body = self.expect(200);
        body["data"].as_array().cloned().unwrap_or_else(|| panic!("no list: {body}"))
    }
}
