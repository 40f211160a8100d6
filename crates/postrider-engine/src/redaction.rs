//! Keeps an attempt's own secrets out of the history: endpoints that echo requests are common.

use bytes::Bytes;
use postrider_model::{limits::RESPONSE_BODY_BYTES, redact};
use postrider_outbound::oauth::Token;
use postrider_store::snapshot::Credentials;
use secrecy::{ExposeSecret, SecretString};

/// `body` without any secret that the attempt used, and whether its end was cut off: the marker is longer than the
/// shortest secret.
pub(crate) fn redact(body: Bytes, credentials: &Credentials, tokens: &[Token]) -> (Bytes, bool) {
    if body.is_empty() {
        return (body, false);
    }
    let signing: Vec<SecretString> = credentials.signing.iter().map(|key| key.secret.to_text()).collect();
    let mut secrets: Vec<&str> = signing.iter().map(|text| without_prefix(text.expose_secret())).collect();
    let sensitive = credentials.headers.iter().filter(|header| header.sensitive);
    let sensitive: Vec<&str> = sensitive.map(|header| header.value.expose_secret()).collect();
    let passwords: Vec<SecretString> =
        sensitive.iter().filter_map(|value| redact::basic_password(value)).collect();
    secrets.extend(passwords.iter().map(ExposeSecret::expose_secret));
    for value in sensitive {
        // `Bearer abc`, `Basic abc`: an endpoint may echo the second word alone.
        secrets.extend(value.split_once(' ').map(|(_, credential)| credential.trim_start()));
        secrets.push(value);
    }
    secrets.extend(credentials.oauth.iter().map(|oauth| oauth.client_secret.expose_secret()));
    secrets.extend(tokens.iter().map(|token| token.value.expose_secret()));
    let mut clean = redact::redact(body, &secrets);
    let cut = clean.len() > RESPONSE_BODY_BYTES;
    clean.truncate(RESPONSE_BODY_BYTES);
    (clean, cut)
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
        let (kept, cut) = redact(Bytes::from(echo), &credentials, &[token]);
        assert!(!cut);
        let kept = std::str::from_utf8(&kept).expect("text");
        assert!(kept.starts_with("not-a-secret [redacted] [redacted] "), "{kept}");
        assert!(!kept.contains(without_prefix(signing.expose_secret())), "{kept}");
    }

    /// `user:open-sesame` in base64; a receiver that decodes it may say which password was wrong.
    #[test]
    fn a_password_is_removed_also_where_it_was_decoded() {
        let basic = [("Authorization", "Basic dXNlcjpvcGVuLXNlc2FtZQ==", true)];
        let echo = "wrong password open-sesame in dXNlcjpvcGVuLXNlc2FtZQ==";
        let (kept, _) = redact(Bytes::from(echo), &samples::credentials(&basic), &[]);
        assert_eq!(kept, "wrong password [redacted] in [redacted]");
    }

    /// An echo of many short secrets must not outgrow the cap of the history.
    #[test]
    fn a_redacted_body_stays_within_its_cap() {
        let credentials = samples::credentials(&[("X-Key", "sesame-8", true)]);
        let echo = "sesame-8,".repeat(RESPONSE_BODY_BYTES / 9);
        let (kept, cut) = redact(Bytes::from(echo), &credentials, &[]);
        assert!(kept.starts_with(b"[redacted],[redacted],"));
        assert_eq!((kept.len(), cut), (RESPONSE_BODY_BYTES, true));
    }
}
