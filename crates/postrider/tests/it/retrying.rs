//! Retries: the schedule, its end, and what stretches it.

use postrider_model::time::Timestamp;
use postrider_testing::{Received, Receiver, Reply, TestServer, days, hours, minutes, seconds};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_failed_attempt_is_repeated_by_the_schedule_until_the_endpoint_takes_it() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 503, 200]).await;
    let message = server.send("invoice.paid", json!({ "id": 1 })).await;
    server.clock.quiet().await;
    assert_eq!(server.attempts(&message).await.statuses(), [503]);
    server.clock.advance(seconds(4)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [503], "the first wait is 5 s");
    server.clock.advance(hours(1)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [503, 503, 200]);
    let bodies: BTreeSet<_> = receiver.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 1, "every attempt sends the same bytes");
    server.clock.advance(days(4)).await;
    assert_eq!(receiver.requests().len(), 3, "what is delivered is not sent again");
}

#[tokio::test]
async fn after_the_last_wait_the_delivery_has_failed_and_is_not_tried_again() {
    let server = TestServer::start().await;
    let receiver = server.receiver([500]).await;
    let message = server.send("invoice.paid", json!({ "id": 1 })).await;
    server.clock.advance(days(5)).await;
    assert_eq!(server.attempts(&message).await.len(), 10);
    let path = format!("/api/v1/app/{}/msg/{}/endpoint", message.app, message.id);
    let destinations = server.client().get(&path).await.items();
    assert_eq!(destinations[0]["statusText"], "fail");
    server.clock.advance(days(5)).await;
    assert_eq!(receiver.requests().len(), 10);
}

/// E12, E13.
#[tokio::test]
async fn retry_after_stretches_the_wait_but_not_beyond_an_hour() {
    let server = TestServer::start().await;
    let asked = Reply::with_header(503, "Retry-After", "600");
    let far = Reply::with_header(503, "Retry-After", "999999");
    let receiver = server.receiver([asked, far, Reply::Status(200)]).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(minutes(9)).await;
    assert_eq!(receiver.requests().len(), 1);
    server.clock.advance(minutes(3)).await;
    assert_eq!(receiver.requests().len(), 2);
    server.clock.advance(minutes(67)).await;
    assert_eq!(server.attempts(&message).await.statuses(), [503, 503, 200]);
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_a_failed_attempt_that_says_so() {
    let server = TestServer::start().await;
    let _receiver = server.receiver([Reply::Drop, Reply::Status(200)]).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(minutes(1)).await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.statuses(), [0, 200]);
    assert!(!attempts.0[0]["response"].as_str().unwrap().is_empty());
}

/// What the wait is shown as: the message's endpoint, the endpoint's messages, the newest attempt alone.
#[tokio::test]
async fn the_next_attempt_is_shown_while_one_is_due() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 503, 200]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let standing = async || {
        let path = format!("/api/v1/app/{}/msg/{}/endpoint", message.app, message.id);
        server.client().get(&path).await.items().remove(0)
    };
    let shown = standing().await;
    assert_eq!((&shown["status"], &shown["statusText"]), (&json!(3), &json!("sending")));
    let wait = until_next(&server.attempts(&message).await.0[0]);
    assert!((5.0..5.6).contains(&wait), "{wait}");
    assert_eq!(server.attempts(&message).await.0[0]["nextAttempt"], shown["nextAttempt"]);
    server.clock.advance(seconds(6)).await;
    let attempts = server.attempts(&message).await;
    assert!(attempts.0[0].get("nextAttempt").is_none(), "only the newest attempt has one");
    assert_eq!(attempts.last()["nextAttempt"], standing().await["nextAttempt"]);
    server.clock.advance(hours(1)).await;
    let shown = standing().await;
    assert_eq!((&shown["statusText"], &shown["nextAttempt"]), (&json!("success"), &Value::Null));
}

/// Seconds between an attempt and the next one.
fn until_next(attempt: &Value) -> f64 {
    let at = |name: &str| Timestamp::parse(attempt[name].as_str().unwrap()).unwrap();
    at("nextAttempt").since(at("timestamp")).as_secs_f64()
}

/// RET-2: what failed in the same moment does not come back in the same moment.
#[tokio::test]
async fn retries_of_deliveries_that_failed_together_are_spread() {
    // Ten of one endpoint: more failures would have it left alone.
    const ENDPOINTS: usize = 20;
    const MESSAGES: usize = 10;
    const DELIVERIES: usize = ENDPOINTS * MESSAGES;
    const BUCKETS: usize = 10;
    let server = TestServer::start().await;
    let receiver = Receiver::start([503]).await;
    let schedule = json!({ "retrySchedule": [1000] });
    let app = server.default_app().await;
    let mut endpoints = Vec::new();
    for _ in 0..ENDPOINTS {
        endpoints.push(server.endpoint_with(&app, &receiver.url(), schedule.clone()).await);
    }
    let sends = (0..MESSAGES).map(|number| server.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sends).await;
    server.clock.quiet().await;
    let mut waits: Vec<f64> = Vec::new();
    for endpoint in endpoints {
        let path = format!("/api/v1/app/{}/attempt/endpoint/{}", endpoint.app, endpoint.id);
        waits.extend(server.client().get(&path).await.items().iter().map(until_next));
    }
    assert_eq!(waits.len(), DELIVERIES);
    // The wait begins when the attempt ends; it took a few milliseconds of these seconds.
    assert!(waits.iter().all(|wait| (1000.0..1110.0).contains(wait)), "{waits:?}");
    let mut buckets = [0; BUCKETS];
    for wait in &waits {
        // 1000 s and up to a tenth more, in ten parts.
        let bounds = (1..10_u32).map(|part| 1000.0 + 10.0 * f64::from(part));
        buckets[bounds.filter(|bound| wait >= bound).count()] += 1;
    }
    assert!(buckets.iter().all(|count| *count <= 3 * DELIVERIES / BUCKETS), "{buckets:?}");
    assert!(buckets.iter().filter(|count| **count > 0).count() >= 8, "{buckets:?}");
}

/// RET-3, E12: a date counts like seconds; nonsense, the past and 429 without a header leave the schedule as it is.
#[tokio::test]
async fn retry_after_is_a_date_or_seconds_and_never_shortens_a_wait() {
    let server = TestServer::start().await;
    let in_ten_minutes = |request: &Received| {
        let now: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
        Reply::with_header(429, "Retry-After", &http_date(now + 600))
    };
    let odd = [
        "inf",
        "nan",
        "-5",
        "1.5",
        "99999999999999999999",
        "",
        "soon",
        "0",
        "1",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ];
    let app = server.default_app().await;
    let dated = Receiver::start([Reply::by(in_ten_minutes)]).await;
    server.endpoint(&app, &dated.url()).await;
    let mut receivers = Vec::new();
    for value in odd {
        receivers.push(Receiver::start([Reply::with_header(503, "Retry-After", value)]).await);
        server.endpoint(&app, &receivers.last().unwrap().url()).await;
    }
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.quiet().await;
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.len(), odd.len() + 1);
    for attempt in &attempts.0 {
        let wait = until_next(attempt);
        let expected = if attempt["url"] == dated.url() { 595.0..662.0 } else { 5.0..5.7 };
        assert!(expected.contains(&wait), "{wait} s after {attempt}");
    }
}

/// An IMF-fixdate as servers write it.
fn http_date(unix: i64) -> String {
    let text = Timestamp::from_micros(unix * 1_000_000).to_rfc3339();
    let (date, time) = text.split_once('T').unwrap();
    let mut parts = date.split('-');
    let [year, month, day] = [parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let weekday =
        ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(unix / 86_400 % 7).unwrap()];
    let month = months[month.parse::<usize>().unwrap() - 1];
    format!("{weekday}, {day} {month} {year} {} GMT", &time[..8])
}

/// RET-1, HTTP-3, RET-10, RET-13, E10: what counts as delivered, and what is tried again.
#[tokio::test]
async fn only_a_2xx_status_line_is_a_success() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let raw = |bytes: &'static [u8]| Reply::Raw(bytes.into());
    let cases = [
        (Reply::Status(204), "succeeded"),
        (Reply::Status(299), "succeeded"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut off"), "succeeded"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Type: \xc3\xa9\r\nContent-Length: 0\r\n\r\n"), "succeeded"),
        (
            raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"),
            "succeeded",
        ),
        (Reply::Status(304), "redirect_not_followed"),
        (Reply::Status(404), "http_error"),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "response_malformed"),
        (raw(b"HTTP/0.9 200 OK\r\n\r\n"), "response_malformed"),
        (raw(b"ICY 200 OK\r\n\r\n"), "response_malformed"),
        (raw(b"HTTP/1.1 2000 OK\r\n\r\n"), "response_malformed"),
        (raw(b"200 OK"), "response_malformed"),
        (Reply::Drop, "connect"),
    ];
    for (reply, expected) in cases {
        let receiver = Receiver::start([reply.clone(), Reply::Status(200)]).await;
        let endpoint = server.endpoint(&app, &receiver.url()).await;
        let message = server.send("invoice.paid", json!({})).await;
        let attempts = server.wait_for_attempts(&message, 1).await;
        assert_eq!(attempts.outcomes(), [expected], "{reply:?}: {attempts:?}");
        server.client().delete(&endpoint.path()).await.expect(204);
    }
}

/// RET-1: nobody listens.
#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let server = TestServer::start().await;
    let gone = Receiver::start([200]).await;
    let url = gone.url();
    drop(gone);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.endpoint(&server.default_app().await, &url).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(minutes(1)).await;
    assert_eq!(server.attempts(&message).await.outcomes(), ["connect", "connect"]);
}

/// RET-5: numbers go on after a restart, and a manual attempt beside the schedule does not use it up.
#[tokio::test]
async fn attempts_are_counted_through_restarts_and_resends() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(seconds(6)).await;
    let server = server.restart().await;
    let path = format!("/api/v1/app/{}/msg/{}/endpoint/{}/resend", message.app, message.id, endpoint.id);
    server.client().post_empty(&path).await.expect(202);
    server.clock.advance(days(5)).await;
    let attempts = server.attempts(&message).await;
    let of = |trigger: u64| -> Vec<u64> {
        let own = attempts.0.iter().filter(|attempt| attempt["triggerType"] == trigger);
        own.map(|attempt| attempt["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(of(0), (1..=10).collect::<Vec<_>>());
    assert_eq!(of(1).len(), 1, "{attempts:?}");
}

/// `retrySchedule` and `deadlineSeconds` of an endpoint, down to milliseconds.
#[tokio::test]
async fn an_endpoint_has_its_own_schedule() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503]).await;
    let schedule = json!({ "retrySchedule": [0.02, 0.02, 60] });
    server.endpoint_with(&server.default_app().await, &receiver.url(), schedule).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(3).await;
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 3);
    server.clock.advance(hours(100)).await;
    assert_eq!(server.attempts(&message).await.len(), 4);
}

/// The deadline alone: the waits stay the server's.
#[tokio::test]
async fn an_endpoint_has_its_own_deadline() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503]).await;
    let deadline = json!({ "deadlineSeconds": 600 });
    server.endpoint_with(&server.default_app().await, &receiver.url(), deadline).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(hours(100)).await;
    assert_eq!(
        server.attempts(&message).await.len(),
        3,
        "at once, after 5 s, after 5 min; the next is too late"
    );
}

/// SEC-1: what receivers de-duplicate by stays the same, and what keeps old requests from being replayed does not.
#[tokio::test]
async fn every_attempt_has_the_same_id_and_a_timestamp_and_signature_of_its_own() {
    let server = TestServer::start().await;
    let receiver = server.receiver([503, 503, 200]).await;
    server.send("invoice.paid", json!({})).await;
    server.clock.advance(hours(1)).await;
    let distinct = |name: &str| {
        let requests = receiver.requests();
        requests.iter().map(|request| request.header(name).unwrap().to_owned()).collect::<BTreeSet<_>>().len()
    };
    let counts = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(distinct);
    assert_eq!(counts, [1, 3, 3]);
}

/// RET-6: by hand there is always one more.
#[tokio::test]
async fn a_delivery_that_has_failed_for_good_can_be_sent_again_by_hand() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([500]).await;
    let only = json!({ "retrySchedule": [] });
    let endpoint = server.endpoint_with(&server.default_app().await, &receiver.url(), only).await;
    let message = server.send("invoice.paid", json!({})).await;
    server.clock.advance(hours(1)).await;
    assert_eq!(server.attempts(&message).await.len(), 1);
    receiver.replies([200]);
    let path = format!("/api/v1/app/{}/msg/{}/endpoint", message.app, message.id);
    server.client().post_empty(&format!("{path}/{}/resend", endpoint.id)).await.expect(202);
    assert_eq!(server.wait_for_attempts(&message, 2).await.statuses(), [500, 200]);
    server.clock.quiet().await;
    assert_eq!(server.client().get(&path).await.items()[0]["statusText"], "success");
}
