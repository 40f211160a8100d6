//! A real server process on a temporary database, and the application and endpoint that scenarios use.

use crate::connection::Connection;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

const START: Duration = Duration::from_secs(20);

/// The process; it is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    process: Child,
    _data: TempDir,
}

impl Server {
    /// Starts `postrider serve --dev` and reads address and key from what it prints.
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut process = Command::new(binary)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .env("POSTRIDER_LOG__LEVEL", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("starting {}; build it with `cargo build --release`", binary.display())
            })?;
        let output = process.stdout.take().context("standard output of the server")?;
        let mut lines = BufReader::new(output).lines();
        let (mut address, mut token) = (None, None);
        timeout(START, async {
            while let Some(line) = lines.next_line().await? {
                let found = after(&line, "http://", |c| c.is_ascii_digit() || matches!(c, '.' | ':'));
                address = address.or_else(|| found.and_then(|text| text.parse::<SocketAddr>().ok()));
                let found = after(&line, "prk_", |c| c.is_ascii_alphanumeric() || c == '_');
                if let (None, Some(text)) = (&token, found) {
                    token = Some(format!("prk_{text}"));
                }
                if address.is_some() && token.is_some() {
                    break;
                }
            }
            anyhow::Ok(())
        })
        .await
        .context("the server did not print its address and key in time")??;
        // What it prints later is read and dropped, else its pipe would fill.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            address: address.context("the server printed no address")?,
            token: token.context("the server printed no key")?,
            process,
            _data: data,
        })
    }

    /// Creates an application with one endpoint; returns the path to publish to.
    pub(crate) async fn endpoint(&self, receiver: SocketAddr) -> Result<String> {
        let mut connection = Connection::open(self.address).await?;
        let app = self.create(&mut connection, "/api/v1/app", r#"{"name":"bench"}"#).await?;
        let endpoint = format!(r#"{{"url":"http://{receiver}/webhooks"}}"#);
        self.create(&mut connection, &format!("/api/v1/app/{app}/endpoint"), &endpoint).await?;
        Ok(format!("/api/v1/app/{app}/msg"))
    }

    /// A POST with the key.
    pub(crate) fn post(&self, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        Ok(Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?)
    }

    async fn create(&self, connection: &mut Connection, path: &str, body: &str) -> Result<String> {
        let (status, answer) =
            connection.send(self.post(path, Bytes::copy_from_slice(body.as_bytes()))?).await?;
        ensure!(status == 201, "{path} answered {status}: {}", String::from_utf8_lossy(&answer));
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        Ok(answer["id"].as_str().context("an id")?.to_owned())
    }

    /// Ends the process.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// The characters that follow a prefix in a line.
fn after<'a>(line: &'a str, prefix: &str, belongs: impl Fn(char) -> bool) -> Option<&'a str> {
    let (_, rest) = line.split_once(prefix)?;
    let end = rest.find(|character| !belongs(character)).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}
