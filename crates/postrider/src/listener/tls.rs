//! The API's own certificate.

use crate::{config::Server, failure::Failure};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
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
    let wrong =
        |file: &Path, error: &dyn std::fmt::Display| Failure::config(format!("{}: {error}", file.display()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(cert, &error))?;
    if chain.is_empty() {
        return Err(wrong(cert, &"no certificate in PEM form inside"));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::other(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| wrong(cert, &format_args!("does not go with {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
