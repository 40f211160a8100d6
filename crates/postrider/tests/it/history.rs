//! What happened can be read.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use postrider_testing::{Receiver, Reply, TestServer};
use serde_json::json;

#[tokio::test]
async fn attempts_are_listed_by_message_and_by_endpoint_with_what_was_answered() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::Full(500, Vec::new(), "cannot now".into())]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({ "document": 42 })).await;
    let by_message = server.wait_for_attempts(&message, 1).await;
    let path = format!("/api/v1/app/{}/attempt/endpoint/{}", endpoint.app, endpoint.id);
    let by_endpoint = server.client().get(&path).await.items();
    assert_eq!(by_message.0, by_endpoint);
    let attempt = by_message.last();
    assert_eq!(attempt["url"], receiver.url());
    assert_eq!(attempt["response"], "cannot now");
    assert_eq!(attempt["responseStatusCode"], 500);
    assert_eq!(attempt["statusText"], "fail");
    assert_eq!(attempt["triggerType"], 0);
    assert_eq!(
        (attempt["msgId"].as_str(), attempt["endpointId"].as_str()),
        (Some(&*message.id), Some(&*endpoint.id))
    );
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_kept_without_it() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([Reply::Echo(500)]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let headers = json!({ "headers": { "X-Api-Key": "canary-0815-4711" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert!(receiver.requests()[0].header("x-api-key").is_some());
    let response = attempts.last()["response"].as_str().unwrap();
    assert!(response.contains("[redacted]") && !response.contains("canary-0815"), "{response}");
}

#[tokio::test]
async fn a_resend_is_one_manual_attempt_more() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("document.processed", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let path = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", message.app, message.id, endpoint.id);
    server.client().post_empty(&path).await.expect(202);
    let requests = receiver.wait_for(2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    let attempts = server.wait_for_attempts(&message, 2).await;
    assert_eq!(attempts.last()["triggerType"], 1);
}

/// HTTP-1, HTTP-4, HTTP-6, E06, E09, E15, RET-10: an answer is kept as far as it goes, shown safely, and changes nothing
/// about the outcome.
#[tokio::test]
async fn long_and_odd_answers_are_cut_and_kept_as_bytes() {
    const KEPT: usize = 20_000;
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let gzip = vec![text("Content-Encoding", "gzip"), text("Content-Type", "application/json")];
    let cases = [
        (Vec::new(), vec![b'x'; 3 * 1024 * 1024]),
        (gzip, b"\x1f\x8b\x08\x00no gzip".to_vec()),
        (Vec::new(), b"\xff\xfe\x00\x01".to_vec()),
        (vec![text("Content-Type", "text/html")], b"<script>alert(1)</script>\x1b[31m".to_vec()),
        // A character of three bytes where the answer is cut.
        (Vec::new(), "\u{20ac}".repeat(10_000).into_bytes()),
    ];
    for (headers, body) in cases {
        let receiver = Receiver::start([Reply::Full(200, headers, body.clone().into())]).await;
        let endpoint = server.endpoint(&app, &receiver.url()).await;
        let message = server.send("document.processed", json!({})).await;
        let attempts = server.wait_for_attempts(&message, 1).await;
        let attempt = attempts.last();
        assert_eq!(attempt["outcome"], "succeeded", "{attempt}");
        assert_eq!(attempt["responseTruncated"], body.len() > KEPT, "{} bytes", body.len());
        let kept = &body[..body.len().min(KEPT)];
        let shown = attempt["response"].as_str().unwrap();
        let expected = match std::str::from_utf8(kept) {
            Ok(text) => text.to_owned(),
            Err(_) => BASE64_STANDARD.encode(kept),
        };
        let whole = shown == expected || kept.starts_with(shown.as_bytes()) && shown.len() + 3 > kept.len();
        assert!(whole, "{shown:.60} instead of {expected:.60}");
        server.clock.quiet().await;
        assert_eq!(receiver.requests().len(), 1, "nothing is sent again");
        server.client().delete(&endpoint.path()).await.expect(204);
    }
}

/// HTTP-2, E04, E05: an answer that drips is cut after two seconds; its status counts.
#[tokio::test]
async fn an_answer_that_never_ends_is_judged_by_its_status() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    for (status, expected) in [(200, "succeeded"), (500, "http_error")] {
        let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: 1000\r\n\r\nfirst");
        let endless = Receiver::start([Reply::Unfinished(head.into())]).await;
        let endpoint = server.endpoint(&app, &endless.url()).await;
        let message = server.send("document.processed", json!({})).await;
        let attempts = server.wait_for_attempts(&message, 1).await;
        assert_eq!(attempts.outcomes(), [expected], "{attempts:?}");
        assert!(attempts.last()["responseDurationMs"].as_u64().unwrap() <= 2600, "{attempts:?}");
        server.client().delete(&endpoint.path()).await.expect(204);
    }
}

/// OPS-9: where the time of an attempt went.
#[tokio::test]
async fn an_attempt_tells_where_its_time_went() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Slow(std::time::Duration::from_millis(120), 200)]).await;
    let message = server.send("document.processed", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    let timings = &attempts.last()["timings"];
    let millis = |name: &str| timings[name].as_f64().unwrap_or_else(|| panic!("{name}: {timings}"));
    assert!(millis("firstByteMs") >= 119.0 && millis("connectMs") < 100.0, "{timings}");
    assert!(millis("totalMs") >= millis("firstByteMs"), "{timings}");
    assert!(timings["tlsMs"].is_null() && timings["tokenMs"].is_null(), "{timings}");
    let second = server.send("document.processed", json!({})).await;
    receiver.wait_for(2).await;
    let attempts = server.wait_for_attempts(&second, 1).await;
    assert!(attempts.last()["timings"]["connectMs"].is_null(), "the connection is used again: {attempts:?}");
}
