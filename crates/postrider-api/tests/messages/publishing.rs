//! Publishing: what is accepted, once, and shown as it was sent.

use crate::server::Server;
use bytes::Bytes;
use http::Method;
use postrider_model::{access::Scope, limits, outcome::Outcome, retry::NextStep};
use serde_json::{Value, json};

#[tokio::test]
async fn a_message_is_accepted_and_shown_byte_for_byte() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let payload = r#"{ "b":1e308, "a" : 12345678901234567890.10,"a":"\u00e9\u0000\/é" }"#;
    let body = format!(
        r#"{{"eventType":"document.processed","payload":{payload},"channels":["eu"],"tags":["t"],"eventId":"e-1","transformationsParams":null}}"#
    );
    let answer = server.call(&tenant.token, Method::POST, &path, None, body.into()).await;
    assert_eq!(answer.status, 202);
    assert!(String::from_utf8_lossy(&answer.body).contains(payload), "{answer:?}");
    let message = answer.json();
    assert_eq!(
        (&message["eventId"], &message["channels"], &message["tags"]),
        (&json!("e-1"), &json!(["eu"]), &json!(["t"]))
    );
    for name in [message["id"].as_str().unwrap(), "e-1"] {
        let read = server.get(&tenant.token, &format!("{path}/{name}")).await;
        assert!(String::from_utf8_lossy(&read.body).contains(payload));
        let without =
            server.get(&tenant.token, &format!("{path}/{name}/?with_content=false")).await.expect(200);
        assert_eq!(without["payload"], json!({}));
        let raw = server.get(&tenant.token, &format!("{path}/{name}/raw")).await.expect(200);
        assert_eq!(raw["payload"], payload);
    }
    assert_eq!(server.get(&tenant.token, &path).await.expect(200)["data"][0]["id"], message["id"]);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_kept_as_text() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let params = json!({"rawPayload": "<a>é</a>", "headers": {"content-type": "text/xml"}});
    let body = json!({"eventType": "a", "payload": {}, "transformationsParams": params});
    let message = server.post(&tenant.token, &path, body).await.expect(202);
    assert_eq!(message["payload"], json!({}));
    let raw = server.get(&tenant.token, &format!("{path}/{}/raw", message["id"].as_str().unwrap())).await;
    assert_eq!(raw.expect(200)["payload"], "<a>é</a>");
}

/// ING-1, P07: whoever repeats a request gets the first message, whatever the body is now.
#[tokio::test]
async fn an_idempotency_key_makes_one_message() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let other = server.tenant("b").await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let body = |n: u32| Bytes::from(json!({"eventType": "a", "payload": {"n": n}}).to_string());
    let calls = (0..50).map(|n| {
        let (server, token, path) = (server.clone(), tenant.token.clone(), path.clone());
        let body = body(n);
        tokio::spawn(async move {
            server.call(&token, Method::POST, &path, Some("key-1"), body).await.expect(202)
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "same message with the first payload");
    assert_eq!(server.get(&tenant.token, &path).await.expect(200)["data"].as_array().unwrap().len(), 1);
    let elsewhere = format!("/api/v1/app/{}/msg", other.app);
    let theirs =
        server.call(&other.token, Method::POST, &elsewhere, Some("key-1"), body(1)).await.expect(202);
    assert_ne!(theirs["id"], answers[0]["id"]);
    assert_eq!(server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await, 2);
}

#[tokio::test]
async fn an_event_id_is_taken_once() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let body = json!({"eventType": "a", "payload": {}, "eventId": "once"});
    server.post(&tenant.token, &path, body.clone()).await.expect(202);
    assert_eq!(server.post(&tenant.token, &path, body).await.expect(409)["code"], "conflict");
}

#[tokio::test]
async fn an_application_can_come_with_its_first_message() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let body = |application: Value| json!({"eventType": "a", "payload": {}, "application": application});
    let path = "/api/v1/app/new-one/msg";
    assert_eq!(
        server.post(&tenant.token, path, body(Value::Null)).await.expect(404)["detail"],
        "Application not found"
    );
    for (application, kind) in [
        (json!({"name": "x"}), "application_uid_missing"),
        (json!({"name": "x", "uid": "other"}), "application_uid_mismatch"),
    ] {
        let refused = server.post(&tenant.token, path, body(application)).await.expect(422);
        assert_eq!(refused["detail"][0]["type"], kind);
    }
    let nameless =
        server.post(&tenant.token, path, body(json!({"name": "", "uid": "new-one"}))).await.expect(422);
    assert_eq!(nameless["detail"][0]["loc"], json!(["body", "application", "name"]));
    server.post(&tenant.token, path, body(json!({"name": "x", "uid": "new-one"}))).await.expect(202);
    server.post(&tenant.token, path, body(json!({"name": "y", "uid": "ignored"}))).await.expect(202);
    assert_eq!(server.get(&tenant.token, "/api/v1/app/new-one").await.expect(200)["name"], "x");
}

/// I05: who may publish may nothing else, and whose token is for reading may not publish.
#[tokio::test]
async fn keys_for_publishing_only_publish() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let (app, endpoint) = (&tenant.app, &tenant.endpoint);
    let publisher = server.token(&tenant.environment, Scope::Publish { application: None }).await;
    let consumer = server.token_of_app(&tenant, app).await;
    let body = json!({"eventType": "a", "payload": {}, "application": {"name": "x", "uid": "new"}});
    let message = server.post(&publisher, &format!("/api/v1/app/{app}/msg"), body.clone()).await.expect(202);
    server.post(&publisher, "/api/v1/app/new/msg", body.clone()).await.expect(404);
    server.post(&consumer, &format!("/api/v1/app/{app}/msg"), body).await.expect(403);
    let id = message["id"].as_str().unwrap();
    for path in [
        format!("/api/v1/app/{app}/msg"),
        format!("/api/v1/app/{app}/msg/{id}"),
        format!("/api/v1/app/{app}/endpoint"),
        format!("/api/v1/app/{app}/endpoint/{endpoint}/secret"),
        format!("/api/v1/app/{app}/attempt/msg/{id}"),
    ] {
        assert_eq!(server.get(&publisher, &path).await.expect(403)["code"], "insufficient access", "{path}");
        server.get(&consumer, &path).await.expect(200);
    }
    server.delete(&consumer, &format!("/api/v1/app/{app}/msg/{id}/content")).await.expect(403);
}

/// A repeated request is answered with the first message; a leaked key for publishing must not read payloads by guessing
/// the keys of others' requests.
#[tokio::test]
async fn a_key_for_publishing_is_shown_no_payload_that_it_did_not_send() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let publisher = server.token(&tenant.environment, Scope::Publish { application: None }).await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let send = async |token: &str, payload: Value| {
        let body = Bytes::from(json!({"eventType": "a", "payload": payload}).to_string());
        server.call(token, Method::POST, &path, Some("invoice-1001"), body).await.expect(202)
    };
    let first = send(&tenant.token, json!({"amount": 7})).await;
    let guessed = send(&publisher, json!({})).await;
    assert_eq!((&guessed["id"], &guessed["payload"]), (&first["id"], &json!({})));
    let repeated = send(&publisher, json!({"amount": 7})).await;
    assert_eq!(repeated, first);
    assert_eq!(send(&tenant.token, json!({})).await, first);
}

/// P01, P02, P05, ING-5, ING-6.
#[tokio::test]
async fn what_is_no_message_is_refused() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/msg", tenant.app);
    let deep = format!(r#"{{"eventType":"a","payload":{}{}}}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000));
    let long = format!(r#"{{"eventType":"a","payload":{{"x":"{}"}}}}"#, "x".repeat(limits::PAYLOAD_BYTES));
    let longer = "x".repeat(limits::REQUEST_BODY_BYTES + 1);
    for (body, status) in [
        ("", 422),
        ("null", 422),
        ("[]", 422),
        ("123", 422),
        ("\"string\"", 422),
        ("{\"eventType\":\"a\",\"payload\":{}}{}", 422),
        ("\u{feff}{\"eventType\":\"a\",\"payload\":{}}", 422),
        ("{\"eventType\":\"a\",\"payload\":{\"a\":NaN}}", 422),
        ("{\"eventType\":\"a\",\"payload\":[]}", 422),
        (&deep, 422),
        (&long, 413),
        (&longer, 413),
    ] {
        let answer = server
            .call(&tenant.token, Method::POST, &path, None, Bytes::copy_from_slice(body.as_bytes()))
            .await;
        let start: String = body.chars().take(60).collect();
        assert_eq!(
            (answer.status.as_u16(), answer.content_type.as_str()),
            (status, "application/json"),
            "{start}"
        );
        assert!(answer.json()["detail"] != Value::Null, "{start}");
    }
    let not_utf8 = Bytes::from_static(b"{\"eventType\":\"a\",\"payload\":{\"x\":\"\xff\"}}");
    server.call(&tenant.token, Method::POST, &path, None, not_utf8).await.expect(422);
    assert!(server.get(&tenant.token, &path).await.expect(200)["data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn an_expunged_payload_is_gone_and_not_sent_again() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let (token, app, endpoint) = (&tenant.token, &tenant.app, &tenant.endpoint);
    let (first, second) = (server.publish(&tenant, "a").await, server.publish(&tenant, "a").await);
    let path = format!("/api/v1/app/{app}/msg");
    server.delete(token, &format!("{path}/{first}/content")).await.expect(204);
    let ids = json!({"ids": [second, "unknown", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2"]});
    let results = server.post(token, &format!("{path}/bulk-expunge"), ids).await.expect(200);
    let expected =
        json!({&second: "expunged", "unknown": "not-found", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2": "not-found"});
    assert_eq!(results["results"], expected);
    for id in [first, second] {
        let shown = server.get(token, &format!("{path}/{id}")).await.expect(200);
        assert_eq!(shown["payload"], json!({"expired": true}));
        server.get(token, &format!("{path}/{id}/raw")).await.expect(404);
        let resend =
            server.post(token, &format!("{path}/{id}/endpoint/{endpoint}/resend"), Value::Null).await;
        assert_eq!(resend.expect(400)["code"], "missing_payload");
    }
    assert_eq!(server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await, 0);
}

#[tokio::test]
async fn a_precheck_tells_whether_anybody_would_get_a_message() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/msg/precheck/active", tenant.app);
    let body = json!({"eventType": "a"});
    assert_eq!(server.post(&tenant.token, &path, body.clone()).await.expect(200), json!({"active": true}));
    server
        .delete(&tenant.token, &format!("/api/v1/app/{}/endpoint/{}", tenant.app, tenant.endpoint))
        .await
        .expect(204);
    assert_eq!(server.post(&tenant.token, &path, body).await.expect(200), json!({"active": false}));
    assert_eq!(
        server.post(&tenant.token, &path, json!({"eventType": "a b", "channels": []})).await.expect(422)["detail"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[tokio::test]
async fn examples_come_from_the_schema_or_are_a_ping() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = format!("/api/v1/app/{}/endpoint/{}/send-example", tenant.app, tenant.endpoint);
    let schemas = json!({"1": {"type": "object", "examples": [{"a": 1}, {"b": 2}]}});
    let kind = json!({"name": "with.examples", "description": "d", "schemas": schemas});
    server.post(&tenant.token, "/api/v1/event-type", kind).await.expect(201);
    let kind = json!({"name": "without", "description": "d"});
    server.post(&tenant.token, "/api/v1/event-type", kind).await.expect(201);
    for (body, payload) in [
        (json!({"eventType": "svix.ping"}), json!({"success": true})),
        (json!({"eventType": "with.examples"}), json!({"a": 1})),
        (json!({"eventType": "with.examples", "exampleIndex": 1}), json!({"b": 2})),
    ] {
        let message = server.post(&tenant.token, &path, body).await.expect(202);
        assert_eq!(message["payload"], payload);
    }
    for (body, status, code) in [
        (json!({"eventType": "with.examples", "exampleIndex": 2}), 400, "invalid_scheme"),
        (json!({"eventType": "without"}), 400, "invalid_scheme"),
        (json!({"eventType": "unknown"}), 404, "not_found"),
    ] {
        assert_eq!(server.post(&tenant.token, &path, body).await.expect(status)["code"], code);
    }
    assert_eq!(server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await, 3);
}
