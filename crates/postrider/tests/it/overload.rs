//! More than the server can do: refused in good order, nothing accepted is lost, and others are served meanwhile. Real
//! connections, real time.

use postrider_testing::{App, Receiver, TestServer};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::{sleep, timeout},
};

/// Longest body of an API request.
const BODY: usize = postrider_model::limits::REQUEST_BODY_BYTES;
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that is kept.
struct Connection(TcpStream);

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Connection {
    async fn open(server: &TestServer) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the server under test")]
        let stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn ask(&mut self, request: &str) -> Answer {
        self.0.write_all(request.as_bytes()).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.read()).await.expect("an answer comes")
    }

    async fn read(&mut self) -> Answer {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length: usize =
                    field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                if bytes.len() >= end + 4 + length {
                    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or(Value::Null);
                    return Answer { status: head[9..12].parse().unwrap(), head, body };
                }
            }
            let read = self.0.read_buf(&mut bytes).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

impl Answer {
    /// A refusal says when to come back and why.
    fn is_well_refused(&self, codes: &[&str]) -> bool {
        let again = field(&self.head, "retry-after").and_then(|value| value.parse::<u32>().ok());
        matches!(self.status, 429 | 503)
            && again.is_some_and(|seconds| seconds > 0)
            && field(&self.head, "content-type") == Some("application/json")
            && codes.iter().any(|code| self.body["code"] == *code)
            && self.body["detail"].is_string()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn post(server: &TestServer, path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("{}{body}", head(server, path, body.len()))
}

fn head(server: &TestServer, path: &str, length: usize) -> String {
    let token = server.token();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn messages(app: &App) -> String {
    format!("{}/msg", app.path())
}

fn event() -> Value {
    json!({ "eventType": "invoice.paid", "payload": { "id": 1 } })
}

/// A value of the metrics page.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let page = server.client().get("/metrics").await;
    let page = String::from_utf8_lossy(&page.bytes).into_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{page}")).parse().unwrap()
}

async fn few_at_once(change: impl FnOnce(&mut postrider_api::admission::LimitsConfig)) -> TestServer {
    TestServer::with(|config| {
        config.api.limits.publishes_at_once = 2;
        config.api.limits.publish_wait_ms = 1;
        change(&mut config.api.limits);
    })
    .await
}

/// What a flood of publishers saw.
#[derive(Default)]
struct Flood {
    accepted: BTreeSet<String>,
    refused: usize,
}

/// Publishers that ask again as soon as they are answered, whatever the answer.
async fn flood(server: &TestServer, app: &App, publishers: usize, time: Duration) -> Flood {
    let seen = Arc::new(Mutex::new(Flood::default()));
    let request = Arc::new(post(server, &messages(app), &event()));
    let until = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..publishers {
        let (seen, request) = (Arc::clone(&seen), Arc::clone(&request));
        let mut connection = Connection::open(server).await;
        tasks.spawn(async move {
            while Instant::now() < until {
                let answer = connection.ask(&request).await;
                let mut seen = seen.lock().await;
                if answer.status == 202 {
                    seen.accepted.insert(answer.body["id"].as_str().unwrap().to_owned());
                } else {
                    assert!(answer.is_well_refused(&["publishing_too_fast", "overloaded"]), "{answer:?}");
                    seen.refused += 1;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    std::mem::take(&mut *seen.lock().await)
}

/// ISO, ING-11: one application floods; it is refused at the pace of a refusal a second and connection, what was accepted
/// of it is delivered, and another application publishes and reads as if nothing were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_refused_what_was_accepted_arrives_and_others_are_served() {
    let server = few_at_once(|_| {}).await;
    let receiver = Receiver::start([200]).await;
    let flooded = server.app("flooded").await;
    server.endpoint(&flooded, &receiver.url()).await;
    let quiet = server.app("quiet").await;
    let others = async {
        let mut connection = Connection::open(&server).await;
        let request = post(&server, &messages(&quiet), &event());
        for _ in 0..30 {
            let begun = Instant::now();
            let answer = connection.ask(&request).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
            server.client().get(&messages(&quiet)).await.expect(200);
            assert_eq!(server.client().get("/api/v1/health/ping").await.status, 204);
            sleep(Duration::from_millis(50)).await;
        }
    };
    let time = Duration::from_secs(4);
    let (seen, ()) = tokio::join!(flood(&server, &flooded, 100, time), others);
    assert!(seen.accepted.len() > 50, "{} were accepted", seen.accepted.len());
    // At most one a second and publisher, after the second in which it may be a burst.
    assert!((50..=500).contains(&seen.refused), "{} refusals", seen.refused);
    let refused = metric(&server, "postrider_requests_refused_total{reason=\"application\"}").await
        + metric(&server, "postrider_requests_refused_total{reason=\"publishing\"}").await;
    assert_eq!(refused, seen.refused as u64);

    let begun = Instant::now();
    server.client().post(&messages(&flooded), event()).await.expect(202);
    assert!(begun.elapsed() < Duration::from_millis(500), "it is over at once");
    assert_eq!(metric(&server, "postrider_publishes_waiting").await, 0);
    let arrived = receiver.wait_for(seen.accepted.len() + 1).await;
    let arrived: BTreeSet<_> =
        arrived.iter().map(|request| request.header("webhook-id").unwrap().to_owned()).collect();
    assert!(seen.accepted.is_subset(&arrived), "what was accepted is delivered");
}

/// A burst is served, however long the line is for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_waits_and_nobody_is_refused() {
    let server = few_at_once(|_| {}).await;
    let app = server.app("bursting").await;
    let request = Arc::new(post(&server, &messages(&app), &event()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (mut connection, request) = (Connection::open(&server).await, Arc::clone(&request));
        tasks.spawn(async move { connection.ask(&request).await.status });
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 202);
    }
}

/// P10: bodies that are announced and do not come take memory that was counted, a quarter of it for one application; others
/// publish meanwhile, and everybody as soon as they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_large_bodies_take_no_more_memory_than_is_meant_for_them() {
    let server = few_at_once(|limits| limits.publish_bytes = 4 * BODY).await;
    let (slow, quiet) = (server.app("slow").await, server.app("quiet").await);
    let mut senders = Vec::new();
    for _ in 0..5 {
        let mut sender = Connection::open(&server).await;
        let head = head(&server, &messages(&slow), BODY);
        sender.0.write_all(format!("{head}{{\"eventType\":\"").as_bytes()).await.unwrap();
        senders.push(sender);
    }
    // One of them is being read; the others are refused when they have waited, and what they sent is not kept.
    let mut refused = 0;
    for sender in &mut senders {
        if let Ok(answer) = timeout(Duration::from_secs(4), sender.read()).await {
            assert!(answer.is_well_refused(&["publishing_too_fast"]), "{answer:?}");
            refused += 1;
        }
        assert!(metric(&server, "postrider_publish_body_bytes").await <= BODY as u64);
    }
    assert_eq!(refused, 4);
    server.client().post(&messages(&quiet), event()).await.expect(202);
    drop(senders);
    let again = async {
        while server.client().post(&messages(&slow), event()).await.status != 202 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), again).await.expect("their memory is free when they are gone");
    assert_eq!(metric(&server, "postrider_publish_body_bytes").await, 0);
}

/// Reads have places of their own: a flood of them waits, and neither publishing nor health does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reads_keep_no_publisher_waiting() {
    let server = few_at_once(|limits| limits.reads_at_once = 1).await;
    let app = server.default_app().await;
    server.send("invoice.paid", json!({ "id": 1 })).await;
    let until = Instant::now() + Duration::from_secs(2);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (client, path) = (server.client(), messages(&app));
        tasks.spawn(async move {
            while Instant::now() < until {
                let status = client.get(&path).await.status;
                assert!(matches!(status, 200 | 503), "{status}");
            }
        });
    }
    while Instant::now() < until {
        for call in [server.client().get("/api/v1/health").await, server.client().get("/metrics").await] {
            assert_eq!(call.status, 200, "{call:?}");
        }
        server.client().post(&messages(&app), event()).await.expect(202);
        sleep(Duration::from_millis(20)).await;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// What is pending lies in the database; how much of it there may be is configured.
#[tokio::test]
async fn publishing_stops_while_too_much_is_pending() {
    let server = few_at_once(|limits| limits.backlog_deliveries = 5).await;
    let app = server.default_app().await;
    let receiver = Receiver::start([503]).await;
    let endpoint = server.endpoint(&app, &receiver.url()).await;
    for number in 0..5 {
        server.send("invoice.paid", json!({ "id": number })).await;
    }
    sleep(Duration::from_millis(200)).await;
    let mut connection = Connection::open(&server).await;
    let request = post(&server, &messages(&app), &event());
    let refused = connection.ask(&request).await;
    assert!(refused.is_well_refused(&["overloaded"]), "{refused:?}");
    assert!(refused.body["detail"].as_str().unwrap().contains("backlog_deliveries"), "{refused:?}");
    assert_eq!(metric(&server, "postrider_requests_refused_total{reason=\"backlog\"}").await, 1);
    server.client().get(&messages(&app)).await.expect(200);
    assert_eq!(server.client().delete(&endpoint.path()).await.status, 204);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(connection.ask(&request).await.status, 202);
}

/// P10: beyond the last place a connection is told so; it does not wait in silence.
#[tokio::test]
async fn a_connection_without_a_place_is_told_so_and_closed() {
    let server = TestServer::with(|config| config.server.connections = 3).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(&server).await;
        let ping = "GET /api/v1/health/ping HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(connection.ask(ping).await.status, 204);
        open.push(connection);
    }
    let mut refused = Connection::open(&server).await;
    let answer = refused.answer().await;
    assert!(answer.is_well_refused(&["overloaded"]) && answer.status == 503, "{answer:?}");
    assert_eq!(timeout(PATIENCE, refused.0.read(&mut [0; 8])).await.unwrap().unwrap(), 0, "closed");
    open.pop();
    drop(refused);
    let served = async {
        while server
            .client()
            .try_raw("GET", "/api/v1/health/ping", None)
            .await
            .is_ok_and(|got| got.status != 204)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("a free place is used");
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_so() {
    let server = TestServer::with(|config| config.server.connections_per_address = 1).await;
    let mut first = Connection::open(&server).await;
    let ping = "GET /api/v1/health/ping HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(first.ask(ping).await.status, 204);
    let answer = Connection::open(&server).await.answer().await;
    assert!(answer.is_well_refused(&["too_many_connections"]) && answer.status == 429, "{answer:?}");
}
