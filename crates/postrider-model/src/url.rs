//! URLs that a user gives: parsed once, checked at write, stored normalised as the WHATWG URL parser does.
//!
//! This module judges the text: scheme, host form and port. Which addresses a name may resolve to is decided by
//! `postrider-outbound` when it dials.

mod rules;

pub use rules::{UrlRefusal, UrlRules};

use crate::limits;
use ::url::{Position, Url};
use rules::refusal;
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

impl EndpointUrl {
    /// Checks and normalises what a user gave.
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
        return Err(if valid && !scheme.is_empty() {
            refusal("scheme", format!("the scheme `{}` is not possible; {hint}", shorten(scheme)))
        } else {
            refusal("malformed", format!("the URL has no scheme; {hint}"))
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

#[cfg(test)]
mod tests;
