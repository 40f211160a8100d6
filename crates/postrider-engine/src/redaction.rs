//! Keeps an attempt's own secrets out of the history: endpoints that echo requests are common.

use bytes::Bytes;
use postrider_model::redact;
use postrider_outbound::oauth::Token;
use postrider_store::snapshot::Credentials;
use secrecy::{ExposeSecret, SecretString};

/// `body` without any secret that the attempt used.
pub(crate) fn redact(body: Bytes, credentials: &Credentials, tokens: &[Token]) -> Bytes {
    if body.is_empty() {
        return body;
    }
    let signing: Vec<SecretString> = credentials.signing.iter().map(|key| key.secret.to_text()).collect();
    let mut secrets: Vec<&str> = signing.iter().map(|text| without_prefix(text.expose_secret())).collect();
    let sensitive = credentials.headers.iter().filter(|header| header.sensitive);
    for value in sensitive.map(|header| header.value.expose_secret()) {
        // `Bearer abc`, `Basic abc`: an endpoint may echo the second word alone.
        secrets.extend(value.split_once(' ').map(|(_, credential)| credential.trim_start()));
        secrets.push(value);
    }
    secrets.extend(credentials.oauth.iter().map(|oauth| oauth.client_secret.expose_secret()));
    secrets.extend(tokens.iter().map(|token| token.value.expose_secret()));
    redact::redact(body, &secrets)
}

/// The key material of `whsec_…` or `whsk_…`, which is found with and without its prefix.
fn without_prefix(secret: &str) -> &str {
    secret.split_once('_').map_or(secret, |(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_secret_of_the_attempt_is_removed_from_an_echo() {
        let credentials = samples::credentials(&[
            ("Authorization", "Bearer sesame-open-1", true),
            ("X-Shown", "not-a-secret", false),
        ]);
        let token = Token { value: "access-token-9".into(), cached: true };
        let signing = credentials.signing[0].secret.to_text();
        let echo = format!("not-a-secret sesame-open-1 access-token-9 {}", signing.expose_secret());
        let kept = redact(Bytes::from(echo), &credentials, &[token]);
        let kept = std::str::from_utf8(&kept).expect("text");
        assert!(kept.starts_with("not-a-secret [redacted] [redacted] "), "{kept}");
        assert!(!kept.contains(without_prefix(signing.expose_secret())), "{kept}");
    }
}
