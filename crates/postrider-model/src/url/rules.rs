//! What a URL may name: scheme consent, host form and port, judged at write and before each sending.

use super::{EndpointUrl, Host};
use std::fmt;

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

impl std::error::Error for UrlRefusal {}

/// Longest host name and longest label (RFC 1035, section 2.3.4).
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Names below these never lead to a public server: special-use (RFC 6761, 6762, 7686, 8375, 9476) and what private
/// networks and clusters commonly use. `home.arpa` and `svc.cluster.local` fall under `arpa` and `local`.
const PRIVATE_SUFFIXES: [&str; 15] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "test",
    "example",
    "invalid",
    "onion",
    "alt",
    "arpa",
    "svc",
];

/// Ports from 1024 up that speak something else than HTTP.
const SERVICE_PORTS: [&[u16]; 3] = [
    // The "bad ports" of the Fetch standard.
    &[
        1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
        6697, 10080,
    ],
    // Databases, caches and queues.
    &[1433, 1521, 3306, 5432, 5672, 5984, 6379, 9042, 9092, 9200, 9300, 11211, 15672, 27017, 27018, 27019],
    // Control planes and remote desktops.
    &[2375, 2376, 2379, 2380, 3389, 5900, 5901, 5902, 5903, 6443, 8500, 10250, 10255],
];

pub(super) fn refusal(code: &'static str, reason: impl Into<String>) -> UrlRefusal {
    UrlRefusal { code, reason: reason.into() }
}

impl EndpointUrl {
    pub(super) fn judge_host(&self, rules: &UrlRules) -> Result<(), UrlRefusal> {
        let name = match &self.host {
            Host::Domain(name) => name,
            Host::V4(_) | Host::V6(_) if rules.allow_ip_literals || (rules.dev && self.is_loopback()) => {
                return Ok(());
            }
            Host::V4(_) | Host::V6(_) => {
                return Err(refusal("ip_literal_forbidden", "the host must be a name, not an IP address"));
            }
        };
        check_name(name)?;
        if (rules.dev && name == "localhost") || rules.allow_hosts.iter().any(|allowed| allows(allowed, name))
        {
            return Ok(());
        }
        if !name.contains('.') {
            return Err(refusal(
                "host_forbidden",
                "the host must be a full public name such as hooks.example.com",
            ));
        }
        let below = |suffix: &&str| {
            name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match PRIVATE_SUFFIXES.iter().find(|suffix| below(suffix)) {
            Some(suffix) => Err(refusal(
                "host_forbidden",
                format!(
                    "names under `{suffix}` are private; use a public name, or let the operator allow this host"
                ),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn judge_port(&self, rules: &UrlRules) -> Result<(), UrlRefusal> {
        let allowed = match self.port {
            0 => false,
            _ if rules.dev && self.is_loopback() => true,
            80 => rules.dev || rules.allow_http,
            443 => true,
            port => port >= 1024 && !SERVICE_PORTS.iter().any(|ports| ports.contains(&port)),
        };
        if allowed {
            return Ok(());
        }
        Err(refusal(
            "port_forbidden",
            format!(
                "port {} is not allowed; use 443, or a port from 1024 up that no other protocol owns",
                self.port
            ),
        ))
    }
}

/// A host name in the form that DNS knows, with `_` as people use it.
fn check_name(name: &str) -> Result<(), UrlRefusal> {
    if name.len() > HOST_BYTES {
        return Err(refusal("too_long", format!("a host name can have {HOST_BYTES} bytes at most")));
    }
    for label in name.split('.') {
        if label.len() > LABEL_BYTES {
            return Err(refusal(
                "too_long",
                format!("a label of a host name can have {LABEL_BYTES} bytes at most"),
            ));
        }
        let character =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') || !label.bytes().all(character)
        {
            return Err(refusal(
                "malformed",
                "the host is not a name: its labels are letters, digits, `-` and `_`, without `-` at their ends",
            ));
        }
    }
    Ok(())
}

/// Whether an entry of the operator's list (`name` or `*.suffix`) means this host.
fn allows(entry: &str, name: &str) -> bool {
    let entry = entry.strip_suffix('.').unwrap_or(entry);
    match entry.strip_prefix("*.") {
        Some(suffix) => {
            name.len() > suffix.len() + 1
                && name.as_bytes()[name.len() - suffix.len() - 1] == b'.'
                && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        None => entry.eq_ignore_ascii_case(name),
    }
}
