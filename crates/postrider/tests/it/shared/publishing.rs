//! A message is refused for the same reason whichever way it comes: `postrider.publish` and a request are given the same, and
//! both take it, or both name the same field. The store's tests compare the function with the model value by value.

use postrider_testing::{Answer, Client, TestServer};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio_postgres::NoTls;

/// The function is given what the request's body says.
const PUBLISH: &str = "SELECT postrider.publish($2, b->>'eventType', (b->'payload')::text,
        event_id => b->>'eventId', idempotency_key => $3, deliver_at => (b->>'deliverAt')::timestamptz,
        channels => CASE json_typeof(b->'channels') WHEN 'array' THEN ARRAY(SELECT json_array_elements_text(b->'channels')) END,
        tags => CASE json_typeof(b->'tags') WHEN 'array' THEN ARRAY(SELECT json_array_elements_text(b->'tags')) END,
        payload_retention_hours => (b->>'payloadRetentionHours')::integer)
     FROM (SELECT $1::text::json AS b) AS asked";
const PUBLISH_RAW: &str =
    "SELECT postrider.publish_raw($2, b->>'eventType', b->'transformationsParams'->>'rawPayload',
        b->'transformationsParams'->'headers'->>'content-type', idempotency_key => $3)
     FROM (SELECT $1::text::json AS b) AS asked";

/// Something to publish.
struct Ask {
    body: Value,
    application: &'static str,
    key: Option<String>,
}

impl From<Value> for Ask {
    fn from(members: Value) -> Self {
        let mut body = json!({ "eventType": "a", "payload": {} });
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        Self { body, application: "same", key: None }
    }
}

/// The field that a request is refused for, in the words of the function's arguments; `None` when it is accepted.
async fn requested(client: &Client, ask: &Ask) -> Option<String> {
    let client = match &ask.key {
        Some(key) => client.with_header("idempotency-key", key),
        None => client.clone(),
    };
    let path = format!("/api/v1/app/{}-http/msg", ask.application);
    let answer: Answer = client.post(&path, ask.body.clone()).await;
    let field = match answer.status {
        202 => return None,
        400 => answer.body["code"].as_str().unwrap().trim_start_matches("invalid_").to_owned(),
        404 => "application".to_owned(),
        413 => "payload".to_owned(),
        422 => {
            let path = answer.body["detail"][0]["loc"].as_array().unwrap().iter().skip(1);
            let path: Vec<&str> = path.map(|name| name.as_str().unwrap()).collect();
            argument(&path)
        }
        _ => panic!("{answer:?}"),
    };
    Some(field)
}

/// `["channels", "[1]"]` is `channels[1]`, `["eventType"]` is `event_type`.
fn argument(path: &[&str]) -> String {
    if path == ["transformationsParams", "headers", "content-type"] {
        return "content_type".to_owned();
    }
    let mut name = String::new();
    for letter in path.concat().chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The same of the function.
async fn called(client: &tokio_postgres::Client, ask: &Ask) -> Option<String> {
    let text = if ask.body.get("transformationsParams").is_some() { PUBLISH_RAW } else { PUBLISH };
    let application = format!("{}-sql", ask.application);
    let done = client.query_one(text, &[&ask.body.to_string(), &application, &ask.key]).await;
    let error = done.err()?;
    let database = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    Some(database.column().unwrap_or_else(|| panic!("{database:?}")).to_owned())
}

/// Names of all kinds in each place for a name.
fn names() -> Vec<Ask> {
    let mut names: Vec<String> = [
        "", "a", "a.b", "A-9_z", "a b", " a", "a\n", "ü", "a/b", "a:b", "a+b", "a#b", "a\\b", "a,b", "msg_1",
        "MSG_1", "..", "𝟘", "a'b", "%",
    ]
    .map(str::to_owned)
    .into();
    names.extend([128, 129, 256, 257].map(|length| "x".repeat(length)));
    let each = |name: &String| {
        [
            json!({ "eventType": name }),
            json!({ "eventId": name }),
            json!({ "channels": ["x", name] }),
            json!({ "tags": [name] }),
        ]
    };
    names.iter().flat_map(each).map(Ask::from).collect()
}

/// Everything else, with the field that both must name.
fn others(server: &TestServer) -> Vec<(Ask, Option<&'static str>)> {
    let ahead = |minutes| server.store.clock().now().plus(Duration::from_mins(minutes)).to_rfc3339();
    let deep = |depth: usize| {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let filled = |bytes: usize| json!({ "a": "x".repeat(bytes - 8) });
    let raw = |text: &str, kind: &str| json!({ "transformationsParams": { "rawPayload": text, "headers": { "content-type": kind } } });
    let mut asks: Vec<(Ask, Option<&'static str>)> = [
        (json!({}), None),
        (json!({ "payload": null }), Some("payload")),
        (json!({ "payload": [] }), Some("payload")),
        (json!({ "payload": "{}" }), Some("payload")),
        (json!({ "payload": 1 }), Some("payload")),
        (json!({ "payload": { "a": [1, "é", null, { "b": -1.5e3 }] } }), None),
        (json!({ "payload": deep(100) }), None),
        (json!({ "payload": filled(1 << 20) }), None),
        (json!({ "payload": filled((1 << 20) + 1) }), Some("payload")),
        (json!({ "eventType": null }), Some("event_type")),
        (json!({ "channels": [] }), Some("channels")),
        (json!({ "channels": vec!["a"; 10] }), None),
        (json!({ "channels": vec!["a"; 11] }), Some("channels")),
        (json!({ "tags": [] }), None),
        (json!({ "tags": vec!["a"; 5] }), None),
        (json!({ "tags": vec!["a"; 6] }), Some("tags")),
        (json!({ "payloadRetentionHours": 0 }), Some("payload_retention_hours")),
        (json!({ "payloadRetentionHours": -1 }), Some("payload_retention_hours")),
        (json!({ "payloadRetentionHours": 1 }), None),
        (json!({ "payloadRetentionHours": 2160 }), None),
        (json!({ "payloadRetentionHours": 2161 }), Some("payload_retention_hours")),
        (json!({ "deliverAt": ahead(0) }), Some("deliver_at")),
        (json!({ "deliverAt": ahead(2) }), None),
        (json!({ "deliverAt": ahead(24 * 60 - 1) }), None),
        (json!({ "deliverAt": ahead(24 * 60 + 1) }), Some("deliver_at")),
        (json!({ "deliverAt": "2001-01-01T00:00:00Z" }), Some("deliver_at")),
        (raw("a,b", "text/csv"), None),
        (raw("", "text/plain; charset=\"utf-8\""), None),
        (raw(&"x".repeat(1 << 20), "text/plain"), None),
        (raw(&"x".repeat((1 << 20) + 1), "text/plain"), Some("payload")),
        (raw("x", ""), Some("content_type")),
        (raw("x", "json"), Some("content_type")),
        (raw("x", "a/b/c"), Some("content_type")),
        (raw("x", "a/b\r\nX: y"), Some("content_type")),
        (raw("x", &"a/".repeat(200)), Some("content_type")),
    ]
    .map(|(members, field)| (Ask::from(members), field))
    .into();
    for (key, field) in [
        ("k".to_owned(), None),
        ("auto_".to_owned(), None),
        ("k".repeat(256), None),
        ("k".repeat(257), Some("idempotency_key")),
        ("a b".to_owned(), Some("idempotency_key")),
    ] {
        asks.push((Ask { key: Some(key), ..Ask::from(json!({})) }, field));
    }
    for application in ["nobody", "app_000000000000000000000000000"] {
        asks.push((Ask { application, ..Ask::from(json!({})) }, Some("application")));
    }
    asks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_refused_for_the_same_field_whichever_way_it_comes() {
    let server = TestServer::shared(|_| {}).await;
    for uid in ["same-http", "same-sql"] {
        server.app(uid).await;
    }
    let place = server.place().unwrap();
    let admin = place.client().await.unwrap();
    admin.batch_execute("SELECT allow(session_user::text, id) FROM environment").await.unwrap();
    let (client, connection) = tokio_postgres::connect(place.url(), NoTls).await.unwrap();
    tokio::spawn(connection);

    let mut refused = BTreeSet::new();
    let mut accepted = 0;
    for ask in names() {
        let (one, other) = (requested(&server.client(), &ask).await, called(&client, &ask).await);
        assert_eq!(one, other, "{}", ask.body);
        accepted += usize::from(one.is_none());
        refused.extend(one);
    }
    assert_eq!(
        refused,
        BTreeSet::from(["channels[1]", "event_id", "event_type", "tags[0]"].map(str::to_owned))
    );
    assert!(accepted >= 20, "{accepted}");
    for (ask, expected) in others(&server) {
        let shown: String = format!("{:?} {}", ask.key, ask.body).chars().take(300).collect();
        assert_eq!(requested(&server.client(), &ask).await.as_deref(), expected, "a request: {shown}");
        assert_eq!(called(&client, &ask).await.as_deref(), expected, "the function: {shown}");
    }
}

/// What the tests of the product say of rows of other environments counts only so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_of_tests_connect_as_a_role_for_whom_the_wall_stands() {
    let server = TestServer::shared(|_| {}).await;
    let url = server.place().unwrap().node_url();
    let over = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)";
    assert_eq!(postrider_testing::execute(url, over), 0);
    let owns = "SELECT 1 FROM pg_database WHERE datname = current_database() AND pg_get_userbyid(datdba) = current_user";
    assert_eq!(postrider_testing::execute(url, owns), 1);
}
