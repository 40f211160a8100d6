//! Two nodes on one database: what is changed through one holds on the other within a second, and what an endpoint is
//! allowed it is allowed by both together.

use postrider::config::Config;
use postrider_testing::{Endpoint, Receiver, Reply, TestServer};
use serde_json::json;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes, each with half of the endpoints.
pub(super) async fn two() -> (TestServer, TestServer) {
    two_with(|_| {}).await
}

/// The same with changed settings.
async fn two_with(change: impl FnOnce(&mut Config)) -> (TestServer, TestServer) {
    let one = TestServer::shared(change).await;
    let two = one.another_node().await;
    let begun = Instant::now();
    let database = one.place().unwrap().client().await.unwrap();
    loop {
        let text = "SELECT count(DISTINCT owner), count(*) FILTER (WHERE owner IS NULL) FROM shard";
        let row = database.query_one(text, &[]).await.unwrap();
        if (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (2, 0) {
            return (one, two);
        }
        assert!(begun.elapsed() < PATIENCE, "the nodes do not share the endpoints");
        tokio::time::sleep(SECOND / 50).await;
    }
}

/// Enough endpoints that each node serves some, each of its own application.
async fn endpoints(server: &TestServer, receiver: &Receiver) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for number in 0..6 {
        let app = server.app(&format!("app-{number}")).await;
        endpoints.push(server.endpoint(&app, &receiver.url_with(&format!("/{number}"))).await);
    }
    endpoints
}

/// Publishes to the application of each endpoint through both nodes.
async fn publish(nodes: [&TestServer; 2], endpoints: &[Endpoint]) {
    for node in nodes {
        for endpoint in endpoints {
            let body = json!({ "eventType": "invoice.paid", "payload": {} });
            node.client().post(&format!("/api/v1/app/{}/msg", endpoint.app), body).await.expect(202);
        }
    }
}

/// Publishes again and again through both nodes, and each time waits until everything accepted went out; returns how
/// long after `since` the last request went out that was as it should not be any more.
async fn last_old(
    nodes: [&TestServer; 2],
    endpoints: &[Endpoint],
    receiver: &Receiver,
    since: Instant,
    old: impl Fn(&postrider_testing::Received) -> bool,
) -> Duration {
    while since.elapsed() < 2 * SECOND {
        publish(nodes, endpoints).await;
        tokio::time::sleep(SECOND / 20).await;
    }
    for node in nodes {
        node.clock.quiet().await;
    }
    let requests = receiver.requests();
    let late = requests
        .iter()
        .filter(|request| old(request))
        .filter_map(|request| request.at.checked_duration_since(since));
    late.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_header_and_url_hold_on_all_nodes_within_a_second() {
    let (one, two) = two().await;
    let receiver = Receiver::start([200]).await;
    let endpoints = endpoints(&one, &receiver).await;
    publish([&one, &two], &endpoints).await;
    receiver.wait_for(2 * endpoints.len()).await;
    for endpoint in &endpoints {
        let headers = json!({ "headers": { "X-Version": "two" } });
        one.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
        let url = json!({ "url": receiver.url_with("/moved") });
        one.client().patch(&endpoint.path(), url).await.expect(200);
    }
    let changed = Instant::now();
    let old = |request: &postrider_testing::Received| {
        request.header("x-version") != Some("two") || request.path != "/moved"
    };
    let late = last_old([&one, &two], &endpoints, &receiver, changed, old).await;
    println!("the last request with the old header or URL came {late:?} after the change");
    assert!(late <= SECOND, "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_and_a_deleted_endpoint_get_nothing_from_any_node_after_a_second() {
    let (one, two) = two().await;
    let receiver = Receiver::start([200]).await;
    let endpoints = endpoints(&one, &receiver).await;
    publish([&one, &two], &endpoints).await;
    receiver.wait_for(2 * endpoints.len()).await;
    let (disabled, deleted) = endpoints.split_at(endpoints.len() / 2);
    for endpoint in disabled {
        one.client().patch(&endpoint.path(), json!({ "disabled": true })).await.expect(200);
    }
    for endpoint in deleted {
        two.client().delete(&endpoint.path()).await.expect(204);
    }
    let changed = Instant::now();
    let late = last_old([&one, &two], &endpoints, &receiver, changed, |_| true).await;
    println!("the last request to a disabled or deleted endpoint came {late:?} after the change");
    assert!(late <= SECOND, "{late:?}");

    // What was published meanwhile was not matched any more; what is published from now on is.
    let before = receiver.requests().len();
    for endpoint in disabled {
        two.client().patch(&endpoint.path(), json!({ "disabled": false })).await.expect(200);
    }
    let enabled = Instant::now();
    while receiver.requests().len() < before + disabled.len() {
        assert!(enabled.elapsed() < PATIENCE, "nothing comes");
        publish([&one, &two], disabled).await;
        tokio::time::sleep(SECOND / 20).await;
    }
    let took = receiver.requests()[before].at - enabled;
    println!("the first request to an endpoint that was enabled came after {took:?}");
    assert!(took <= SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_endpoint_gets_messages_of_all_nodes_and_a_revoked_key_opens_none_within_a_second() {
    let (one, two) = two().await;
    let receiver = Receiver::start([200]).await;
    let app = one.default_app().await;
    // Both know the application without endpoints.
    for node in [&one, &two] {
        node.send("invoice.paid", json!({})).await;
    }
    one.endpoint(&app, &receiver.url()).await;
    let created = Instant::now();
    while receiver.requests().is_empty() {
        assert!(created.elapsed() < PATIENCE, "nothing comes");
        two.send("invoice.paid", json!({})).await;
        tokio::time::sleep(SECOND / 20).await;
    }
    let took = receiver.requests()[0].at - created;
    println!("the first request of the other node to a new endpoint came after {took:?}");
    assert!(took <= SECOND, "{took:?}");

    let environment = one.store.environments().await.unwrap().remove(0);
    let keys = one.store.api_keys(&environment).await.unwrap();
    two.client().get("/api/v1/app").await.expect(200);
    for key in keys {
        one.store.revoke_api_key(&environment, key.id).await.unwrap();
    }
    let revoked = Instant::now();
    while two.client().get("/api/v1/app").await.status != 401 {
        assert!(revoked.elapsed() <= SECOND, "a revoked key still opens the other node");
        tokio::time::sleep(SECOND / 50).await;
    }
    println!("a revoked key opened the other node for {:?}", revoked.elapsed());
}

/// Publishes so many messages to one application through both nodes at once.
async fn flood(nodes: [&TestServer; 2], count: usize) {
    let sends = (0..count).map(|number| nodes[number % 2].send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sends).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_gets_no_more_than_its_rate_from_all_nodes_together() {
    let (one, two) = two().await;
    let receiver = Receiver::start([200]).await;
    let members = json!({ "throttleRate": 20 });
    one.endpoint_with(&one.default_app().await, &receiver.url(), members).await;
    flood([&one, &two], 100).await;
    let requests = receiver.wait_for(100).await;
    let at: Vec<Instant> = requests.iter().map(|request| request.at).collect();
    let within = |first: &Instant| at.iter().filter(|at| *at >= first && **at - *first < SECOND).count();
    let (most, all) = (at.iter().map(within).max().unwrap(), at[99] - at[0]);
    println!("a rate of 20 over two nodes: a hundred in {all:?}, {most} within a second at most");
    // Requests may gather on their way for a tenth of a second, and a second begins with one of its own.
    assert!(most <= 25 && all >= 4 * SECOND, "{most} within a second, all in {all:?}");
    assert!(all <= 12 * SECOND, "the limit is no brake: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_has_no_more_in_flight_than_it_may_from_all_nodes_together() {
    let most = 6;
    let (one, two) = two_with(|config| {
        config.delivery.in_flight_per_endpoint = most;
        config.delivery.in_flight_per_quick_endpoint = most;
        config.delivery.in_flight_per_slow_endpoint = most;
    })
    .await;
    let slow = SECOND / 2;
    let receiver = one.receiver([Reply::Slow(slow, 200)]).await;
    flood([&one, &two], 3 * most).await;
    let requests = receiver.wait_for(3 * most).await;
    // A request is there until it is answered, after `slow` at the earliest.
    let there = |at: Instant| requests.iter().filter(|other| other.at <= at && at < other.at + slow).count();
    let found = requests.iter().map(|request| there(request.at)).max().unwrap();
    println!("{found} in flight over two nodes, {most} allowed");
    assert!(found <= most, "{found} in flight, {most} allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_in_trouble_is_left_alone_by_all_nodes() {
    let (one, two) = two().await;
    let receiver = one.receiver([Reply::Drop]).await;
    flood([&one, &two], 30).await;
    let opened = Instant::now();
    // Until the breaker is open nothing more is sent; its first pause is longer than this.
    let mut before = 0;
    loop {
        tokio::time::sleep(SECOND).await;
        let now = receiver.requests().len();
        if now == before {
            break;
        }
        before = now;
        assert!(opened.elapsed() < PATIENCE, "it is not left alone: {now} requests");
    }
    flood([&one, &two], 30).await;
    tokio::time::sleep(SECOND).await;
    let more = receiver.requests().len() - before;
    println!(
        "{before} requests until the breaker was open, {more} of thirty messages through two nodes afterwards"
    );
    assert!(more <= 1, "{more} requests to an endpoint whose breaker is open");
}
