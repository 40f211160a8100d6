//! Publishing: what is accepted, once, and what is refused.

use postrider_testing::{Receiver, TestServer, hours, minutes};
use serde_json::json;
use std::collections::BTreeSet;

/// ING-3.
#[tokio::test]
async fn a_published_payload_arrives_byte_for_byte() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let payload = r#"{ "b":1,"a" : [1.10, 1e3, 12345678901234567890], "\u00e9": "é\/" }"#;
    let body = format!(r#"{{"eventType":"document.processed","payload":{payload}}}"#);
    let app = server.default_app().await;
    let answer = server.client().raw("POST", &format!("{}/msg", app.path()), Some(body.into_bytes())).await;
    let message = answer.expect(202);
    let received = receiver.wait_for(1).await;
    assert_eq!(String::from_utf8_lossy(&received[0].body), payload);
    assert_eq!(received[0].header("webhook-id"), message["id"].as_str());
    assert_eq!(received[0].header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_repeated_request_with_the_same_idempotency_key_is_one_message() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let app = server.default_app().await;
    let client = server.client().with_header("idempotency-key", "order-4711");
    let path = format!("{}/msg", app.path());
    let body = json!({ "eventType": "order.paid", "payload": { "order": 4711 } });
    let first = client.post(&path, body.clone()).await.expect(202);
    let second = client.post(&path, body).await.expect(202);
    assert_eq!(first["id"], second["id"]);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_message_to_an_unknown_application_is_not_accepted() {
    let server = TestServer::start().await;
    let body = json!({ "eventType": "x", "payload": {} });
    let refused = server.client().post("/api/v1/app/nobody/msg", body).await.expect(404);
    assert_eq!(refused["code"], "not_found");
}

#[tokio::test]
async fn an_accepted_message_survives_a_crash_before_its_delivery() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503]).await;
    let message = server.send("document.processed", json!({ "document": 42 })).await;
    receiver.wait_for(1).await;
    let server = server.crash().await;
    receiver.replies([200]);
    // Long enough for the second retry: the first one may have met the old script.
    server.clock.advance(minutes(30)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.statuses().last(), Some(&200), "{attempts:?}");
}

/// Payloads that survive no parser and printer: every byte has to be kept.
const ODD_PAYLOADS: [&str; 12] = [
    r#"{"z":1,"a":2,"m":{"b":0,"a":0}}"#,
    "{\n\t\"spaced\" :  [ 1 ,2 ]\r\n}",
    r#"{"number":1e308,"small":1E-7,"one":1.0,"minus":-0,"zero":0.00}"#,
    r#"{"long":12345678901234567890,"longer":123456789012345678901234567890.10}"#,
    r#"{"a":1,"a":2,"a":1}"#,
    r#"{"escaped":"\u0041\u00e9\ud83d\ude00\/\b\f"}"#,
    "{\"plain\":\"é😀\u{2028}\u{7f}\"}",
    r#"{"nul":"\u0000","lone":"\ud800"}"#,
    r#"{"":"","\u0000":null}"#,
    r#"{"huge":1e400}"#,
    r#"{"payload":{"payload":"{\"payload\":1}"}}"#,
    "{}",
];

fn envelope(payload: &str) -> Vec<u8> {
    format!(r#" {{ "eventType" : "document.processed", "payload" :{payload} }} "#).into_bytes()
}

/// ING-3, ING-4, SEC-1, P03, P04: bytes and signature, for all of them.
#[tokio::test]
async fn odd_payloads_arrive_byte_for_byte_and_verify() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let app = server.default_app().await;
    let endpoint = server.endpoint(&app, &receiver.url()).await;
    let secret = server.client().get(&format!("{}/secret", endpoint.path())).await.expect(200);
    let webhook = standardwebhooks::Webhook::new(secret["key"].as_str().unwrap()).unwrap();
    for (count, payload) in ODD_PAYLOADS.into_iter().enumerate() {
        let answer =
            server.client().raw("POST", &format!("{}/msg", app.path()), Some(envelope(payload))).await;
        // The answer repeats the payload, which not every parser reads.
        answer.expect(202);
        let request = receiver.wait_for(count + 1).await.remove(count);
        assert_eq!(String::from_utf8_lossy(&request.body), payload);
        webhook
            .verify(&request.body, &request.header_map())
            .unwrap_or_else(|error| panic!("{payload}: {error}"));
        let raw = format!("{}/msg/{}/raw", app.path(), request.header("webhook-id").unwrap());
        assert_eq!(server.client().get(&raw).await.expect(200)["payload"], payload);
    }
}

/// ING-3 after a restart: from the disk as from memory.
#[tokio::test]
async fn odd_payloads_are_the_same_bytes_when_they_are_read_back_for_a_retry() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503]).await;
    let app = server.default_app().await;
    for payload in ODD_PAYLOADS {
        server
            .client()
            .raw("POST", &format!("{}/msg", app.path()), Some(envelope(payload)))
            .await
            .expect(202);
    }
    server.clock.quiet().await;
    let server = server.restart().await;
    receiver.replies([200]);
    server.clock.advance(minutes(1)).await;
    let requests = receiver.requests();
    let (first, second) = requests.split_at(ODD_PAYLOADS.len());
    let bodies = |requests: &[postrider_testing::Received]| -> BTreeSet<String> {
        requests.iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    };
    let expected: BTreeSet<String> = ODD_PAYLOADS.map(str::to_owned).into();
    assert_eq!((bodies(first), bodies(second)), (expected.clone(), expected));
}

/// ING-5, P01: the largest payload arrives whole, one byte more is refused and not stored.
#[tokio::test]
async fn a_payload_of_one_mebibyte_arrives_and_a_longer_one_is_refused() {
    const MEBIBYTE: usize = 1024 * 1024;
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let of_length = |length: usize| format!(r#"{{"x":"{}"}}"#, "y".repeat(length - 8));
    let largest = of_length(MEBIBYTE);
    server.client().raw("POST", &path, Some(envelope(&largest))).await.expect(202);
    let request = receiver.wait_for(1).await.remove(0);
    assert!(request.body == largest.as_bytes(), "{} bytes arrived", request.body.len());
    let refused = server.client().raw("POST", &path, Some(envelope(&of_length(MEBIBYTE + 1)))).await;
    assert_eq!(refused.expect(413)["code"], "payload_too_large");
    assert_eq!(server.client().get(&path).await.items().len(), 1);
}

/// ING-1, P07: fifty callers at once, one message, one delivery, one answer; also after a restart.
#[tokio::test]
async fn fifty_parallel_requests_with_one_idempotency_key_are_one_message() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = |number: usize| json!({ "eventType": "order.paid", "payload": { "number": number } });
    let client = server.client().with_header("idempotency-key", "once");
    let calls = (0..50).map(|number| client.post(&path, body(number)));
    let answers = futures_util::future::join_all(calls).await;
    let mut ids = BTreeSet::new();
    for answer in answers {
        ids.insert(answer.expect(202)["id"].to_string());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    server.clock.quiet().await;
    let server = server.restart().await;
    let again =
        server.client().with_header("idempotency-key", "once").post(&path, body(99)).await.expect(202);
    assert!(ids.contains(&again["id"].to_string()));
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

/// ING-6, P02, P04, P05: a defined answer that names the place, nothing stored, nothing sent.
#[tokio::test]
async fn what_is_no_message_is_refused_and_leaves_nothing_behind() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = String::from_utf8(envelope(&deep)).unwrap();
    let bodies: [&[u8]; 13] = [
        b"",
        b"null",
        b"[]",
        b"123",
        b"\"string\"",
        b"{\"eventType\":\"a\",\"payload\":{}",
        b"{\"eventType\":\"a\",\"payload\":{}} {}",
        b"{\"eventType\":\"a\",\"payload\":null}",
        b"{\"eventType\":\"a\",\"payload\":[1]}",
        b"{\"eventType\":\"a\",\"payload\":{\"a\":NaN}}",
        b"{\"eventType\":\"a\",\"payload\":{\"a\":\"\xff\xfe\"}}",
        b"{\"eventType\":\"a\\r\\nb\",\"payload\":{}}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = server.client().raw("POST", &path, Some(body.to_vec())).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
        assert!(!answer.body["detail"].is_null(), "{shown}: {answer:?}");
    }
    server.clock.quiet().await;
    assert!(server.client().get(&path).await.items().is_empty());
    assert!(receiver.requests().is_empty());
}

/// ING-8: an endpoint whose type and channels all match gets one delivery.
#[tokio::test]
async fn channels_choose_endpoints_and_an_endpoint_gets_a_message_once() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let [all, both, other] =
        [Receiver::start([200]).await, Receiver::start([200]).await, Receiver::start([200]).await];
    server.endpoint(&app, &all.url()).await;
    server.endpoint_with(&app, &both.url(), json!({ "channels": ["eu", "vip"] })).await;
    server.endpoint_with(&app, &other.url(), json!({ "channels": ["us"] })).await;
    let body = json!({ "eventType": "order.paid", "payload": {}, "channels": ["eu", "vip", "new"] });
    server.client().post(&format!("{}/msg", app.path()), body).await.expect(202);
    server.send("order.paid", json!({ "channels": "none" })).await;
    server.clock.quiet().await;
    let counts = [&all, &both, &other].map(|receiver| receiver.requests().len());
    assert_eq!(counts, [2, 1, 0], "an endpoint with channels gets nothing without one");
}

/// ING-7: no endpoint, no work, and none later either.
#[tokio::test]
async fn an_endpoint_gets_no_message_from_before_its_time() {
    let server = TestServer::start().await;
    let message = server.send("order.paid", json!({})).await;
    let receiver = server.receiver([200]).await;
    server.clock.advance(hours(1)).await;
    assert!(receiver.requests().is_empty());
    assert!(server.attempts(&message).await.is_empty());
}

#[tokio::test]
async fn a_message_for_later_is_delivered_then_and_not_before() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let app = server.default_app().await;
    let at = server.clock.now().plus(hours(2)).to_rfc3339();
    let body = json!({ "eventType": "order.paid", "payload": {}, "deliverAt": at });
    server.client().post(&format!("{}/msg", app.path()), body).await.expect(202);
    server.clock.advance(minutes(119)).await;
    assert!(receiver.requests().is_empty());
    // A restart forgets nothing of it.
    let server = server.restart().await;
    server.clock.advance(minutes(119)).await;
    assert!(receiver.requests().is_empty());
    server.clock.advance(minutes(2)).await;
    assert_eq!(receiver.requests().len(), 1);
}

/// A publisher's own id is taken once, and finds the message.
#[tokio::test]
async fn an_event_id_names_one_message() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = json!({ "eventType": "order.paid", "eventId": "order-1", "payload": {} });
    let accepted = server.client().post(&path, body.clone()).await.expect(202);
    server.client().post(&path, body).await.expect(409);
    assert_eq!(server.client().get(&format!("{path}/order-1")).await.expect(200)["id"], accepted["id"]);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

/// ING-10: a client that follows a redirect would repeat a POST as a GET.
#[tokio::test]
async fn publishing_is_never_answered_with_a_redirect() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = json!({ "eventType": "order.paid", "payload": {} });
    for path in [format!("{path}/"), format!("/{path}"), path.replace("/api/", "//api/"), path.to_uppercase()]
    {
        let answer = server.client().post(&path, body.clone()).await;
        assert!(!(300..400).contains(&answer.status), "{path}: {answer:?}");
    }
    let elsewhere = server
        .client()
        .with_header("x-forwarded-host", "evil.example")
        .with_header("x-forwarded-proto", "http");
    elsewhere.post(&path, body).await.expect(202);
    receiver.wait_for(1).await;
}

/// ING-2, DUR-1: a caller that goes away after the commit repeats itself with its key and gets the first answer.
#[tokio::test]
async fn a_repetition_after_a_crash_gets_the_first_answer() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = json!({ "eventType": "order.paid", "payload": { "order": 1 } });
    let publish = async |server: &TestServer| {
        let client = server.client().with_header("idempotency-key", "order-1");
        client.post(&path, body.clone()).await.expect(202)["id"].clone()
    };
    let first = publish(&server).await;
    server.clock.quiet().await;
    let server = server.crash().await;
    assert_eq!(publish(&server).await, first);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 1);
}

/// P08: a key that cannot be kept is refused before anything is stored.
#[tokio::test]
async fn idempotency_keys_are_1_to_256_visible_characters() {
    let server = TestServer::start().await;
    let path = format!("{}/msg", server.default_app().await.path());
    let body = json!({ "eventType": "order.paid", "payload": {} });
    for key in ["", "with space", "tab\there", "\u{e9}", &"k".repeat(257)] {
        let answer = server.client().with_header("idempotency-key", key).post(&path, body.clone()).await;
        assert_eq!(answer.expect(400)["code"], "invalid_idempotency_key", "{key:?}");
    }
    let twice = server.client().with_header("idempotency-key", "a").with_header("idempotency-key", "b");
    twice.post(&path, body.clone()).await.expect(400);
    assert!(server.client().get(&path).await.items().is_empty());
    server.client().with_header("idempotency-key", &"k".repeat(256)).post(&path, body).await.expect(202);
}
