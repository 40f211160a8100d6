//! What an operator can set about outgoing requests. Read from the section `outbound` of the configuration file; unknown
//! keys are refused.

use crate::{address::AddressPolicy, cidr::AddressRule};
use postrider_model::url::UrlRules;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Settings of outgoing requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Longest time to open one TCP connection, in milliseconds. The deadline of the whole attempt still applies.
    pub connect_timeout_ms: u64,
    /// Longest time of a TLS handshake, in milliseconds.
    pub tls_timeout_ms: u64,
    /// Longest time to resolve a host name, in milliseconds.
    pub dns_timeout_ms: u64,
    /// DNS servers as `address:port`. Empty: those of the system. A public resolver keeps internal names out of reach.
    pub dns_servers: Vec<SocketAddr>,
    /// How long an unused connection is kept, in seconds. Below what nginx (75 s) and load balancers (60 s) keep;
    /// where the other side closes earlier (Apache and Node.js: 5 s), the connection is replaced without a failed
    /// attempt.
    pub idle_connection_secs: u64,
    /// Longest age of a connection, in seconds: new addresses of a name come into use after this time at the latest.
    pub connection_age_secs: u64,
    /// Most unused connections kept for one origin of one application.
    pub idle_connections_per_origin: usize,
    /// Most unused connections kept in all; each is one file descriptor and about 5 KiB.
    pub idle_connections_total: usize,
    /// Private addresses that may be delivered to: `10.0.0.0/8`, `10.1.2.3/32:8443`, `[fd12::/16]:8443`. Never opens
    /// loopback, link-local or cloud metadata addresses, nor this server itself.
    pub allow: Vec<AddressRule>,
    /// Addresses that are never delivered to; stronger than `allow`.
    pub deny: Vec<AddressRule>,
    /// A PEM file with further certificate authorities, beside Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Accept `http` URLs of endpoints. Credentials are still sent over `https` only.
    pub allow_http: bool,
    /// Accept public IP addresses instead of names in URLs.
    pub allow_ip_literals: bool,
    /// Host names that may be private: exact, or `*.suffix`. Their addresses need an `allow` rule too.
    pub allow_hosts: Vec<String>,
    /// `--dev`: `http`, loopback and `localhost` are allowed. Set by the command line only.
    #[serde(skip)]
    pub dev: bool,
    /// Where this process listens. Set by the process itself.
    #[serde(skip)]
    pub own_listeners: Vec<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5000,
            tls_timeout_ms: 5000,
            dns_timeout_ms: 3000,
            dns_servers: Vec::new(),
            idle_connection_secs: 15,
            connection_age_secs: 300,
            idle_connections_per_origin: 128,
            idle_connections_total: 1024,
            allow: Vec::new(),
            deny: Vec::new(),
            ca_file: None,
            allow_http: false,
            allow_ip_literals: false,
            allow_hosts: Vec::new(),
            dev: false,
            own_listeners: Vec::new(),
        }
    }
}

impl Config {
    /// What URLs may look like, for checking them when they are written.
    pub fn url_rules(&self) -> UrlRules {
        UrlRules {
            dev: self.dev,
            allow_http: self.allow_http,
            allow_ip_literals: self.allow_ip_literals,
            allow_hosts: self.allow_hosts.clone(),
        }
    }

    /// Which addresses may be dialled.
    pub fn address_policy(&self) -> AddressPolicy {
        AddressPolicy {
            dev: self.dev,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            own_listeners: self.own_listeners.clone(),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn tls_timeout(&self) -> Duration {
        Duration::from_millis(self.tls_timeout_ms)
    }

    pub(crate) fn dns_timeout(&self) -> Duration {
        Duration::from_millis(self.dns_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_what_only_the_process_sets_are_refused() {
        for text in [r#"{"connect_timeout": 5}"#, r#"{"dev": true}"#, r#"{"own_listeners": []}"#] {
            assert!(serde_json::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named() {
        let error = serde_json::from_str::<Config>(r#"{"allow": ["10.0.0.0/99"]}"#).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/99"), "{error}");
    }

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }
}
