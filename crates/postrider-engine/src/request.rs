//! Builds and signs the request of an attempt. Pure: time, configuration and credentials are arguments.
//!
//! What a user stored is judged once more by the rules that hold now: a value that is no longer allowed makes a failed
//! attempt that its owner can see, and nothing is sent.

use crate::config::Config;
use postrider_model::{
    endpoint::Endpoint, headers, outcome::Outcome, signature, time::Timestamp, url::Scheme,
};
use postrider_outbound::{Header, HeaderValue, Request, oauth::Token};
use postrider_store::{deliveries::ClaimedDelivery, snapshot::Credentials};
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;

const DEFAULT_CONTENT_TYPE: &str = "application/json";

/// Why a request cannot be made from what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) outcome: Outcome,
    /// One sentence for the endpoint's owner, with the way out. No secrets.
    pub(crate) detail: String,
}

impl Fault {
    /// A credential of the endpoint cannot be opened; `detail` says which and why, without the secret.
    pub(crate) fn credential(detail: &str) -> Self {
        let detail = format!(
            "a credential of the endpoint cannot be opened ({detail}); set it again or restore the key"
        );
        Self { outcome: Outcome::CredentialUnavailable, detail }
    }
}

/// A request that lacks only its access token, if it needs one.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) request: Request,
    /// Where `Authorization` stands: after our headers and before the custom ones.
    authorization_at: usize,
    authorized: bool,
}

/// The request for a delivery at `at`: body exactly as published, a fresh timestamp and signature.
pub(crate) fn build(
    claimed: &ClaimedDelivery,
    endpoint: &Endpoint,
    credentials: &Credentials,
    config: &Config,
    at: Timestamp,
) -> Result<Draft, Fault> {
    judge(endpoint, credentials, config)?;
    let mut headers = our_headers(claimed, credentials, config, at)?;
    let authorization_at = headers.len();
    headers.extend(credentials.headers.iter().map(|header| Header {
        name: Cow::Owned(header.name.clone()),
        value: HeaderValue::Secret(header.value.clone()),
    }));
    let request = Request {
        environment: claimed.scope.environment.clone(),
        application: claimed.scope.application,
        url: endpoint.url.clone(),
        headers,
        body: claimed.payload.clone(),
    };
    Ok(Draft { request, authorization_at, authorized: false })
}

impl Draft {
    /// Sets the access token, in the place of an earlier one.
    pub(crate) fn authorize(&mut self, token: &Token) {
        let value = SecretString::from(format!("Bearer {}", token.value.expose_secret()));
        let header = Header { name: Cow::Borrowed("Authorization"), value: HeaderValue::Secret(value) };
        if self.authorized {
            self.request.headers[self.authorization_at] = header;
        } else {
            self.request.headers.insert(self.authorization_at, header);
            self.authorized = true;
        }
    }
}

fn judge(endpoint: &Endpoint, credentials: &Credentials, config: &Config) -> Result<(), Fault> {
    endpoint
        .url
        .judge(&config.url_rules)
        .map_err(|refusal| invalid(format!("the endpoint's URL is not allowed: {refusal}")))?;
    let secrets = credentials.oauth.is_some() || credentials.headers.iter().any(|header| header.sensitive);
    if secrets && endpoint.url.scheme() == Scheme::Http && !config.url_rules.dev {
        return Err(invalid(
            "credentials are sent over https only; change the endpoint's URL or remove them".to_owned(),
        ));
    }
    for header in &credentials.headers {
        headers::check(&header.name, header.value.expose_secret())
            .map_err(|refusal| invalid(format!("{refusal}; change the endpoint's headers")))?;
    }
    if credentials.oauth.is_some() && credentials.headers.get("authorization").is_some() {
        return Err(invalid(
            "the endpoint has both OAuth2 and a custom `Authorization` header; remove one of them".to_owned(),
        ));
    }
    Ok(())
}

/// The headers before `Authorization` and the custom ones, in the order in which they are sent. Names are in lower case
/// where Standard Webhooks writes them so; receivers must not care (RFC 9110, section 5.1).
fn our_headers(
    claimed: &ClaimedDelivery,
    credentials: &Credentials,
    config: &Config,
    at: Timestamp,
) -> Result<Vec<Header>, Fault> {
    let id = claimed.lease.delivery.message.to_string();
    let timestamp = at.as_seconds().to_string();
    let signature = sign(claimed, credentials, at)?;
    let content_type = claimed.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE);
    let mut headers = vec![
        plain("User-Agent", config.user_agent.clone()),
        plain("Content-Type", content_type.to_owned()),
        plain("Accept", "*/*".to_owned()),
        plain("webhook-id", id.clone()),
        plain("webhook-timestamp", timestamp.clone()),
        plain("webhook-signature", signature.clone()),
    ];
    if config.svix_headers {
        headers.extend([
            plain("svix-id", id),
            plain("svix-timestamp", timestamp),
            plain("svix-signature", signature),
        ]);
    }
    Ok(headers)
}

fn sign(claimed: &ClaimedDelivery, credentials: &Credentials, at: Timestamp) -> Result<String, Fault> {
    let signs = |until: Option<Timestamp>| until.is_none_or(|until| at < until);
    let secrets: Vec<_> =
        credentials.signing.iter().filter(|key| signs(key.until)).map(|key| &key.secret).collect();
    if secrets.is_empty() {
        return Err(Fault {
            outcome: Outcome::CredentialUnavailable,
            detail: "the endpoint has no signing secret; rotate its secret".to_owned(),
        });
    }
    Ok(signature::sign(&secrets, claimed.lease.delivery.message, at, &claimed.payload))
}

fn plain(name: &'static str, value: String) -> Header {
    Header { name: Cow::Borrowed(name), value: HeaderValue::Plain(value) }
}

fn invalid(detail: String) -> Fault {
    Fault { outcome: Outcome::ConfigInvalid, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{self, PAYLOAD, URL};
    use postrider_model::{signature::SigningSecret, url::UrlRules};
    use postrider_store::snapshot::SigningKey;
    use std::time::Duration;

    fn draft(config: &Config, credentials: &Credentials) -> Result<Draft, Fault> {
        build(&samples::claimed(), &samples::endpoint(URL), credentials, config, samples::at())
    }

    fn names(draft: &Draft) -> Vec<&str> {
        draft.request.headers.iter().map(|header| &*header.name).collect()
    }

    fn value<'a>(draft: &'a Draft, name: &str) -> &'a str {
        let header = draft.request.headers.iter().find(|header| header.name == name).expect("the header");
        match &header.value {
            HeaderValue::Plain(text) => text,
            HeaderValue::Secret(secret) => secret.expose_secret(),
        }
    }

    fn token(value: &str) -> Token {
        Token { value: value.into(), cached: false }
    }

    #[test]
    fn headers_come_in_their_order_with_the_spelling_of_the_user() {
        let credentials = samples::credentials(&[("X-Customer-ID", "42", false), ("x-region", "eu", false)]);
        let mut draft = draft(&Config::default(), &credentials).expect("a request");
        draft.authorize(&token("one"));
        draft.authorize(&token("two"));
        let expected = [
            "User-Agent",
            "Content-Type",
            "Accept",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
            "Authorization",
            "X-Customer-ID",
            "x-region",
        ];
        assert_eq!(names(&draft), expected);
        assert_eq!(value(&draft, "Authorization"), "Bearer two");
        assert_eq!(value(&draft, "X-Customer-ID"), "42");
        assert_eq!(value(&draft, "Content-Type"), "application/json");
        assert_eq!(value(&draft, "User-Agent"), concat!("Postrider/", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_bytes_that_are_signed_are_the_bytes_that_were_published() {
        let credentials = samples::credentials(&[]);
        let draft = draft(&Config::default(), &credentials).expect("a request");
        let claimed = samples::claimed();
        let expected = signature::sign(
            &[&credentials.signing[0].secret],
            claimed.lease.delivery.message,
            samples::at(),
            PAYLOAD,
        );
        assert_eq!(draft.request.body, PAYLOAD);
        assert_eq!(value(&draft, "webhook-signature"), expected);
        assert_eq!(value(&draft, "svix-signature"), expected);
        assert_eq!(value(&draft, "webhook-timestamp"), "1767225600");
        assert_eq!(value(&draft, "webhook-id"), claimed.lease.delivery.message.to_string());
    }

    #[test]
    fn svix_headers_can_be_left_out() {
        let config = Config { svix_headers: false, ..Config::default() };
        let draft = draft(&config, &samples::credentials(&[])).expect("a request");
        assert!(names(&draft).iter().all(|name| !name.starts_with("svix")), "{:?}", names(&draft));
    }

    #[test]
    fn a_secret_signs_until_its_overlap_ends_and_not_after() {
        let mut credentials = samples::credentials(&[]);
        let overlapping = |until| SigningKey { secret: SigningSecret::hmac([2; 24]), until: Some(until) };
        credentials.signing.push(overlapping(samples::at().plus(Duration::from_secs(1))));
        let signatures = |credentials: &Credentials| {
            let draft = draft(&Config::default(), credentials).expect("a request");
            value(&draft, "webhook-signature").split(' ').count()
        };
        assert_eq!(signatures(&credentials), 2);
        credentials.signing[1].until = Some(samples::at());
        assert_eq!(signatures(&credentials), 1);
        credentials.signing.remove(0);
        let fault = draft(&Config::default(), &credentials).expect_err("nothing signs");
        assert_eq!(fault.outcome, Outcome::CredentialUnavailable);
    }

    #[test]
    fn a_stored_value_that_is_no_longer_allowed_is_refused_without_naming_it() {
        for (name, value) in [
            ("Host", "evil"),
            ("Content-Length", "5"),
            ("X-A", "two\r\nX-B: lines"),
            ("webhook-id", "msg_evil"),
        ] {
            let fault = draft(&Config::default(), &samples::credentials(&[(name, value, false)]))
                .expect_err("refused");
            assert_eq!(fault.outcome, Outcome::ConfigInvalid, "{name}");
            assert!(!fault.detail.contains(value), "{}", fault.detail);
        }
    }

    /// What was stored with `--dev` is not sent in clear by a server without it.
    #[test]
    fn a_sensitive_header_is_not_sent_over_http() {
        let send = |sensitive, rules| {
            let config = Config { url_rules: rules, ..Config::default() };
            let endpoint = samples::endpoint("http://hooks.example.com/hook");
            let credentials = samples::credentials(&[("X-Api-Token", "canary-canary", sensitive)]);
            build(&samples::claimed(), &endpoint, &credentials, &config, samples::at())
        };
        let clear = || UrlRules { allow_http: true, ..UrlRules::default() };
        let fault = send(true, clear()).expect_err("refused");
        assert_eq!(fault.outcome, Outcome::ConfigInvalid);
        assert!(fault.detail.contains("https") && !fault.detail.contains("canary"), "{}", fault.detail);
        assert!(send(false, clear()).is_ok());
        assert!(send(true, UrlRules { dev: true, ..UrlRules::default() }).is_ok());
    }

    #[test]
    fn a_url_is_judged_by_the_rules_of_now() {
        let send = |rules| {
            let config = Config { url_rules: rules, ..Config::default() };
            let endpoint = samples::endpoint("http://127.0.0.1:8080/hook");
            build(&samples::claimed(), &endpoint, &samples::credentials(&[]), &config, samples::at())
        };
        assert!(send(UrlRules { dev: true, ..UrlRules::default() }).is_ok());
        assert_eq!(send(UrlRules::default()).expect_err("refused").outcome, Outcome::ConfigInvalid);
    }
}
