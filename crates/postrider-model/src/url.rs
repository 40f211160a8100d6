//! URLs that a user gives: parsed once, checked at write, stored normalised as the WHATWG URL parser does.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A checked endpoint or token URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl {
    text: String,
    scheme: Scheme,
    host: Host,
    port: u16,
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Only with [`UrlRules::dev`] or [`UrlRules::allow_http`].
    Http,
    /// The default.
    Https,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: lower case, A-labels, no trailing dot.
    Domain(String),
    /// An IPv4 literal.
    V4(Ipv4Addr),
    /// An IPv6 literal.
    V6(Ipv6Addr),
}

/// What an operator allows beyond public `https` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlRules {
    /// `--dev`: `http`, `127.0.0.0/8`, `::1` and `localhost`, on any port; no other private address or name.
    pub dev: bool,
    /// `http` URLs are accepted for endpoints without credentials.
    pub allow_http: bool,
    /// Public IP literals are accepted as hosts.
    pub allow_ip_literals: bool,
    /// Host names exempt from the host-form rule, exact or `*.suffix`; their addresses still need an allow rule.
    pub allow_hosts: Vec<String>,
}

/// Why a URL is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlRefusal {
    /// Stable name of the rule: `scheme`, `https_required`, `userinfo`, `ip_literal_forbidden`, `noncanonical_host`,
    /// `host_forbidden`, `port_forbidden`, `non_ascii`, `fragment`, `too_long`, `malformed`.
    pub code: &'static str,
    /// What is wrong and the way out, for the caller.
    pub reason: String,
}

impl fmt::Display for UrlRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl EndpointUrl {
    /// Checks and normalises what a user gave.
    pub fn parse(_raw: &str, _rules: &UrlRules) -> Result<Self, UrlRefusal> {
        todo!()
    }

    /// Reads back what a store kept: parsed again, but not judged; sending judges it again with the rules of then.
    pub fn from_stored(_text: &str) -> Option<Self> {
        todo!()
    }

    /// The whole URL, normalised.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port: `https://example.com:8443`. What logs show, and what a credential is bound to.
    pub fn origin(&self) -> String {
        todo!()
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the scheme's default when none is given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and, unless it is the default, port: the `Host` header.
    pub fn authority(&self) -> &str {
        todo!()
    }

    /// Path and query as they stand in the request line.
    pub fn path_and_query(&self) -> &str {
        todo!()
    }
}

/// Shows the origin only: a path can carry a secret.
impl fmt::Debug for EndpointUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/…", self.origin())
    }
}
