//! Tokens from scripted token endpoints on loopback.

use super::*;
use crate::{
    Config,
    testing::{OK, Receiver, StubDns, credential, dev, outbound, owner, read_request, within},
};
use postrider_model::url::EndpointUrl;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{io::AsyncWriteExt, time::sleep};

fn json(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn token(value: &str, life: u64) -> Vec<u8> {
    json(200, &format!(r#"{{"access_token":"{value}","token_type":"Bearer","expires_in":{life}}}"#))
}

fn text(token: &Token) -> &str {
    token.value.expose_secret()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_then_cached() {
    let idp = Receiver::answering(token("one", 3600)).await;
    let (outbound, credential) = (outbound(dev()), credential(&idp.url()));
    let first = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    let second = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    assert_eq!((text(&first), first.cached, text(&second), second.cached), ("one", false, "one", true));
    assert_eq!(idp.requests().len(), 1);
    assert!(idp.requests()[0].contains("\r\nAuthorization: Basic "));
}

/// O05: a thousand callers, one request, one result.
#[tokio::test]
async fn many_callers_share_one_request() {
    for (answer, succeeds) in [(token("one", 3600), true), (json(500, "{}"), false)] {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let idp = Receiver::scripted(move |mut stream, _| {
            let (answer, count) = (answer.clone(), Arc::clone(&count));
            async move {
                while read_request(&mut stream).await.is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(200)).await;
                    let _ = stream.write_all(&answer).await;
                }
            }
        })
        .await;
        let (outbound, credential) = (outbound(dev()), Arc::new(credential(&idp.url())));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (outbound, credential) = (outbound.clone(), Arc::clone(&credential));
            callers.spawn(async move { outbound.token(&owner(), &credential, within(5000)).await.is_ok() });
        }
        assert!(callers.join_all().await.iter().all(|ok| *ok == succeeds));
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }
}

/// A caller that gives up takes nothing from the others.
#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_request() {
    let idp = Receiver::scripted(|mut stream, _| async move {
        read_request(&mut stream).await;
        sleep(Duration::from_millis(300)).await;
        stream.write_all(&token("one", 3600)).await.unwrap();
    })
    .await;
    let (outbound, credential) = (outbound(dev()), credential(&idp.url()));
    let failure = outbound.token(&owner(), &credential, within(50)).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenUnavailable);
    assert!(outbound.token(&owner(), &credential, within(5000)).await.is_ok());
    assert_eq!(idp.connections(), 1);
}

/// O07, O15: neither another version, another secret, another endpoint nor another environment finds a token.
#[tokio::test]
async fn a_token_belongs_to_one_version_of_one_credential_of_one_owner() {
    let answers = ["a", "b", "c", "d", "e", "f"].map(|value| token(value, 3600)).to_vec();
    let idp = Receiver::answering_in_turn(answers).await;
    let outbound = outbound(dev());
    let base = credential(&idp.url());
    let newer = OAuthCredential { version: 2, ..base.clone() };
    let unsaved = OAuthCredential { client_secret: "another".to_owned().into(), ..base.clone() };
    let mut scoped = base.clone();
    scoped.settings.scopes = vec!["x".to_owned()];
    let elsewhere = TokenOwner { environment: EnvironmentId::parse("org_2").unwrap(), ..owner() };
    let mut values = Vec::new();
    for (owner, credential) in [
        (owner(), &base),
        (owner(), &newer),
        (owner(), &unsaved),
        (owner(), &scoped),
        (elsewhere, &base),
        (owner(), &base),
    ] {
        values.push(text(&outbound.token(&owner, credential, within(5000)).await.unwrap()).to_owned());
    }
    assert_eq!(values, ["a", "b", "c", "d", "e", "a"]);
}

/// With a wall clock that the test sets: a token grows old without waiting.
fn with_clock() -> (Outbound, Arc<Mutex<Duration>>) {
    let wall = Arc::new(Mutex::new(Duration::from_secs(1000)));
    let reading = Arc::clone(&wall);
    let mut shared = Arc::into_inner(outbound(dev()).shared).unwrap();
    shared.tokens = Tokens::with_wall_clock(Box::new(move || *reading.lock().unwrap()));
    (Outbound { shared: Arc::new(shared) }, wall)
}

/// O06: the old token serves while the new one is fetched, once for all callers.
#[tokio::test]
async fn a_token_is_renewed_in_the_background() {
    let idp = Receiver::answering_in_turn(["one", "two"].map(|value| token(value, 100)).to_vec()).await;
    let ((outbound, wall), credential) = (with_clock(), credential(&idp.url()));
    outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    *wall.lock().unwrap() += Duration::from_secs(86);
    for _ in 0..10 {
        let old = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
        assert_eq!((text(&old), old.cached), ("one", true));
    }
    sleep(Duration::from_millis(200)).await;
    let new = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    assert_eq!((text(&new), new.cached, idp.requests().len()), ("two", true, 2));
}

/// O08: a 401 to a cached token fetches once; to a fresh one, or again within a minute, nothing.
#[tokio::test]
async fn a_401_replaces_a_cached_token_once() {
    let idp =
        Receiver::answering_in_turn(["one", "two", "three"].map(|value| token(value, 3600)).to_vec()).await;
    let ((outbound, wall), credential) = (with_clock(), credential(&idp.url()));

    let fresh = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    assert!(outbound.replace_token(&owner(), &credential, &fresh, within(5000)).await.is_none());
    *wall.lock().unwrap() += Duration::from_secs(10);
    let cached = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (outbound, credential, cached) = (outbound.clone(), credential.clone(), cached.clone());
        callers.spawn(async move {
            outbound.replace_token(&owner(), &credential, &cached, within(5000)).await.unwrap().unwrap()
        });
    }
    for replaced in callers.join_all().await {
        assert_eq!((text(&replaced), replaced.cached), ("two", false));
    }
    *wall.lock().unwrap() += Duration::from_secs(10);
    let again = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    assert_eq!((text(&again), again.cached), ("two", true));
    let refused = outbound.replace_token(&owner(), &credential, &again, within(5000)).await;
    assert!(refused.is_none(), "within a minute");
    assert_eq!(idp.requests().len(), 2);
}

/// O12, O13: the answer of the token endpoint stays there.
#[tokio::test]
async fn a_rejection_names_the_code_and_nothing_else_of_the_answer() {
    let idp = Receiver::answering(json(
        401,
        r#"{"error":"invalid_client","error_description":"secret was hunter2"}"#,
    ))
    .await;
    let (outbound, credential) = (outbound(dev()), credential(&idp.url()));
    let failure = outbound.token(&owner(), &credential, within(5000)).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenRejected);
    let origin = credential.settings.token_url.origin();
    let expected = format!("the token endpoint {origin} refused the client credentials (invalid_client)");
    assert!(
        failure.detail.starts_with(&expected) && !failure.detail.contains("hunter2"),
        "{}",
        failure.detail
    );
    // Remembered, by version: a new secret is tried at once.
    assert_eq!(outbound.token(&owner(), &credential, within(5000)).await.unwrap_err(), failure);
    assert_eq!(idp.requests().len(), 1);
    let fixed = OAuthCredential { version: 2, ..credential };
    assert!(outbound.token(&owner(), &fixed, within(5000)).await.is_err());
    assert_eq!(idp.requests().len(), 2);
}

/// O03: over http, to a private address, or redirected, the secret does not leave.
#[tokio::test]
async fn the_client_secret_is_not_sent_where_it_must_not_go() {
    let idp = Receiver::answering(token("one", 3600)).await;
    let config = Config { allow_http: true, allow_ip_literals: true, ..Config::default() };
    let plain = Outbound::new(config, StubDns::answering(&[&["1.1.1.1"]])).unwrap();
    let failure = plain.token(&owner(), &credential(&idp.url()), within(2000)).await.unwrap_err();
    assert!(failure.detail.contains("https only"), "{}", failure.detail);

    let private = Outbound::new(Config::default(), StubDns::answering(&[&["127.0.0.1"]])).unwrap();
    let url = format!("https://idp.example.com:{}/", idp.address.port());
    let failure = private.token(&owner(), &credential(&url), within(2000)).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenUnavailable);
    assert_eq!(idp.connections(), 0);

    let redirect = format!("HTTP/1.1 307 X\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", idp.url());
    let redirecting = Receiver::answering(redirect).await;
    let failure =
        outbound(dev()).token(&owner(), &credential(&redirecting.url()), within(2000)).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenInvalid);
    assert_eq!(idp.connections(), 0);
}

/// O09: large, endless and undecodable answers are bounded and invalid.
#[tokio::test]
async fn bad_answers_are_invalid() {
    let big = json(
        200,
        &format!(r#"{{"access_token":"t","token_type":"Bearer","x":"{}"}}"#, "x".repeat(10_000_000)),
    );
    let zipped = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00";
    let wide: Vec<u8> =
        r#"{"access_token":"t","token_type":"Bearer"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let head =
        format!("HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", wide.len());
    for answer in [
        big,
        zipped.to_vec(),
        OK.to_vec(),
        [head.into_bytes(), wide].concat(),
        json(204, ""),
        b"garbage\r\n".to_vec(),
    ] {
        let idp = Receiver::answering_once(answer).await;
        let failure =
            outbound(dev()).token(&owner(), &credential(&idp.url()), within(3000)).await.unwrap_err();
        assert_eq!(failure.outcome, Outcome::TokenInvalid, "{}", failure.detail);
    }
}

/// O09, O20: silence and broken TLS are failures of their own, in words.
#[tokio::test]
async fn an_unreachable_token_endpoint_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused =
        outbound(dev()).token(&owner(), &credential(&format!("http://{free}/")), within(2000)).await;
    let failure = refused.unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenUnavailable);
    assert!(failure.detail.contains("refused the connection"), "{}", failure.detail);

    let no_tls = Receiver::answering("HTTP/1.1 400 X\r\n\r\n").await;
    let failure = outbound(dev())
        .token(&owner(), &credential(&format!("https://{}/", no_tls.address)), within(500))
        .await
        .unwrap_err();
    assert_eq!(failure.outcome, Outcome::TokenUnavailable, "{}", failure.detail);
}

/// O11, O04: a token for one use is given to who waits for it, and not kept.
#[tokio::test]
async fn a_token_without_life_is_not_kept() {
    let idp = Receiver::answering_in_turn(vec![token("one", 0), token("two", 0)]).await;
    let (outbound, credential) = (outbound(dev()), credential(&idp.url()));
    for expected in ["one", "two"] {
        let token = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
        assert_eq!((text(&token), token.cached), (expected, false));
    }
}

#[tokio::test]
async fn the_cache_forgets_the_least_recently_used() {
    let now = Instant::now();
    let mut slots = HashMap::new();
    for number in 0..=u64::try_from(CREDENTIALS).unwrap() {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        slot(&mut slots, key, now + Duration::from_millis(number));
    }
    assert!(slots.len() <= CREDENTIALS && slots.len() > CREDENTIALS / 2, "{}", slots.len());
    assert!(!slots.contains_key(&[0; 32]), "the oldest is gone");
}

/// K05: neither tokens nor credentials can be printed.
#[tokio::test]
async fn a_debug_print_shows_no_token() {
    let idp = Receiver::answering(token("t0ken-t0ken", 3600)).await;
    let (outbound, credential) = (outbound(dev()), credential(&idp.url()));
    let token = outbound.token(&owner(), &credential, within(5000)).await.unwrap();
    let printed = format!("{token:?} {outbound:?} {credential:?}");
    assert!(!printed.contains("t0ken-t0ken") && !printed.contains("s3cret"), "{printed}");
    assert!(EndpointUrl::from_stored(&idp.url()).is_some());
}
