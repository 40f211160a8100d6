//! Behaviours of applications.

use super::fixture::*;
use crate::{
    Store,
    applications::{ApplicationFields, ApplicationFilter},
    deliveries::Recorded,
    error::WriteError,
    page::{Order, PageRequest},
};
use postrider_model::{application::Ref, delivery::State, retry::NextStep};

fn named(name: &str) -> ApplicationFields {
    ApplicationFields { name: name.to_owned(), ..ApplicationFields::default() }
}

pub async fn a_created_application_is_found_by_id_and_by_uid(store: &dyn Store) {
    let environment = environment("a");
    let fields = ApplicationFields {
        uid: Some(uid("customer-1")),
        name: "Ärzte & Söhne".to_owned(),
        throttle_rate: Some(7),
        metadata: metadata(&[("plan", "gold")]),
    };
    let before = store.clock().now();
    let created = store.create_application(&environment, fields.clone(), None).await.unwrap();
    assert!(!created.replayed);
    let application = created.item;
    assert_eq!(application.environment, environment);
    assert_eq!(application.uid, fields.uid);
    assert_eq!(application.name, fields.name);
    assert_eq!(application.throttle_rate, Some(7));
    assert_eq!(application.metadata, fields.metadata);
    assert!(application.created_at >= before && application.created_at <= store.clock().now());
    assert_eq!(application.updated_at, application.created_at);
    for reference in [Ref::Id(application.id), Ref::Uid(uid("customer-1"))] {
        assert_eq!(store.application(&environment, &reference).await.unwrap().as_ref(), Some(&application));
    }
    let unknown = store.application(&environment, &Ref::Uid(uid("customer-2"))).await.unwrap();
    assert_eq!(unknown, None);
}

pub async fn a_uid_is_unique_in_its_environment(store: &dyn Store) {
    let fields = ApplicationFields { uid: Some(uid("same")), ..named("first") };
    let first = store.create_application(&environment("a"), fields.clone(), None).await.unwrap().item;
    let again = store.create_application(&environment("a"), fields.clone(), None).await;
    assert!(matches!(again, Err(WriteError::Taken)), "{again:?}");
    let elsewhere = store.create_application(&environment("b"), fields.clone(), None).await.unwrap().item;
    assert_ne!(elsewhere.id, first.id);
    let other = store.create_application(&environment("a"), named("second"), None).await.unwrap().item;
    let renamed = store.replace_application(&environment("a"), other.id, other.version, fields.clone()).await;
    assert!(matches!(renamed, Err(WriteError::Taken)), "{renamed:?}");
    let itself = store.replace_application(&environment("a"), first.id, first.version, fields).await;
    assert!(itself.is_ok(), "keeping the own uid is no conflict: {itself:?}");
}

pub async fn of_many_creations_with_one_uid_one_succeeds(store: &dyn Store) {
    let environment = environment("a");
    let creations = (0..20).map(|number| {
        let fields = ApplicationFields { uid: Some(uid("same")), ..named(&number.to_string()) };
        store.create_application(&environment, fields, None)
    });
    let results = futures_util::future::join_all(creations).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Taken))), "{results:?}");
}

pub async fn replacing_an_application_replaces_every_field(store: &dyn Store) {
    let environment = environment("a");
    let fields = ApplicationFields {
        uid: Some(uid("old")),
        throttle_rate: Some(7),
        metadata: metadata(&[("a", "1")]),
        ..named("old")
    };
    let created = store.create_application(&environment, fields, None).await.unwrap().item;
    store.clock().advance(SECOND);
    let replaced =
        store.replace_application(&environment, created.id, created.version, named("new")).await.unwrap();
    assert_eq!((replaced.id, replaced.created_at), (created.id, created.created_at));
    assert!(replaced.updated_at > created.updated_at);
    assert_eq!((replaced.name.as_str(), replaced.uid.as_ref(), replaced.throttle_rate), ("new", None, None));
    assert!(replaced.metadata.is_empty());
    let read = store.application(&environment, &Ref::Id(created.id)).await.unwrap();
    assert_eq!(read, Some(replaced));
    assert_eq!(store.application(&environment, &Ref::Uid(uid("old"))).await.unwrap(), None);
    let reused = ApplicationFields { uid: Some(uid("old")), ..named("third") };
    store.create_application(&environment, reused, None).await.expect("a uid that was given up is free");
    let unknown = store.ids().next(store.clock().now());
    let missing = store.replace_application(&environment, unknown, created.version, named("none")).await;
    assert!(matches!(missing, Err(WriteError::Missing)), "{missing:?}");
}

pub async fn a_change_of_an_application_made_from_an_older_version_is_refused(store: &dyn Store) {
    let environment = environment("a");
    let created = store.create_application(&environment, named("first"), None).await.unwrap().item;
    let replace =
        |from: u64, name: &str| store.replace_application(&environment, created.id, from, named(name));
    let newer = replace(created.version, "second").await.unwrap();
    assert!(newer.version > created.version);
    let stale = replace(created.version, "third").await;
    assert!(matches!(stale, Err(WriteError::Stale)), "{stale:?}");
    let read = store.application(&environment, &Ref::Id(created.id)).await.unwrap();
    assert_eq!(read, Some(newer.clone()));
    let changes = (0..10).map(|number| replace(newer.version, &number.to_string())).collect::<Vec<_>>();
    let results = futures_util::future::join_all(changes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Stale))), "{results:?}");
}

pub async fn a_deleted_application_is_gone_and_its_uid_is_free(store: &dyn Store) {
    let environment = environment("a");
    let fields = ApplicationFields { uid: Some(uid("customer")), ..named("first") };
    let created = store.create_application(&environment, fields.clone(), None).await.unwrap().item;
    assert!(store.delete_application(&environment, created.id).await.unwrap());
    assert!(!store.delete_application(&environment, created.id).await.unwrap());
    for reference in [Ref::Id(created.id), Ref::Uid(uid("customer"))] {
        assert_eq!(store.application(&environment, &reference).await.unwrap(), None);
    }
    let listed = store.applications(&environment, ApplicationFilter::default(), first(10)).await.unwrap();
    assert!(listed.items.is_empty());
    let missing = store.replace_application(&environment, created.id, created.version, named("back")).await;
    assert!(matches!(missing, Err(WriteError::Missing)), "{missing:?}");
    let again = store.create_application(&environment, fields, None).await.unwrap().item;
    assert_ne!(again.id, created.id);
}

/// LIFE-1.
pub async fn deleting_an_application_cancels_its_deliveries(store: &dyn Store) {
    let scope = application(store).await;
    let endpoint_id = endpoint(store, &scope).await;
    publish(store, message(&scope)).await;
    let leased = claim_one(store).await;
    publish(store, message(&scope)).await;
    assert!(store.delete_application(&scope.environment, scope.application).await.unwrap());
    assert!(claim(store).await.is_empty());
    assert_eq!(store.next_due().await.unwrap(), None);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    assert!(store.send_settings(&scope, endpoint_id).await.unwrap().is_none());
    assert_eq!(store.endpoint(&scope, &Ref::Id(endpoint_id)).await.unwrap(), None);
    assert_eq!(record(store, &leased, NextStep::Delivered).await, Recorded::Stored(State::Cancelled));
    let refused = try_publish(store, message(&scope)).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
}

pub async fn applications_are_listed_by_page_in_both_directions(store: &dyn Store) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(application(store).await.application);
    }
    application_in(store, "b").await;
    let environment = environment("a");
    for (order, expected) in
        [(Order::Ascending, ids.clone()), (Order::Descending, ids.iter().rev().copied().collect::<Vec<_>>())]
    {
        let page = async |cursor, backward| {
            let request = PageRequest { limit: 3, order, cursor, backward };
            let page = store.applications(&environment, ApplicationFilter::default(), request).await.unwrap();
            (page.items.iter().map(|item| item.id).collect::<Vec<_>>(), page.done)
        };
        assert_eq!(page(None, false).await, (expected[..3].to_vec(), false));
        assert_eq!(page(Some(expected[2]), false).await, (expected[3..6].to_vec(), false));
        assert_eq!(page(Some(expected[5]), false).await, (expected[6..].to_vec(), true));
        assert_eq!(page(Some(expected[6]), false).await, (vec![], true));
        assert_eq!(page(Some(expected[6]), true).await, (expected[3..6].to_vec(), false));
        assert_eq!(page(Some(expected[3]), true).await, (expected[..3].to_vec(), true));
        assert_eq!(page(None, true).await, (expected[4..].to_vec(), false));
    }
}

pub async fn applications_are_filtered_by_their_endpoints(store: &dyn Store) {
    let without = application(store).await;
    let enabled = application(store).await;
    endpoint(store, &enabled).await;
    let switched = endpoint(store, &enabled).await;
    disable(store, &enabled, switched).await;
    let all_disabled = application(store).await;
    let only = endpoint(store, &all_disabled).await;
    disable(store, &all_disabled, only).await;
    let deleted = application(store).await;
    let gone = endpoint(store, &deleted).await;
    store.delete_endpoint(&deleted, gone).await.unwrap();
    let list = async |with_endpoints, not_all_disabled| {
        let filter = ApplicationFilter { with_endpoints, not_all_disabled };
        let page = store.applications(&environment("a"), filter, first(10)).await.unwrap();
        page.items.iter().map(|item| item.id).collect::<Vec<_>>()
    };
    let [without, enabled, all_disabled, deleted] =
        [without, enabled, all_disabled, deleted].map(|scope| scope.application);
    assert_eq!(list(false, false).await, [without, enabled, all_disabled, deleted]);
    assert_eq!(list(true, false).await, [enabled, all_disabled]);
    assert_eq!(list(false, true).await, [without, enabled, deleted]);
    assert_eq!(list(true, true).await, [enabled]);
}
