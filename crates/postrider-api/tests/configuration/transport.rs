//! What is the same for all routes: paths, bodies, names, CORS, and answers for operators.

use crate::harness::{Api, METRICS_TOKEN, bearer};
use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use postrider_api::Config;
use postrider_store::hold::Decision;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[tokio::test]
async fn what_has_no_route_is_answered_in_json() {
    let api = Api::start().await;
    for path in ["/nowhere", "/app/x/y/z", "/app/%00", "/app/..%2f", "/app/%ff"] {
        assert_eq!(api.get(path).await.is(404).body["code"], "not_found", "{path}");
    }
    let refused = api.delete("/app").await;
    assert_eq!(refused.is(405).body["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let api = Api::start().await;
    api.post("/app/", json!({"name": "x", "uid": "x"})).await.is(201);
    api.get("/app/x/").await.is(200);
    assert_eq!(api.get("/app/?limit=1").await.is(200).body["data"][0]["uid"], "x");
}

/// P02, P04, P05.
#[tokio::test]
async fn malformed_bodies_are_refused_with_their_place() {
    let api = Api::start().await;
    for body in [
        &b""[..],
        b"null",
        b"[]",
        b"{\"name\":\"x\"}{}",
        b"{\"name\":\"x\",\"name\":\"y\"}",
        b"\xef\xbb\xbf{\"name\":\"x\"}",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":NaN}",
        &b"[".repeat(100_000),
    ] {
        let refused =
            api.raw("POST", "/api/v1/app", &[bearer(&api.token)], Some(Body::from(body.to_vec()))).await;
        let problem = &refused.is(422).body["detail"][0];
        assert_eq!(
            (&problem["loc"][0], &problem["type"]),
            (&json!("body"), &json!("value_error.jsondecode"))
        );
    }
    let plain = [bearer(&api.token), ("content-type", "text/plain")];
    api.raw("POST", "/api/v1/app", &plain, Some(Body::from("{\"name\":\"x\"}"))).await.is(201);
}

/// P01.
#[tokio::test]
async fn bodies_without_an_end_are_cut() {
    let api = Api::start().await;
    let chunk = Bytes::from(vec![b' '; 64 * 1024]);
    let endless = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    let refused =
        api.raw("POST", "/api/v1/app", &[bearer(&api.token)], Some(Body::from_stream(endless))).await;
    let expected = json!({"code": "payload_too_large", "detail": "Request payload is too large."});
    assert_eq!(refused.is(413).body, expected);
    assert_eq!(refused.headers["connection"], "close");
    let announced = [bearer(&api.token), ("content-length", "10000000000"), ("expect", "100-continue")];
    api.raw("POST", "/api/v1/app", &announced, Some(Body::empty())).await.is(413);
}

/// Whoever is refused before the body was read gets to see the answer, not a broken pipe.
#[tokio::test]
async fn a_refusal_comes_after_the_body_was_sent() {
    let api = Api::start().await;
    let bad_token = ("authorization", "Bearer no-such-token");
    for (path, header, status) in [
        ("/api/v1/app", bad_token, 401),
        ("/api/v1/nowhere", bearer(&api.token), 404),
        ("/api/v1/health/ping", bearer(&api.token), 405),
        ("/api/v1/app/x/msg/expunge-all-contents", bearer(&api.token), 501),
        ("/api/v1/app", bearer(&api.token), 413),
    ] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let chunk = Bytes::from(vec![b' '; 64 * 1024]);
        let chunks = futures_util::stream::iter(0..128).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(chunk.clone())
        });
        api.raw("POST", path, &[header], Some(Body::from_stream(chunks))).await.is(status);
        assert_eq!(sent.load(Ordering::Relaxed), 128, "{path}");
    }
}

/// ING-5: nothing is unpacked, so nothing can unpack to more than the limit.
#[tokio::test]
async fn compressed_bodies_are_refused_with_the_way_out() {
    let api = Api::start().await;
    let headers = [bearer(&api.token), ("content-encoding", "gzip")];
    let refused = api.raw("POST", "/api/v1/app", &headers, Some(Body::from(&b"\x1f\x8b\x08"[..]))).await;
    assert!(refused.is(422).body["detail"][0]["msg"].as_str().unwrap().contains("content-encoding"));
    let headers = [bearer(&api.token), ("content-encoding", "identity")];
    api.raw("POST", "/api/v1/app", &headers, Some(Body::from("{\"name\":\"x\"}"))).await.is(201);
}

/// P12.
#[tokio::test]
async fn only_the_names_of_this_server_are_answered() {
    let config = Config { public_hosts: vec!["hooks.example.com".to_owned()], ..Config::default() };
    let api = Api::start_with(config).await;
    for (host, status) in
        [("hooks.example.com", 200), ("HOOKS.example.com:8071", 200), ("evil.example.com", 421)]
    {
        api.raw("GET", "/api/v1/app", &[bearer(&api.token), ("host", host)], None).await.is(status);
    }
    api.raw("GET", "/api/v1/health/ping", &[("host", "10.0.0.1")], None).await.is(204);
}

/// U26, LOOP-1: an endpoint that leads back here, through whatever names and proxies, does not publish.
#[tokio::test]
async fn a_delivery_that_comes_back_is_refused() {
    let api = Api::start().await;
    api.app("app").await;
    let message = r#"{"eventType":"a.b","payload":{}}"#;
    let call = async |headers: &[(&str, &str)]| {
        let headers = [&[bearer(&api.token)], headers].concat();
        api.raw("POST", "/api/v1/app/app/msg", &headers, Some(Body::from(message))).await
    };
    let ours = [("user-agent", "Postrider/1.2.3"), ("webhook-id", "msg_1")];
    assert_eq!(call(&ours).await.is(508).body["code"], "loop_detected");
    for harmless in [&ours[..1], &ours[1..], &[("user-agent", "curl/8"), ours[1]]] {
        call(harmless).await.is(202);
    }
}

#[tokio::test]
async fn browsers_may_call_from_anywhere() {
    let api = Api::start().await;
    let preflight = [
        ("origin", "https://portal.example.com"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,svix-req-id"),
    ];
    let answer = api.raw("OPTIONS", "/api/v1/app", &preflight, None).await;
    assert_eq!(answer.is(200).headers["access-control-allow-origin"], "*");
    assert_eq!(answer.headers["access-control-allow-headers"], "authorization,svix-req-id");
    assert_eq!(answer.headers["access-control-max-age"], "600");
}

#[tokio::test]
async fn health_is_told_to_anybody() {
    let api = Api::start().await;
    let health = api.raw("GET", "/api/v1/health", &[], None).await;
    assert_eq!(health.is(200).body, json!({"status": "ok", "reasons": []}));
    assert!(api.raw("HEAD", "/api/v1/health", &[], None).await.is(200).bytes.is_empty());
    api.raw("HEAD", "/api/v1/health/ping", &[], None).await.is(204);
    api.stall();
    let sick = api.raw("GET", "/api/v1/health", &[], None).await;
    assert_eq!(sick.is(503).body["code"], "unhealthy");
    assert!(sick.body["detail"].as_str().unwrap().contains("scheduler"));
}

/// DUR-10: a hold is no fault, and nobody has to read the log to learn of it.
#[tokio::test]
async fn health_tells_that_deliveries_are_on_hold() {
    let api = Api::start().await;
    api.store.put_on_hold("a drill of ours", None, 10).await.unwrap();
    let health = api.raw("GET", "/api/v1/health", &[], None).await;
    let body = &health.is(200).body;
    let since = api.store.held_since().unwrap().to_rfc3339();
    assert_eq!((&body["status"], &body["onHoldSince"]), (&json!("ok"), &json!(since)));
    assert!(body["notes"][0].as_str().unwrap().contains("postrider deliveries"), "the way out: {body}");
    assert!(!body.to_string().contains("a drill of ours"), "anybody may ask: {body}");
    api.stall();
    let sick = api.raw("GET", "/api/v1/health", &[], None).await;
    assert_eq!(sick.is(503).body["onHoldSince"], json!(since), "beside what is wrong");
    api.store.decide(Decision::Release, None, 10).await.unwrap();
    let sick = api.raw("GET", "/api/v1/health", &[], None).await;
    assert!(sick.is(503).body.get("onHoldSince").is_none() && sick.body.get("notes").is_none());
}

#[tokio::test]
async fn metrics_are_told_to_those_who_have_the_token() {
    let api = Api::start().await;
    api.raw("GET", "/metrics", &[], None).await.is(404);
    let config = Config { metrics_token: Some(METRICS_TOKEN.to_owned().into()), ..Config::default() };
    let api = Api::start_with(config).await;
    api.raw("GET", "/metrics", &[], None).await.is(401);
    api.raw("GET", "/metrics", &[bearer(&api.token)], None).await.is(401);
    api.raw("GET", "/metrics", &[bearer(METRICS_TOKEN)], None).await.is(200);
    let api = Api::start_with(Config { dev: true, ..Config::default() }).await;
    api.raw("GET", "/metrics", &[], None).await.is(200);
}

/// P15: clients of other versions send members that we do not know; they do nothing and are not kept.
#[tokio::test]
async fn a_member_that_nobody_knows_is_ignored() {
    let api = Api::start().await;
    api.post("/app", json!({"name": "x", "uid": "x", "admin": true})).await.is(201);
    let endpoint = json!({"url": "https://example.com", "disableTls": true, "skipVerify": {"all": true}});
    let created = api.post("/app/x/endpoint", endpoint).await;
    let created = created.is(201).body.as_object().unwrap();
    assert!(!created.contains_key("disableTls") && !created.contains_key("skipVerify"), "{created:?}");
}

/// ING-11: a store that cannot answer is never told as a refused token.
#[tokio::test]
async fn a_store_that_is_closed_is_a_reason_to_come_back() {
    let api = Api::start().await;
    api.store.close().await;
    let refused = api.post("/app", json!({"name": "x"})).await;
    assert_eq!(refused.is(503).body["code"], "unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let sick = api.raw("GET", "/api/v1/health", &[], None).await;
    assert!(sick.is(503).body["detail"].as_str().unwrap().contains("cannot write"));
}

#[tokio::test]
async fn a_panic_is_answered_but_not_told() {
    let api = Api::start_with(Config { dev: true, ..Config::default() }).await;
    api.stall();
    let failed = api.raw("GET", "/metrics", &[], None).await;
    assert_eq!(failed.is(500).body["code"], "server_error");
    assert!(!failed.bytes.windows(6).any(|part| part == b"canary"));
    api.get("/app").await.is(200);
}
