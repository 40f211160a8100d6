//! The `OAuth2` settings of an endpoint.

use crate::{limits, url::EndpointUrl};
use secrecy::SecretString;
use std::collections::{BTreeMap, BTreeSet};

/// How the client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// `Authorization: Basic`, id and secret form-encoded first.
    ClientSecretBasic,
    /// In the form body.
    ClientSecretPost,
}

/// Everything of an `OAuth2` client but its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthSettings {
    /// How the client authenticates.
    pub auth_method: AuthMethod,
    /// The client id.
    pub client_id: String,
    /// The token endpoint.
    pub token_url: EndpointUrl,
    /// Requested scopes, joined with spaces.
    pub scopes: Vec<String>,
    /// Further form fields of the token request.
    pub extra_params: BTreeMap<String, String>,
    /// Further headers of the token request.
    pub extra_headers: BTreeMap<String, String>,
}

/// An `OAuth2` client as it is used: settings, secret, and what tells one version of it from another.
#[derive(Debug, Clone)]
pub struct OAuthCredential {
    /// The settings.
    pub settings: OAuthSettings,
    /// The client secret.
    pub client_secret: SecretString,
    /// Grows with every change of settings or secret of this endpoint; part of the token cache's key.
    pub version: u64,
}

/// Form fields that are ours to set.
const RESERVED_PARAMS: [&str; 11] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "scope",
    "code",
    "refresh_token",
    "username",
    "password",
    "redirect_uri",
];

/// A member of the settings that cannot be used, by its wire name, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthRefusal {
    /// The wire's field name.
    pub field: &'static str,
    /// What is wrong, for the caller.
    pub reason: String,
}

impl OAuthSettings {
    /// Checks what can be checked without the network. URL and header rules are those of `url` and `headers`.
    pub fn check(&self) -> Result<(), OAuthRefusal> {
        let refuse = |field, reason: String| Err(OAuthRefusal { field, reason });
        if !(1..=limits::NAME_BYTES).contains(&self.client_id.len())
            || self.client_id.contains(char::is_control)
        {
            return refuse(
                "clientId",
                format!("must have 1 to {} bytes and no control characters", limits::NAME_BYTES),
            );
        }
        if self.scopes.len() > limits::OAUTH_SCOPES {
            return refuse("scopes", format!("at most {} scopes", limits::OAUTH_SCOPES));
        }
        // RFC 6749, section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
        let token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if self
            .scopes
            .iter()
            .any(|scope| scope.is_empty() || scope.len() > limits::NAME_BYTES || !scope.bytes().all(token))
        {
            return refuse(
                "scopes",
                "a scope is 1 to 256 printable characters without space, quote or backslash".to_owned(),
            );
        }
        if self.extra_params.len() > limits::OAUTH_EXTRAS {
            return refuse("extraParams", format!("at most {} parameters", limits::OAUTH_EXTRAS));
        }
        for (name, value) in &self.extra_params {
            if RESERVED_PARAMS.contains(&name.to_ascii_lowercase().as_str()) {
                return refuse(
                    "extraParams",
                    format!("`{name}` is set from the other members and cannot be given here"),
                );
            }
            if name.is_empty() || name.len() > limits::NAME_BYTES || value.len() > limits::HEADER_VALUE_BYTES
            {
                return refuse(
                    "extraParams",
                    "a name has 1 to 256 characters, a value at most 4096".to_owned(),
                );
            }
        }
        if self.extra_headers.len() > limits::OAUTH_EXTRAS {
            return refuse("extraHeaders", format!("at most {} headers", limits::OAUTH_EXTRAS));
        }
        let mut names = BTreeSet::new();
        for (name, value) in &self.extra_headers {
            // First, so that what is repeated below has a bounded length.
            if let Err(refusal) = crate::headers::check(name, value) {
                return refuse("extraHeaders", refusal.to_string());
            }
            if !names.insert(name.to_ascii_lowercase()) {
                return refuse(
                    "extraHeaders",
                    format!("`{name}` is given twice; names differ by more than their case"),
                );
            }
            // Extra headers are shown when the settings are read, so nothing secret belongs there.
            if crate::headers::is_sensitive_name(name) {
                return refuse(
                    "extraHeaders",
                    format!("`{name}` carries credentials; use clientSecret instead"),
                );
            }
        }
        Ok(())
    }
    /// Checks a client secret before it is sealed. The text never repeats it.
    pub fn check_secret(secret: &str) -> Result<(), OAuthRefusal> {
        // RFC 6749, appendix A.2: VSCHAR; other characters are allowed, since both methods encode them.
        if (1..=limits::OAUTH_SECRET_BYTES).contains(&secret.len()) && !secret.contains(char::is_control) {
            return Ok(());
        }
        Err(OAuthRefusal {
            field: "clientSecret",
            reason: format!("must have 1 to {} bytes and no control characters", limits::OAUTH_SECRET_BYTES),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlRules;

    fn settings() -> OAuthSettings {
        OAuthSettings {
            auth_method: AuthMethod::ClientSecretBasic,
            client_id: "client".into(),
            token_url: EndpointUrl::parse("https://idp.example.com/token", &UrlRules::default()).unwrap(),
            scopes: vec!["read".into(), "urn:x/y#z".into()],
            extra_params: map(&[("audience", "https://api.example.com"), ("resource", "")]),
            extra_headers: map(&[("X-Tenant", "a")]),
        }
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refused(change: impl FnOnce(&mut OAuthSettings)) -> &'static str {
        let mut changed = settings();
        change(&mut changed);
        changed.check().unwrap_err().field
    }

    #[test]
    fn settings_that_real_servers_need_are_accepted() {
        assert_eq!(settings().check(), Ok(()));
    }

    #[test]
    fn each_member_is_bounded() {
        assert_eq!(refused(|it| it.client_id.clear()), "clientId");
        assert_eq!(refused(|it| it.client_id = "a".repeat(257)), "clientId");
        assert_eq!(refused(|it| it.client_id = "a\nb".into()), "clientId");
        assert_eq!(refused(|it| it.scopes = vec!["s".into(); 51]), "scopes");
        for scope in ["", "a b", "a\"", "a\\", "ü", "a\r\n", &"a".repeat(257)] {
            assert_eq!(refused(|it| it.scopes = vec![scope.to_owned()]), "scopes", "{scope:?}");
        }
        let many = (0..9).map(|index| (format!("x-{index}"), String::new())).collect::<BTreeMap<_, _>>();
        assert_eq!(refused(|it| it.extra_params = many.clone()), "extraParams");
        assert_eq!(refused(|it| it.extra_headers = many), "extraHeaders");
        assert_eq!(refused(|it| it.extra_params = map(&[("", "v")])), "extraParams");
        assert_eq!(refused(|it| it.extra_params = map(&[("p", &"v".repeat(4097))])), "extraParams");
    }

    #[test]
    fn what_the_request_sets_itself_cannot_be_an_extra() {
        for name in RESERVED_PARAMS {
            assert_eq!(
                refused(|it| it.extra_params = map(&[(&name.to_uppercase(), "v")])),
                "extraParams",
                "{name}"
            );
        }
        for name in ["Authorization", "authorization", "X-Api-Key", "Content-Type", "Host", "a b"] {
            assert_eq!(refused(|it| it.extra_headers = map(&[(name, "v")])), "extraHeaders", "{name}");
        }
        assert_eq!(refused(|it| it.extra_headers = map(&[("X-A", "1"), ("x-a", "2")])), "extraHeaders");
        assert_eq!(refused(|it| it.extra_headers = map(&[("X-A", "1\r\n")])), "extraHeaders");
        let mut long = settings();
        long.extra_headers = map(&[(&"X".repeat(100_000), "1"), (&"x".repeat(100_000), "2")]);
        assert!(long.check().unwrap_err().reason.len() < 500, "what was sent does not come back at length");
    }

    #[test]
    fn a_client_secret_is_any_line_of_text() {
        for secret in ["s", "pässwörd +%&", &"s".repeat(4096)] {
            assert_eq!(OAuthSettings::check_secret(secret), Ok(()));
        }
        for secret in ["", "a\nb", "a\0", &"s".repeat(4097)] {
            assert!(OAuthSettings::check_secret(secret).is_err());
        }
    }
}
