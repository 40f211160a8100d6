//! Behaviours of an endpoint's credentials: custom headers, signing secrets, OAuth2. All of them read back only through
//! the calls that are meant to, and reach what is sent at once.

use super::fixture::*;
use crate::{
    Store,
    endpoints::{AppScope, NewEndpoint, OAuthChange},
    error::WriteError,
    snapshot::{Credentials, SendSettings},
};
use postrider_model::{
    headers::{CustomHeader, CustomHeaders},
    id::EndpointId,
    limits::PREVIOUS_SECRETS,
    oauth::{AuthMethod, OAuthSettings},
    signature::SigningSecret,
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{sync::Arc, time::Duration};

fn headers(entries: &[(&str, &str, bool)]) -> CustomHeaders {
    CustomHeaders::from_stored(
        entries
            .iter()
            .map(|(name, value, sensitive)| CustomHeader {
                name: (*name).to_owned(),
                value: SecretString::from(*value),
                sensitive: *sensitive,
            })
            .collect(),
    )
}

fn shown(headers: &CustomHeaders) -> Vec<(String, String, bool)> {
    let entry = |header: &CustomHeader| {
        (header.name.clone(), header.value.expose_secret().to_owned(), header.sensitive)
    };
    headers.iter().map(entry).collect()
}

fn oauth_settings() -> OAuthSettings {
    OAuthSettings {
        auth_method: AuthMethod::ClientSecretBasic,
        client_id: "client:1".to_owned(),
        token_url: url("https://login.example.com/token?tenant=1"),
        scopes: vec!["write".to_owned(), "read".to_owned()],
        extra_params: metadata(&[("audience", "hooks")]),
        extra_headers: metadata(&[("X-Tenant", "1")]),
    }
}

async fn settings(store: &dyn Store, scope: &AppScope, id: EndpointId) -> Arc<SendSettings> {
    store.send_settings(scope, id).await.unwrap().expect("the endpoint exists")
}

fn credentials(settings: &SendSettings) -> &Credentials {
    settings.credentials.as_ref().expect("the credentials open")
}

/// The texts of the secrets that sign now, the current one first.
async fn signing(store: &dyn Store, scope: &AppScope, id: EndpointId) -> Vec<String> {
    let settings = settings(store, scope, id).await;
    let now = store.clock().now();
    let keys = || credentials(&settings).signing.iter();
    let current = keys().filter(|key| key.until.is_none());
    let previous = keys().filter(|key| key.until.is_some_and(|until| until > now));
    current.chain(previous).map(|key| text_of(&key.secret)).collect()
}

async fn version(store: &dyn Store, scope: &AppScope, id: EndpointId) -> u64 {
    read_endpoint(store, scope, id).await.version
}

pub async fn headers_read_back_in_order_with_their_spelling(store: &dyn Store) {
    let scope = application(store).await;
    let wanted = headers(&[
        ("X-Zeta", "1", false),
        ("Authorization", "Basic ü c2VjcmV0", true),
        ("x-alpha", "", false),
    ]);
    let new = NewEndpoint { headers: wanted.clone(), ..new_endpoint(fields()) };
    let created = store.create_endpoint(&scope, new, None).await.unwrap().item;
    let read = store.headers(&scope, created.id).await.unwrap().expect("it exists");
    assert_eq!(shown(&read), shown(&wanted));
    let settings = settings(store, &scope, created.id).await;
    assert_eq!(shown(&credentials(&settings).headers), shown(&wanted));
}

pub async fn replaced_headers_reach_the_next_request(store: &dyn Store) {
    let scope = application(store).await;
    let created = endpoint_with(store, &scope, |_| ()).await;
    assert!(shown(&store.headers(&scope, created.id).await.unwrap().expect("it exists")).is_empty());
    for wanted in [
        headers(&[("X-Key", "first", true), ("X-Plain", "second", false)]),
        headers(&[("x-key", "third", true)]),
        headers(&[("x-key", "third", false)]),
        headers(&[]),
    ] {
        let from = version(store, &scope, created.id).await;
        store.replace_headers(&scope, created.id, from, wanted.clone()).await.unwrap();
        assert!(version(store, &scope, created.id).await > from);
        let read = store.headers(&scope, created.id).await.unwrap().expect("it exists");
        assert_eq!(shown(&read), shown(&wanted));
        let settings = settings(store, &scope, created.id).await;
        assert_eq!(shown(&credentials(&settings).headers), shown(&wanted));
        let stale = store.replace_headers(&scope, created.id, from, headers(&[("x", "y", false)])).await;
        assert!(matches!(stale, Err(WriteError::Stale)), "{stale:?}");
    }
}

pub async fn credentials_survive_a_change_of_other_fields(store: &dyn Store) {
    let scope = application(store).await;
    let wanted = headers(&[("X-Key", "value", true)]);
    let new = NewEndpoint { headers: wanted.clone(), ..new_endpoint(fields()) };
    let id = store.create_endpoint(&scope, new, None).await.unwrap().item.id;
    let change =
        OAuthChange { settings: oauth_settings(), client_secret: Some(SecretString::from("client secret")) };
    store.replace_oauth(&scope, id, version(store, &scope, id).await, Some(change)).await.unwrap();
    change_endpoint(store, &scope, id, |fields| fields.url = url("https://example.com/other")).await;
    let settings = settings(store, &scope, id).await;
    let credentials = credentials(&settings);
    assert_eq!(shown(&credentials.headers), shown(&wanted));
    assert_eq!(text_of(&credentials.signing[0].secret), text_of(&secret(1)));
    let oauth = credentials.oauth.as_ref().expect("it is set");
    assert_eq!(oauth.client_secret.expose_secret(), "client secret");
}

pub async fn every_kind_of_signing_secret_reads_back(store: &dyn Store) {
    let scope = application(store).await;
    for wanted in [secret(9), SigningSecret::ed25519([9; 32])] {
        let new = NewEndpoint { secret: wanted.clone(), ..new_endpoint(fields()) };
        let id = store.create_endpoint(&scope, new, None).await.unwrap().item.id;
        let read = store.signing_secret(&scope, id).await.unwrap().expect("it exists");
        assert_eq!(text_of(&read), text_of(&wanted));
        assert_eq!(signing(store, &scope, id).await, [text_of(&wanted)]);
    }
}

/// K09.
pub async fn a_rotated_secret_signs_along_for_its_overlap(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let rotated = store.rotate_signing_secret(&scope, id, secret(2), HOUR, None).await.unwrap();
    assert!(!rotated.replayed);
    assert_eq!(text_of(&rotated.item), text_of(&secret(2)));
    let current = store.signing_secret(&scope, id).await.unwrap().expect("it exists");
    assert_eq!(text_of(&current), text_of(&secret(2)));
    let [one, two, three] = [1, 2, 3].map(|seed| text_of(&secret(seed)));
    assert_eq!(signing(store, &scope, id).await, [two.clone(), one]);
    store.clock().advance(HOUR);
    assert_eq!(signing(store, &scope, id).await, [two]);
    store.rotate_signing_secret(&scope, id, secret(3), Duration::ZERO, None).await.unwrap();
    assert_eq!(signing(store, &scope, id).await, [three], "without overlap the old one ends at once");
}

pub async fn at_most_ten_previous_secrets_sign(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    for seed in 0..u8::try_from(PREVIOUS_SECRETS).unwrap() {
        store.rotate_signing_secret(&scope, id, secret(seed + 2), HOUR, None).await.unwrap();
    }
    assert_eq!(signing(store, &scope, id).await.len(), PREVIOUS_SECRETS + 1);
    let refused = store.rotate_signing_secret(&scope, id, secret(99), HOUR, None).await;
    assert!(matches!(refused, Err(WriteError::Limit(_))), "{refused:?}");
    let current = store.signing_secret(&scope, id).await.unwrap().expect("it exists");
    assert_ne!(text_of(&current), text_of(&secret(99)));
    store.rotate_signing_secret(&scope, id, secret(98), Duration::ZERO, None).await.expect("it adds none");
    assert_eq!(signing(store, &scope, id).await.len(), PREVIOUS_SECRETS + 1);
    store.clock().advance(HOUR);
    store.rotate_signing_secret(&scope, id, secret(99), HOUR, None).await.expect("the others have ended");
    assert_eq!(signing(store, &scope, id).await.len(), 2);
}

pub async fn oauth_settings_read_back_without_the_secret_and_send_with_it(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    assert_eq!(store.oauth(&scope, id).await.unwrap(), None);
    assert!(credentials(&*settings(store, &scope, id).await).oauth.is_none());
    let from = version(store, &scope, id).await;
    let change =
        OAuthChange { settings: oauth_settings(), client_secret: Some(SecretString::from("p:ä/ss w+rd")) };
    store.replace_oauth(&scope, id, from, Some(change)).await.unwrap();
    assert!(version(store, &scope, id).await > from);
    assert_eq!(store.oauth(&scope, id).await.unwrap(), Some(oauth_settings()));
    let sent = settings(store, &scope, id).await;
    let oauth = credentials(&sent).oauth.as_ref().expect("it is set");
    assert_eq!(oauth.settings, oauth_settings());
    assert_eq!(oauth.client_secret.expose_secret(), "p:ä/ss w+rd");
}

pub async fn an_oauth_secret_that_is_not_given_again_is_kept(store: &dyn Store) {
    let scope = application(store).await;
    let id = endpoint(store, &scope).await;
    let change = |client_secret: Option<&str>, client_id: &str| {
        let settings = OAuthSettings { client_id: client_id.to_owned(), ..oauth_settings() };
        Some(OAuthChange { settings, client_secret: client_secret.map(SecretString::from) })
    };
    let replace =
        async |change| store.replace_oauth(&scope, id, version(store, &scope, id).await, change).await;
    let none = replace(change(None, "first")).await;
    assert!(matches!(none, Err(WriteError::Missing)), "there is no secret to keep: {none:?}");
    let mut versions = Vec::new();
    for (client_secret, client_id, expected) in
        [(Some("one"), "first", "one"), (None, "second", "one"), (Some("two"), "second", "two")]
    {
        replace(change(client_secret, client_id)).await.unwrap();
        let sent = settings(store, &scope, id).await;
        let oauth = credentials(&sent).oauth.as_ref().expect("it is set");
        assert_eq!(
            (oauth.settings.client_id.as_str(), oauth.client_secret.expose_secret()),
            (client_id, expected)
        );
        versions.push(oauth.version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "each change makes older tokens unreachable: {versions:?}");
    let stale = store.replace_oauth(&scope, id, 0, None).await;
    assert!(matches!(stale, Err(WriteError::Stale)), "{stale:?}");
    replace(None).await.unwrap();
    assert_eq!(store.oauth(&scope, id).await.unwrap(), None);
    assert!(credentials(&*settings(store, &scope, id).await).oauth.is_none());
    let gone = replace(change(None, "third")).await;
    assert!(matches!(gone, Err(WriteError::Missing)), "the removed secret is gone: {gone:?}");
    replace(change(Some("three"), "third")).await.unwrap();
    let sent = settings(store, &scope, id).await;
    let oauth = credentials(&sent).oauth.as_ref().expect("it is set");
    assert!(Some(&oauth.version) > versions.last(), "also after a removal");
}

/// K05: what is sent with cannot print its secrets.
pub async fn no_debug_form_of_send_settings_shows_a_secret(store: &dyn Store) {
    let scope = application(store).await;
    let wanted = headers(&[("X-Key", "CANARY-header", true)]);
    let new = NewEndpoint { headers: wanted, ..new_endpoint(fields()) };
    let id = store.create_endpoint(&scope, new, None).await.unwrap().item.id;
    let change =
        OAuthChange { settings: oauth_settings(), client_secret: Some(SecretString::from("CANARY-oauth")) };
    store.replace_oauth(&scope, id, version(store, &scope, id).await, Some(change)).await.unwrap();
    let shown = format!("{:?}", settings(store, &scope, id).await);
    assert!(!shown.contains("CANARY"), "{shown}");
    let secret = text_of(&secret(1));
    assert!(!shown.contains(secret.trim_start_matches("whsec_")), "{shown}");
}
