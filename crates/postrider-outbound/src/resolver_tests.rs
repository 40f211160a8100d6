//! The system resolver against a scripted DNS server on loopback.

use super::*;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::net::UdpSocket;

/// What the server answers to a question of one type (1 = A, 28 = AAAA).
type Script = fn(kind: u16, name: &str) -> Answer;

enum Answer {
    Addresses(Vec<[u8; 4]>),
    Code(u8),
    /// A CNAME to the name itself.
    Loop,
    Silence,
}

struct DnsServer {
    address: SocketAddr,
    names: Arc<Mutex<Vec<String>>>,
    questions: Arc<AtomicUsize>,
}

async fn dns(script: Script) -> DnsServer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server =
        DnsServer { address: socket.local_addr().unwrap(), names: Arc::default(), questions: Arc::default() };
    let (names, questions) = (server.names.clone(), server.questions.clone());
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let (name, kind, end) = question(&packet[..length]);
            names.lock().unwrap().push(name.clone());
            questions.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = reply(&packet[..end], &script(kind, &name)) {
                socket.send_to(&reply, from).await.unwrap();
            }
        }
    });
    server
}

fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        name.push_str(std::str::from_utf8(&packet[at + 1..=at + length]).unwrap());
        name.push('.');
        at += length + 1;
    }
    (name, u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

fn reply(question: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let (code, records): (u8, Vec<(u16, Vec<u8>)>) = match answer {
        Answer::Addresses(addresses) => (0, addresses.iter().map(|octets| (1, octets.to_vec())).collect()),
        Answer::Code(code) => (*code, Vec::new()),
        Answer::Loop => (0, vec![(5, vec![0xc0, 12])]),
        Answer::Silence => return None,
    };
    let mut packet = question.to_vec();
    packet[2] = 0x81;
    packet[3] = 0x80 | code;
    packet[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    packet[8..12].fill(0);
    for (kind, data) in records {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 60]);
        packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend(data);
    }
    Some(packet)
}

fn resolver(server: &DnsServer) -> SystemResolver {
    let config = Config { dns_servers: vec![server.address], dns_timeout_ms: 1000, ..Config::default() };
    SystemResolver::new(&config).unwrap()
}

fn only_v4(kind: u16, addresses: Vec<[u8; 4]>) -> Answer {
    Answer::Addresses(if kind == 1 { addresses } else { Vec::new() })
}

/// U15: one fully qualified question, no search domain.
#[tokio::test]
async fn a_name_is_asked_for_as_it_is() {
    let server = dns(|kind, _| only_v4(kind, vec![[1, 2, 3, 4]])).await;
    assert_eq!(resolver(&server).resolve("wiki.example.com").await, Ok(vec!["1.2.3.4".parse().unwrap()]));
    assert!(server.names.lock().unwrap().iter().all(|name| name == "wiki.example.com."));
}

/// U13: every bad answer ends as a failure.
#[tokio::test]
async fn bad_answers_are_failures() {
    let nothing = dns(|_, _| Answer::Code(3)).await;
    assert_eq!(resolver(&nothing).resolve("a.example.com").await, Err(ResolveFailure::NotFound));
    let empty = dns(|_, _| Answer::Addresses(Vec::new())).await;
    assert_eq!(resolver(&empty).resolve("a.example.com").await, Err(ResolveFailure::NotFound));
    let broken = dns(|_, _| Answer::Code(2)).await;
    assert!(resolver(&broken).resolve("a.example.com").await.is_err());
    let circular = dns(|_, _| Answer::Loop).await;
    assert!(resolver(&circular).resolve("a.example.com").await.is_err());
}

/// U13: many addresses are a failure, not a choice of some.
#[tokio::test]
async fn a_name_with_too_many_addresses_is_a_failure() {
    let server = dns(|kind, _| only_v4(kind, (0..20).map(|last| [1, 1, 1, last]).collect())).await;
    assert_eq!(resolver(&server).resolve("many.example.com").await, Err(ResolveFailure::TooMany));
}

/// U13: silence ends within the time of a lookup.
#[tokio::test]
async fn a_silent_dns_server_costs_no_more_than_the_timeout() {
    let server = dns(|_, _| Answer::Silence).await;
    let started = tokio::time::Instant::now();
    assert!(resolver(&server).resolve("a.example.com").await.is_err());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

/// U10: an answer is used no longer than its TTL and 30 s; here 60 s in the answer, so the second call asks nobody.
#[tokio::test]
async fn an_answer_is_cached() {
    let server = dns(|kind, _| only_v4(kind, vec![[1, 2, 3, 4]])).await;
    let resolver = resolver(&server);
    resolver.resolve("a.example.com").await.unwrap();
    let asked = server.questions.load(Ordering::Relaxed);
    resolver.resolve("a.example.com").await.unwrap();
    assert!(
        server.questions.load(Ordering::Relaxed) <= asked + 1,
        "at most the empty answer is asked for again"
    );
}

#[tokio::test]
async fn localhost_needs_no_dns_in_development() {
    let config = Config { dev: true, dns_servers: vec!["127.0.0.1:1".parse().unwrap()], ..Config::default() };
    let addresses = SystemResolver::new(&config).unwrap().resolve("localhost").await.unwrap();
    assert!(addresses.iter().all(IpAddr::is_loopback));
}
