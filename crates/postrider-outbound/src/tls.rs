//! TLS: one configuration for the process, and what goes wrong in words.

use crate::{config::Config, failure::Failure};
use postrider_model::{outcome::Outcome, url::Host};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore, client::Resumption, crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, IpAddr as PkiIp, ServerName, pem::PemObject};
use std::{io, path::Path, sync::Arc};
use tokio_rustls::TlsConnector;

/// Largest file of certificate authorities: the whole of Mozilla's list as text is 0.3 MiB.
const CA_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The file of `outbound.ca_file` cannot be read.
    #[error("outbound.ca_file `{path}` cannot be read: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A defect of this server: its own TLS library refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Internal(#[from] rustls::Error),
}

/// TLS 1.2 and 1.3, Mozilla's authorities and those of `ca_file`, names always verified, HTTP/1.1 only.
pub(crate) fn connector(config: &Config) -> Result<TlsConnector, TlsSetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &config.ca_file {
        add_file(&mut roots, path)
            .map_err(|reason| TlsSetupError::CaFile { path: path.display().to_string(), reason })?;
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session tells the receiver that two customers share this server. Connections are kept, so few
    // handshakes are saved by it anyway.
    tls.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(tls)))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > CA_FILE_BYTES {
        return Err(format!("it has {size} bytes, more than {CA_FILE_BYTES}"));
    }
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut found = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| format!("it is no PEM file of certificates: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate {} cannot be used: {error}", found + 1))?;
        found += 1;
    }
    if found == 0 { Err("it holds no PEM certificate".to_owned()) } else { Ok(()) }
}

/// The name that the certificate must be for.
pub(crate) fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).ok(),
        Host::V4(ip) => Some(ServerName::IpAddress(PkiIp::from(std::net::IpAddr::V4(*ip)))),
        Host::V6(ip) => Some(ServerName::IpAddress(PkiIp::from(std::net::IpAddr::V6(*ip)))),
    }
}

/// A failed handshake in words: each cause has its own sentence.
pub(crate) fn failure(error: &io::Error, host: &str) -> Failure {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let detail = match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate_detail(certificate, host),
        Some(rustls::Error::AlertReceived(alert)) => alert_detail(*alert, host),
        Some(rustls::Error::PeerIncompatible(_)) => incompatible(host),
        Some(rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. }) => {
            format!("{host} does not speak TLS on this port: check port and scheme of the URL")
        }
        Some(rustls::Error::NoCertificatesPresented) => format!("{host} presented no certificate"),
        Some(_) => format!("the TLS handshake with {host} failed"),
        None => format!("{host} broke off the TLS handshake"),
    };
    Failure::new(Outcome::Tls, detail)
}

/// Whether the other side broke off for want of a client certificate.
pub(crate) fn wants_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate
        ))
    )
}

fn incompatible(host: &str) -> String {
    format!(
        "{host} offers no TLS version or cipher in common with this server: it needs TLS 1.2 with ECDHE, or TLS 1.3"
    )
}

fn certificate_detail(certificate: &CertificateError, host: &str) -> String {
    match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {host} has expired: renew it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {host} is not valid yet: check its dates and the clocks")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of {host} is for another name: it must list {host}")
        }
        CertificateError::UnknownIssuer => format!(
            "the certificate of {host} is from an unknown authority: it is self-signed, its intermediate certificate is missing, or its authority is private (an operator can add one with outbound.ca_file)"
        ),
        CertificateError::Revoked => format!("the certificate of {host} was revoked"),
        CertificateError::BadSignature => format!("the certificate of {host} has a wrong signature"),
        _ => format!("the certificate of {host} cannot be accepted"),
    }
}

fn alert_detail(alert: AlertDescription, host: &str) -> String {
    match alert {
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => incompatible(host),
        AlertDescription::NoApplicationProtocol => {
            format!("{host} refuses HTTP/1.1: enable it beside HTTP/2")
        }
        AlertDescription::UnrecognisedName => {
            format!("{host} does not know this name: check its TLS configuration")
        }
        AlertDescription::CertificateRequired | AlertDescription::BadCertificate => {
            format!("{host} asks for a client certificate, and none is configured")
        }
        _ => format!("{host} refused the TLS handshake"),
    }
}
