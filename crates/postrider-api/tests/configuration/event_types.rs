//! Event types.

use crate::harness::Api;
use postrider_model::{access::Scope, id::ApplicationId};
use serde_json::json;

#[tokio::test]
async fn an_event_type_is_created_archived_and_revived() {
    let api = Api::start().await;
    let schemas = json!({"1": {"type": "object"}});
    let given = json!({"name": "invoice.paid", "description": "d", "schemas": schemas, "featureFlag": null});
    let created = api.post("/event-type", given.clone()).await;
    assert_eq!(created.is(201).body["schemas"], schemas);
    let taken = api.post("/event-type", given.clone()).await;
    assert_eq!(taken.is(409).body["code"], "event_type_exists");
    let list = api.get("/event-type").await;
    assert!(list.is(200).body["data"][0]["schemas"].is_null());
    let list = api.get("/event-type?with_content=true").await;
    assert_eq!(list.body["data"][0]["schemas"], schemas);
    assert_eq!(list.body["iterator"], "invoice.paid");
    api.delete("/event-type/invoice.paid").await.is(204);
    assert_eq!(api.get("/event-type").await.body["data"], json!([]));
    assert_eq!(api.get("/event-type?include_archived=true").await.body["data"][0]["archived"], true);
    let revived = api.post("/event-type", json!({"name": "invoice.paid", "description": "new"})).await;
    assert_eq!((&revived.is(201).body["archived"], &revived.body["schemas"]), (&json!(false), &json!(null)));
    api.delete("/event-type/invoice.paid?expunge=true").await.is(204);
    api.get("/event-type/invoice.paid").await.is(404);
}

#[tokio::test]
async fn an_event_type_is_replaced_and_patched() {
    let api = Api::start().await;
    api.put("/event-type/a.b", json!({"name": "ignored", "description": "1", "groupName": "g"}))
        .await
        .is(201);
    let replaced = api.put("/event-type/a.b", json!({"description": "2"})).await;
    assert_eq!((&replaced.is(200).body["name"], &replaced.body["groupName"]), (&json!("a.b"), &json!(null)));
    let patched = api
        .patch("/event-type/a.b", json!({"schemas": {}, "featureFlags": ["beta"], "deprecated": true}))
        .await;
    let body = &patched.is(200).body;
    assert_eq!(
        (&body["schemas"], &body["featureFlag"], &body["description"]),
        (&json!({}), &json!("beta"), &json!("2"))
    );
    let cleared = api.patch("/event-type/a.b", json!({"schemas": null, "featureFlags": null})).await;
    assert!(cleared.body["schemas"].is_null() && cleared.body["featureFlags"].is_null());
    api.patch("/event-type/absent", json!({})).await.is(404);
    api.put("/event-type/a.b", json!({"description": "x", "schemas": {"1": {"type": "nope"}}})).await.is(422);
    api.post("/event-type", json!({"description": "x"})).await.is(422);
    api.post("/event-type", json!({"name": "a b", "description": "x"})).await.is(422);
}

#[tokio::test]
async fn types_behind_a_flag_are_seen_by_tokens_that_have_it() {
    let api = Api::start().await;
    api.post("/event-type", json!({"name": "hidden", "description": "", "featureFlags": ["beta"]}))
        .await
        .is(201);
    api.event_type("open").await;
    let id = ApplicationId::parse(&api.app("a").await).unwrap();
    let with = api.key(Scope::Application { id, feature_flags: ["beta".to_owned()].into() }).await;
    let without = api.key(Scope::Application { id, feature_flags: [].into() }).await;
    api.with(&with, "GET", "/event-type/hidden", None).await.is(200);
    api.with(&without, "GET", "/event-type/hidden", None).await.is(404);
    let list = api.with(&without, "GET", "/event-type", None).await;
    assert_eq!(list.body["data"].as_array().unwrap().len(), 1);
    let body = json!({"url": "https://example.com", "eventTypes": ["hidden"]});
    api.with(&without, "POST", "/app/a/endpoint", Some(body.clone())).await.is(422);
    api.with(&with, "POST", "/app/a/endpoint", Some(body)).await.is(201);
}
