//! Behaviours of event types.

use super::fixture::*;
use crate::{
    Store,
    error::WriteError,
    event_types::{EventTypeFields, EventTypeFilter},
    page::{Order, PageRequest},
};
use std::collections::BTreeSet;

fn described(text: &str) -> EventTypeFields {
    EventTypeFields { description: text.to_owned(), ..EventTypeFields::default() }
}

fn flags(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub async fn a_created_event_type_reads_back(store: &dyn Store) {
    let environment = environment("a");
    let name = event_type("invoice.paid");
    let wanted = EventTypeFields {
        description: "eine Rechnung wurde bezahlt: ü".to_owned(),
        archived: false,
        deprecated: true,
        schemas: Some(r#"{"1": {"type": "object"}}"#.to_owned()),
        feature_flags: flags(&["beta", "alpha"]),
        group_name: Some("billing".to_owned()),
    };
    let created = store.create_event_type(&environment, name.clone(), wanted.clone(), None).await.unwrap();
    assert!(!created.replayed);
    let stored = created.item;
    assert_eq!(stored.name, name);
    assert_eq!(stored.description, wanted.description);
    assert_eq!((stored.archived, stored.deprecated), (false, true));
    assert_eq!(stored.schemas, wanted.schemas);
    assert_eq!(stored.feature_flags, wanted.feature_flags);
    assert_eq!(stored.group_name, wanted.group_name);
    assert_eq!(store.event_type(&environment, &name).await.unwrap(), Some(stored));
    assert_eq!(store.event_type(&environment, &event_type("other")).await.unwrap(), None);
}

pub async fn an_event_type_is_created_once_per_environment(store: &dyn Store) {
    let name = event_type("invoice.paid");
    store.create_event_type(&environment("a"), name.clone(), described("first"), None).await.unwrap();
    let again = store.create_event_type(&environment("a"), name.clone(), described("second"), None).await;
    assert!(matches!(again, Err(WriteError::Taken)), "{again:?}");
    store.create_event_type(&environment("b"), name.clone(), described("theirs"), None).await.unwrap();
    let read = store.event_type(&environment("a"), &name).await.unwrap().expect("it exists");
    assert_eq!(read.description, "first");
}

pub async fn an_archived_event_type_is_revived_by_creating_it(store: &dyn Store) {
    let environment = environment("a");
    let name = event_type("invoice.paid");
    let created =
        store.create_event_type(&environment, name.clone(), described("first"), None).await.unwrap().item;
    assert!(store.delete_event_type(&environment, &name, false).await.unwrap());
    let archived = store.event_type(&environment, &name).await.unwrap().expect("archived ones are found");
    assert!(archived.archived);
    assert_eq!(archived.description, "first");
    store.clock().advance(SECOND);
    let revived =
        store.create_event_type(&environment, name.clone(), described("second"), None).await.unwrap().item;
    assert!(!revived.archived && revived.description == "second");
    assert!(revived.updated_at > created.updated_at);
}

pub async fn putting_an_event_type_creates_or_replaces_it(store: &dyn Store) {
    let environment = environment("a");
    let name = event_type("invoice.paid");
    let (first_put, created) =
        store.put_event_type(&environment, name.clone(), described("first")).await.unwrap();
    assert!(created && first_put.description == "first");
    store.clock().advance(SECOND);
    let wanted = EventTypeFields { archived: true, group_name: Some("g".to_owned()), ..described("second") };
    let (second, created) = store.put_event_type(&environment, name.clone(), wanted).await.unwrap();
    assert!(!created && second.archived && second.group_name.as_deref() == Some("g"));
    assert_eq!(second.created_at, first_put.created_at);
    assert!(second.updated_at > first_put.updated_at);
    assert_eq!(store.event_type(&environment, &name).await.unwrap(), Some(second));
}

pub async fn an_expunged_event_type_is_gone(store: &dyn Store) {
    let environment = environment("a");
    let name = event_type("invoice.paid");
    assert!(!store.delete_event_type(&environment, &name, true).await.unwrap());
    assert!(!store.delete_event_type(&environment, &name, false).await.unwrap());
    store.create_event_type(&environment, name.clone(), described("first"), None).await.unwrap();
    assert!(store.delete_event_type(&environment, &name, true).await.unwrap());
    assert_eq!(store.event_type(&environment, &name).await.unwrap(), None);
    store.create_event_type(&environment, name, described("again"), None).await.unwrap();
}

pub async fn event_types_are_listed_by_name_in_both_directions(store: &dyn Store) {
    let environment = environment("a");
    for name in ["delta", "alpha", "echo", "bravo", "charlie"] {
        store.create_event_type(&environment, event_type(name), described(""), None).await.unwrap();
    }
    for (order, expected) in [
        (Order::Ascending, ["alpha", "bravo", "charlie", "delta", "echo"]),
        (Order::Descending, ["echo", "delta", "charlie", "bravo", "alpha"]),
    ] {
        let page = async |cursor: Option<&str>, backward| {
            let request = PageRequest { limit: 2, order, cursor: cursor.map(event_type), backward };
            let page = store.event_types(&environment, EventTypeFilter::default(), request).await.unwrap();
            (page.items.iter().map(|item| item.name.as_str().to_owned()).collect::<Vec<_>>(), page.done)
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(page(None, false).await, (names(&expected[..2]), false));
        assert_eq!(page(Some(expected[1]), false).await, (names(&expected[2..4]), false));
        assert_eq!(page(Some(expected[3]), false).await, (names(&expected[4..]), true));
        assert_eq!(page(Some(expected[4]), true).await, (names(&expected[2..4]), false));
        assert_eq!(page(Some("bz"), order == Order::Descending).await.0.len(), 2, "a cursor need not exist");
    }
}

pub async fn event_types_are_filtered_by_archive_and_flags(store: &dyn Store) {
    let environment = environment("a");
    for (name, archived, flagged) in [
        ("archived", true, &[][..]),
        ("both", false, &["alpha", "beta"]),
        ("gamma", false, &["gamma"]),
        ("open", false, &[]),
    ] {
        let wanted = EventTypeFields { archived, feature_flags: flags(flagged), ..described("") };
        store.put_event_type(&environment, event_type(name), wanted).await.unwrap();
    }
    let list = async |include_archived, visible_with: Option<&[&str]>| {
        let filter = EventTypeFilter { include_archived, visible_with: visible_with.map(flags) };
        let page = store.event_types(&environment, filter, first(10)).await.unwrap();
        page.items.iter().map(|item| item.name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(false, None).await, ["both", "gamma", "open"]);
    assert_eq!(list(true, None).await, ["archived", "both", "gamma", "open"]);
    assert_eq!(list(false, Some(&[])).await, ["open"]);
    assert_eq!(list(false, Some(&["beta"])).await, ["both", "open"]);
    assert_eq!(list(true, Some(&["beta", "gamma", "other"])).await, ["archived", "both", "gamma", "open"]);
}
