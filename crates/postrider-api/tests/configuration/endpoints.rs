//! Endpoints.

use crate::harness::Api;
use serde_json::{Value, json};

#[tokio::test]
async fn an_endpoint_is_created_read_replaced_patched_and_deleted() {
    let api = Api::start().await;
    api.app("a").await;
    api.event_type("invoice.paid").await;
    let given = json!({
        "url": "https://EXAMPLE.com", "uid": "mine", "filterTypes": ["invoice.paid"], "channels": ["eu"],
        "throttleRate": 9, "metadata": {"k": "v"}, "version": 3, "retrySchedule": [0.001, 5], "deadlineSeconds": 60
    });
    let created = api.post("/app/a/endpoint", given).await;
    created.is(201);
    for (member, expected) in [
        ("url", json!("https://example.com/")),
        ("eventTypes", json!(["invoice.paid"])),
        ("filterTypes", json!(["invoice.paid"])),
        ("rateLimit", json!(9)),
        ("version", json!(3)),
        ("retrySchedule", json!([0.001, 5.0])),
        ("deadlineSeconds", json!(60.0)),
        ("disabled", json!(false)),
        ("disabledReason", Value::Null),
        ("hasOauth", json!(false)),
    ] {
        assert_eq!(created.body[member], expected, "{member}");
    }
    assert_eq!(api.get("/app/a/endpoint/mine").await.is(200).body, created.body);
    let patched = api
        .patch("/app/a/endpoint/mine", json!({"eventTypes": null, "channels": null, "disabled": true}))
        .await;
    patched.is(200);
    assert_eq!(
        (&patched.body["disabled"], &patched.body["disabledReason"]),
        (&json!(true), &json!("requested"))
    );
    assert!(patched.body["eventTypes"].is_null() && patched.body["channels"].is_null());
    assert!(patched.body["disabledAt"].is_string());
    let replaced =
        api.put("/app/a/endpoint/mine", json!({"url": "https://example.com/b", "secret": "ignored"})).await;
    replaced.is(200);
    assert_eq!((&replaced.body["id"], &replaced.body["disabled"]), (&created.body["id"], &json!(false)));
    assert!(replaced.body["uid"].is_null() && replaced.body["retrySchedule"].is_null());
    let id = created.text("id");
    assert!(api.delete(&format!("/app/a/endpoint/{id}")).await.is(204).bytes.is_empty());
    let gone = api.get(&format!("/app/a/endpoint/{id}")).await;
    assert_eq!(gone.is(404).body, json!({"code": "not_found", "detail": "Entity not found"}));
    api.put("/app/a/endpoint/fresh", json!({"url": "https://example.com", "uid": "mine"})).await.is(201);
    api.post("/app/a/endpoint", json!({"url": "https://example.com", "uid": "mine"})).await.is(409);
}

#[tokio::test]
async fn a_deadline_can_be_set_without_a_schedule() {
    let api = Api::start().await;
    api.app("a").await;
    let given = json!({"url": "https://example.com", "uid": "mine", "deadlineSeconds": 60});
    let created = api.post("/app/a/endpoint", given).await;
    let shown = |body: &Value| (body["retrySchedule"].clone(), body["deadlineSeconds"].clone());
    assert_eq!(shown(&created.is(201).body), (Value::Null, json!(60.0)));
    for (change, expected) in [
        (json!({"retrySchedule": [5]}), (json!([5.0]), json!(60.0))),
        (json!({"retrySchedule": null}), (Value::Null, json!(60.0))),
        (json!({"retrySchedule": [5]}), (json!([5.0]), json!(60.0))),
        (json!({"deadlineSeconds": null}), (json!([5.0]), Value::Null)),
        (json!({"retrySchedule": null}), (Value::Null, Value::Null)),
    ] {
        let patched = api.patch("/app/a/endpoint/mine", change.clone()).await;
        assert_eq!(shown(&patched.is(200).body), expected, "{change}");
        assert_eq!(shown(&api.get("/app/a/endpoint/mine").await.body), expected, "{change}");
    }
    api.patch("/app/a/endpoint/mine", json!({"deadlineSeconds": 0})).await.is(422);
}

#[tokio::test]
async fn event_types_of_endpoints_must_exist() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    api.event_type("old").await;
    api.delete("/event-type/old").await.is(204);
    for name in ["absent", "old"] {
        let refused = api.patch(&path, json!({"eventTypes": [name]})).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"], json!(["body", "eventTypes"]));
    }
    api.patch(&path, json!({"eventTypes": []})).await.is(422);
    api.patch(&path, json!({"channels": []})).await.is(422);
}

#[tokio::test]
async fn endpoints_are_found_by_url_state_and_metadata() {
    let api = Api::start().await;
    api.app("a").await;
    for (uid, url, disabled, team) in [
        ("one", "https://one.example.com/hook", false, "blue"),
        ("two", "https://two.example.com/hook", true, "blue"),
        ("three", "https://three.example.com/other", false, "red"),
    ] {
        let body = json!({"uid": uid, "url": url, "disabled": disabled, "metadata": {"team": team}});
        api.post("/app/a/endpoint", body).await.is(201);
    }
    for (query, expected) in [
        ("", &["three", "two", "one"][..]),
        ("?url=HOOK", &["two", "one"]),
        ("?disabled=true", &["two"]),
        ("?state=enabled", &["three", "one"]),
        ("?metadata[team]=blue&state=enabled", &["one"]),
        ("?metadata%5Bteam%5D=green", &[]),
        ("?order=ascending&limit=1", &["one"]),
    ] {
        let found = api.get(&format!("/app/a/endpoint{query}")).await;
        let uids: Vec<&str> = found.is(200).body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["uid"].as_str().unwrap())
            .collect();
        assert_eq!(uids, expected, "{query}");
    }
    api.get("/app/a/endpoint?state=broken").await.is(422);
}

#[tokio::test]
async fn an_endpoint_of_another_application_does_not_exist() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    let id = path.rsplit('/').next().unwrap();
    api.app("other").await;
    for suffix in ["", "/headers", "/secret", "/oauth-config"] {
        api.get(&format!("/app/other/endpoint/{id}{suffix}")).await.is(404);
    }
    api.delete(&format!("/app/other/endpoint/{id}")).await.is(404);
    api.get(&path).await.is(200);
}

#[tokio::test]
async fn urls_that_cannot_be_delivered_to_are_refused() {
    let api = Api::start().await;
    api.app("a").await;
    for url in [
        "http://example.com",
        "ftp://example.com",
        "https://10.0.0.1",
        "https://user:pass@example.com",
        "https://localhost",
        "nonsense",
        "",
    ] {
        let refused = api.post("/app/a/endpoint", json!({"url": url})).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"], json!(["body", "url"]), "{url}");
    }
}

/// Two people who change different members at the same time both succeed, and so do fifty.
#[tokio::test]
async fn changes_at_the_same_time_all_take_effect() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com/").await;
    let changes = (0..50).map(|number| {
        let (api, path) = (&api, &path);
        async move {
            match number % 2 {
                0 => api.patch(path, json!({"description": format!("{number}")})).await.is(200),
                _ => api
                    .patch(
                        &format!("{path}/headers"),
                        json!({"headers": {format!("x-header-{number}"): "1"}}),
                    )
                    .await
                    .is(204),
            };
        }
    });
    futures_util::future::join_all(changes).await;
    let headers = api.get(&format!("{path}/headers")).await.is(200).body["headers"].clone();
    assert_eq!(headers.as_object().unwrap().len(), 25);
}

/// Whoever comes second replaces what the first one created.
#[tokio::test]
async fn upserts_at_the_same_time_create_one() {
    let api = Api::start().await;
    let together = async |path: &str, body: &Value| {
        let answers = (0..20).map(|_| api.put(path, body.clone()));
        let answers = futures_util::future::join_all(answers).await;
        let created = answers.iter().filter(|answer| answer.status() == 201).count();
        let replaced = answers.iter().filter(|answer| answer.status() == 200).count();
        assert_eq!((created, replaced), (1, 19), "{path}");
    };
    together("/app/a", &json!({"name": "a", "uid": "a"})).await;
    together("/app/a/endpoint/e", &json!({"url": "https://example.com/", "uid": "e"})).await;
    api.put("/app/b", json!({"name": "b", "uid": "a"})).await.is(409);
    api.put("/app/a/endpoint/f", json!({"url": "https://example.com/", "uid": "e"})).await.is(409);
}
