//! Where requests may go: names, addresses and stored URLs that are refused before anything is dialled.

use super::*;
use crate::{
    resolver::ResolveFailure,
    testing::{OK, Receiver, StubDns, dev, outbound, read_request, request_to, within},
};
use tokio::io::AsyncWriteExt;

/// U13: every failure of DNS fails the attempt; the consumer's word for it is that of a blocked address.
#[tokio::test]
async fn a_name_that_does_not_resolve_fails_the_attempt() {
    for failure in
        [ResolveFailure::NotFound, ResolveFailure::Failed, ResolveFailure::TooMany, ResolveFailure::NoServers]
    {
        let outbound = Outbound::new(Config::default(), StubDns::failing(failure)).unwrap();
        let exchange = outbound.send(&request_to("https://hooks.example.com/"), within(1000)).await;
        assert_eq!((exchange.outcome, exchange.sent), (Outcome::Dns, false));
        assert_eq!(exchange.outcome.consumer_name(), Outcome::Blocked.consumer_name());
    }
    let slow = Outbound::new(Config::default(), StubDns::failing(ResolveFailure::Timeout)).unwrap();
    let exchange = slow.send(&request_to("https://hooks.example.com/"), within(1000)).await;
    assert_eq!(exchange.outcome, Outcome::Timeout, "{}", exchange.detail);
}

/// U09, SSRF-2: one refused address refuses the name, in any order, and nothing is dialled.
#[tokio::test]
async fn a_name_with_one_refused_address_is_blocked() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://hooks.example.com:{}/", receiver.address.port());
    for answer in [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "169.254.169.254"]] {
        let outbound = Outbound::new(dev(), StubDns::answering(&[&answer])).unwrap();
        let exchange = outbound.send(&request_to(&url), within(1000)).await;
        assert_eq!(exchange.outcome, Outcome::Blocked, "{answer:?}");
        assert!(
            !exchange.detail.contains("10.0.0.1"),
            "the address itself is for the log: {}",
            exchange.detail
        );
    }
    assert_eq!(receiver.connections(), 0);
}

/// U16: a public name for a private address, outside development.
#[tokio::test]
async fn a_public_name_for_loopback_is_blocked() {
    for address in ["127.0.0.1", "10.0.0.5", "::1", "::ffff:127.0.0.1", "168.63.129.16"] {
        let outbound = Outbound::new(Config::default(), StubDns::answering(&[&[address]])).unwrap();
        let exchange = outbound.send(&request_to("https://hooks.example.com/"), within(1000)).await;
        assert_eq!((exchange.outcome, exchange.sent), (Outcome::Blocked, false), "{address}");
    }
}

/// U10, SSRF-1: each connection resolves once and is vetted anew.
#[tokio::test]
async fn rebinding_to_a_metadata_address_is_blocked_on_the_next_attempt() {
    let receiver =
        Receiver::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let dns = StubDns::answering(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let outbound = Outbound::new(dev(), dns.clone()).unwrap();
    let request = request_to(&format!("http://hooks.example.com:{}/", receiver.address.port()));
    assert_eq!(outbound.send(&request, within(1000)).await.outcome, Outcome::Succeeded);
    assert_eq!(outbound.send(&request, within(1000)).await.outcome, Outcome::Blocked);
    assert_eq!((dns.lookups(), receiver.connections()), (2, 1));
}

/// E21, HTTP-14: a name that moves is followed.
#[tokio::test]
async fn the_next_attempt_uses_the_new_address_of_a_name() {
    let old = Receiver::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    let port = old.address.port();
    let new = Receiver::scripted_at(&format!("127.0.0.2:{port}"), |mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let outbound = Outbound::new(dev(), StubDns::answering(&[&["127.0.0.1"], &["127.0.0.2"]])).unwrap();
    for _ in 0..2 {
        let request = request_to(&format!("http://hooks.example.com:{port}/"));
        assert_eq!(outbound.send(&request, within(1000)).await.outcome, Outcome::Succeeded);
    }
    assert_eq!((old.connections(), new.connections()), (1, 1));
}

/// HTTP-15: an address where nobody listens does not hide another one.
#[tokio::test]
async fn the_next_address_is_tried_when_the_first_refuses() {
    let receiver = Receiver::answering(OK).await;
    let dns = StubDns::answering(&[&["::1", "127.0.0.9", "127.0.0.1"]]);
    let outbound = Outbound::new(dev(), dns).unwrap();
    let request = request_to(&format!("http://hooks.example.com:{}/", receiver.address.port()));
    assert_eq!(outbound.send(&request, within(2000)).await.outcome, Outcome::Succeeded);
}

/// U26, SSRF-10: our own listener is not a receiver.
#[tokio::test]
async fn our_own_listener_is_blocked() {
    let receiver = Receiver::answering(OK).await;
    let any = format!("0.0.0.0:{}", receiver.address.port()).parse().unwrap();
    for listener in [receiver.address, any] {
        let outbound = outbound(Config { own_listeners: vec![listener], ..dev() });
        let exchange = outbound.send(&request_to(&receiver.url()), within(1000)).await;
        assert_eq!(exchange.outcome, Outcome::Blocked);
        assert!(exchange.detail.contains("this server itself"), "{}", exchange.detail);
    }
    assert_eq!(receiver.connections(), 0);
}

/// U30: a URL that was stored under laxer rules is judged by the rules of now.
#[tokio::test]
async fn a_stored_url_is_judged_again_when_it_is_sent() {
    let receiver = Receiver::answering(OK).await;
    for url in [receiver.url(), "https://backend/".to_owned(), "https://hooks.example.com:6379/".to_owned()] {
        let outbound = Outbound::new(Config::default(), StubDns::answering(&[&["1.1.1.1"]])).unwrap();
        let exchange = outbound.send(&request_to(&url), within(1000)).await;
        assert_eq!((exchange.outcome, exchange.sent), (Outcome::Blocked, false), "{url}");
    }
    assert_eq!(receiver.connections(), 0);
}

/// SSRF-8: the sentence for a private address names the setting that opens it.
#[tokio::test]
async fn a_blocked_private_address_names_the_way_out() {
    let outbound = Outbound::new(Config::default(), StubDns::answering(&[&["10.0.0.5"]])).unwrap();
    let exchange = outbound.send(&request_to("https://hooks.example.com/"), within(1000)).await;
    assert!(exchange.detail.contains("a private address") && exchange.detail.contains("outbound.allow"));
}

/// U28: proxies that the environment names are not asked. Runs another test of this file in a process with them.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "client::destination_tests::the_next_attempt_uses_the_new_address_of_a_name"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.env("NO_PROXY", "*").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
}
