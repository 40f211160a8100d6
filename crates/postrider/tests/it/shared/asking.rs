//! The live state of an endpoint is that of the node that serves it, whichever node is asked.

use super::nodes::two;
use postrider_testing::{Endpoint, Reply, TestServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

async fn get(server: &TestServer, endpoint: &Endpoint, what: &str) -> Value {
    server.client().get(&format!("{}/{what}", endpoint.path())).await.expect(200)
}

async fn publish(server: &TestServer, endpoint: &Endpoint, count: usize) {
    for _ in 0..count {
        let body = json!({ "eventType": "a", "payload": {} });
        server.client().post(&format!("/api/v1/app/{}/msg", endpoint.app), body).await.expect(202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_the_breaker_of_the_node_that_serves_the_endpoint() {
    let (one, two) = two().await;
    let receiver = one.receiver([Reply::Drop]).await;
    // So many that each node serves some.
    let mut endpoints = Vec::new();
    for number in 0..8 {
        let app = one.app(&format!("app-{number}")).await;
        let endpoint = one.endpoint(&app, &receiver.url()).await;
        let closed = get(&one, &endpoint, "breaker").await;
        assert_eq!((&closed["state"], &get(&two, &endpoint, "breaker").await), (&json!("closed"), &closed));
        publish(&one, &endpoint, 10).await;
        endpoints.push(endpoint);
    }
    for endpoint in &endpoints {
        let begun = Instant::now();
        let told = loop {
            let told = [get(&one, endpoint, "breaker").await, get(&two, endpoint, "breaker").await];
            if told.iter().all(|told| told["state"] == "open") && told[0] == told[1] {
                break told;
            }
            assert!(begun.elapsed() < PATIENCE, "{told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(told[1]["trouble"], "connect");
        assert!(told[1]["openSince"].is_string() && told[1]["trips"].as_u64() >= Some(1), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_what_the_rate_limit_of_an_endpoint_does() {
    let (one, two) = two().await;
    let receiver = one.receiver([200]).await;
    for number in 0..6 {
        let app = one.app(&format!("app-{number}")).await;
        let endpoint = one.endpoint_with(&app, &receiver.url(), json!({ "throttleRate": 1 })).await;
        publish(&two, &endpoint, 6).await;
        for node in [&one, &two] {
            let begun = Instant::now();
            while get(node, &endpoint, "rate-limit-status").await["status"] != "RateLimited" {
                assert!(begun.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
