//! Calls every public method of the official Rust client (svix 2.9.1) that Postrider serves, against a running server.
//!
//! Reads `POSTRIDER_URL` and `POSTRIDER_TOKEN`, prints one TAP line a check, exits non-zero when one failed. Deliveries go
//! to a receiver in this process, which verifies each request with the Standard Webhooks library and with the client's
//! own verifier.

mod receiver;

use anyhow::{Context, Result, bail, ensure};
use js_option::JsOption;
use receiver::{Arrived, Receiver};
use serde_json::json;
use std::{
    future::Future,
    time::{Duration, Instant},
};
use svix::{
    api::{
        MessageAttemptListByEndpointOptions, MessageAttemptListByMsgOptions, MessageCreateOptions,
        MessageGetOptions, MessageListOptions, Svix, SvixOptions,
    },
    error::Error,
    models::{
        ApplicationIn, ApplicationPatch, BulkExpungeContentsIn, EndpointHeadersIn, EndpointHeadersPatchIn,
        EndpointIn, EndpointPatch, EndpointSecretRotateIn, EndpointUpsertIn, EventExampleIn, EventTypeIn,
        EventTypePatch, EventTypeUpsertIn, MessageIn, MessagePrecheckIn, MessageStatus, RecoverIn,
        StatusCodeClass,
    },
};

const WAIT: Duration = Duration::from_secs(10);

/// What every check works with.
struct Suite {
    client: Svix,
    receiver: Receiver,
    server_url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the suite's two inputs")]
    let read = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let server_url = read("POSTRIDER_URL")?;
    let options = SvixOptions { server_url: Some(server_url.clone()), ..SvixOptions::default() };
    let client = Svix::new(read("POSTRIDER_TOKEN")?, Some(options));
    let suite = Suite { client, receiver: Receiver::start().await?, server_url };
    let results = [
        report("health and who am I", suite.health()).await,
        report("a wrong token is refused", suite.wrong_token()).await,
        report("applications", suite.applications()).await,
        report("event types", suite.event_types()).await,
        report("endpoints", suite.endpoints()).await,
        report("custom headers", suite.headers()).await,
        report("a delivery arrives signed, also while a secret is rotated", suite.signatures()).await,
        report("messages", suite.messages()).await,
        report("attempts", suite.attempts()).await,
        report("examples", suite.examples()).await,
        report("what is not built yet says so", suite.not_built()).await,
    ];
    std::process::exit(i32::from(results.contains(&false)));
}

async fn report(name: &str, check: impl Future<Output = Result<()>>) -> bool {
    match check.await {
        Ok(()) => println!("ok - rust svix 2.9.1: {name}"),
        Err(error) => {
            println!("not ok - rust svix 2.9.1: {name}: {}", format!("{error:?}").replace('\n', " | "));
            return false;
        }
    }
    true
}

/// Repeats a question until it has an answer.
async fn until<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let started = Instant::now();
    while started.elapsed() < WAIT {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("not within {WAIT:?}: {what}")
}

fn refused<T: std::fmt::Debug>(status: u16, result: Result<T, Error>) -> Result<String> {
    let (found, code) = match result {
        Err(Error::Http(content)) => {
            (content.status.as_u16(), content.payload.context("an error body")?.code)
        }
        Err(Error::Validation(content)) => {
            let detail = content.payload.context("a validation body")?.detail;
            ensure!(!detail.is_empty(), "a validation error names a field");
            (content.status.as_u16(), String::from("validation"))
        }
        other => bail!("expected {status}: {other:?}"),
    };
    ensure!(found == status, "expected {status}, found {found}");
    Ok(code)
}

fn unique(prefix: &str) -> String {
    let nanos = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    format!("{prefix}-{nanos}")
}

impl Suite {
    async fn app(&self) -> Result<String> {
        Ok(self.client.application().create(ApplicationIn::new("Suite".into()), None).await?.id)
    }

    async fn endpoint(&self, app: &str, url: &str) -> Result<String> {
        Ok(self.client.endpoint().create(app.into(), EndpointIn::new(url.into()), None).await?.id)
    }

    async fn send(&self, app: &str, message: MessageIn) -> Result<String> {
        Ok(self.client.message().create(app.into(), message, None).await?.id)
    }

    async fn arrival(&self, url: &str, nth: usize) -> Result<Arrived> {
        until("the delivery arrived", || async { Ok(self.receiver.arrived(url).into_iter().nth(nth)) }).await
    }

    async fn health(&self) -> Result<()> {
        self.client.health().get().await?;
        let me = self.client.authentication().whoami().await?;
        ensure!(me.env_id.is_some_and(|id| id.starts_with("org_")), "an environment");
        Ok(())
    }

    async fn wrong_token(&self) -> Result<()> {
        let options = SvixOptions { server_url: Some(self.server_url.clone()), ..SvixOptions::default() };
        let stranger = Svix::new("prk_wrong".into(), Some(options));
        ensure!(refused(401, stranger.application().list(None).await)? == "authentication_failed");
        Ok(())
    }

    async fn applications(&self) -> Result<()> {
        let api = self.client.application();
        let uid = unique("customer");
        let with_uid = || ApplicationIn { uid: Some(uid.clone()), ..ApplicationIn::new("Customer".into()) };
        let created = api.create(with_uid(), None).await?;
        refused(409, api.create(with_uid(), None).await)?;
        ensure!(api.get_or_create(with_uid(), None).await?.id == created.id);
        ensure!(api.get(uid.clone()).await?.id == created.id);
        let renamed = ApplicationIn { name: "Renamed".into(), ..with_uid() };
        ensure!(api.upsert(uid.clone(), renamed).await?.name == "Renamed");
        let patch = ApplicationPatch { uid: JsOption::Null, ..ApplicationPatch::new() };
        ensure!(api.patch(created.id.clone(), patch).await?.uid.is_none());
        ensure!(!api.list(None).await?.data.is_empty());
        api.delete(created.id.clone()).await?;
        refused(404, api.get(created.id).await)?;
        refused(422, api.create(ApplicationIn { uid: Some("has spaces".into()), ..with_uid() }, None).await)?;
        Ok(())
    }

    async fn event_types(&self) -> Result<()> {
        let api = self.client.event_type();
        let name = unique("document.processed");
        let schemas = json!({"1": {"type": "object", "examples": [{"id": 42}]}});
        let new = || EventTypeIn {
            schemas: Some(schemas.clone()),
            ..EventTypeIn::new(name.clone(), "Done".into())
        };
        api.create(new(), None).await?;
        refused(409, api.create(new(), None).await)?;
        ensure!(api.get(name.clone()).await?.schemas.context("schemas")? == schemas);
        ensure!(!api.list(None).await?.data.is_empty());
        ensure!(
            api.upsert(name.clone(), EventTypeUpsertIn::new("Replaced".into())).await?.description
                == "Replaced"
        );
        let patch = EventTypePatch { deprecated: Some(true), ..EventTypePatch::new() };
        ensure!(api.patch(name.clone(), patch).await?.deprecated);
        api.delete(name.clone(), None).await?;
        ensure!(api.get(name).await?.archived == Some(true));
        Ok(())
    }

    async fn endpoints(&self) -> Result<()> {
        let api = self.client.endpoint();
        let app = self.app().await?;
        let uid = unique("endpoint");
        let url = self.receiver.url("200");
        let new = EndpointIn { uid: Some(uid.clone()), ..EndpointIn::new(url.clone()) };
        let created = api.create(app.clone(), new, None).await?;
        ensure!(api.get(app.clone(), uid.clone()).await?.id == created.id);
        refused(422, api.create(app.clone(), EndpointIn::new("not a url".into()), None).await)?;
        let other = self.endpoint(&app, &url).await?;
        let listed: Vec<_> =
            api.list(app.clone(), None).await?.data.into_iter().map(|item| item.id).collect();
        ensure!(listed == [other.clone(), created.id.clone()], "newest first: {listed:?}");
        let replacement = EndpointUpsertIn { uid: Some(uid.clone()), ..EndpointUpsertIn::new(url) };
        ensure!(api.upsert(app.clone(), uid, replacement).await?.id == created.id);
        let patch = EndpointPatch { disabled: Some(true), ..EndpointPatch::new() };
        ensure!(api.patch(app.clone(), created.id, patch).await?.disabled == Some(true));
        api.delete(app.clone(), other.clone()).await?;
        refused(404, api.get(app, other).await)?;
        Ok(())
    }

    async fn headers(&self) -> Result<()> {
        let api = self.client.endpoint();
        let app = self.app().await?;
        let endpoint = self.endpoint(&app, &self.receiver.url("200")).await?;
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let headers =
            EndpointHeadersIn::new(map(&[("X-Tenant", "blue"), ("Authorization", "Bearer hidden")]));
        api.set_headers(app.clone(), endpoint.clone(), headers).await?;
        let read = api.get_headers(app.clone(), endpoint.clone()).await?;
        ensure!(read.headers == map(&[("X-Tenant", "blue")]) && read.sensitive.len() == 1, "{read:?}");
        let patch = EndpointHeadersPatchIn::new(map(&[("X-Region", "eu")]));
        api.patch_headers(app.clone(), endpoint.clone(), patch).await?;
        let read = api.get_headers(app.clone(), endpoint.clone()).await?;
        ensure!(read.headers == map(&[("X-Tenant", "blue"), ("X-Region", "eu")]), "{read:?}");
        refused(422, api.set_headers(app, endpoint, EndpointHeadersIn::new(map(&[("Host", "x")]))).await)?;
        Ok(())
    }

    async fn signatures(&self) -> Result<()> {
        let api = self.client.endpoint();
        let app = self.app().await?;
        let url = self.receiver.url("200");
        let endpoint = self.endpoint(&app, &url).await?;
        let old = api.get_secret(app.clone(), endpoint.clone()).await?.key;
        let payload = json!({"document": 42, "result": "processed", "note": "Grüße ☃"});
        let message = self.send(&app, MessageIn::new("document.processed".into(), payload.clone())).await?;
        let first = self.arrival(&url, 0).await?;
        first.verify(&old)?;
        ensure!(serde_json::from_slice::<serde_json::Value>(&first.body)? == payload);
        ensure!(first.headers["webhook-id"] == message.as_str());
        let rotated =
            api.rotate_secret(app.clone(), endpoint.clone(), EndpointSecretRotateIn::new(), None).await?.key;
        ensure!(rotated != old && api.get_secret(app.clone(), endpoint).await?.key == rotated);
        self.send(&app, MessageIn::new("document.processed".into(), json!({"n": 2}))).await?;
        let second = self.arrival(&url, 1).await?;
        second.verify(&old)?;
        second.verify(&rotated)
    }

    async fn messages(&self) -> Result<()> {
        let api = self.client.message();
        let app = self.app().await?;
        self.endpoint(&app, &self.receiver.url("200")).await?;
        let key = || {
            Some(MessageCreateOptions { idempotency_key: Some(format!("key-{app}")), ..Default::default() })
        };
        let new = MessageIn {
            event_id: Some("evt-1".into()),
            tags: Some(["batch-7".to_owned()].into()),
            ..MessageIn::new("document.processed".into(), json!({"n": 1}))
        };
        let created = api.create(app.clone(), new.clone(), key()).await?;
        ensure!(
            api.create(app.clone(), new.clone(), key()).await?.id == created.id,
            "the first answer is replayed"
        );
        refused(409, api.create(app.clone(), new, None).await)?;
        let with_content = || Some(MessageGetOptions { with_content: Some(true) });
        ensure!(api.get(app.clone(), "evt-1".into(), with_content()).await?.payload == json!({"n": 1}));
        let tagged = Some(MessageListOptions { tag: Some("batch-7".into()), ..Default::default() });
        ensure!(api.list(app.clone(), tagged).await?.data.len() == 1);
        ensure!(api.precheck(app.clone(), MessagePrecheckIn::new("any".into()), None).await?.active);
        let ids = BulkExpungeContentsIn { ids: Some([created.id.clone(), "missing".to_owned()].into()) };
        ensure!(api.bulk_expunge_content(app.clone(), ids, None).await?.results.len() == 2);
        api.expunge_content(app.clone(), created.id.clone()).await?;
        ensure!(api.get(app.clone(), created.id, with_content()).await?.payload == json!({"expired": true}));
        Ok(())
    }

    async fn attempts(&self) -> Result<()> {
        let api = self.client.message_attempt();
        let app = self.app().await?;
        let url = self.receiver.url("500/200");
        let endpoint = self.endpoint(&app, &url).await?;
        let message = self.send(&app, MessageIn::new("document.processed".into(), json!({"n": 1}))).await?;
        let list = |status| {
            let options = MessageAttemptListByEndpointOptions {
                status,
                with_content: Some(true),
                ..Default::default()
            };
            api.list_by_endpoint(app.clone(), endpoint.clone(), Some(options))
        };
        let first =
            until("the first attempt", || async { Ok(list(None).await?.data.into_iter().next()) }).await?;
        ensure!(
            first.response_status_code == 500 && first.url == url && first.msg_id == message,
            "{first:?}"
        );
        let destinations = api.list_attempted_destinations(app.clone(), message.clone(), None).await?.data;
        ensure!(destinations.len() == 1 && destinations[0].next_attempt.is_some(), "{destinations:?}");
        api.resend(app.clone(), message.clone(), endpoint.clone(), None).await?;
        let success = Some(MessageStatus::Success);
        let manual =
            until("the resend", || async { Ok(list(success).await?.data.into_iter().next()) }).await?;
        ensure!(manual.response == "{\"seen\":true}", "{manual:?}");
        let of_class = MessageAttemptListByMsgOptions {
            status_code_class: Some(StatusCodeClass::Code5xx),
            ..Default::default()
        };
        let failed = api.list_by_msg(app.clone(), message.clone(), Some(of_class)).await?.data;
        ensure!(failed.len() == 1 && failed[0].id == first.id, "{failed:?}");
        ensure!(api.list_attempted_messages(app.clone(), endpoint.clone(), None).await?.data.len() == 1);
        ensure!(api.get(app.clone(), message.clone(), first.id.clone(), None).await?.id == first.id);
        api.expunge_content(app.clone(), message.clone(), first.id.clone()).await?;
        ensure!(api.get(app.clone(), message, first.id, None).await?.response == "EXPUNGED");
        ensure!(self.client.endpoint().get_stats(app.clone(), endpoint.clone(), None).await?.success >= 1);
        ensure!(self.client.endpoint().get_attempt_stats(app, endpoint, None).await?.fail >= 1);
        Ok(())
    }

    async fn examples(&self) -> Result<()> {
        let app = self.app().await?;
        let url = self.receiver.url("200");
        let endpoint = self.endpoint(&app, &url).await?;
        let ping = EventExampleIn::new("svix.ping".into());
        ensure!(
            self.client.endpoint().send_example(app, endpoint, ping, None).await?.event_type == "svix.ping"
        );
        self.arrival(&url, 0).await?;
        Ok(())
    }

    async fn not_built(&self) -> Result<()> {
        let app = self.app().await?;
        let endpoint = self.endpoint(&app, &self.receiver.url("200")).await?;
        let recover =
            self.client.endpoint().recover(app, endpoint, RecoverIn::new(chrono::Utc::now()), None).await;
        ensure!(refused(501, recover)? == "not_implemented");
        ensure!(refused(501, self.client.background_task().list(None).await)? == "not_implemented");
        Ok(())
    }
}
