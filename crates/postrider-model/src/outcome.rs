//! How an attempt can end: the one enumeration, for history, metrics, retries and the wire.

/// Result class of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A 2xx status line arrived.
    Succeeded,
    /// Another status than 2xx or 3xx.
    HttpError,
    /// 3xx: redirects are never followed.
    RedirectNotFollowed,
    /// 401 with a token that had just been fetched.
    Unauthorized,
    /// The total deadline passed.
    Timeout,
    /// The host name did not resolve.
    Dns,
    /// No TCP connection, or it broke before a status line.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The address policy refused the destination.
    Blocked,
    /// The answer was not HTTP/1.1 as it must be, or beyond the caps.
    ResponseMalformed,
    /// The token endpoint could not be reached, timed out, or answered 5xx or 429.
    TokenUnavailable,
    /// The token endpoint refused the credential (400 or 401 with an RFC 6749 error).
    TokenRejected,
    /// The token endpoint answered something that is no usable token.
    TokenInvalid,
    /// The stored configuration cannot be sent (a header that is no longer allowed, a broken URL).
    ConfigInvalid,
    /// A credential cannot be opened (missing key, damaged row).
    CredentialUnavailable,
    /// The process died while this attempt ran.
    Interrupted,
    /// A defect of this server.
    Internal,
}

impl Outcome {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 17] = [
        Self::Succeeded,
        Self::HttpError,
        Self::RedirectNotFollowed,
        Self::Unauthorized,
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Blocked,
        Self::ResponseMalformed,
        Self::TokenUnavailable,
        Self::TokenRejected,
        Self::TokenInvalid,
        Self::ConfigInvalid,
        Self::CredentialUnavailable,
        Self::Interrupted,
        Self::Internal,
    ];

    /// Stable name in the API, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::HttpError => "http_error",
            Self::RedirectNotFollowed => "redirect_not_followed",
            Self::Unauthorized => "unauthorized",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Blocked => "blocked",
            Self::ResponseMalformed => "response_malformed",
            Self::TokenUnavailable => "token_unavailable",
            Self::TokenRejected => "token_rejected",
            Self::TokenInvalid => "token_invalid",
            Self::ConfigInvalid => "config_invalid",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }

    /// What stores keep; never renumbered.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Back from [`Self::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The name that readers with an application-scoped token see: failed resolution and blocked addresses look the
    /// same to them, else the history would tell which internal names exist.
    pub const fn consumer_name(self) -> &'static str {
        match self {
            Self::Dns | Self::Blocked => "host_not_deliverable",
            other => other.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions_and_names_are_unique() {
        let names: std::collections::BTreeSet<_> =
            Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_code(outcome.code()), Some(outcome));
        }
        assert_eq!(Outcome::from_code(200), None);
    }
}
