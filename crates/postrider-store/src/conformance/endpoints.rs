//! Behaviours of endpoints: configuration and lists. Their credentials are in `credentials`.

use super::fixture::*;
use crate::{
    Store,
    endpoints::EndpointFilter,
    error::WriteError,
    page::{Order, PageRequest},
};
use postrider_model::{
    application::Ref, endpoint::DisabledReason, filter::Filter, headers::CustomHeaders, retry::RetryOverride,
};

pub async fn a_created_endpoint_is_found_by_id_and_by_uid(store: &dyn Store) {
    let scope = application(store).await;
    let mut wanted = fields();
    wanted.uid = Some(uid("main"));
    wanted.url = url("https://hooks.example.com:8443/a/b?c=d%20e");
    wanted.description.push_str("die Hauptsache, ü");
    wanted.throttle_rate = Some(20);
    wanted.filter =
        Filter { event_types: [event_type("a.b"), event_type("c")].into(), channels: channels(&["x", "y"]) };
    wanted.metadata = metadata(&[("team", "blue"), ("empty", "")]);
    wanted.retry =
        RetryOverride { waits: Some(vec![SECOND, std::time::Duration::from_millis(1)]), deadline: None };
    wanted.legacy_version = 3;
    let created = store.create_endpoint(&scope, new_endpoint(wanted.clone()), None).await.unwrap();
    assert!(!created.replayed);
    let endpoint = created.item;
    assert_eq!(fields_of(&endpoint), wanted);
    assert_eq!(endpoint.application, scope.application);
    assert_eq!(endpoint.created_at, endpoint.updated_at);
    for reference in [Ref::Id(endpoint.id), Ref::Uid(uid("main"))] {
        assert_eq!(store.endpoint(&scope, &reference).await.unwrap().as_ref(), Some(&endpoint));
    }
    assert_eq!(store.endpoint(&scope, &Ref::Uid(uid("other"))).await.unwrap(), None);
    let settings = store.send_settings(&scope, endpoint.id).await.unwrap().expect("it exists");
    assert_eq!(settings.endpoint, endpoint);
}

pub async fn an_endpoint_without_own_values_has_none(store: &dyn Store) {
    let scope = application(store).await;
    let mut wanted = fields();
    wanted.retry = RetryOverride::default();
    let endpoint = store.create_endpoint(&scope, new_endpoint(wanted.clone()), None).await.unwrap().item;
    assert_eq!(fields_of(&read_endpoint(store, &scope, endpoint.id).await), wanted);
    let empty = RetryOverride { waits: Some(vec![]), deadline: None };
    change_endpoint(store, &scope, endpoint.id, |fields| fields.retry = empty.clone()).await;
    let read = read_endpoint(store, &scope, endpoint.id).await;
    assert_eq!(read.retry, empty, "a schedule without waits is not the same as none");
    let deadline = RetryOverride { waits: None, deadline: Some(HOUR) };
    change_endpoint(store, &scope, endpoint.id, |fields| fields.retry = deadline.clone()).await;
    let read = read_endpoint(store, &scope, endpoint.id).await;
    assert_eq!(read.retry, deadline, "a deadline needs no schedule");
}

pub async fn an_endpoint_below_no_application_cannot_be(store: &dyn Store) {
    let scope = application(store).await;
    store.delete_application(&scope.environment, scope.application).await.unwrap();
    let refused = store.create_endpoint(&scope, new_endpoint(fields()), None).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
}

pub async fn an_endpoint_uid_is_unique_in_its_application_and_free_after_deletion(store: &dyn Store) {
    let scope = application(store).await;
    let first = endpoint_with(store, &scope, |fields| fields.uid = Some(uid("same"))).await;
    let mut again = fields();
    again.uid = Some(uid("same"));
    let refused = store.create_endpoint(&scope, new_endpoint(again.clone()), None).await;
    assert!(matches!(refused, Err(WriteError::Taken)), "{refused:?}");
    let second = endpoint_with(store, &scope, |_| ()).await;
    let refused = store.replace_endpoint(&scope, second.id, second.version, again.clone()).await;
    assert!(matches!(refused, Err(WriteError::Taken)), "{refused:?}");
    assert_eq!(read_endpoint(store, &scope, second.id).await, second, "nothing was changed");
    let elsewhere = application(store).await;
    store.create_endpoint(&elsewhere, new_endpoint(again.clone()), None).await.unwrap();
    assert!(store.delete_endpoint(&scope, first.id).await.unwrap());
    let reused = store.create_endpoint(&scope, new_endpoint(again), None).await.unwrap().item;
    let found = store.endpoint(&scope, &Ref::Uid(uid("same"))).await.unwrap().expect("it exists");
    assert_eq!(found.id, reused.id);
}

pub async fn replacing_an_endpoint_replaces_every_field(store: &dyn Store) {
    let scope = application(store).await;
    let created = endpoint_with(store, &scope, |fields| {
        fields.uid = Some(uid("old"));
        fields.throttle_rate = Some(5);
        fields.metadata = metadata(&[("a", "1")]);
        fields.filter.channels = channels(&["eu"]);
    })
    .await;
    store.clock().advance(SECOND);
    let mut wanted = fields();
    wanted.url = url("https://elsewhere.example.org/");
    wanted.retry = RetryOverride::default();
    let replaced = store.replace_endpoint(&scope, created.id, created.version, wanted.clone()).await.unwrap();
    assert_eq!(fields_of(&replaced), wanted);
    assert_eq!((replaced.id, replaced.created_at), (created.id, created.created_at));
    assert!(replaced.version > created.version && replaced.updated_at > created.updated_at);
    assert_eq!(read_endpoint(store, &scope, created.id).await, replaced);
    let settings = store.send_settings(&scope, created.id).await.unwrap().expect("it exists");
    assert_eq!(settings.endpoint, replaced, "what is sent with changes at once");
}

/// LIFE-9.
pub async fn a_change_made_from_an_older_version_is_refused(store: &dyn Store) {
    let scope = application(store).await;
    let created = endpoint_with(store, &scope, |_| ()).await;
    let newer = change_endpoint(store, &scope, created.id, |fields| fields.legacy_version = 2).await;
    let stale = store.replace_endpoint(&scope, created.id, created.version, fields()).await;
    assert!(matches!(stale, Err(WriteError::Stale)), "{stale:?}");
    assert_eq!(read_endpoint(store, &scope, created.id).await, newer);
    let changes = (0..10).map(|_| store.replace_endpoint(&scope, created.id, newer.version, fields()));
    let results = futures_util::future::join_all(changes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Stale))), "{results:?}");
}

pub async fn an_endpoint_disabled_by_request_says_so(store: &dyn Store) {
    let scope = application(store).await;
    let created = endpoint_with(store, &scope, |fields| fields.disabled = true).await;
    let disabled = created.disabled.clone().expect("it was created disabled");
    assert_eq!(disabled.reason, DisabledReason::Requested);
    store.clock().advance(HOUR);
    let kept = change_endpoint(store, &scope, created.id, |fields| fields.legacy_version = 2).await;
    assert_eq!(kept.disabled, Some(disabled.clone()), "still disabled since then");
    assert_eq!(enable(store, &scope, created.id).await.disabled, None);
    let again = disable(store, &scope, created.id).await.disabled.expect("it is disabled");
    assert!(again.at > disabled.at);
}

pub async fn a_deleted_endpoint_is_gone_with_all_that_is_set_below_it(store: &dyn Store) {
    let scope = application(store).await;
    let kept = endpoint(store, &scope).await;
    let created = endpoint_with(store, &scope, |_| ()).await;
    assert!(store.delete_endpoint(&scope, created.id).await.unwrap());
    assert!(!store.delete_endpoint(&scope, created.id).await.unwrap());
    assert_eq!(store.endpoint(&scope, &Ref::Id(created.id)).await.unwrap(), None);
    assert!(store.headers(&scope, created.id).await.unwrap().is_none());
    assert!(store.signing_secret(&scope, created.id).await.unwrap().is_none());
    assert!(store.oauth(&scope, created.id).await.unwrap().is_none());
    assert!(store.send_settings(&scope, created.id).await.unwrap().is_none());
    let refused = store.replace_endpoint(&scope, created.id, created.version, fields()).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    let refused = store.replace_headers(&scope, created.id, created.version, CustomHeaders::default()).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    let refused = store.replace_oauth(&scope, created.id, created.version, None).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    let refused = store.rotate_signing_secret(&scope, created.id, secret(2), HOUR, None).await;
    assert!(matches!(refused, Err(WriteError::Missing)), "{refused:?}");
    let listed = store.endpoints(&scope, EndpointFilter::default(), first(10)).await.unwrap();
    assert_eq!(listed.items.iter().map(|item| item.id).collect::<Vec<_>>(), [kept]);
}

pub async fn endpoints_are_listed_by_page_in_both_directions(store: &dyn Store) {
    let scope = application(store).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(endpoint(store, &scope).await);
    }
    endpoint(store, &application(store).await).await;
    for (order, expected) in
        [(Order::Ascending, ids.clone()), (Order::Descending, ids.iter().rev().copied().collect::<Vec<_>>())]
    {
        let page = async |cursor, backward| {
            let request = PageRequest { limit: 2, order, cursor, backward };
            let page = store.endpoints(&scope, EndpointFilter::default(), request).await.unwrap();
            (page.items.iter().map(|item| item.id).collect::<Vec<_>>(), page.done)
        };
        assert_eq!(page(None, false).await, (expected[..2].to_vec(), false));
        assert_eq!(page(Some(expected[1]), false).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[3]), false).await, (expected[4..].to_vec(), true));
        assert_eq!(page(Some(expected[4]), true).await, (expected[2..4].to_vec(), false));
        assert_eq!(page(Some(expected[2]), true).await, (expected[..2].to_vec(), true));
    }
}

pub async fn endpoints_are_searched_by_url_state_and_metadata(store: &dyn Store) {
    let scope = application(store).await;
    let create = async |text: &str, disabled, entries: &[(&str, &str)]| {
        endpoint_with(store, &scope, |fields| {
            fields.url = url(text);
            fields.disabled = disabled;
            fields.metadata = metadata(entries);
        })
        .await
        .id
    };
    let plain = create("https://one.example.com/Hook", false, &[("team", "blue"), ("tier", "1")]).await;
    let percent = create("https://two.example.com/100%25_done", true, &[("team", "blue")]).await;
    let other = create("https://three.example.org/x", false, &[("team", "red")]).await;
    let list = async |url: Option<&str>, disabled, entries: &[(&str, &str)]| {
        let filter =
            EndpointFilter { url_contains: url.map(str::to_owned), disabled, metadata: metadata(entries) };
        let page = store.endpoints(&scope, filter, first(10)).await.unwrap();
        page.items.iter().map(|item| item.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, &[]).await, [plain, percent, other]);
    assert_eq!(list(Some("EXAMPLE.com"), None, &[]).await, [plain, percent]);
    assert_eq!(list(Some("/hook"), None, &[]).await, [plain]);
    assert_eq!(list(Some("%25_d"), None, &[]).await, [percent]);
    for wildcard in ["%example", "on_.example", "one*", "o?e", "'", "\\"] {
        assert!(list(Some(wildcard), None, &[]).await.is_empty(), "{wildcard} is no wildcard");
    }
    assert_eq!(list(None, Some(true), &[]).await, [percent]);
    assert_eq!(list(None, Some(false), &[]).await, [plain, other]);
    assert_eq!(list(None, None, &[("team", "blue")]).await, [plain, percent]);
    assert_eq!(list(None, None, &[("team", "blue"), ("tier", "1")]).await, [plain]);
    assert_eq!(list(None, None, &[("team", "")]).await, []);
    assert_eq!(list(Some("example"), Some(false), &[("team", "red")]).await, [other]);
}
