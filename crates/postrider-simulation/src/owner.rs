//! The owners of endpoints: what they set up at the start, and what they change while messages flow.

use crate::{plan::Change, store::ModelStore, trace::Entry, world::World};
use postrider_model::{
    application::{Metadata, Ref},
    endpoint::Endpoint,
    environment::EnvironmentId,
    event_type::EventTypeName,
    filter::Filter,
    headers::CustomHeaders,
    id::EndpointId,
    oauth::{AuthMethod, OAuthSettings},
    retry::RetryOverride,
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    applications::{ApplicationFields, Applications},
    deliveries::Deliveries,
    endpoints::{AppScope, EndpointFields, Endpoints, NewEndpoint, OAuthChange},
    messages::Messages,
};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};

/// Why something could not be set up: a defect of the simulation.
type SetUp<T> = Result<T, String>;

/// Makes the plan's applications and endpoints.
pub(crate) async fn set_up(world: &World, store: &ModelStore) -> SetUp<Vec<AppScope>> {
    let mut scopes = Vec::new();
    for (number, application) in world.plan.applications.iter().enumerate() {
        // Two environments, so that nothing may pass between them either.
        let environment = EnvironmentId::parse(["org_one", "org_two"][number % 2]).ok_or("an environment")?;
        let fields =
            ApplicationFields { throttle_rate: application.throttle_rate, ..ApplicationFields::default() };
        let made = store.create_application(&environment, fields, None).await.map_err(|it| it.to_string())?;
        scopes.push(AppScope { environment, application: made.item.id });
    }
    for number in 0..world.plan.endpoints.len() {
        let scope = &scopes[world.plan.endpoints[number].application];
        let id = create(world, store, scope, number).await?;
        let at = world.elapsed();
        let view = &mut world.state().oracle.endpoints[number];
        (view.id, view.certain_since) = (Some(id), Some(at));
    }
    Ok(scopes)
}

async fn create(world: &World, store: &ModelStore, scope: &AppScope, number: usize) -> SetUp<EndpointId> {
    let plan = &world.plan.endpoints[number];
    let (url, secret) = (new_url(world, number)?, new_secret(world, number));
    world.state().oracle.endpoints[number].urls[0].0 = world.elapsed();
    let fields = EndpointFields {
        uid: None,
        url,
        description: String::new(),
        throttle_rate: plan.throttle_rate,
        filter: Filter::default(),
        disabled: false,
        metadata: Metadata::default(),
        retry: RetryOverride { waits: plan.waits.clone(), deadline: plan.deadline },
        legacy_version: 1,
    };
    let new = NewEndpoint { fields, secret, headers: CustomHeaders::default() };
    let made = store.create_endpoint(scope, new, None).await.map_err(|it| it.to_string())?.item;
    if plan.oauth {
        let settings = OAuthSettings {
            auth_method: AuthMethod::ClientSecretBasic,
            client_id: "client".to_owned(),
            token_url: parse_url("https://login.example.com/token")?,
            scopes: Vec::new(),
            extra_params: Metadata::default(),
            extra_headers: Metadata::default(),
        };
        let change =
            OAuthChange { settings, client_secret: Some(SecretString::from("secret of the client")) };
        let changed = store.replace_oauth(scope, made.id, made.version, Some(change)).await;
        changed.map_err(|it| it.to_string())?;
    }
    Ok(made.id)
}

/// Does what the plan says, one thing after the other.
pub(crate) async fn run(world: Arc<World>, scopes: Vec<AppScope>) {
    for (at, change) in world.plan.changes.clone() {
        tokio::time::sleep_until(world.instant(at)).await;
        // What fails is not repeated: owners try again later, or not at all.
        let _ = make(&world, &scopes, change).await;
    }
}

async fn make(world: &World, scopes: &[AppScope], change: Change) -> Option<()> {
    match change {
        Change::Disable(number) => set_enabled(world, scopes, number, false).await,
        Change::Enable(number) => set_enabled(world, scopes, number, true).await,
        Change::Delete(number) => {
            let (scope, id) = begin(world, scopes, number, "delete")?;
            world.state().oracle.endpoints[number].certain_since = None;
            world.call(|store| async move { store.delete_endpoint(scope, id).await }).await?.ok().map(drop)
        }
        Change::MoveUrl(number) => {
            let url = new_url(world, number).ok()?;
            replace(world, scopes, number, "move", |fields| fields.url = url).await?;
            let at = world.elapsed();
            let views = &mut world.state().oracle.endpoints;
            views[number].urls.last_mut().map(|(since, _)| *since = at)
        }
        Change::Rotate(number, overlap) => {
            let (scope, id) = begin(world, scopes, number, "rotate")?;
            let secret = new_secret(world, number);
            let rotate = |store: Arc<ModelStore>| async move {
                store.rotate_signing_secret(scope, id, secret, overlap, None).await
            };
            world.call(rotate).await?.ok().map(drop)
        }
        Change::Filter(number) => {
            world.state().oracle.endpoints[number].certain_since = None;
            let other = EventTypeName::parse("other")?;
            replace(world, scopes, number, "filter", |fields| fields.filter.event_types = [other].into())
                .await
        }
        Change::Resend(number) => {
            let (scope, id) = begin(world, scopes, number, "resend")?;
            let message = some_message(world, Some(number))?;
            world
                .call(|store| async move { store.resend(scope, message, id, None).await })
                .await?
                .ok()
                .map(drop)
        }
        Change::Expunge => {
            let message = some_message(world, None)?;
            world.state().oracle.publications.expunged(message);
            for scope in scopes {
                let expunge =
                    |store: Arc<ModelStore>| async move { store.expunge_payload(scope, message).await };
                world.call(expunge).await;
            }
            Some(())
        }
    }
}

/// Enables or disables an endpoint. `None` when that failed, or may have.
pub(crate) async fn set_enabled(
    world: &World,
    scopes: &[AppScope],
    number: usize,
    enabled: bool,
) -> Option<()> {
    world.state().oracle.endpoints[number].certain_since = None;
    let what = if enabled { "enable" } else { "disable" };
    replace(world, scopes, number, what, |fields| {
        fields.disabled = !enabled;
        fields.filter = Filter::default();
    })
    .await?;
    let at = world.elapsed();
    // It may have said that it is gone between the change and its answer.
    let still = {
        let disk = world.disk();
        let id = world.state().oracle.endpoints[number].id?;
        disk.live_endpoint(id).is_some_and(|endpoint| endpoint.disabled.is_none())
    };
    world.state().oracle.endpoints[number].certain_since = (enabled && still).then_some(at);
    Some(())
}

fn begin<'a>(
    world: &World,
    scopes: &'a [AppScope],
    number: usize,
    what: &'static str,
) -> Option<(&'a AppScope, EndpointId)> {
    world.note(Entry::Changed(what, number));
    let id = world.state().oracle.endpoints[number].id?;
    Some((&scopes[world.plan.endpoints[number].application], id))
}

/// Reads, changes and replaces.
async fn replace(
    world: &World,
    scopes: &[AppScope],
    number: usize,
    what: &'static str,
    change: impl FnOnce(&mut EndpointFields),
) -> Option<()> {
    let (scope, id) = begin(world, scopes, number, what)?;
    let read = |store: Arc<ModelStore>| async move { store.endpoint(scope, &Ref::Id(id)).await };
    let endpoint = world.call(read).await?.ok()??;
    let version = endpoint.version;
    let mut fields = fields_of(endpoint);
    change(&mut fields);
    let write =
        |store: Arc<ModelStore>| async move { store.replace_endpoint(scope, id, version, fields).await };
    world.call(write).await?.ok().map(drop)
}

fn fields_of(endpoint: Endpoint) -> EndpointFields {
    EndpointFields {
        uid: endpoint.uid,
        url: endpoint.url,
        description: endpoint.description,
        throttle_rate: endpoint.throttle_rate,
        filter: endpoint.filter,
        disabled: endpoint.disabled.is_some(),
        metadata: endpoint.metadata,
        retry: endpoint.retry,
        legacy_version: endpoint.legacy_version,
    }
}

/// A URL that the endpoint never had. The oracle knows it from here on; since when it holds, once that is certain.
fn new_url(world: &World, number: usize) -> SetUp<EndpointUrl> {
    let urls = &mut world.state().oracle.endpoints[number].urls;
    let url = parse_url(&format!("https://endpoint-{number}.example.com/{}", urls.len()))?;
    urls.push((Duration::MAX, url.as_str().to_owned()));
    Ok(url)
}

fn parse_url(text: &str) -> SetUp<EndpointUrl> {
    EndpointUrl::parse(text, &UrlRules::default()).map_err(|refusal| refusal.to_string())
}

fn new_secret(world: &World, number: usize) -> SigningSecret {
    let mut state = world.state();
    let mut bytes = [0; 24];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&state.random.number().to_be_bytes());
    }
    let secret = SigningSecret::hmac(bytes);
    state.oracle.endpoints[number].secrets.push(secret.clone());
    secret
}

/// A message that was acknowledged, of the application of this endpoint.
fn some_message(world: &World, endpoint: Option<usize>) -> Option<postrider_model::id::MessageId> {
    let application = endpoint.map(|number| world.plan.endpoints[number].application);
    let mut state = world.state();
    let messages = state.oracle.publications.messages();
    let of_it = messages.into_iter().filter(|(owner, _)| application.is_none_or(|wanted| wanted == *owner));
    let of_it: Vec<_> = of_it.collect();
    let at = state.random.index(of_it.len());
    of_it.get(at).map(|(_, message)| *message)
}
