//! Settings of the API, as the configuration file's `[api]` section names them.

use crate::admission::LimitsConfig;
use postrider_model::url::UrlRules;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Shortest `jwt_secret` in bytes: HS256 wants a key as long as its hash (RFC 7518, section 3.2).
const JWT_SECRET_BYTES: usize = 32;

/// Settings of the API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Accept HS256 tokens that svix-server (or `jwt generate`) signed with this secret, for migration. At least 32
    /// bytes. Absent: only API keys of this server.
    pub jwt_secret: Option<Masked>,
    /// Kind of signing secret that is made for an endpoint whose creator gave none.
    pub default_signature_type: SignatureType,
    /// Host names (without port) under which this server is called; other `Host` headers are answered with 421. Empty:
    /// any. Health checks and metrics are answered under any name.
    pub public_hosts: Vec<String>,
    /// Bearer token that `/metrics` asks for. Absent: metrics are served only with `--dev`.
    pub metrics_token: Option<Masked>,
    /// How much is worked on at one time.
    pub limits: LimitsConfig,
    /// `--dev`: metrics without a token.
    #[serde(skip)]
    pub dev: bool,
    /// What URLs may be given; the binary copies them from the outbound settings, so that writing and sending agree.
    #[serde(skip)]
    pub url_rules: UrlRules,
}

impl Config {
    /// Checks what the types cannot. The text names the setting and the way out.
    pub fn check(&self) -> Result<(), String> {
        if self.jwt_secret.as_ref().is_some_and(|secret| secret.expose().len() < JWT_SECRET_BYTES) {
            return Err(format!(
                "api.jwt_secret is too short: give at least {JWT_SECRET_BYTES} bytes, or leave it out to accept API keys only"
            ));
        }
        if self.metrics_token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            return Err("api.metrics_token is empty: give a token, or leave it out".to_owned());
        }
        self.limits.check()
    }
}

/// The algorithm of a generated signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureType {
    /// HMAC-SHA256, `whsec_…`.
    #[default]
    Hmac,
    /// Ed25519, `whpk_…`: receivers hold only the public key.
    Ed25519,
}

/// A secret setting: read from the file, shown as `[secret]`.
#[derive(Debug, Clone)]
pub struct Masked(SecretString);

impl Masked {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Masked {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Serialize for Masked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Masked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_settings_are_shown() {
        let text = r#"{"jwt_secret": "correct horse battery staple correct", "metrics_token": "tok-canary"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert!(config.check().is_ok());
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("horse") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn unknown_settings_and_short_secrets_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"jwt_sekret": "x"}"#).is_err());
        let short: Config = serde_json::from_str(r#"{"jwt_secret": "short"}"#).unwrap();
        assert!(short.check().unwrap_err().contains("api.jwt_secret"));
    }
}
