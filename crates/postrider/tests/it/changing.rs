//! Changes of the configuration while deliveries wait: they hold on the next attempt, wherever it was decided.

use postrider_testing::{
    Endpoint, MessageRef, Received, Receiver, Reply, TestServer, days, hours, minutes, seconds,
};
use serde_json::{Value, json};

/// A message whose first attempt has failed, its endpoint, and its receiver, which answers 200 from now on.
async fn failed_once(server: &TestServer) -> (MessageRef, Endpoint, Receiver) {
    let receiver = Receiver::start([503, 200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let message = server.send("invoice.paid", json!({ "id": 1 })).await;
    receiver.wait_for(1).await;
    server.clock.quiet().await;
    (message, endpoint, receiver)
}

async fn standing(server: &TestServer, message: &MessageRef) -> Value {
    let path = format!("/api/v1/app/{}/msg/{}/endpoint?expanded_statuses=true", message.app, message.id);
    server.client().get(&path).await.items().remove(0)
}

async fn change(server: &TestServer, endpoint: &Endpoint, members: Value) {
    server.client().patch(&endpoint.path(), members).await.expect(200);
}

/// Whether one of the signatures is made with this secret. (The library's `verify` also compares the time with this
/// machine's clock, not with the server's, which tests move.)
fn signed(request: &Received, secret: &Value) -> bool {
    let webhook = standardwebhooks::Webhook::new(secret["key"].as_str().unwrap()).unwrap();
    let field = |name| request.header(name).unwrap();
    let at = field("webhook-timestamp").parse().unwrap();
    let expected = webhook.sign(field("webhook-id"), at, &request.body).unwrap();
    field("webhook-signature").split(' ').any(|own| own == expected)
}

/// RET-14, H10: the history keeps the URL of each attempt.
#[tokio::test]
async fn a_pending_retry_goes_to_the_new_url_with_the_new_headers() {
    let server = TestServer::start().await;
    let (message, endpoint, old) = failed_once(&server).await;
    let new = Receiver::start([200]).await;
    change(&server, &endpoint, json!({ "url": new.url_with("/moved") })).await;
    let headers = json!({ "headers": { "X-Region": "north" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    server.clock.advance(minutes(1)).await;
    let request = new.wait_for(1).await.remove(0);
    assert_eq!((request.path.as_str(), request.header("x-region")), ("/moved", Some("north")));
    assert_eq!(old.requests().len(), 1);
    let attempts = server.attempts(&message).await;
    assert_eq!(attempts.statuses(), [503, 200]);
    assert_eq!(
        (&attempts.0[0]["url"], &attempts.0[1]["url"]),
        (&json!(old.url()), &json!(new.url_with("/moved")))
    );
}

/// RET-14, K09, SEC-2: the rotated secret signs a retry; without overlap it signs alone.
#[tokio::test]
async fn a_pending_retry_is_signed_with_the_secret_as_it_stands() {
    let server = TestServer::start().await;
    let (_, endpoint, receiver) = failed_once(&server).await;
    let path = format!("{}/secret", endpoint.path());
    let old = server.client().get(&path).await.expect(200);
    server.client().post(&format!("{path}/rotate"), json!({ "gracePeriodSeconds": 0 })).await.expect(200);
    let new = server.client().get(&path).await.expect(200);
    server.clock.advance(minutes(1)).await;
    let request = receiver.wait_for(2).await.remove(1);
    assert_eq!((signed(&request, &old), signed(&request, &new)), (false, true));
}

/// K09, SEC-2: whoever has either secret can verify during the overlap, and only the new one after it.
#[tokio::test]
async fn during_the_overlap_both_secrets_sign() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let path = format!("{}/secret", endpoint.path());
    let old = server.client().get(&path).await.expect(200);
    server.client().post(&format!("{path}/rotate"), json!({ "gracePeriodSeconds": 3600 })).await.expect(200);
    let new = server.client().get(&path).await.expect(200);
    for after in [seconds(0), hours(2)] {
        server.clock.advance(after).await;
        server.send("invoice.paid", json!({})).await;
        server.clock.quiet().await;
    }
    let verified = |secret: &Value| -> Vec<bool> {
        receiver.requests().iter().map(|request| signed(request, secret)).collect()
    };
    assert_eq!((verified(&old), verified(&new)), (vec![true, false], vec![true, true]));
}

/// LIFE-1: what waits for a deleted endpoint is cancelled, its history stays, and nothing is sent any more.
#[tokio::test]
async fn deleting_an_endpoint_cancels_what_waits_for_it() {
    let server = TestServer::start().await;
    let (message, endpoint, receiver) = failed_once(&server).await;
    server.client().delete(&endpoint.path()).await.expect(204);
    let shown = standing(&server, &message).await;
    assert_eq!((&shown["statusText"], &shown["nextAttempt"]), (&json!("canceled"), &Value::Null), "{shown}");
    server.clock.advance(days(4)).await;
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(server.attempts(&message).await.statuses(), [503], "what happened can still be read");
}

/// LIFE-1, I10: the same for a whole application, in the middle of an attempt.
#[tokio::test]
async fn deleting_an_application_during_an_attempt_ends_with_that_attempt() {
    let server = TestServer::start().await;
    let receiver = server.receiver([Reply::Slow(std::time::Duration::from_millis(300), 503)]).await;
    let app = server.default_app().await;
    server.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    server.client().delete(&app.path()).await.expect(204);
    server.clock.advance(days(4)).await;
    assert_eq!(receiver.requests().len(), 1);
    server.client().get(&app.path()).await.expect(404);
}

/// LIFE-2: no attempt begins after the answer, also of what was due; afterwards all of it goes on.
#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_until_it_is_enabled() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([503]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let mut messages = Vec::new();
    for number in 0..20 {
        messages.push(server.send("invoice.paid", json!({ "number": number })).await);
    }
    server.clock.quiet().await;
    change(&server, &endpoint, json!({ "disabled": true })).await;
    assert_eq!(standing(&server, &messages[0]).await["nextAttempt"], Value::Null, "it is held");
    server.clock.advance(hours(3)).await;
    assert_eq!(receiver.requests().len(), 20);
    receiver.replies([200]);
    change(&server, &endpoint, json!({ "disabled": false })).await;
    server.clock.advance(seconds(1)).await;
    for message in &messages {
        assert_eq!(server.attempts(message).await.statuses(), [503, 200]);
    }
}

/// What is held expires all the same: a message of last week is no news.
#[tokio::test]
async fn what_is_held_beyond_its_deadline_is_not_sent_when_the_endpoint_is_enabled() {
    let server = TestServer::start().await;
    let (message, endpoint, receiver) = failed_once(&server).await;
    change(&server, &endpoint, json!({ "disabled": true })).await;
    server.clock.advance(days(5)).await;
    change(&server, &endpoint, json!({ "disabled": false })).await;
    server.clock.advance(seconds(1)).await;
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(standing(&server, &message).await["statusText"], "fail");
}

/// LIFE-8: absent members stay as they are, `null` clears, and credentials are never lost by leaving them out.
#[tokio::test]
async fn a_patch_clears_what_is_null_and_keeps_what_is_absent() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let members = json!({ "channels": ["eu"], "metadata": { "team": "billing" }, "retrySchedule": [1, 2] });
    let endpoint = server.endpoint_with(&server.default_app().await, &receiver.url(), members).await;
    let headers = json!({ "headers": { "X-Api-Key": "kept" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    let cleared = json!({ "channels": null, "retrySchedule": null });
    let shown = server.client().patch(&endpoint.path(), cleared).await.expect(200);
    assert_eq!((&shown["channels"], &shown["retrySchedule"]), (&Value::Null, &Value::Null));
    assert_eq!(shown["metadata"], json!({ "team": "billing" }));
    server.send("invoice.paid", json!({})).await;
    assert_eq!(receiver.wait_for(1).await[0].header("x-api-key"), Some("kept"));
}

/// LIFE-3: a change holds on the next message.
#[tokio::test]
async fn a_new_filter_holds_on_the_next_message() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    for round in 0..10 {
        let channels = if round % 2 == 0 { json!(["other"]) } else { Value::Null };
        change(&server, &endpoint, json!({ "channels": channels })).await;
        server.send("invoice.paid", json!({ "round": round })).await;
    }
    server.clock.quiet().await;
    let rounds: Vec<_> = receiver.requests().iter().map(|request| request.json()["round"].clone()).collect();
    assert_eq!(rounds.len(), 5, "{rounds:?}");
    assert!(rounds.iter().all(|round| round.as_u64().unwrap() % 2 == 1), "{rounds:?}");
}

/// LIFE-10: a list of types that is empty would be a filter that lets nothing, or everything, through: it is refused.
#[tokio::test]
async fn an_empty_filter_is_refused_and_an_unknown_type_named() {
    let server = TestServer::start().await;
    let path = format!("{}/endpoint", server.default_app().await.path());
    for member in ["eventTypes", "filterTypes", "channels"] {
        let body = json!({ "url": "https://example.com/", member: [] });
        let refused = server.client().post(&path, body).await.expect(422);
        assert_eq!(refused["detail"][0]["loc"][1], if member == "channels" { member } else { "eventTypes" });
    }
    let unknown = json!({ "url": "https://example.com/", "eventTypes": ["no.such.type"] });
    let answer = server.client().post(&path, unknown).await;
    assert!(
        (400..500).contains(&answer.status) && answer.body.to_string().contains("no.such.type"),
        "{answer:?}"
    );
    assert!(server.client().get(&path).await.items().is_empty());
}
