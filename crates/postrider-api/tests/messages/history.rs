//! History: what attempts came to, by endpoint and by message, and sending again.

use crate::server::{Server, Tenant, ids};
use http::Method;
use postrider_model::{
    outcome::Outcome,
    retry::{GiveUp, NextStep},
};
use serde_json::{Value, json};
use std::time::Duration;

const LATER: NextStep = NextStep::RetryAfter(Duration::from_hours(1));

fn of_app(tenant: &Tenant, rest: &str) -> String {
    format!("/api/v1/app/{}/{rest}", tenant.app)
}

#[tokio::test]
async fn statuses_follow_a_message_from_acceptance_to_its_end() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let message = server.publish(&tenant, "a").await;
    let of_endpoint = of_app(&tenant, &format!("endpoint/{}/msg", tenant.endpoint));
    let of_message = of_app(&tenant, &format!("msg/{message}/endpoint"));
    for (attempt, status, word, next) in [
        (None, 1, "pending", true),
        (Some((Outcome::HttpError, 503, LATER)), 3, "sending", true),
        (Some((Outcome::HttpError, 500, NextStep::GiveUp(GiveUp::Exhausted))), 2, "fail", false),
        (Some((Outcome::Succeeded, 200, NextStep::Delivered)), 0, "success", false),
    ] {
        if let Some((outcome, code, step)) = attempt {
            if status == 0 {
                let resend = of_app(&tenant, &format!("msg/{message}/endpoint/{}/resend", tenant.endpoint));
                let answer =
                    server.call(&tenant.token, Method::POST, &resend, None, bytes::Bytes::new()).await;
                assert_eq!(answer.expect(202), json!({}));
            }
            server.store.clock().advance(Duration::from_hours(2));
            assert_eq!(server.attempt_all(outcome, Some(code), step).await, 1, "{word}");
        }
        for path in [&of_endpoint, &of_message] {
            let list = server.get(&tenant.token, path).await.expect(200);
            let item = &list["data"][0];
            assert_eq!((&item["status"], &item["statusText"]), (&json!(status), &json!(word)), "{path}");
            assert_eq!(item["nextAttempt"].is_string(), next, "{word} {path}");
        }
        for filter in 0..5 {
            let list = server.get(&tenant.token, &format!("{of_endpoint}?status={filter}")).await.expect(200);
            assert_eq!(ids(&list).len(), usize::from(filter == status), "{word} filtered by {filter}");
        }
    }
}

#[tokio::test]
async fn attempts_are_listed_with_all_that_happened() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let message = server.publish(&tenant, "a").await;
    server.attempt_all(Outcome::HttpError, Some(503), LATER).await;
    server.store.clock().advance(Duration::from_hours(2));
    server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await;
    let endpoint = &tenant.endpoint;
    for path in [
        format!("attempt/endpoint/{endpoint}"),
        format!("attempt/msg/{message}"),
        format!("attempt/msg/{message}?endpoint_id={endpoint}"),
        format!("msg/{message}/attempt"),
        format!("msg/{message}/endpoint/{endpoint}/attempt"),
    ] {
        let list = server.get(&tenant.token, &of_app(&tenant, &path)).await.expect(200);
        let statuses: Vec<_> = list["data"].as_array().unwrap().iter().map(|item| &item["status"]).collect();
        assert_eq!(statuses, [0, 2], "{path}");
        assert_eq!(list["data"][1]["responseStatusCode"], 503);
        assert_eq!(list["data"][1]["response"], "answer");
        assert_eq!((&list["data"][0]["number"], &list["data"][1]["number"]), (&json!(2), &json!(1)));
        assert_eq!(list["done"], true);
    }
    let by_endpoint = of_app(&tenant, &format!("attempt/endpoint/{endpoint}"));
    for (filter, count) in [
        ("status=0", 1),
        ("status=2", 1),
        ("status=1", 0),
        ("status=3", 0),
        ("status_code_class=500", 1),
        ("status_code_class=0", 0),
        ("event_types[]=a&event_types[]=b", 2),
        ("event_types=b", 0),
        ("channel=x", 0),
        ("with_content=false&expanded_statuses=true&event_types=a,b", 2),
    ] {
        let list = server.get(&tenant.token, &format!("{by_endpoint}?{filter}")).await.expect(200);
        assert_eq!(ids(&list).len(), count, "{filter}");
    }
    let with_message = server
        .get(&tenant.token, &format!("{by_endpoint}?with_msg=true&with_content=false"))
        .await
        .expect(200);
    assert_eq!(with_message["data"][0]["msg"]["id"], json!(message));
    assert_eq!(with_message["data"][0]["response"], "{}");
    server
        .get(&tenant.token, &of_app(&tenant, &format!("attempt/msg/{message}?endpoint_id=unknown")))
        .await
        .expect(404);
}

#[tokio::test]
async fn one_attempt_is_read_and_its_response_expunged() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let message = server.publish(&tenant, "a").await;
    server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await;
    let list =
        server.get(&tenant.token, &of_app(&tenant, &format!("attempt/msg/{message}"))).await.expect(200);
    let path = of_app(&tenant, &format!("msg/{message}/attempt/{}", ids(&list)[0]));
    assert_eq!(server.get(&tenant.token, &path).await.expect(200), list["data"][0]);
    server.delete(&tenant.token, &format!("{path}/content")).await.expect(204);
    assert_eq!(server.get(&tenant.token, &path).await.expect(200)["response"], "EXPUNGED");
    let unknown = of_app(&tenant, &format!("msg/{message}/attempt/atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2"));
    assert_eq!(server.get(&tenant.token, &unknown).await.expect(404)["detail"], "Message attempt not found");
}

/// The owner of an endpoint is not told what the operator's network looks like.
#[tokio::test]
async fn consumers_see_one_outcome_for_hosts_that_cannot_be_delivered_to() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let consumer = server.token_of_app(&tenant, &tenant.app).await;
    for outcome in [Outcome::Dns, Outcome::Blocked] {
        server.publish(&tenant, "a").await;
        server.attempt_all(outcome, None, LATER).await;
    }
    let path = of_app(&tenant, &format!("attempt/endpoint/{}", tenant.endpoint));
    let list = server.get(&consumer, &path).await.expect(200);
    for member in ["outcome", "detail", "response", "timings", "responseStatusCode"] {
        assert_eq!(list["data"][0][member], list["data"][1][member], "{member}");
    }
    assert!(!list.to_string().contains("192.0.2.7"));
    assert_eq!(server.get(&tenant.token, &path).await.expect(200)["data"][0]["outcome"], "blocked");
}

#[tokio::test]
async fn numbers_of_an_endpoint_are_counted() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    server.publish(&tenant, "a").await;
    server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await;
    server.publish(&tenant, "a").await;
    server.attempt_all(Outcome::HttpError, Some(500), LATER).await;
    server.publish(&tenant, "a").await;
    let path = of_app(&tenant, &format!("endpoint/{}", tenant.endpoint));
    let stats = server.get(&tenant.token, &format!("{path}/stats")).await.expect(200);
    assert_eq!(stats, json!({"success": 1, "pending": 1, "sending": 1, "fail": 1, "canceled": 0}));
    let stats = server.get(&tenant.token, &format!("{path}/attempt-stats")).await.expect(200);
    assert_eq!(stats, json!({"success": 1, "fail": 1, "canceled": 0}));
    for query in ["until=2999-01-01T00:00:00Z", "since=2020-01-01T00:00:00Z"] {
        assert_eq!(
            server.get(&tenant.token, &format!("{path}/stats?{query}")).await.expect(400)["code"],
            "invalid_range"
        );
    }
    server.get(&tenant.token, &format!("{path}/stats?since=x")).await.expect(422);
}

#[tokio::test]
async fn a_test_send_answers_with_its_attempt() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let path = of_app(&tenant, &format!("endpoint/{}/msg/test-attempt", tenant.endpoint));
    let body = json!({"eventType": "a", "payload": {"n": 1}});
    let engine = server.clone();
    let attempts = tokio::spawn(async move {
        while engine.attempt_all(Outcome::HttpError, Some(404), NextStep::GiveUp(GiveUp::Exhausted)).await
            == 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let attempt = server.post(&tenant.token, &path, body.clone()).await.expect(201);
    attempts.await.unwrap();
    assert_eq!((&attempt["responseStatusCode"], &attempt["triggerType"]), (&json!(404), &json!(1)));
    let endpoint = of_app(&tenant, &format!("endpoint/{}", tenant.endpoint));
    let patch = json!({"disabled": true}).to_string();
    server.call(&tenant.token, Method::PATCH, &endpoint, None, patch.into()).await.expect(200);
    let refused = server.post(&tenant.token, &path, body).await.expect(400);
    assert!(refused["detail"].as_str().unwrap().contains("`disabled` to false"), "{refused}");
}

/// ING-13: pages go both ways, `after` includes and `before` excludes at the resolution of ids.
#[tokio::test]
async fn lists_are_paged_in_both_directions() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let mut published = Vec::new();
    for _ in 0..5 {
        published.insert(0, server.publish(&tenant, "a").await);
        // Ids carry 4 ms, which `before` and `after` go by.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let path = of_app(&tenant, "msg");
    let page = async |query: String| server.get(&tenant.token, &format!("{path}?{query}")).await.expect(200);
    let first = page("limit=2".into()).await;
    assert_eq!((ids(&first), &first["done"]), (published[..2].to_vec(), &json!(false)));
    let second = page(format!("limit=2&iterator={}", first["iterator"].as_str().unwrap())).await;
    assert_eq!(ids(&second), published[2..4]);
    let last = page(format!("limit=2&iterator={}", second["iterator"].as_str().unwrap())).await;
    assert_eq!((ids(&last), &last["done"]), (published[4..].to_vec(), &json!(true)));
    assert!(last["iterator"].is_string() && last["prevIterator"].is_string());
    let back = page(format!("limit=2&iterator={}", last["prevIterator"].as_str().unwrap())).await;
    assert_eq!((ids(&back), &back["done"]), (published[2..4].to_vec(), &json!(false)));
    let middle = second["data"][0]["timestamp"].as_str().unwrap().replace('+', "%2B");
    assert_eq!(ids(&page(format!("before={middle}")).await), published[3..]);
    assert_eq!(ids(&page(format!("after={middle}")).await), published[..3]);
    assert_eq!(ids(&page(format!("after={middle}&limit=1")).await), published[2..3], "read from that side");
    let empty = page("channel=none".into()).await;
    assert_eq!(empty, json!({"data": [], "iterator": null, "done": true}));
    for query in ["iterator=BAD-$$$ITERATOR", "limit=300", "limit=0", "before=never"] {
        let refused = server.get(&tenant.token, &format!("{path}?{query}")).await.expect(422);
        assert_eq!(refused["detail"][0]["loc"][0], "query", "{query}");
    }
}

/// ING-7: a message that nobody wants is accepted, visible and costs nothing.
#[tokio::test]
async fn a_message_without_an_endpoint_is_accepted() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let endpoint = of_app(&tenant, &format!("endpoint/{}", tenant.endpoint));
    let message = server.publish(&tenant, "a").await;
    server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await;
    server.delete(&tenant.token, &endpoint).await.expect(204);
    let unwanted = server.publish(&tenant, "a").await;
    assert_eq!(server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await, 0);
    let shown =
        server.get(&tenant.token, &of_app(&tenant, &format!("msg/{unwanted}/endpoint"))).await.expect(200);
    assert_eq!(shown["data"], json!([]));
    // A deleted endpoint still stands where it was tried.
    let tried =
        server.get(&tenant.token, &of_app(&tenant, &format!("msg/{message}/endpoint"))).await.expect(200);
    assert_eq!((ids(&tried), &tried["data"][0]["status"]), (vec![tenant.endpoint.clone()], &Value::from(0)));
}
