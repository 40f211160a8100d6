//! Where the database is: reading its URL, connecting, and TLS.
//!
//! `sslmode`: `disable`; `prefer` (the default: encrypted when the server offers it); `require` (encrypted);
//! `verify-full` (encrypted, and the server proves its name by a certificate of a known root, or of `sslrootcert`). As
//! with other clients, only `verify-full` keeps out somebody who sits in between. No error shows a password.

use crate::{OpenError, config::Pooler, connection::Statements, reach::Reach};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    future::Future,
    io,
    pin::Pin,
    str::FromStr as _,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    config::{Host, SslMode},
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect},
};

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long written bytes may stay without an answer from the other side's kernel.
const SILENCE: Duration = Duration::from_secs(10);

/// What the names of this product's connections begin with; the schema version that they know follows.
pub(crate) const APPLICATION: &str = "postrider/";
/// How often two connections are asked in all which session of the server they have.
const PROBES: usize = 8;

/// Whether the database answered, and why not.
type Knock = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What it takes to connect.
#[derive(Clone)]
pub(crate) struct Address {
    config: tokio_postgres::Config,
    tls: Tls,
    shown: String,
    /// Behind a pooler in transaction mode: what all connections know of statements.
    pooled: Option<Arc<Statements>>,
    reach: Arc<Reach>,
}

impl Address {
    /// Reads a URL.
    pub(crate) fn parse(url: &SecretString) -> Result<Self, OpenError> {
        let (url, mode, root) = take_ssl(url.expose_secret())?;
        let mut config = tokio_postgres::Config::from_str(&url).map_err(|error| wrong(&error.to_string()))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host"));
        }
        if config.get_dbname().is_none() {
            return Err(wrong("it names no database"));
        }
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyFull => SslMode::Require,
        });
        config.connect_timeout(CONNECT_TIME).tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        config.application_name(APPLICATION.trim_end_matches('/'));
        let tls = Tls::new(mode, root.as_deref())?;
        let shown = shown(&config);
        Ok(Self { config, tls, shown, pooled: None, reach: Arc::default() })
    }

    /// The release says by this to others which schema it knows.
    pub(crate) fn name_schema(&mut self, version: i64) {
        self.config.application_name(format!("{APPLICATION}{version}"));
    }

    /// Finds out whether a pooler in transaction mode stands in between, unless the settings say.
    pub(crate) async fn find_pooler(&mut self, told: Pooler) -> Result<(), OpenError> {
        let pooled = match told {
            Pooler::None => false,
            Pooler::Transaction => true,
            Pooler::Auto => {
                let refused = |error| OpenError::of_connecting(&self.shown, &error);
                self.shares_sessions().await.map_err(refused)?
            }
        };
        if pooled {
            tracing::info!(
                database = self.shown,
                "a pooler in transaction mode stands in between: statements are not prepared, and this node looks for \
                 work instead of hearing of it"
            );
        }
        self.pooled = pooled.then(Arc::default);
        Ok(())
    }

    /// Do connections change their session, or have two of them the same one?
    async fn shares_sessions(&self) -> Result<bool, tokio_postgres::Error> {
        let mut clients = Vec::new();
        let mut drivers = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let (client, connection) = self.connect().await?;
            drivers.spawn(connection);
            clients.push((client, None));
        }
        for probe in 0..PROBES {
            // Each twice in a row: a pooler that gives sessions out in turns might give each of them always the same.
            let Some((client, known)) = clients.get_mut(probe / 2 % 2) else { continue };
            let answer = client.simple_query("SELECT pg_backend_pid()").await?;
            let session = answer.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            if known.is_some() && *known != session {
                return Ok(true);
            }
            *known = session;
        }
        Ok(matches!(&clients[..], [(_, one), (_, two)] if one == two))
    }

    /// See [`Self::find_pooler`].
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// What a new connection knows of statements: behind a pooler what all know.
    pub(crate) fn statements(&self) -> Arc<Statements> {
        self.pooled.clone().unwrap_or_default()
    }

    /// Whether anybody can connect, as far as it is known.
    pub(crate) fn reach(&self) -> &Arc<Reach> {
        &self.reach
    }

    /// A connection was refused.
    pub(crate) fn refused(&self, why: &str) {
        self.reach.refused(why, self.knock());
    }

    /// An answer takes long.
    pub(crate) fn suspect(&self) {
        self.reach.suspect(self.knock());
    }

    /// Connecting took too long.
    pub(crate) fn silent(&self) -> OpenError {
        OpenError::Away { place: self.shown.clone(), why: "it does not answer".to_owned() }
    }

    /// Connects and asks for the smallest answer. Holds no part of what knows whether that can be.
    fn knock(&self) -> impl Fn() -> Knock + Send + 'static {
        let (config, tls, shown) = (self.config.clone(), self.tls.clone(), self.shown.clone());
        move || {
            let (config, tls, shown) = (config.clone(), tls.clone(), shown.clone());
            Box::pin(async move {
                let why = |error| match OpenError::of_connecting(&shown, &error) {
                    OpenError::Away { why, .. } => why,
                    other => other.to_string(),
                };
                let (client, connection) = config.connect(tls).await.map_err(why)?;
                let asking = client.simple_query("SELECT 1");
                tokio::select! {
                    answer = asking => answer.map(drop).map_err(why),
                    ended = connection => ended.map_err(why).and(Err("the connection ended".to_owned())),
                }
            })
        }
    }

    /// Host, port and database, for messages; no user, no password.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Opens a connection; the second part is to be driven by a task.
    pub(crate) async fn connect(
        &self,
    ) -> Result<
        (
            tokio_postgres::Client,
            tokio_postgres::Connection<tokio_postgres::Socket, TlsStream<tokio_postgres::Socket>>,
        ),
        tokio_postgres::Error,
    > {
        self.config.connect(self.tls.clone()).await
    }
}

fn wrong(why: &str) -> OpenError {
    OpenError::Refused(format!(
        "the database URL cannot be used: {why}; it looks like \
         postgres://user:password@host:5432/database?sslmode=verify-full"
    ))
}

fn shown(config: &tokio_postgres::Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    format!("{host}:{port}/{}", config.get_dbname().unwrap_or_default())
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

/// Takes what concerns TLS out of the query: the library knows only half of it.
fn take_ssl(text: &str) -> Result<(String, Mode, Option<String>), OpenError> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(wrong("it begins with neither postgres:// nor postgresql://"));
    }
    let Some((base, query)) = text.split_once('?') else { return Ok((text.to_owned(), Mode::Prefer, None)) };
    let (mut mode, mut root, mut rest) = (Mode::Prefer, None, Vec::new());
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("sslmode", value)) => {
                mode = match value {
                    "disable" => Mode::Disable,
                    "allow" | "prefer" => Mode::Prefer,
                    "require" => Mode::Require,
                    "verify-ca" | "verify-full" => Mode::VerifyFull,
                    _ => return Err(wrong("sslmode is one of disable, prefer, require, verify-full")),
                };
            }
            Some(("sslrootcert", value)) => root = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => rest.push(part),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, mode, root))
}

/// Makes TLS connections.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    fn new(mode: Mode, root: Option<&str>) -> Result<Self, OpenError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| OpenError::Refused(format!("TLS cannot be set up: {error}")))?;
        let config = if mode == Mode::VerifyFull {
            builder.with_root_certificates(roots(root)?).with_no_client_auth()
        } else {
            let any = Arc::new(AnyServer(provider));
            builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
        };
        Ok(Self(Arc::new(config)))
    }
}

fn roots(file: Option<&str>) -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let unusable = |why: &str| OpenError::Refused(format!("sslrootcert={file} of the database URL: {why}"));
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(&error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(&error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate in PEM form"));
    }
    Ok(roots)
}

/// Takes any certificate: encrypted, not authenticated, as `prefer` and `require` mean everywhere.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS towards one host.
pub(crate) struct Handshake {
    config: Arc<ClientConfig>,
    /// None for a socket in the file system.
    name: Option<ServerName<'static>>,
}

/// A stream under TLS.
pub(crate) struct TlsStream<S>(tokio_rustls::client::TlsStream<S>);

type Stream<S> = Pin<Box<dyn Future<Output = io::Result<TlsStream<S>>> + Send>>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = TlsStream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<Handshake> {
        Ok(Handshake { config: Arc::clone(&self.0), name: ServerName::try_from(domain.to_owned()).ok() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = TlsStream<S>;
    type Error = io::Error;
    type Future = Stream<S>;

    fn connect(self, stream: S) -> Stream<S> {
        let connector = tokio_rustls::TlsConnector::from(self.config);
        Box::pin(async move {
            let name = self.name.ok_or_else(|| io::Error::other("the host's name is none that TLS knows"))?;
            Ok(TlsStream(connector.connect(name, stream).await?))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for TlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, OpenError> {
        Address::parse(&SecretString::from(url))
    }

    #[test]
    fn what_is_shown_of_an_address_holds_neither_user_nor_password() {
        let address =
            parse("postgres://user:geheim@db.example.com:5433/app?sslmode=require&connect_timeout=3")
                .unwrap();
        assert_eq!(address.shown(), "db.example.com:5433/app");
        assert_eq!(parse("postgres://u@%2Frun%2Fpg/app").unwrap().shown(), "/run/pg:5432/app");
    }

    #[test]
    fn a_wrong_url_is_refused_with_its_form_and_without_its_password() {
        for url in [
            "",
            "mysql://u:geheim@host/db",
            "postgres://u:geheim@host",
            "postgres:///db",
            "postgres://u:geheim@host:port/db",
            "postgres://u:geheim@host/db?sslmode=maybe",
            "postgres://u:geheim@host/db?no_such_option=1",
            "postgres://u:geheim@host/db?sslmode=verify-full&sslrootcert=/nowhere.pem",
        ] {
            let error = parse(url).err().expect(url).to_string();
            assert!(!error.contains("geheim"), "{error}");
            assert!(error.contains("database URL"), "{error}");
        }
    }
}
