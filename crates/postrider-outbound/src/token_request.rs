//! The token request of the client credentials grant (RFC 6749, section 4.4), byte for byte.

use crate::{
    client::{Header, HeaderValue, Request},
    oauth::TokenOwner,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use postrider_model::oauth::{AuthMethod, OAuthCredential};
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;

const USER_AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

/// The request for a token.
pub(crate) fn build(owner: &TokenOwner, credential: &OAuthCredential) -> Request {
    Request {
        environment: owner.environment.clone(),
        application: owner.application,
        url: credential.settings.token_url.clone(),
        headers: headers(credential),
        body: form(credential).into_bytes().into(),
    }
}

fn headers(credential: &OAuthCredential) -> Vec<Header> {
    let plain = |name: &'static str, value: &str| Header {
        name: Cow::Borrowed(name),
        value: HeaderValue::Plain(value.to_owned()),
    };
    let mut headers = vec![
        plain("User-Agent", USER_AGENT),
        plain("Accept", "application/json"),
        plain("Accept-Encoding", "identity"),
        plain("Content-Type", "application/x-www-form-urlencoded"),
    ];
    if credential.settings.auth_method == AuthMethod::ClientSecretBasic {
        headers.push(Header {
            name: Cow::Borrowed("Authorization"),
            value: HeaderValue::Secret(basic(credential)),
        });
    }
    for (name, value) in &credential.settings.extra_headers {
        // Ours win: none of them can be changed without breaking the request.
        if !headers.iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
            headers.push(Header { name: Cow::Owned(name.clone()), value: HeaderValue::Plain(value.clone()) });
        }
    }
    headers
}

/// Form-encoded first, then base64 (RFC 6749, section 2.3.1).
fn basic(credential: &OAuthCredential) -> SecretString {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let id = encode(&credential.settings.client_id);
    let secret = encode(credential.client_secret.expose_secret());
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}"))).into()
}

fn form(credential: &OAuthCredential) -> String {
    let settings = &credential.settings;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !settings.scopes.is_empty() {
        form.append_pair("scope", &settings.scopes.join(" "));
    }
    if settings.auth_method == AuthMethod::ClientSecretPost {
        form.append_pair("client_id", &settings.client_id);
        form.append_pair("client_secret", credential.client_secret.expose_secret());
    }
    for (name, value) in &settings.extra_params {
        form.append_pair(name, value);
    }
    form.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{credential, owner};

    fn head_of(credential: &OAuthCredential) -> String {
        let mut head = Vec::new();
        crate::request_head::write(&build(&owner(), credential), false, &mut head).unwrap();
        String::from_utf8(head).unwrap()
    }

    /// O01: both parts are form-encoded before they are joined.
    #[test]
    fn basic_encodes_id_and_secret_before_base64() {
        let mut credential = credential("https://idp.example.com/oauth/token");
        credential.settings.client_id = "a:b c".to_owned();
        credential.client_secret = "p%+:ü".to_owned().into();
        let expected = BASE64_STANDARD.encode("a%3Ab+c:p%25%2B%3A%C3%BC");
        assert_eq!(
            head_of(&credential),
            format!(
                "POST /oauth/token HTTP/1.1\r\nHost: idp.example.com\r\nUser-Agent: {USER_AGENT}\r\n\
                 Accept: application/json\r\nAccept-Encoding: identity\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Basic {expected}\r\n\
                 Content-Length: 29\r\n\r\n"
            )
        );
        assert_eq!(build(&owner(), &credential).body, "grant_type=client_credentials");
    }

    #[test]
    fn post_puts_the_credentials_into_the_form_and_sends_no_authorization() {
        let mut credential = credential("https://idp.example.com/oauth/token");
        credential.settings.auth_method = AuthMethod::ClientSecretPost;
        credential.settings.scopes = vec!["read".to_owned(), "write".to_owned()];
        credential.settings.extra_params =
            [("audience".to_owned(), "https://api.example.com/".to_owned())].into();
        assert!(!head_of(&credential).contains("Authorization"));
        assert_eq!(
            build(&owner(), &credential).body,
            "grant_type=client_credentials&scope=read+write&client_id=client&client_secret=s3cret-s3cret\
             &audience=https%3A%2F%2Fapi.example.com%2F"
        );
    }

    #[test]
    fn extra_headers_are_added_and_never_replace_ours() {
        let mut credential = credential("https://idp.example.com/oauth/token");
        credential.settings.extra_headers =
            [("X-Tenant", "7"), ("AUTHORIZATION", "Bearer other"), ("accept", "text/html")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let head = head_of(&credential);
        assert!(
            head.contains("X-Tenant: 7\r\n") && !head.contains("other") && !head.contains("text/html"),
            "{head}"
        );
    }

    /// K05: nothing of a request for a token can be printed.
    #[test]
    fn a_debug_print_shows_no_credential() {
        let mut credential = credential("https://idp.example.com/oauth/token");
        for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
            credential.settings.auth_method = method;
            let printed = format!("{:?}", build(&owner(), &credential));
            assert!(!printed.contains("Basic") && !printed.contains("s3cret"), "{printed}");
        }
    }
}
