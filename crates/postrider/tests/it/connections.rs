//! Connections to the API: how long they may rest, and how long a head may take. Real sockets, real time.

use postrider_testing::TestServer;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const REQUEST: &[u8] = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn connect(server: &TestServer) -> TcpStream {
    #[expect(clippy::disallowed_methods, reason = "the server under test")]
    TcpStream::connect(server.address()).await.unwrap()
}

/// Sends a request and reads as much as arrives of its answer.
async fn asked(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 16 * 1024];
    let length = timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Load balancers and pools keep connections longer than a head may take.
#[tokio::test]
async fn a_connection_that_rests_longer_than_a_head_may_take_is_still_answered() {
    let server = TestServer::with(|config| {
        config.server.header_seconds = 1;
        config.server.idle_seconds = 4;
    })
    .await;
    let mut stream = connect(&server).await;
    for _ in 0..2 {
        assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200"));
        sleep(Duration::from_millis(1800)).await;
    }
    assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200"));
    let rests = Instant::now();
    let end = timeout(Duration::from_secs(15), stream.read(&mut [0; 1])).await;
    assert_eq!(end.expect("it is never closed").unwrap(), 0);
    assert!(rests.elapsed() > Duration::from_millis(3500), "closed after {:?}", rests.elapsed());
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off_also_on_a_connection_that_was_answered_before() {
    let server = TestServer::with(|config| {
        config.server.header_seconds = 1;
        config.server.idle_seconds = 60;
    })
    .await;
    let mut stream = connect(&server).await;
    assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200"));
    let started = Instant::now();
    let (mut reads, mut writes) = stream.into_split();
    let drip = async {
        while writes.write_all(b"G").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let read = async { while reads.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {} };
    timeout(Duration::from_secs(15), async {
        tokio::select! { () = drip => {}, () = read => {} }
    })
    .await
    .expect("it is never cut off");
    assert!(started.elapsed() > Duration::from_millis(900), "cut off after {:?}", started.elapsed());
}
