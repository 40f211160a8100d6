//! Order of addresses, the check of the other end, and TLS with every kind of bad certificate.

use super::*;
use crate::{
    Exchange, Outbound,
    testing::{OK, StubDns, credential, dev, owner, read_request, request_to, within},
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const HOST: &str = "hooks.example.com";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn families_take_turns_and_three_addresses_are_tried() {
    let order = alternate(&[at("[2606::1]:1"), at("[2606::2]:1"), at("1.1.1.1:1"), at("1.1.1.2:1")]);
    assert_eq!(order, [at("[2606::1]:1"), at("1.1.1.1:1"), at("[2606::2]:1")]);
    assert_eq!(alternate(&[at("1.1.1.1:1")]), [at("1.1.1.1:1")]);
    assert!(alternate(&[]).is_empty());
}

/// U11, U12: a socket that leads elsewhere than vetted is refused before a byte is written.
#[test]
fn a_peer_that_was_not_vetted_is_refused() {
    let policy = AddressPolicy::default();
    let vetted = [at("1.1.1.1:443")];
    let check = |peer, vetted: &[SocketAddr]| check_ends(at(peer), at("192.0.2.7:50000"), vetted, &policy);
    assert_eq!(check("1.1.1.1:443", &vetted), Ok(()));
    for peer in ["1.1.1.2:443", "1.1.1.1:80", "127.0.0.1:443"] {
        assert_eq!(check(peer, &vetted).unwrap_err().outcome, Outcome::Internal, "{peer}");
    }
    assert_eq!(check("10.0.0.1:443", &[at("10.0.0.1:443")]).unwrap_err().outcome, Outcome::Internal);
}

/// U26: a listener on all addresses is recognised by both ends being one address.
#[test]
fn our_own_public_address_is_recognised_once_connected() {
    let policy = AddressPolicy { own_listeners: vec![at("0.0.0.0:8443")], ..AddressPolicy::default() };
    let vetted = [at("1.1.1.1:8443")];
    let ours = check_ends(at("1.1.1.1:8443"), at("1.1.1.1:50000"), &vetted, &policy);
    assert_eq!(ours.unwrap_err().outcome, Outcome::Blocked);
    assert_eq!(check_ends(at("1.1.1.1:8443"), at("9.9.9.9:50000"), &vetted, &policy), Ok(()));
}

/// A certificate authority of the test, and its file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(issuer.pem().as_bytes()).unwrap();
        Self { issuer, file }
    }

    fn certificate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn outbound(&self) -> Outbound {
        let config = Config { ca_file: Some(self.file.path().to_owned()), ..dev() };
        Outbound::new(config, StubDns::answering(&[&["127.0.0.1"]])).unwrap()
    }
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

async fn serve(identity: Identity) -> SocketAddr {
    serve_with(identity, rustls::ALL_VERSIONS, WebPkiClientVerifier::no_client_auth()).await
}

async fn serve_with(
    identity: Identity,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ClientCertVerifier>,
) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate], identity.key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                while read_request(&mut stream).await.is_some() {
                    stream.write_all(OK).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    address
}

/// A server that answers whatever comes with these bytes.
async fn raw(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut hello = [0; 16];
            let _ = tcp.read(&mut hello).await;
            let _ = tcp.write_all(bytes).await;
            tokio::spawn(async move {
                sleep(Duration::from_secs(10)).await;
                drop(tcp);
            });
        }
    });
    address
}

async fn send(outbound: &Outbound, address: SocketAddr) -> Exchange {
    outbound.send(&request_to(&format!("https://{HOST}:{}/", address.port())), within(3000)).await
}

/// HTTP-17: the provider is there without any global set-up; connections with TLS are used again.
#[tokio::test]
async fn tls_with_a_certificate_of_the_ca_file_works_and_is_reused() {
    let authority = Authority::new("the authority");
    let address = serve(authority.certificate(HOST, |_| {})).await;
    let outbound = authority.outbound();
    let first = send(&outbound, address).await;
    assert_eq!(first.outcome, Outcome::Succeeded, "{}", first.detail);
    assert!(first.phases.tls.is_some() && first.phases.dns.is_some());
    let second = send(&outbound, address).await;
    assert_eq!((second.outcome, second.phases.tls), (Outcome::Succeeded, None));
}

/// E16, HTTP-16: each cause has its own sentence, and nothing is sent.
#[tokio::test]
async fn every_bad_certificate_has_its_own_sentence() {
    let authority = Authority::new("the authority");
    let other = Authority::new("another authority");
    let cases = [
        ("has expired", authority.certificate(HOST, |params| params.not_after = date_time_ymd(2020, 1, 1))),
        (
            "not valid yet",
            authority.certificate(HOST, |params| params.not_before = date_time_ymd(2999, 1, 1)),
        ),
        ("another name", authority.certificate("other.example.com", |_| {})),
        ("another name", authority.certificate("*.a.example.com", |_| {})),
        ("unknown authority", other.certificate(HOST, |_| {})),
    ];
    for (words, identity) in cases {
        let address = serve(identity).await;
        let exchange = send(&authority.outbound(), address).await;
        assert_eq!((exchange.outcome, exchange.sent), (Outcome::Tls, false), "{words}");
        assert!(exchange.detail.contains(words), "{words}: {}", exchange.detail);
    }
}

/// O20: a token endpoint with a bad certificate gets no secret, and there is no way around it.
#[tokio::test]
async fn a_token_endpoint_with_a_bad_certificate_is_unavailable() {
    let (authority, other) = (Authority::new("the authority"), Authority::new("another authority"));
    let address = serve(other.certificate(HOST, |_| {})).await;
    let credential = credential(&format!("https://{HOST}:{}/", address.port()));
    let failure = authority.outbound().token(&owner(), &credential, within(3000)).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenUnavailable);
    assert!(failure.detail.contains("unknown authority"), "{}", failure.detail);
}

/// E17: a server with old protocols only, one without TLS, one that asks for a client certificate.
#[tokio::test]
async fn servers_without_usable_tls_are_told_apart() {
    let authority = Authority::new("the authority");
    for (bytes, words) in [
        (&b"\x15\x03\x01\x00\x02\x02\x46"[..], "no TLS version or cipher in common"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "no TLS version or cipher in common"),
        (b"\x15\x03\x03\x00\x02\x02\x74", "client certificate"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
    ] {
        let address = raw(bytes).await;
        let exchange = send(&authority.outbound(), address).await;
        assert_eq!(exchange.outcome, Outcome::Tls, "{words}");
        assert!(exchange.detail.contains(words), "{words}: {}", exchange.detail);
    }
}

/// E17: whoever wants a client certificate and can do without gets none; whoever insists on one is told apart, also with
/// TLS 1.3, where that becomes known only after the handshake.
#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_is_told_apart() {
    let authority = Authority::new("the authority");
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = || {
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider)
    };
    for version in [&TLS12, &TLS13] {
        let optional = verifier().allow_unauthenticated().build().unwrap();
        let address = serve_with(authority.certificate(HOST, |_| {}), &[version], optional).await;
        assert_eq!(send(&authority.outbound(), address).await.outcome, Outcome::Succeeded);

        let required = verifier().build().unwrap();
        let address = serve_with(authority.certificate(HOST, |_| {}), &[version], required).await;
        let exchange = send(&authority.outbound(), address).await;
        assert_eq!(exchange.outcome, Outcome::Tls, "{version:?}: {}", exchange.detail);
        assert!(exchange.detail.contains("client certificate"), "{version:?}: {}", exchange.detail);
    }
}

/// E01: a server that never answers the TLS greeting.
#[tokio::test]
async fn a_silent_tls_server_is_a_timeout_of_the_handshake() {
    let address = raw(b"").await;
    let config = Config { tls_timeout_ms: 200, ..dev() };
    let outbound = Outbound::new(config, StubDns::answering(&[&["127.0.0.1"]])).unwrap();
    let exchange = send(&outbound, address).await;
    assert_eq!((exchange.outcome, exchange.sent), (Outcome::Timeout, false));
    assert!(exchange.detail.contains("TLS handshake within 0.2 s"), "{}", exchange.detail);
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let mut file = NamedTempFile::new().unwrap();
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        file.write_all(content.as_bytes()).unwrap();
        let config = Config { ca_file: Some(file.path().to_owned()), ..dev() };
        let error = Outbound::new(config, StubDns::answering(&[])).unwrap_err().to_string();
        assert!(error.contains("outbound.ca_file"), "{error}");
    }
    let config = Config { ca_file: Some("missing.pem".into()), ..dev() };
    assert!(Outbound::new(config, StubDns::answering(&[])).unwrap_err().to_string().contains("missing.pem"));
}

#[test]
fn durations_read_well() {
    for (millis, text) in [(15_000, "15 s"), (1500, "1.5 s"), (200, "0.2 s"), (14_999, "15 s")] {
        assert_eq!(seconds(Duration::from_millis(millis)), text);
    }
}
