//! Retries: the schedule, its end, and what stretches it.

use postrider_testing::{Reply, TestServer, days, hours, minutes, seconds};
use serde_json::json;

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
    let bodies: std::collections::BTreeSet<_> =
        receiver.requests().into_iter().map(|request| request.body).collect();
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
