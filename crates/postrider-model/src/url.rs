//! URLs that a user gives: parsed once, checked at write, stored normalised as the WHATWG URL parser does.
//!
//! This module judges the text: scheme, host form and port. Which addresses a name may resolve to is decided by
//! `postrider-outbound` when it dials.

use crate::limits;
use ::url::{Position, Url};
use std::{
    borrow::Cow,
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
    /// Where the path begins in `text`; everything before it is the origin.
    path_start: usize,
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Only with [`UrlRules::dev`] or [`UrlRules::allow_http`].
    Http,
    /// The default.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
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

/// As it stands in a URL: IPv6 in brackets.
impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => formatter.write_str(name),
            Self::V4(address) => write!(formatter, "{address}"),
            // Not `{address}`: the standard library writes mapped addresses with dots, WHATWG does not.
            Self::V6(address) => fmt::Display::fmt(&::url::Host::<&str>::Ipv6(*address), formatter),
        }
    }
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

impl std::error::Error for UrlRefusal {}

/// Longest host name and longest label (RFC 1035, section 2.3.4).
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Names below these never lead to a public server: special-use (RFC 6761, 6762, 7686, 8375, 9476) and what private
/// networks and clusters commonly use. `svc.cluster.local` and the like fall under `local`.
const PRIVATE_SUFFIXES: [&str; 17] = [
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
    "home.arpa",
    "arpa",
    "svc",
    "cluster.local",
];

/// Ports from 1024 up that speak something else than HTTP: the Fetch standard's "bad ports", then databases, caches,
/// queues and control planes that a forged request could harm.
const SERVICE_PORTS: [u16; 44] = [
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080, 1433, 1521, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5900, 5901, 5902, 5903, 5984,
    6379, 6443, 8500, 9042, 9092, 9200, 9300, 10250, 10255, 11211,
];
/// The rest of them: RabbitMQ's management and MongoDB.
const MORE_SERVICE_PORTS: [u16; 4] = [15672, 27017, 27018, 27019];

fn refusal(code: &'static str, reason: impl Into<String>) -> UrlRefusal {
    UrlRefusal { code, reason: reason.into() }
}

impl EndpointUrl {
    /// Checks and normalises what a user gave: `security` 1.4.1 and 1.5.
    pub fn parse(raw: &str, rules: &UrlRules) -> Result<Self, UrlRefusal> {
        let authority = raw_authority(raw)?;
        let parsed = Url::parse(raw).map_err(|error| {
            refusal(
                "malformed",
                format!("the URL cannot be read: {error}; write it like https://example.com/path"),
            )
        })?;
        let url = Self::from_parsed(&parsed).ok_or_else(|| {
            refusal("malformed", "the URL has no host; write it like https://example.com/path")
        })?;
        url.check_canonical(authority)?;
        // Normalising can lengthen it: a quote in the query becomes three characters.
        check_length(&url.text)?;
        url.judge(rules)?;
        Ok(url)
    }

    /// Reads back what a store kept: parsed again, but not judged; sending judges it again with the rules of then.
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::from_parsed(&Url::parse(text).ok()?)
    }

    /// Judges scheme, host form and port by these rules: the same function at write and before each sending, so that
    /// a stricter configuration also holds for what was stored before it.
    pub fn judge(&self, rules: &UrlRules) -> Result<(), UrlRefusal> {
        if self.scheme == Scheme::Http && !(rules.dev || rules.allow_http) {
            return Err(refusal(
                "https_required",
                "only https URLs are allowed here; begin the URL with https://",
            ));
        }
        self.judge_host(rules)?;
        self.judge_port(rules)
    }

    fn from_parsed(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return None;
        }
        let host = match url.host()? {
            ::url::Host::Domain(name) => Host::Domain(name.strip_suffix('.').unwrap_or(name).to_owned()),
            ::url::Host::Ipv4(address) => Host::V4(address),
            ::url::Host::Ipv6(address) => Host::V6(address),
        };
        let port = url.port_or_known_default()?;
        // Put together again rather than copied: without the trailing dot of the host.
        let mut text = format!(
            "{}{host}{}",
            &url[..Position::BeforeHost],
            &url[Position::AfterHost..Position::BeforePath]
        );
        let path_start = text.len();
        text.push_str(&url[Position::BeforePath..]);
        Some(Self { text, scheme, host, port, path_start })
    }

    /// The host must be written as it is understood: `0x7f.1` and `%31.0.0.1` are never silently an address, and a
    /// name means the same to every other parser.
    fn check_canonical(&self, authority: &str) -> Result<(), UrlRefusal> {
        let written = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
            _ => authority,
        };
        let understood = self.host.to_string();
        match &self.host {
            Host::Domain(name) => {
                let written = written.strip_suffix('.').unwrap_or(written);
                if !written.eq_ignore_ascii_case(name) {
                    return Err(refusal(
                        "malformed",
                        format!("the host cannot be written like this; write `{name}`"),
                    ));
                }
            }
            Host::V4(_) | Host::V6(_) if written != understood => {
                return Err(refusal(
                    "noncanonical_host",
                    format!("the host is an unusual spelling of the address `{understood}`; use a host name"),
                ));
            }
            Host::V4(_) | Host::V6(_) => {}
        }
        Ok(())
    }

    fn judge_host(&self, rules: &UrlRules) -> Result<(), UrlRefusal> {
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

    fn judge_port(&self, rules: &UrlRules) -> Result<(), UrlRefusal> {
        let allowed = match self.port {
            0 => false,
            _ if rules.dev && self.is_loopback() => true,
            80 => rules.dev || rules.allow_http,
            443 => true,
            port => port >= 1024 && !SERVICE_PORTS.contains(&port) && !MORE_SERVICE_PORTS.contains(&port),
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

    /// Whether the host is this machine by its text: `localhost`, `127.0.0.0/8` or `::1`.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => name == "localhost",
            Host::V4(address) => address.is_loopback(),
            Host::V6(address) => address.is_loopback(),
        }
    }

    /// The whole URL, normalised.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port: `https://example.com:8443`. What logs show, and what a credential is bound to.
    pub fn origin(&self) -> String {
        self.text[..self.path_start].to_owned()
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
        &self.text[self.scheme.name().len() + "://".len()..self.path_start]
    }

    /// Path and query as they stand in the request line.
    pub fn path_and_query(&self) -> &str {
        &self.text[self.path_start..]
    }
}

/// Shows the origin only: a path can carry a secret.
impl fmt::Debug for EndpointUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/…", &self.text[..self.path_start])
    }
}

/// The authority as it was typed, once the raw text holds nothing that two parsers could read differently.
fn raw_authority(raw: &str) -> Result<&str, UrlRefusal> {
    check_length(raw)?;
    if !raw.is_ascii() {
        return Err(non_ascii(raw));
    }
    let forbidden = |byte: u8| byte <= b' ' || byte == 0x7f || br#"\"<>^`{}|"#.contains(&byte);
    if let Some(byte) = raw.bytes().find(|byte| forbidden(*byte)) {
        let character = char::from(byte).escape_default();
        return Err(refusal(
            "malformed",
            format!("the character `{character}` cannot stand in a URL; percent-encode it"),
        ));
    }
    let rest = after_scheme(raw)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(refusal(
            "userinfo",
            "a user name or password cannot stand in a URL; send it in an `Authorization` header of the endpoint",
        ));
    }
    if rest.contains('#') {
        return Err(refusal(
            "fragment",
            "a URL with a fragment (`#…`) cannot be called; remove the fragment",
        ));
    }
    if authority.is_empty() {
        return Err(refusal("malformed", "the URL has no host; write it like https://example.com/path"));
    }
    Ok(authority)
}

fn check_length(text: &str) -> Result<(), UrlRefusal> {
    if text.len() > limits::URL_BYTES {
        return Err(refusal("too_long", format!("a URL can have {} bytes at most", limits::URL_BYTES)));
    }
    Ok(())
}

/// What follows `http://` or `https://`.
fn after_scheme(raw: &str) -> Result<&str, UrlRefusal> {
    let hint = "begin the URL with https://";
    let (scheme, rest) =
        raw.split_once(':').ok_or_else(|| refusal("malformed", format!("the URL has no scheme; {hint}")))?;
    if !(scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")) {
        let valid = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        return Err(match valid && !scheme.is_empty() {
            true => refusal("scheme", format!("the scheme `{}` is not possible; {hint}", shorten(scheme))),
            false => refusal("malformed", format!("the URL has no scheme; {hint}")),
        });
    }
    // `https:/host` and `https:host` mean a host to browsers and a path to others.
    rest.strip_prefix("//")
        .ok_or_else(|| refusal("malformed", format!("after the scheme stand two slashes; {hint}")))
}

fn non_ascii(raw: &str) -> UrlRefusal {
    let ascii = Url::parse(raw).ok().and_then(|url| url.domain().map(ToOwned::to_owned));
    let reason = match ascii {
        Some(ascii) if ascii.contains("xn--") || !raw.to_ascii_lowercase().contains(&ascii) => {
            let written: String =
                raw.split("//").nth(1).unwrap_or(raw).split(['/', '?', '#']).next().unwrap_or(raw).into();
            format!(
                "the URL holds characters outside ASCII; if you mean the host `{}`, write it as `{ascii}`",
                shorten(&written).escape_debug()
            )
        }
        _ => "the URL holds characters outside ASCII; percent-encode them".to_owned(),
    };
    refusal("non_ascii", reason)
}

fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(64) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
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

#[cfg(test)]
mod tests;
