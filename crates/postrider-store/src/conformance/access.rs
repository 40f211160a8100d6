//! Behaviours of environments and API keys.

use super::fixture::*;
use crate::{Store, access::NewApiKey, error::WriteError};
use postrider_model::{
    access::{Caller, Scope},
    environment::EnvironmentId,
};
use secrecy::ExposeSecret as _;
use std::collections::BTreeSet;

fn key_for(environment: &EnvironmentId, scope: Scope) -> NewApiKey {
    let caller = Caller { environment: environment.clone(), scope };
    NewApiKey { caller, name: "a key: ü".to_owned(), expires_at: None }
}

pub async fn environments_are_made_once_and_listed_in_order(store: &dyn Store) {
    assert!(store.environments().await.unwrap().is_empty());
    for name in ["c", "a", "c"] {
        store.ensure_environment(&environment(name)).await.unwrap();
    }
    application_in(store, "b").await;
    let expected = ["a", "b", "c"].map(environment);
    assert_eq!(store.environments().await.unwrap(), expected);
}

pub async fn many_first_calls_make_one_environment(store: &dyn Store) {
    let id = environment("new");
    let calls = (0..10).map(|_| store.ensure_environment(&id));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    let calls = (0..10).map(|_| application_in(store, "newer"));
    futures_util::future::join_all(calls).await;
    assert_eq!(store.environments().await.unwrap(), ["new", "newer"].map(environment));
}

pub async fn a_key_authenticates_as_the_caller_it_was_made_for(store: &dyn Store) {
    let scope = application(store).await;
    let flags = ["beta".to_owned(), "x,y\nz".to_owned()].into();
    for wanted in [
        Scope::Environment,
        Scope::Application { id: scope.application, feature_flags: flags },
        Scope::Application { id: scope.application, feature_flags: BTreeSet::new() },
        Scope::Publish { application: None },
        Scope::Publish { application: Some(scope.application) },
    ] {
        let (key, token) = store.create_api_key(key_for(&scope.environment, wanted.clone())).await.unwrap();
        assert_eq!((key.caller.scope.clone(), key.name.as_str()), (wanted.clone(), "a key: ü"));
        assert_eq!((key.expires_at, key.revoked_at), (None, None));
        let expected = Caller { environment: scope.environment.clone(), scope: wanted };
        for _ in 0..2 {
            let caller = store.authenticate(token.expose_secret()).await.unwrap();
            assert_eq!(caller.as_ref(), Some(&expected));
        }
    }
}

pub async fn a_key_makes_its_environment(store: &dyn Store) {
    let id = environment("new");
    let (_, token) = store.create_api_key(key_for(&id, Scope::Environment)).await.unwrap();
    assert_eq!(store.environments().await.unwrap(), [id]);
    assert!(store.authenticate(token.expose_secret()).await.unwrap().is_some());
}

/// K10.
pub async fn what_is_no_token_authenticates_nobody(store: &dyn Store) {
    let (_, one) = store.create_api_key(key_for(&environment("a"), Scope::Environment)).await.unwrap();
    let (_, two) = store.create_api_key(key_for(&environment("a"), Scope::Environment)).await.unwrap();
    let (one, two) = (one.expose_secret(), two.expose_secret());
    let half = one.len() / 2;
    for wrong in [
        String::new(),
        "prk_".to_owned(),
        one[..one.len() - 1].to_owned(),
        format!("{one}0"),
        format!("{}{}", &one[..half], &two[half..]),
        one.to_uppercase(),
        format!(" {one}"),
        "🦀".repeat(30),
        "x".repeat(1 << 20),
    ] {
        assert_eq!(store.authenticate(&wrong).await.unwrap(), None);
    }
    assert!(store.authenticate(one).await.unwrap().is_some(), "wrong guesses lock nobody out");
}

pub async fn a_revoked_key_ends_at_once(store: &dyn Store) {
    let id = environment("a");
    let (key, token) = store.create_api_key(key_for(&id, Scope::Environment)).await.unwrap();
    let (_, other) = store.create_api_key(key_for(&id, Scope::Environment)).await.unwrap();
    assert!(store.authenticate(token.expose_secret()).await.unwrap().is_some());
    let elsewhere = store.revoke_api_key(&environment("b"), key.id).await;
    assert!(matches!(elsewhere, Err(WriteError::Missing)), "{elsewhere:?}");
    assert!(store.authenticate(token.expose_secret()).await.unwrap().is_some());
    let revoked = store.revoke_api_key(&id, key.id).await.unwrap();
    assert!(revoked.id == key.id && revoked.revoked_at.is_some());
    assert_eq!(store.authenticate(token.expose_secret()).await.unwrap(), None);
    assert!(store.authenticate(other.expose_secret()).await.unwrap().is_some());
    store.clock().advance(HOUR);
    let again = store.revoke_api_key(&id, key.id).await.unwrap();
    assert_eq!(again.revoked_at, revoked.revoked_at, "revoking twice is no error and changes nothing");
    let unknown = store.revoke_api_key(&id, store.ids().next(store.clock().now())).await;
    assert!(matches!(unknown, Err(WriteError::Missing)), "{unknown:?}");
}

pub async fn a_key_ends_when_it_expires(store: &dyn Store) {
    let id = environment("a");
    let expires_at = store.clock().now().plus(HOUR);
    let new = NewApiKey { expires_at: Some(expires_at), ..key_for(&id, Scope::Environment) };
    let (key, token) = store.create_api_key(new).await.unwrap();
    assert_eq!(key.expires_at, Some(expires_at));
    assert!(store.authenticate(token.expose_secret()).await.unwrap().is_some());
    store.clock().advance(HOUR);
    assert_eq!(store.authenticate(token.expose_secret()).await.unwrap(), None);
}

pub async fn keys_are_listed_newest_first_without_their_secrets(store: &dyn Store) {
    let id = environment("a");
    assert!(store.api_keys(&id).await.unwrap().is_empty());
    let (old, _) = store.create_api_key(key_for(&id, Scope::Environment)).await.unwrap();
    let (new, token) =
        store.create_api_key(key_for(&id, Scope::Publish { application: None })).await.unwrap();
    store.create_api_key(key_for(&environment("b"), Scope::Environment)).await.unwrap();
    let revoked = store.revoke_api_key(&id, old.id).await.unwrap();
    let listed = store.api_keys(&id).await.unwrap();
    assert_eq!(listed, [new, revoked]);
    let secret = &token.expose_secret()[token.expose_secret().len() - 30..];
    assert!(!format!("{listed:?} {token:?}").contains(secret));
}
