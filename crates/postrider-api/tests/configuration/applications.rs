//! Applications.

use crate::harness::Api;
use serde_json::json;

#[tokio::test]
async fn an_application_is_created_read_replaced_patched_and_deleted() {
    let api = Api::start().await;
    let created = api
        .post("/app", json!({"name": "Acme", "uid": "acme", "metadata": {"plan": "gold"}, "rateLimit": 7}))
        .await;
    created.is(201);
    let id = created.text("id");
    assert!(id.starts_with("app_") && id.len() == 31);
    assert_eq!(created.body["throttleRate"], 7);
    for name in [id.as_str(), "acme"] {
        let read = api.get(&format!("/app/{name}")).await;
        assert_eq!(read.is(200).body, created.body);
    }
    let patched = api.patch(&format!("/app/{id}"), json!({"throttleRate": null, "name": "Acme Ltd"})).await;
    patched.is(200);
    assert_eq!((&patched.body["uid"], &patched.body["name"]), (&json!("acme"), &json!("Acme Ltd")));
    assert!(patched.body["throttleRate"].is_null() && patched.body.get("rateLimit").is_none());
    let replaced = api.put("/app/acme", json!({"name": "New"})).await;
    replaced.is(200);
    assert_eq!((&replaced.body["id"], &replaced.body["metadata"]), (&json!(id), &json!({})));
    assert!(replaced.body["uid"].is_null());
    let deleted = api.delete(&format!("/app/{id}")).await;
    assert!(deleted.is(204).bytes.is_empty());
    let gone = api.get(&format!("/app/{id}")).await;
    assert_eq!(gone.is(404).body, json!({"code": "not_found", "detail": "Application not found"}));
    api.delete(&format!("/app/{id}")).await.is(404);
    api.post("/app", json!({"name": "again", "uid": "acme"})).await.is(201);
}

#[tokio::test]
async fn changes_of_different_members_at_the_same_time_all_take_effect() {
    let api = Api::start().await;
    api.app("a").await;
    for round in 1..=10 {
        let (name, plan) = (format!("name {round}"), round.to_string());
        let changes = [
            json!({ "name": name }),
            json!({ "throttleRate": round }),
            json!({ "metadata": { "plan": plan } }),
        ];
        let changes = changes.map(|change| async {
            api.patch("/app/a", change).await.is(200);
        });
        futures_util::future::join_all(changes).await;
        let read = api.get("/app/a").await;
        assert_eq!(
            (&read.body["name"], &read.body["throttleRate"], &read.body["metadata"]),
            (&json!(name), &json!(round), &json!({ "plan": plan }))
        );
    }
}

#[tokio::test]
async fn a_taken_uid_is_a_conflict_unless_the_existing_one_is_asked_for() {
    let api = Api::start().await;
    let first = api.post("/app", json!({"name": "first", "uid": "u"})).await;
    let second = api.post("/app", json!({"name": "second", "uid": "u"})).await;
    assert_eq!(second.is(409).body["code"], "conflict");
    let found = api.post("/app?get_if_exists=true", json!({"name": "other", "uid": "u"})).await;
    assert_eq!(found.is(200).body, first.body);
    api.post("/app?get_if_exists=true", json!({"name": "new", "uid": "v"})).await.is(201);
}

#[tokio::test]
async fn putting_to_an_unknown_name_creates_with_the_uid_of_the_body() {
    let api = Api::start().await;
    let created = api.put("/app/fake-id", json!({"name": "x"})).await;
    assert!(created.is(201).body["uid"].is_null());
    let created = api.put("/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2", json!({"name": "x", "uid": "mine"})).await;
    assert_eq!(created.is(201).body["uid"], "mine");
}

#[tokio::test]
async fn a_repeated_post_with_the_same_key_creates_nothing() {
    let api = Api::start().await;
    let key = [("idempotency-key", "k1")];
    let first = api.send("POST", "/app", &key, Some(json!({"name": "first"}))).await;
    let second = api.send("POST", "/app", &key, Some(json!({"name": "other"}))).await;
    assert_eq!(second.is(201).body, first.is(201).body);
    let other_query =
        api.send("POST", "/app?get_if_exists=false", &key, Some(json!({"name": "other"}))).await;
    assert_ne!(other_query.is(201).body["id"], first.body["id"]);
    for key in ["", "a b", &"k".repeat(257)] {
        let refused = api.send("POST", "/app", &[("idempotency-key", key)], Some(json!({"name": "x"}))).await;
        refused.is(400);
    }
    let list = api.get("/app").await;
    assert_eq!(list.body["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_go_forward_and_backward() {
    let api = Api::start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(api.post("/app", json!({"name": number.to_string()})).await.text("id"));
    }
    let listed = |body: &serde_json::Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = api.get("/app?limit=2").await;
    assert_eq!(listed(&first.is(200).body), ids[..2]);
    assert_eq!(first.body["done"], false);
    let second = api.get(&format!("/app?limit=2&iterator={}", first.text("iterator"))).await;
    assert_eq!(listed(&second.body), ids[2..4]);
    let last = api.get(&format!("/app?limit=2&iterator={}", second.text("iterator"))).await;
    assert_eq!((listed(&last.body), &last.body["done"]), (ids[4..].to_vec(), &json!(true)));
    assert_eq!(last.text("iterator"), ids[4]);
    let back = api.get(&format!("/app?limit=2&iterator={}", last.text("prevIterator"))).await;
    assert_eq!((listed(&back.body), &back.body["done"]), (ids[2..4].to_vec(), &json!(false)));
    let reversed = api.get("/app?order=descending&limit=1").await;
    assert_eq!(listed(&reversed.body), ids[4..]);
    for query in ["limit=0", "limit=300", "limit=x", "iterator=BAD-$$$ITERATOR", "order=up"] {
        let refused = api.get(&format!("/app?{query}")).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"][0], "query");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let api = Api::start().await;
    for (body, member) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": 7}), "name"),
        (json!({"name": "x", "uid": "app_x"}), "uid"),
        (json!({"name": "x", "uid": "a b"}), "uid"),
        (json!({"name": "x", "throttleRate": 0}), "throttleRate"),
        (json!({"name": "x", "throttleRate": 65536}), "throttleRate"),
        (json!({"name": "x", "metadata": {"k": "v".repeat(5000)}}), "metadata"),
        (json!({"name": "x", "metadata": {"k": 1}}), "metadata"),
    ] {
        let refused = api.post("/app", body).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"][1], member, "{:?}", refused.body);
    }
    api.patch("/app/absent", json!({"name": "x"})).await.is(404);
    let id = api.post("/app", json!({"name": "x", "metadata": null})).await.text("id");
    api.patch(&format!("/app/{id}"), json!({"name": null})).await.is(422);
}
