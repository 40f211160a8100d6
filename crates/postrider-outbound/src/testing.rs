//! What the tests share: scripted receivers on loopback, a stub for DNS, and things to send.

use crate::{
    Config, Header, HeaderValue, Outbound, Request,
    oauth::TokenOwner,
    resolver::{Resolve, ResolveFailure},
};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_model::{
    environment::EnvironmentId,
    id::{ApplicationId, EndpointId, Ksuid},
    oauth::{AuthMethod, OAuthCredential, OAuthSettings},
    url::EndpointUrl,
};
use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn application(number: u8) -> ApplicationId {
    ApplicationId::new(Ksuid::from_bytes([number; 20]))
}

pub(crate) fn owner() -> TokenOwner {
    TokenOwner {
        environment: EnvironmentId::parse("org_1").unwrap(),
        application: application(1),
        endpoint: EndpointId::new(Ksuid::from_bytes([1; 20])),
    }
}

pub(crate) fn credential(token_url: &str) -> OAuthCredential {
    OAuthCredential {
        settings: OAuthSettings {
            auth_method: AuthMethod::ClientSecretBasic,
            client_id: "client".to_owned(),
            token_url: EndpointUrl::from_stored(token_url).unwrap(),
            scopes: Vec::new(),
            extra_params: BTreeMap::new(),
            extra_headers: BTreeMap::new(),
        },
        client_secret: "s3cret-s3cret".to_owned().into(),
        version: 1,
    }
}

pub(crate) fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned().into(), value: HeaderValue::Secret(value.to_owned().into()) }
}

pub(crate) fn request_to(url: &str) -> Request {
    Request {
        environment: EnvironmentId::parse("org_1").unwrap(),
        application: application(1),
        url: EndpointUrl::from_stored(url).unwrap(),
        headers: vec![header("webhook-id", "msg_1")],
        body: Bytes::from_static(b"{\"a\":1}"),
    }
}

pub(crate) fn within(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Development settings: loopback is open.
pub(crate) fn dev() -> Config {
    Config { dev: true, ..Config::default() }
}

pub(crate) fn outbound(config: Config) -> Outbound {
    Outbound::new(config, Arc::new(StubDns::default())).unwrap()
}

/// Answers in turn; the last one again and again.
#[derive(Debug, Default)]
pub(crate) struct StubDns {
    answers: Vec<Result<Vec<IpAddr>, ResolveFailure>>,
    lookups: AtomicUsize,
}

impl StubDns {
    pub(crate) fn answering(answers: &[&[&str]]) -> Arc<Self> {
        let answers =
            answers.iter().map(|ips| Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect())).collect();
        Arc::new(Self { answers, lookups: AtomicUsize::new(0) })
    }

    pub(crate) fn failing(failure: ResolveFailure) -> Arc<Self> {
        Arc::new(Self { answers: vec![Err(failure)], lookups: AtomicUsize::new(0) })
    }

    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Resolve for StubDns {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, ResolveFailure> {
        let at = self.lookups.fetch_add(1, Ordering::Relaxed);
        self.answers.get(at).or(self.answers.last()).cloned().unwrap_or(Err(ResolveFailure::NotFound))
    }
}

/// A server that does with each connection what a script says.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// The script gets each connection and its number, from 0.
    pub(crate) async fn scripted<F, R>(script: F) -> Self
    where
        F: Fn(TcpStream, usize) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at("127.0.0.1:0", script).await
    }

    pub(crate) async fn scripted_at<F, R>(address: &str, script: F) -> Self
    where
        F: Fn(TcpStream, usize) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let connections = Arc::clone(&receiver.connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(script(stream, number));
            }
        });
        receiver
    }

    /// Answers every request with the same bytes and keeps the connection.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::answering_in_turn(vec![answer.into()]).await
    }

    /// Answers the requests in turn, whatever the connection; the last answer again and again.
    pub(crate) async fn answering_in_turn(answers: Vec<Vec<u8>>) -> Self {
        let (requests, answers) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answers));
        let seen = Arc::clone(&requests);
        let mut receiver = Self::scripted(move |mut stream, _| {
            let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request);
                        seen.len() - 1
                    };
                    let answer = answers.get(number).or(answers.last()).unwrap();
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        receiver.requests = requests;
        receiver
    }

    /// Answers the first request of each connection, then does nothing more with it for a while.
    pub(crate) async fn answering_once(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::scripted(move |mut stream, _| {
            let answer = Arc::clone(&answer);
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// What came in, as text.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Head and body of one request; `None` at the end of the connection.
pub(crate) async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Ends a connection with a reset instead of an orderly close.
pub(crate) fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}
