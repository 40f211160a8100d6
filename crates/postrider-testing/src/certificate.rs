//! A certificate for `localhost` that signs itself, for receivers that speak TLS.

use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// A certificate and what serves it.
pub struct Certificate {
    /// In PEM: what a client must trust.
    pub pem: String,
    pub(crate) acceptor: TlsAcceptor,
}

impl Certificate {
    /// A new one for these names.
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
        Self { pem: own.cert.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}
