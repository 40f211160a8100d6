//! Custom headers of an endpoint: which names and values are allowed, checked by one function at write and at send.

use crate::limits;
use secrecy::{ExposeSecret, SecretString};
use std::{collections::BTreeSet, fmt};

/// Custom headers as they are sent: names keep their spelling, in the order given, unique whatever their case.
#[derive(Debug, Clone, Default)]
pub struct CustomHeaders(Vec<CustomHeader>);

/// One custom header.
#[derive(Debug, Clone)]
pub struct CustomHeader {
    /// The name as the user spelled it.
    pub name: String,
    /// The value; held as a secret whatever its kind, so that it cannot be printed by accident.
    pub value: SecretString,
    /// Sealed in the store and never returned by the API.
    pub sensitive: bool,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRefusal {
    /// Stable name of the rule: `header_name`, `header_value`, `header_forbidden`, `header_duplicate`, `headers_too_many`,
    /// `headers_too_large`.
    pub code: &'static str,
    /// The header's name as given (shortened, control characters escaped).
    pub name: String,
    /// What is wrong, for the caller. Never contains the value.
    pub reason: String,
}

impl fmt::Display for HeaderRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "header `{}` {}", self.name, self.reason)
    }
}

impl std::error::Error for HeaderRefusal {}

/// A set of refused names with the reason that callers read.
struct Refused {
    reason: &'static str,
    names: &'static [&'static str],
    prefixes: &'static [&'static str],
}

/// Names that an endpoint cannot have: what Svix refuses, hop-by-hop fields, what this server sets itself or must not
/// send, and fields that a receiver's infrastructure trusts because only its own proxies set them.
///
/// Allowed on purpose, although stricter lists refuse them: `authorization` (always sensitive), `www-authenticate` (Svix takes
/// it), `origin`, `referer`, `date`, `from`, `signature` and `accept-charset` (receivers compare them with a fixed value;
/// nothing here sets them), `cf-access-client-id` and `cf-access-client-secret` (how one passes Cloudflare Access).
const REFUSED: [Refused; 7] = [
    Refused {
        reason: "belongs to the connection, which is managed by the server",
        names: &[
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "trailers",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "alt-used",
            "early-data",
            "max-forwards",
        ],
        prefixes: &["proxy-"],
    },
    Refused {
        reason: "is set by the server for each request",
        names: &[
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "expect",
            "range",
            "traceparent",
            "tracestate",
            // One fixed key would make a receiver drop every message but the first.
            "idempotency-key",
        ],
        prefixes: &["webhook-", "svix-", "x-svix-", "ce-"],
    },
    Refused {
        reason: "describes the body, and a fixed value would be wrong for other bodies",
        names: &["digest", "repr-digest", "want-content-digest", "signature-input"],
        prefixes: &["content-"],
    },
    Refused {
        reason: "is a field of responses or caches",
        names: &["age", "cache-control", "clear-site-data", "expires", "pragma", "warning", "set-cookie"],
        prefixes: &["access-control-"],
    },
    Refused {
        reason: "is kept by browsers; send a token in `Authorization` instead",
        names: &["cookie", "cookie2"],
        prefixes: &["sec-"],
    },
    Refused {
        reason: "is set by proxies to say where a request comes from or where it goes",
        names: &[
            "via",
            "forwarded",
            "x-real-ip",
            "x-client-ip",
            "true-client-ip",
            "x-cluster-client-ip",
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
        ],
        prefixes: &["x-forwarded-", "x-envoy-", "cf-", "fastly-"],
    },
    Refused {
        reason: "is trusted by cloud platforms and their metadata services",
        names: &["metadata", "metadata-flavor", "x-metadata-token"],
        prefixes: &[
            "x-amz-", "x-amzn-", "x-aws-", "x-goog-", "x-google", "x-gfe", "x-azure-", "x-ms-", "x-fd-",
        ],
    },
];

/// Names that a refused prefix does not mean.
const EXEMPT: [&str; 2] = ["cf-access-client-id", "cf-access-client-secret"];

/// The names whose values Svix withholds, and cookies.
const SENSITIVE: [&str; 7] = [
    "x-auth-token",
    "x-api-key",
    "www-authenticate",
    "authorization",
    "proxy-authenticate",
    "proxy-authorization",
    "cookie",
];

/// Checks one header, at write and again at send.
pub fn check(name: &str, value: &str) -> Result<(), HeaderRefusal> {
    check_name(name)?;
    check_value(name, value)
}

fn check_name(name: &str) -> Result<(), HeaderRefusal> {
    if name.is_empty() || name.len() > limits::HEADER_NAME_BYTES || !name.bytes().all(is_token) {
        let most = limits::HEADER_NAME_BYTES;
        return refuse(
            "header_name",
            name,
            format!("has no valid name: 1 to {most} letters, digits or !#$%&'*+-.^_`|~"),
        );
    }
    let lower = name.to_ascii_lowercase();
    if EXEMPT.contains(&lower.as_str()) {
        return Ok(());
    }
    let refused = REFUSED.iter().find(|refused| {
        refused.names.contains(&lower.as_str())
            || refused.prefixes.iter().any(|prefix| lower.starts_with(prefix))
    });
    match refused {
        Some(refused) => refuse("header_forbidden", name, format!("cannot be set: it {}", refused.reason)),
        None => Ok(()),
    }
}

fn check_value(name: &str, value: &str) -> Result<(), HeaderRefusal> {
    if value.len() > limits::HEADER_VALUE_BYTES {
        return refuse(
            "header_value",
            name,
            format!("has a value of more than {} bytes", limits::HEADER_VALUE_BYTES),
        );
    }
    // Control characters end a header early, and bytes outside ASCII mean different things to different servers:
    // refused, never stripped.
    if !value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return refuse(
            "header_value",
            name,
            "has a value with characters other than printable ASCII, space and tab",
        );
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return refuse(
            "header_value",
            name,
            "has a value with a blank at its beginning or end; receivers cut it off",
        );
    }
    Ok(())
}

/// May this byte stand in a token, such as a header's name? RFC 9110, section 5.6.2: `tchar`.
pub const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

fn refuse(code: &'static str, name: &str, reason: impl Into<String>) -> Result<(), HeaderRefusal> {
    let name = name.chars().take(64).flat_map(char::escape_debug).collect();
    Err(HeaderRefusal { code, name, reason: reason.into() })
}

/// Names whose values are always sensitive, whatever the user says.
pub fn is_sensitive_name(name: &str) -> bool {
    SENSITIVE.iter().any(|sensitive| sensitive.eq_ignore_ascii_case(name))
}

impl CustomHeaders {
    /// Checks each header, uniqueness and the totals. Headers with a sensitive name become sensitive.
    pub fn new(mut entries: Vec<CustomHeader>) -> Result<Self, HeaderRefusal> {
        let mut names = BTreeSet::new();
        let mut bytes = 0;
        for (index, header) in entries.iter_mut().enumerate() {
            let value = header.value.expose_secret();
            check(&header.name, value)?;
            if !names.insert(header.name.to_ascii_lowercase()) {
                refuse(
                    "header_duplicate",
                    &header.name,
                    "is given twice; names differ by more than their case",
                )?;
            }
            if index >= limits::HEADERS {
                refuse(
                    "headers_too_many",
                    &header.name,
                    format!("is one too many: at most {}", limits::HEADERS),
                )?;
            }
            bytes += header.name.len() + value.len();
            if bytes > limits::HEADERS_BYTES {
                let most = limits::HEADERS_BYTES;
                refuse(
                    "headers_too_large",
                    &header.name,
                    format!("makes all names and values exceed {most} bytes"),
                )?;
            }
            header.sensitive |= is_sensitive_name(&header.name);
        }
        Ok(Self(entries))
    }

    /// From a store that sealed them: unchecked here, since every header is checked again when it is sent.
    pub fn from_stored(entries: Vec<CustomHeader>) -> Self {
        Self(entries)
    }

    /// The headers in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, CustomHeader> {
        self.0.iter()
    }

    /// The header of this name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&CustomHeader> {
        self.0.iter().find(|header| header.name.eq_ignore_ascii_case(name))
    }
}

impl<'a> IntoIterator for &'a CustomHeaders {
    type Item = &'a CustomHeader;
    type IntoIter = std::slice::Iter<'a, CustomHeader>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
