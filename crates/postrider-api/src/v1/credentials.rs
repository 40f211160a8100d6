//! Rules that hold for an endpoint's credentials, whichever operation sets them.

use crate::{config::SignatureType, error::Problem};
use postrider_model::{
    headers::{CustomHeader, CustomHeaders},
    signature::SigningSecret,
    url::{EndpointUrl, Scheme, UrlRules},
};

/// A new signing secret.
pub(crate) fn generate_secret(kind: SignatureType) -> SigningSecret {
    match kind {
        SignatureType::Hmac => SigningSecret::hmac(rand::random()),
        SignatureType::Ed25519 => SigningSecret::ed25519(rand::random()),
    }
}

/// Custom headers, each checked, the problem at the header that has it.
pub(crate) fn check_headers(headers: Vec<CustomHeader>) -> Result<CustomHeaders, Problem> {
    CustomHeaders::new(headers)
        .map_err(|refusal| Problem::at("body", &["headers", &refusal.name], refusal.reason))
}

/// Is there a header whose value must not be shown?
pub(crate) fn has_sensitive(headers: &CustomHeaders) -> bool {
    headers.iter().any(|header| header.sensitive)
}

/// Credentials do not go over clear text, except with `--dev`.
pub(crate) fn check_clear_text(
    url: &EndpointUrl,
    rules: &UrlRules,
    member: &'static str,
) -> Result<(), Problem> {
    if url.scheme() == Scheme::Https || rules.dev {
        return Ok(());
    }
    Err(Problem::body(member, "credentials are not sent over http: give the endpoint an https URL first")
        .kind("https_required"))
}
