//! The guided tour: a whole server on a temporary database, a customer's receiver and an OAuth2 token endpoint, all on
//! loopback and over real HTTP. Every claim that is printed has been checked; the first one that does not hold ends the
//! tour with a failure.

mod customer;
mod narrator;
mod publisher;

use crate::{
    config::Config,
    dev,
    failure::Failure,
    node::{Mode, Node},
};
use anyhow::{Context as _, Result, ensure};
use customer::Customer;
use narrator::Narrator;
use publisher::Publisher;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// The wait before the retry, short enough to watch.
const RETRY_WAIT: Duration = Duration::from_millis(800);
/// How long the tour waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the tour.
pub async fn run() -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::other(format!("the tour did not end well: {error:#}"));
    let folder = tempfile::Builder::new()
        .prefix("postrider-demo-")
        .tempdir()
        .map_err(|error| Failure::other(format!("cannot create a temporary directory: {error}")))?;
    let mut config = Config::default();
    config.server.data_dir = folder.path().join("data");
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.delivery.retry_waits_ms = vec![u64::try_from(RETRY_WAIT.as_millis()).unwrap_or(u64::MAX); 3];
    let node = Node::start(&config, Mode::Dev).await?;
    let told = tell(&node).await.map_err(failed);
    node.stop().await;
    told
}

async fn tell(node: &Node) -> Result<()> {
    let say = Narrator::new();
    say.title("Postrider: a result is published and arrives");
    say.text(&format!(
        "A server runs at {} on a temporary database. You play two parts: the publisher, whose software processes \
         documents, and Acme, a customer who wants to hear of every result.",
        node.url
    ));
    let mut acme = Customer::start().await?;
    let token = dev::key(node.store.as_ref()).await?;
    let publisher = Publisher::new(node.address, token);

    let secret = configure(&say, &publisher, &acme).await?;
    let published = publish(&say, &publisher).await?;
    receive(&say, &mut acme, &secret, &published).await?;
    explain(&say, &publisher, &published).await?;

    say.title("That was all of it");
    say.text(
        "Accepted once, delivered in two attempts, signed, authorised, and on record. Start a server of your own with \
         `postrider serve --dev`; it prints lines to paste.",
    );
    Ok(())
}

/// Steps 1 to 3: the customer, the endpoint, its credentials. Returns the signing secret.
async fn configure(say: &Narrator, publisher: &Publisher, acme: &Customer) -> Result<String> {
    say.step("The publisher creates an application for Acme");
    publisher.call(say, "POST", "/api/v1/app", Some(json!({ "name": "Acme", "uid": "acme" })), 201).await?;

    say.step("Acme's endpoint: where results go, and which");
    let endpoint =
        json!({ "uid": "acme-main", "url": acme.webhook_url, "eventTypes": ["document.processed"] });
    publisher
        .call(
            say,
            "POST",
            "/api/v1/event-type",
            Some(json!({ "name": "document.processed", "description": "A result" })),
            201,
        )
        .await?;
    publisher.call(say, "POST", "/api/v1/app/acme/endpoint", Some(endpoint), 201).await?;
    say.text(
        "On loopback plain http is fine for development; without --dev only https to public addresses is.",
    );

    say.step("Acme wants OAuth2 and two headers of its own");
    let oauth = json!({
        "grantType": "clientCredentials",
        "authMethod": "clientSecretBasic",
        "clientId": customer::CLIENT_ID,
        "clientSecret": customer::CLIENT_SECRET,
        "tokenUrl": acme.token_url,
        "scopes": ["results:write"],
    });
    publisher.call(say, "PUT", "/api/v1/app/acme/endpoint/acme-main/oauth", Some(oauth), 204).await?;
    let headers = json!({ "headers": { "X-Acme-Tenant": "acme-eu", "X-Api-Key": "k-0815-very-secret" } });
    publisher.call(say, "PUT", "/api/v1/app/acme/endpoint/acme-main/headers", Some(headers), 204).await?;
    let shown = publisher.call(say, "GET", "/api/v1/app/acme/endpoint/acme-main/headers", None, 200).await?;
    ensure!(shown["headers"]["X-Acme-Tenant"] == "acme-eu", "the plain header is not shown: {shown}");
    ensure!(!shown.to_string().contains("0815"), "the sensitive header is shown: {shown}");
    say.held("The API key went in and does not come out again: every credential is sealed in the database.");

    let secret = publisher.call(say, "GET", "/api/v1/app/acme/endpoint/acme-main/secret", None, 200).await?;
    say.text("The signing secret is for Acme's receiver: with it, it checks that a webhook is from here.");
    secret["key"].as_str().map(str::to_owned).context("no signing secret")
}

/// Step 4. Returns the message.
async fn publish(say: &Narrator, publisher: &Publisher) -> Result<Value> {
    say.step("A document has been processed: the publisher publishes the result");
    let message = json!({ "eventType": "document.processed", "payload": { "document": 42, "pages": 7, "language": "de" } });
    let published = publisher.call(say, "POST", "/api/v1/app/acme/msg", Some(message), 202).await?;
    say.text("202 left the server after the message and its delivery were on disk. From here on it cannot be lost.");
    Ok(published)
}

/// Step 5: what arrived at the customer, twice.
async fn receive(say: &Narrator, acme: &mut Customer, secret: &str, published: &Value) -> Result<()> {
    say.step("Acme's receiver is being restarted: it answers the first attempt with 503");
    let first = acme.next().await?;
    say.request(&first);
    say.answer("503 Service Unavailable");
    say.text(&format!("Not 2xx, so the delivery stays pending. The first wait of this tour's schedule is {RETRY_WAIT:?}, plus jitter; \
        by default it is 5 s, and the last attempt comes after three days."));

    say.step("The retry arrives, and Acme checks it");
    let second = acme.next().await?;
    say.request(&second);
    say.answer("200 OK");
    ensure!(first.body == second.body, "the retry has another body");
    ensure!(first.header("webhook-id") == second.header("webhook-id"), "the retry has another id");
    ensure!(second.header("webhook-id") == published["id"], "the id is not the message's");
    say.held("Same webhook-id, same bytes: a receiver that has seen it can drop the second one.");
    for arrival in [&first, &second] {
        standardwebhooks::Webhook::new(secret)
            .and_then(|webhook| webhook.verify(&arrival.body, &arrival.headers))
            .context("the signature does not verify")?;
    }
    say.held("The signature verifies with the `standardwebhooks` crate and the endpoint's secret.");
    let mut forged = second.body.to_vec();
    forged[0] ^= 1;
    let webhook = standardwebhooks::Webhook::new(secret)?;
    ensure!(webhook.verify(&forged, &second.headers).is_err(), "a changed body verifies too");
    say.held("With one bit changed it does not.");
    ensure!(
        second.header("authorization") == format!("Bearer {}", customer::ACCESS_TOKEN),
        "no access token"
    );
    ensure!(
        second.header("x-acme-tenant") == "acme-eu" && second.header("x-api-key").contains("0815"),
        "a header is missing"
    );
    let fetched = acme.tokens_issued();
    ensure!(fetched == 1, "the token endpoint was asked {fetched} times");
    say.held("Both attempts carried Acme's headers and one access token, fetched once and kept.");
    Ok(())
}

/// Step 6: the history.
async fn explain(say: &Narrator, publisher: &Publisher, published: &Value) -> Result<()> {
    say.step("What happened stays on record");
    let id = published["id"].as_str().context("no message id")?;
    let path = format!("/api/v1/app/acme/attempt/msg/{id}");
    let attempts = publisher
        .until(&path, PATIENCE, |page| page["data"].as_array().is_some_and(|data| data.len() == 2))
        .await?;
    say.call("GET", &path, None, 200);
    let mut rows = attempts["data"].as_array().cloned().unwrap_or_default();
    rows.reverse();
    ensure!(
        rows[0]["responseStatusCode"] == 503 && rows[1]["responseStatusCode"] == 200,
        "other attempts: {attempts}"
    );
    for (number, row) in (1..).zip(&rows) {
        say.attempt(number, row);
    }
    say.text(
        "Newest first in the API, oldest first here. `triggerType` tells a scheduled attempt from one that somebody asked for, \
         and `response` is what Acme answered, with secrets blacked out.",
    );
    let destinations =
        publisher.call(say, "GET", &format!("/api/v1/app/acme/msg/{id}/endpoint"), None, 200).await?;
    ensure!(destinations["data"][0]["statusText"] == "success", "not delivered: {destinations}");
    say.held("The delivery to this endpoint is finished: success.");
    Ok(())
}
