//! What a node asks the database when there is nothing to do, and how soon it begins when there is.

use super::nodes::two;
use postrider_testing::{Receiver, TestServer, Traffic};
use serde_json::json;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Until what a start does is done, the first round of retention with it.
const SETTLED: Duration = Duration::from_secs(15);
/// Longer than the lease's renewals and the rounds of everything else are apart.
const WATCHED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_rest_asks_the_database_less_than_once_a_second() {
    let (one, two) = two().await;
    let receiver = Receiver::start([200]).await;
    one.endpoint(&one.default_app().await, &receiver.url()).await;
    one.send("invoice.paid", json!({})).await;
    receiver.wait_for(1).await;
    tokio::time::sleep(SETTLED).await;
    let before = [one.way().traffic(), two.way().traffic()];
    tokio::time::sleep(WATCHED).await;
    for (node, before) in [&one, &two].into_iter().zip(before) {
        let Traffic { connections, statements } = node.way().traffic();
        let (connections, statements) = (connections - before.connections, statements - before.statements);
        println!("at rest: {statements} statements, {connections} new connections in {WATCHED:?}");
        assert!(statements < WATCHED.as_secs(), "{statements} statements in {WATCHED:?}");
        assert!(connections <= 1, "{connections} new connections");
    }
}

/// From the answer to a publish until the request arrives, one message after the other; sorted.
async fn starts(publish_to: &[&TestServer], receiver: &Receiver) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..24 {
        let node = publish_to[number % publish_to.len()];
        let before = receiver.requests().len();
        node.send("invoice.paid", json!({ "number": number })).await;
        let answered = Instant::now();
        let arrived = receiver.wait_for(before + 1).await[before].at;
        took.push(arrived.saturating_duration_since(answered));
        tokio::time::sleep(SECOND / 20).await;
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_delivery_is_begun_within_a_tenth_of_a_second_on_one_node() {
    let server = TestServer::shared(|_| {}).await;
    let receiver = server.receiver([200]).await;
    let took = starts(&[&server], &receiver).await;
    println!("begun on one node: median {:?}, at most {:?}", took[took.len() / 2], took[took.len() - 1]);
    // Typically, because others use the machine too; all within what several nodes may take.
    assert!(took[took.len() * 3 / 4] <= SECOND / 10 && took[took.len() - 1] <= SECOND, "{took:?}");

    let retried = Receiver::start([503, 200]).await;
    let members = json!({ "retrySchedule": [2] });
    server.endpoint_with(&server.app("retried").await, &retried.url(), members).await;
    server.send_to(&server.app("retried").await, "invoice.paid", json!({})).await;
    let requests = retried.wait_for(2).await;
    let waited = requests[1].at - requests[0].at;
    println!("a retry after 2 to 2.2 s came after {waited:?}");
    assert!(waited >= 2 * SECOND && waited <= Duration::from_millis(2_200) + SECOND / 2, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_delivery_is_begun_within_a_second_across_nodes() {
    let (one, two) = two().await;
    let receiver = one.receiver([200]).await;
    let took = starts(&[&one, &two], &receiver).await;
    println!("begun across nodes: median {:?}, at most {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(took[took.len() - 1] <= SECOND, "{took:?}");
}
