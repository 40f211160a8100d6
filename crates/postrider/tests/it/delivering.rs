//! Deliveries: signature, headers, filters, and independence of endpoints.

use postrider_testing::{Certificate, Receiver, Reply, TestServer};
use serde_json::json;

#[tokio::test]
async fn a_delivery_is_signed_so_that_the_standard_library_verifies_it() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let secret = server.client().get(&format!("{}/secret", endpoint.path())).await.expect(200);
    server.send("document.processed", json!({ "document": 42 })).await;
    let received = receiver.wait_for(1).await.remove(0);
    let webhook = standardwebhooks::Webhook::new(secret["key"].as_str().unwrap()).unwrap();
    webhook.verify(&received.body, &received.header_map()).unwrap();
    assert_eq!(received.header("svix-signature"), received.header("webhook-signature"));
    assert!(webhook.verify(b"{}", &received.header_map()).is_err());
}

#[tokio::test]
async fn custom_headers_arrive_with_the_spelling_they_were_given() {
    let server = TestServer::start().await;
    let receiver = Receiver::start([200]).await;
    let endpoint = server.endpoint(&server.default_app().await, &receiver.url()).await;
    let headers =
        json!({ "headers": { "X-ACME-Tenant": "eu", "x-lower": "1", "X-Api-Key": "k-secret-0815" } });
    server.client().put(&format!("{}/headers", endpoint.path()), headers).await.expect(204);
    server.send("document.processed", json!({})).await;
    let received = receiver.wait_for(1).await.remove(0);
    for (name, value) in [("X-ACME-Tenant", "eu"), ("x-lower", "1"), ("X-Api-Key", "k-secret-0815")] {
        assert!(
            received.headers.iter().any(|(own, text)| own == name && text == value),
            "{:?}",
            received.headers
        );
    }
}

#[tokio::test]
async fn a_message_goes_to_the_endpoints_whose_filter_matches() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let (all, some, other) =
        (Receiver::start([200]).await, Receiver::start([200]).await, Receiver::start([200]).await);
    for name in ["document.processed", "document.failed"] {
        server
            .client()
            .post("/api/v1/event-type", json!({ "name": name, "description": name }))
            .await
            .expect(201);
    }
    server.endpoint(&app, &all.url()).await;
    server.endpoint_with(&app, &some.url(), json!({ "eventTypes": ["document.processed"] })).await;
    server.endpoint_with(&app, &other.url(), json!({ "eventTypes": ["document.failed"] })).await;
    server.send("document.processed", json!({})).await;
    all.wait_for(1).await;
    some.wait_for(1).await;
    server.clock.quiet().await;
    assert_eq!((all.requests().len(), some.requests().len(), other.requests().len()), (1, 1, 0));
}

#[tokio::test]
async fn a_hanging_endpoint_delays_no_other() {
    let server = TestServer::start().await;
    let app = server.default_app().await;
    let (hanging, well) = (Receiver::start([Reply::Hang]).await, Receiver::start([200]).await);
    server.endpoint(&app, &hanging.url()).await;
    server.endpoint(&app, &well.url()).await;
    let started = std::time::Instant::now();
    for number in 0..30 {
        server.send("document.processed", json!({ "number": number })).await;
    }
    well.wait_for(30).await;
    assert!(started.elapsed() < server_deadline(&server), "it took {:?}", started.elapsed());
}

fn server_deadline(server: &TestServer) -> std::time::Duration {
    std::time::Duration::from_millis(server.config.delivery.total_deadline_ms)
}

#[tokio::test]
async fn a_receiver_is_trusted_by_its_certificate_authority_and_not_otherwise() {
    let (known, unknown) = (Certificate::new(&["localhost"]), Certificate::new(&["localhost"]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &known.pem).unwrap();
    let server = TestServer::with(|config| config.outbound.ca_file = Some(file)).await;
    let app = server.default_app().await;
    let (trusted, stranger) =
        (Receiver::start_tls([200], &known).await, Receiver::start_tls([200], &unknown).await);
    server.endpoint(&app, &trusted.url()).await;
    server.endpoint(&app, &stranger.url()).await;
    let message = server.send("document.processed", json!({})).await;
    trusted.wait_for(1).await;
    let mut outcomes = server.wait_for_attempts(&message, 2).await.outcomes();
    outcomes.sort();
    assert_eq!(outcomes, ["succeeded", "tls"]);
    assert!(stranger.requests().is_empty(), "nothing was said to the stranger");
}
