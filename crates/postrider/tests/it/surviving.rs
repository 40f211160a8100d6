//! What stays true when the server ends, in order or not, and when a delivery fails for a reason inside.

use postrider_model::{
    application::Ref,
    headers::{CustomHeader, CustomHeaders},
    id::{ApplicationId, EndpointId},
};
use postrider_store::endpoints::AppScope;
use postrider_testing::{Endpoint, Reply, TestServer, hours};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

/// DUR-6: what runs is finished and recorded; nothing is sent twice.
#[tokio::test]
async fn a_stop_lets_running_attempts_finish() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Slow(Duration::from_millis(700), 200)]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    let server = server.restart().await;
    server.clock.quiet().await;
    assert_eq!(server.attempts(&message).await.statuses(), [200]);
    assert_eq!(receiver.requests().len(), 1);
}

/// DUR-6: a stop is no reason to fail; what hangs ends with its own deadline and is retried after the restart.
#[tokio::test]
async fn a_hanging_attempt_delays_a_stop_only_until_its_deadline() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Hang, Reply::Status(200)]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    let server = server.restart().await;
    assert_eq!(server.attempts(&message).await.outcomes(), ["timeout"]);
    server.clock.advance(hours(1)).await;
    assert_eq!(server.attempts(&message).await.outcomes(), ["timeout", "succeeded"]);
}

/// DUR-2: the attempt that the crash cut off is in the history, and the delivery goes on at once.
#[tokio::test]
async fn a_crash_during_an_attempt_costs_one_repetition() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Hang, Reply::Status(200)]).await;
    let message = server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    let server = server.crash().await;
    let requests = receiver.wait_for(2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(server.wait_for_attempts(&message, 2).await.outcomes(), ["interrupted", "succeeded"]);
    server.clock.quiet().await;
    assert_eq!(receiver.requests().len(), 2);
}

/// DUR-1, DUR-8: what was acknowledged is delivered whatever was in memory.
#[tokio::test]
async fn a_crash_right_after_the_answer_loses_nothing() {
    let server = TestServer::start().await;
    let receiver = server.receiver([200]).await;
    let mut accepted = BTreeSet::new();
    for number in 0..25 {
        accepted.insert(server.send("invoice.paid", json!({ "number": number })).await.id);
    }
    let server = server.crash().await;
    server.clock.quiet().await;
    let requests = receiver.requests();
    let delivered: BTreeSet<String> =
        requests.iter().filter_map(|request| request.header("webhook-id")).map(str::to_owned).collect();
    assert_eq!(delivered, accepted);
    // At most what one endpoint can have in flight is repeated.
    assert!(
        requests.len() <= accepted.len() + server.config.delivery.in_flight_per_endpoint,
        "{}",
        requests.len()
    );
}

/// A delivery that takes the process with it three times is set aside, visibly, and the others go on.
#[tokio::test]
async fn a_delivery_that_kills_the_process_three_times_is_set_aside() {
    let mut server = TestServer::start().await;
    let receiver = server.receiver([Reply::Hang]).await;
    let message = server.send("invoice.paid", json!({})).await;
    for death in 1..=3 {
        receiver.wait_for(death).await;
        server = server.crash().await;
    }
    receiver.replies([200]);
    let later = server.send("invoice.paid", json!({})).await;
    assert_eq!(server.wait_for_attempts(&later, 1).await.outcomes(), ["succeeded"]);
    server.clock.advance(hours(100)).await;
    assert_eq!(server.attempts(&message).await.outcomes(), ["interrupted"; 3]);
    assert_eq!(receiver.requests().len(), 4);
}

/// DUR-4, DUR-5: visible to the endpoint's owner, retried by the schedule, and nothing is sent.
#[tokio::test]
async fn a_stored_header_that_is_not_allowed_makes_a_failed_attempt_that_its_owner_sees() {
    let server = TestServer::start().await;
    let receiver = postrider_testing::Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    store_header(&server, &endpoint, "X-Split", "one\r\nX-Injected: two").await;
    let message = server.send("invoice.paid", json!({})).await;
    let attempts = server.wait_for_attempts(&message, 1).await;
    assert_eq!(attempts.outcomes(), ["config_invalid"]);
    assert!(!attempts.last().to_string().contains("X-Injected"), "{}", attempts.last());
    store_header(&server, &endpoint, "X-Split", "one").await;
    server.clock.advance(hours(1)).await;
    assert_eq!(server.attempts(&message).await.outcomes(), ["config_invalid", "succeeded"]);
    assert_eq!(receiver.requests().len(), 1);
}

/// Puts a header into the store, past the check at the API.
async fn store_header(server: &TestServer, endpoint: &Endpoint, name: &str, value: &str) {
    let environment = server.store.environments().await.unwrap().remove(0);
    let scope = AppScope { environment, application: ApplicationId::parse(&endpoint.app).unwrap() };
    let id = EndpointId::parse(&endpoint.id).unwrap();
    let version = server.store.endpoint(&scope, &Ref::Id(id)).await.unwrap().unwrap().version;
    let header = CustomHeader { name: name.to_owned(), value: value.into(), sensitive: false };
    server
        .store
        .replace_headers(&scope, id, version, CustomHeaders::from_stored(vec![header]))
        .await
        .unwrap();
}

/// DUR-6, DUR-8: a stop in the middle of a backlog loses nothing, fails nothing and repeats nothing.
#[tokio::test]
async fn a_stop_in_the_middle_of_a_backlog_repeats_nothing() {
    let server = TestServer::start().await;
    // So slow that a busy machine, too, publishes all before the last is sent.
    let receiver = server.receiver([Reply::Slow(Duration::from_secs(1), 200)]).await;
    let mut accepted = BTreeSet::new();
    for number in 0..60 {
        accepted.insert(server.send("invoice.paid", json!({ "number": number })).await.id);
    }
    receiver.wait_for(10).await;
    let mut sent = 0;
    let server = server.restart_with(|_| sent = receiver.requests().len()).await;
    assert!((10..60).contains(&sent), "{sent} were sent before the restart");
    receiver.wait_for(60).await;
    server.clock.quiet().await;
    let requests = receiver.requests();
    let delivered: BTreeSet<String> =
        requests.iter().filter_map(|request| request.header("webhook-id")).map(str::to_owned).collect();
    assert_eq!((requests.len(), delivered), (60, accepted));
}

/// DUR-8: everything that was configured and everything that waits is there after a restart.
#[tokio::test]
async fn a_restart_keeps_configuration_secrets_and_pending_retries() {
    let server = TestServer::start().await;
    let receiver = postrider_testing::Receiver::start([503, 200]).await;
    let members = json!({ "uid": "kept", "channels": ["eu"], "metadata": { "team": "billing" }, "retrySchedule": [60] });
    let app = server.default_app().await;
    let endpoint = server.endpoint_with(&app, &receiver.url(), members).await;
    let headers = json!({ "headers": { "X-Api-Key": "sealed", "X-Plain": "clear" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    let body = json!({ "eventType": "invoice.paid", "payload": {}, "channels": ["eu"] });
    server.client().post(&format!("{}/msg", app.path()), body).await.expect(202);
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    let view = async |server: &TestServer| {
        let mut seen = Vec::new();
        for path in ["", "/headers", "/secret", "/msg"] {
            seen.push(server.client().get(&format!("{}{path}", endpoint.path())).await.expect(200));
        }
        seen
    };
    let before = view(&server).await;
    let server = server.restart().await;
    assert_eq!(view(&server).await, before);
    server.clock.advance(postrider_testing::minutes(2)).await;
    let requests = receiver.wait_for(2).await;
    assert_eq!(requests[1].header("x-api-key"), Some("sealed"));
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
}
