//! The API's own certificate.

use crate::{config::Server, failure::Failure};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use std::{path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

/// Reads certificate and key; `None` when neither is set. Refuses half a pair and what does not fit together.
pub fn acceptor(settings: &Server) -> Result<Option<TlsAcceptor>, Failure> {
    let (cert, key) = match (&settings.tls_certificate, &settings.tls_key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            return Err(Failure::config("`server.tls_certificate` is set, but `server.tls_key` is not"));
        }
        (None, Some(_)) => {
            return Err(Failure::config("`server.tls_key` is set, but `server.tls_certificate` is not"));
        }
    };
    let wrong = |setting: &str, file: &Path, error: &dyn std::fmt::Display| {
        Failure::config(format!("`server.{setting}` ({}): {error}", file.display()))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong("tls_certificate", cert, &problem(&error, "certificate")))?;
    if chain.is_empty() {
        return Err(wrong("tls_certificate", cert, &problem(&pem::Error::NoItemsFound, "certificate")));
    }
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| wrong("tls_key", key, &problem(&error, "private key")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::other(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| {
            let text = format!(
                "does not go with `server.tls_key` ({}): {error}; name the key that this certificate was made for",
                key.display()
            );
            wrong("tls_certificate", cert, &text)
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// What is wrong with a PEM file, and the way out.
fn problem(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => {
            format!("no {wanted} inside; it must be in PEM form (`-----BEGIN …`)")
        }
        pem::Error::Io(error) => format!("cannot be read: {error}; name a file that this user can read"),
        error => format!("{error}; it must be in PEM form (`-----BEGIN …`)"),
    }
}
