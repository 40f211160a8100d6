//! The cross-tenant matrix (I01, TEN-1), generated from the OpenAPI document: every operation with an id in its path is
//! called with somebody else's real ids, and must answer exactly as it does for ids that do not exist. An operation that
//! the tables here do not know fails the test.

use crate::server::{Answer, Server, Tenant, ids};
use bytes::Bytes;
use http::Method;
use postrider_model::{outcome::Outcome, retry::NextStep};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The values of path parameters, by their names.
type Names = BTreeMap<&'static str, String>;

/// Operations that create what the path names, in the caller's own space: there they succeed, and change nothing for
/// whoever owns the real one.
const UPSERTS: [&str; 3] = ["v1.application.upsert", "v1.endpoint.upsert", "v1.event-type.upsert"];

/// A body that each operation takes; a new operation with a body needs one here.
fn body(operation: &str) -> Option<Value> {
    let endpoint = json!({"url": "https://example.com/changed"});
    let message = json!({"eventType": "a", "payload": {}});
    let event_type = json!({"name": "some.type", "description": "changed"});
    Some(match operation {
        "v1.application.upsert" | "v1.application.patch" | "v1.application.create" => {
            json!({"name": "changed"})
        }
        "v1.endpoint.create" | "v1.endpoint.upsert" | "v1.endpoint.patch" => endpoint,
        "v1.endpoint.set-headers" | "v1.endpoint.patch-headers" => json!({"headers": {"x-changed": "1"}}),
        "v1.endpoint.rotate-secret" => json!({}),
        "v1.endpoint.set-oauth-config" => json!({
            "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "c", "clientSecret": "s",
            "tokenUrl": "https://example.com/token",
        }),
        "v1.endpoint.send-example" => json!({"eventType": "svix.ping"}),
        "v1.message.test-attempt" | "v1.message.create" => message,
        "v1.message.precheck" => json!({"eventType": "a"}),
        "v1.message.bulk-expunge-content" => json!({"ids": []}),
        "v1.event-type.create" | "v1.event-type.upsert" => event_type,
        "v1.event-type.patch" => json!({"description": "changed"}),
        _ => return None,
    })
}

struct Operation {
    id: String,
    method: Method,
    path: String,
    parameters: Vec<&'static str>,
    body: Bytes,
}

/// All operations with a parameter in their path.
fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&postrider_api::openapi::openapi_json()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let Some(id) = operation["operationId"].as_str() else { continue };
            let parameters: Vec<_> =
                PARAMETERS.into_iter().filter(|name| path.contains(&format!("{{{name}}}"))).collect();
            assert_eq!(
                parameters.len(),
                path.matches('{').count(),
                "a parameter of {path} is not covered here"
            );
            if parameters.is_empty() {
                continue;
            }
            let body = if operation["requestBody"].is_null() {
                Bytes::new()
            } else {
                body(id)
                    .unwrap_or_else(|| panic!("{id} is not covered: give it a body here"))
                    .to_string()
                    .into()
            };
            found.push(Operation { id: id.to_owned(), method, path: path.clone(), parameters, body });
        }
    }
    assert!(found.len() > 30, "the document has the operations");
    found
}

const PARAMETERS: [&str; 5] = ["app_id", "endpoint_id", "msg_id", "attempt_id", "event_type_name"];

/// Ids of the right form that nothing has. The event type's name is free in every environment.
fn nobodys() -> Names {
    [
        ("app_id", "app_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        ("endpoint_id", "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        ("msg_id", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        ("attempt_id", "atmpt_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        ("event_type_name", "type.of.nobody"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// Something of every kind in the application.
async fn furnish(server: &Server, tenant: &Tenant, event_type: &str) -> Names {
    let kind = json!({"name": event_type, "description": "original"});
    server.post(&tenant.token, "/api/v1/event-type", kind).await;
    let message = server.publish(tenant, event_type).await;
    server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await;
    let path = format!("/api/v1/app/{}/attempt/msg/{message}", tenant.app);
    let attempt = ids(&server.get(&tenant.token, &path).await.expect(200)).remove(0);
    [
        ("app_id", tenant.app.clone()),
        ("endpoint_id", tenant.endpoint.clone()),
        ("msg_id", message),
        ("attempt_id", attempt),
        ("event_type_name", event_type.to_owned()),
    ]
    .into()
}

async fn call(server: &Server, token: &str, operation: &Operation, names: &Names) -> Answer {
    let mut path = operation.path.clone();
    for (name, value) in names {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    server.call(token, operation.method.clone(), &path, None, operation.body.clone()).await
}

/// Everything that the owner sees.
async fn view(server: &Server, owner: &Tenant, names: &Names) -> Vec<Value> {
    let (app, endpoint, message) = (&names["app_id"], &names["endpoint_id"], &names["msg_id"]);
    let mut seen = Vec::new();
    for path in [
        "/api/v1/app".to_owned(),
        "/api/v1/event-type?with_content=true&include_archived=true".to_owned(),
        format!("/api/v1/app/{app}/endpoint"),
        format!("/api/v1/app/{app}/endpoint/{endpoint}/headers"),
        format!("/api/v1/app/{app}/endpoint/{endpoint}/secret"),
        format!("/api/v1/app/{app}/endpoint/{endpoint}/oauth-config"),
        format!("/api/v1/app/{app}/msg"),
        format!("/api/v1/app/{app}/msg/{message}/endpoint"),
        format!("/api/v1/app/{app}/attempt/endpoint/{endpoint}"),
        format!("/api/v1/app/{app}/endpoint/{endpoint}/msg"),
    ] {
        seen.push(server.get(&owner.token, &path).await.expect(200));
    }
    seen
}

/// Calls every operation with `own` ids but for one parameter (or all), which is once the owner's and once nobody's.
async fn compare(server: &Server, token: &str, own: &Names, foreign: &Names, whole: bool) {
    for operation in operations() {
        for parameter in &operation.parameters {
            let with = |from: &Names| {
                let mut names = own.clone();
                for name in PARAMETERS.iter().filter(|name| whole || *name == parameter) {
                    names.insert(name, from[name].clone());
                }
                names
            };
            let real = call(server, token, &operation, &with(foreign)).await;
            let random = call(server, token, &operation, &with(&nobodys())).await;
            let what = format!("{} by {parameter}: {real:?} against {random:?}", operation.id);
            assert_eq!(real.status, random.status, "{what}");
            if UPSERTS.contains(&operation.id.as_str()) && real.status.is_success() {
                // Names of event types are chosen by their owners: the attacker's own type of that name must not make
                // the next operations succeed.
                for name in [&foreign["event_type_name"], &nobodys()["event_type_name"]] {
                    server.delete(token, &format!("/api/v1/event-type/{name}?expunge=true")).await;
                }
                continue;
            }
            assert_eq!(real, random, "{what}");
            assert!([403, 404].contains(&real.status.as_u16()), "{what}");
        }
    }
}

/// The control: with the owner's token and ids, the same requests succeed, so it is the ids that the others fail for.
#[tokio::test]
async fn the_requests_of_the_matrix_succeed_for_their_owner() {
    let server = Server::start();
    let owner = server.tenant("owner").await;
    let own = furnish(&server, &owner, "type.of.owner").await;
    let mut operations = operations();
    // What others need goes last: deletions, from the inside out.
    let order = [Method::PUT, Method::PATCH, Method::POST, Method::GET, Method::DELETE];
    operations.sort_by_key(|operation| {
        (order.iter().position(|method| *method == operation.method), std::cmp::Reverse(operation.path.len()))
    });
    for operation in operations {
        // Waits for an engine; `a_test_send_answers_with_its_attempt` has one.
        if operation.id != "v1.message.test-attempt" {
            let answer = call(&server, &owner.token, &operation, &own).await;
            assert!(answer.status.is_success(), "{}: {answer:?}", operation.id);
        }
    }
}

#[tokio::test]
async fn another_environment_cannot_tell_real_ids_from_random_ones() {
    let server = Server::start();
    let (victim, attacker) = (server.tenant("victim").await, server.tenant("attacker").await);
    let theirs = furnish(&server, &victim, "type.of.victim").await;
    let before = view(&server, &victim, &theirs).await;
    // With nothing of their own, then with everything else their own.
    compare(&server, &attacker.token, &nobodys(), &theirs, true).await;
    let own = furnish(&server, &attacker, "type.of.attacker").await;
    compare(&server, &attacker.token, &own, &theirs, false).await;
    assert_eq!(view(&server, &victim, &theirs).await, before, "nothing of the victim's has changed");
    assert_eq!(
        server.attempt_all(Outcome::Succeeded, Some(200), NextStep::Delivered).await,
        0,
        "nothing was sent"
    );
}

#[tokio::test]
async fn another_application_cannot_tell_real_ids_from_random_ones() {
    let server = Server::start();
    let victim = server.tenant("victim").await;
    let theirs = furnish(&server, &victim, "shared.type").await;
    let app = server.app(&victim, "neighbour").await;
    let endpoint = server.endpoint(&victim, &app).await;
    let neighbour = Tenant {
        environment: victim.environment.clone(),
        token: victim.token.clone(),
        app: app.clone(),
        endpoint,
    };
    let mut own = furnish(&server, &neighbour, "shared.type").await;
    // Event types belong to the environment: both see them, so none is foreign.
    let mut foreign = theirs.clone();
    own.insert("event_type_name", nobodys()["event_type_name"].clone());
    foreign.insert("event_type_name", nobodys()["event_type_name"].clone());
    let consumer = server.token_of_app(&victim, &app).await;
    let before = view(&server, &victim, &theirs).await;
    compare(&server, &consumer, &own, &foreign, false).await;
    compare(&server, &consumer, &nobodys(), &foreign, true).await;
    let names = |seen: Vec<Value>| seen.into_iter().skip(2).collect::<Vec<_>>();
    assert_eq!(
        names(view(&server, &victim, &theirs).await),
        names(before),
        "nothing of the victim's has changed"
    );
}

/// I04, I06: ids that stand elsewhere than in the path.
#[tokio::test]
async fn ids_in_bodies_and_queries_are_scoped_too() {
    let server = Server::start();
    let (victim, attacker) = (server.tenant("victim").await, server.tenant("attacker").await);
    let theirs = furnish(&server, &victim, "a").await;
    let own = furnish(&server, &attacker, "a").await;
    let (app, message) = (&own["app_id"], &own["msg_id"]);
    let path = format!("/api/v1/app/{app}/attempt/msg/{message}?endpoint_id={}", theirs["endpoint_id"]);
    server.get(&attacker.token, &path).await.expect(404);
    let list = json!({"ids": [theirs["msg_id"]]});
    let answer =
        server.post(&attacker.token, &format!("/api/v1/app/{app}/msg/bulk-expunge"), list).await.expect(200);
    assert_eq!(answer["results"][&theirs["msg_id"]], "not-found");
    let path = format!("/api/v1/app/{app}/msg?iterator={}", theirs["msg_id"]);
    let page = server.get(&attacker.token, &path).await.expect(200);
    assert!(!page.to_string().contains(&theirs["app_id"]) && ids(&page).iter().all(|id| id == message));
}

/// I02: what cannot be an id names nothing.
#[tokio::test]
async fn what_cannot_be_an_id_names_nothing() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    let long = "a".repeat(10_000);
    for name in [
        "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2",
        "app_x",
        "%27%20OR%201=1",
        "..%2f..",
        "%00",
        "%ff",
        "a%22b",
        &long,
    ] {
        for path in [
            format!("/api/v1/app/{name}"),
            format!("/api/v1/app/{}/endpoint/{name}", tenant.app),
            format!("/api/v1/app/{}/msg/{name}/raw", tenant.app),
        ] {
            let answer = server.get(&tenant.token, &path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.content_type.as_str()),
                (404, "application/json"),
                "{path}"
            );
        }
    }
}
