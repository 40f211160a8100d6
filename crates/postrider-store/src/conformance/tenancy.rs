//! Behaviours of separation: what belongs to another environment or application does not exist (TEN-1).

use super::fixture::*;
use crate::{
    Store,
    applications::{ApplicationFields, ApplicationFilter},
    attempts::{AttemptFilter, AttemptsOf},
    deliveries::ResendError,
    endpoints::{AppScope, EndpointFilter, OAuthChange},
    error::WriteError,
    messages::{Audience, MessageFilter, NewMessage},
    page::Window,
};
use postrider_model::{
    application::Ref,
    delivery::State,
    headers::CustomHeaders,
    id::{AttemptId, EndpointId, MessageId},
    oauth::{AuthMethod, OAuthSettings},
    retry::NextStep,
};
use secrecy::SecretString;

/// One of everything, and two strangers: another application of the same environment, and one of another.
struct World {
    owner: AppScope,
    endpoint: EndpointId,
    message: MessageId,
    attempt: AttemptId,
    strangers: [AppScope; 2],
}

async fn world(store: &dyn Store) -> World {
    let owner = application(store).await;
    let endpoint = endpoint_with(store, &owner, |fields| fields.uid = Some(uid("endpoint"))).await.id;
    let message = publish(store, NewMessage { event_id: Some(uid("event")), ..message(&owner) }).await.id;
    let claimed = claim_one(store).await;
    let made = attempt(store, &claimed, NextStep::Delivered);
    let attempt = made.id;
    record_attempt(store, &claimed, made, NextStep::Delivered).await;
    let strangers = [application(store).await, application_in(store, "b").await];
    World { owner, endpoint, message, attempt, strangers }
}

pub async fn strangers_read_nothing_of_an_endpoint(store: &dyn Store) {
    let World { owner, endpoint, strangers, .. } = world(store).await;
    for stranger in strangers {
        for reference in [Ref::Id(endpoint), Ref::Uid(uid("endpoint"))] {
            assert_eq!(store.endpoint(&stranger, &reference).await.unwrap(), None);
        }
        assert!(store.headers(&stranger, endpoint).await.unwrap().is_none());
        assert!(store.signing_secret(&stranger, endpoint).await.unwrap().is_none());
        assert!(store.oauth(&stranger, endpoint).await.unwrap().is_none());
        assert!(store.send_settings(&stranger, endpoint).await.unwrap().is_none());
        let listed = store.endpoints(&stranger, EndpointFilter::default(), first(10)).await.unwrap();
        assert!(listed.items.is_empty());
        let stats = store.endpoint_stats(&stranger, endpoint, Window::default()).await.unwrap();
        assert_eq!(stats, crate::attempts::EndpointStats::default());
        let filter = MessageFilter::default();
        let listed =
            store.endpoint_messages(&stranger, endpoint, filter, None, true, first(10)).await.unwrap();
        assert!(listed.items.is_empty());
    }
    assert!(store.signing_secret(&owner, endpoint).await.unwrap().is_some());
}

pub async fn strangers_change_nothing_of_an_endpoint(store: &dyn Store) {
    let World { owner, endpoint, strangers, .. } = world(store).await;
    let before = read_endpoint(store, &owner, endpoint).await;
    let settings = OAuthSettings {
        auth_method: AuthMethod::ClientSecretPost,
        client_id: "c".to_owned(),
        token_url: url("https://login.example.com/"),
        scopes: vec![],
        extra_params: metadata(&[]),
        extra_headers: metadata(&[]),
    };
    for stranger in &strangers {
        let refused = store.replace_endpoint(stranger, endpoint, before.version, fields()).await;
        assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
        let refused =
            store.replace_headers(stranger, endpoint, before.version, CustomHeaders::default()).await;
        assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
        let change =
            OAuthChange { settings: settings.clone(), client_secret: Some(SecretString::from("secret")) };
        let refused = store.replace_oauth(stranger, endpoint, before.version, Some(change)).await;
        assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
        let refused = store.rotate_signing_secret(stranger, endpoint, secret(9), HOUR, None).await;
        assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
        assert!(!store.delete_endpoint(stranger, endpoint).await.unwrap());
    }
    assert_eq!(read_endpoint(store, &owner, endpoint).await, before);
    let current = store.signing_secret(&owner, endpoint).await.unwrap().expect("it exists");
    assert_eq!(text_of(&current), text_of(&secret(1)));
}

pub async fn strangers_read_nothing_of_a_message(store: &dyn Store) {
    let World { endpoint, message, attempt, strangers, .. } = world(store).await;
    for stranger in strangers {
        for reference in [Ref::Id(message), Ref::Uid(uid("event"))] {
            assert_eq!(store.message(&stranger, &reference).await.unwrap(), None);
        }
        let listed = store.messages(&stranger, MessageFilter::default(), true, first(10)).await.unwrap();
        assert!(listed.items.is_empty());
        assert!(store.destinations(&stranger, message, first(10)).await.unwrap().items.is_empty());
        assert!(store.attempt(&stranger, message, attempt).await.unwrap().is_none());
        for of in [
            AttemptsOf::Endpoint(endpoint),
            AttemptsOf::Message(message),
            AttemptsOf::MessageToEndpoint(message, endpoint),
        ] {
            let listed =
                store.attempts(&stranger, of, AttemptFilter::default(), true, first(10)).await.unwrap();
            assert!(listed.items.is_empty(), "{of:?}");
        }
    }
}

pub async fn strangers_change_nothing_of_a_message(store: &dyn Store) {
    let World { owner, endpoint, message, attempt, strangers } = world(store).await;
    for stranger in strangers {
        assert!(!store.expunge_payload(&stranger, message).await.unwrap());
        assert!(!store.expunge_response(&stranger, message, attempt).await.unwrap());
        let refused = store.resend(&stranger, message, endpoint, None).await;
        assert!(matches!(refused, Err(ResendError::Missing)), "{refused:?}");
        let theirs = super::fixture::endpoint(store, &stranger).await;
        let refused = store.resend(&stranger, message, theirs, None).await;
        assert!(matches!(refused, Err(ResendError::Missing)), "{refused:?}");
        let refused = store.resend(&owner, message, theirs, None).await;
        assert!(matches!(refused, Err(ResendError::Missing)), "{refused:?}");
    }
    let read = store.message(&owner, &Ref::Id(message)).await.unwrap().expect("it is untouched");
    assert!(read.payload.is_some());
    assert_eq!(progress(store, &owner, message, endpoint).await.state, State::Delivered);
    assert!(claim(store).await.is_empty());
}

pub async fn nobody_publishes_into_an_application_of_another_environment(store: &dyn Store) {
    let World { owner, endpoint, strangers, .. } = world(store).await;
    let forged = AppScope { environment: strangers[1].environment.clone(), application: owner.application };
    for audience in [Audience::Matching, Audience::Only(endpoint)] {
        let refused = try_publish(store, NewMessage { audience, ..message(&forged) }).await;
        assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    }
    assert!(claim(store).await.is_empty());
}

pub async fn an_application_exists_in_its_environment_only(store: &dyn Store) {
    let World { owner, strangers, .. } = world(store).await;
    let elsewhere = &strangers[1].environment;
    let fields = ApplicationFields { uid: Some(uid("u")), ..ApplicationFields::default() };
    let reference = Ref::Id(owner.application);
    let from = store.application(&owner.environment, &reference).await.unwrap().expect("it exists").version;
    let changed = store.replace_application(&owner.environment, owner.application, from, fields.clone());
    let version = changed.await.unwrap().version;
    for reference in [Ref::Id(owner.application), Ref::Uid(uid("u"))] {
        assert_eq!(store.application(elsewhere, &reference).await.unwrap(), None);
    }
    let refused = store.replace_application(elsewhere, owner.application, version, fields).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    assert!(!store.delete_application(elsewhere, owner.application).await.unwrap());
    let listed = store.applications(elsewhere, ApplicationFilter::default(), first(10)).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert!(store.application(&owner.environment, &Ref::Id(owner.application)).await.unwrap().is_some());
}

/// TEN-2: names that customers choose may be the same everywhere.
pub async fn the_same_names_live_beside_each_other(store: &dyn Store) {
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let scope = application_in(store, name).await;
        let endpoint = endpoint_with(store, &scope, |fields| fields.uid = Some(uid("endpoint"))).await.id;
        let message = publish(store, NewMessage { event_id: Some(uid("event")), ..message(&scope) }).await.id;
        seen.push((scope, endpoint, message));
    }
    for (scope, endpoint, message) in seen {
        let found = store.endpoint(&scope, &Ref::Uid(uid("endpoint"))).await.unwrap().expect("it exists");
        assert_eq!(found.id, endpoint);
        let found = store.message(&scope, &Ref::Uid(uid("event"))).await.unwrap().expect("it exists");
        assert_eq!(found.message.id, message);
    }
}
