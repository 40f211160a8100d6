//! Who may call what.

use crate::harness::{Api, jwt};
use postrider_model::{
    access::{Caller, Scope},
    id::ApplicationId,
};
use postrider_store::access::NewApiKey;
use secrecy::ExposeSecret;
use serde_json::json;

#[tokio::test]
async fn a_request_without_a_valid_token_is_refused() {
    let api = Api::start().await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer nonsense")],
        &[("authorization", "Basic nonsense")],
        &[("authorization", "Bearer a.b.c")],
    ] {
        let refused = api.raw("GET", "/api/v1/app", headers, None).await;
        assert_eq!(refused.is(401).body, json!({"code": "authentication_failed", "detail": "Invalid token"}));
    }
}

#[tokio::test]
async fn a_token_of_another_server_creates_its_environment() {
    let api = Api::start().await;
    let token = jwt(&json!({"sub": "org_svix_python_tests", "iss": "svix-server", "exp": 4_000_000_000_u64}));
    let who = api.with(&token, "GET", "/auth/whoami", None).await;
    assert_eq!(
        who.is(200).body,
        json!({"envId": "org_svix_python_tests", "appId": null, "permissionSource": "SvixJwt", "sessionId": null})
    );
    api.with(&token, "POST", "/app", Some(json!({"name": "theirs", "uid": "x"}))).await.is(201);
    api.get("/app/x").await.is(404);
    let mine = api.with(&token, "GET", "/app", None).await;
    assert_eq!(mine.body["data"].as_array().unwrap().len(), 1);
    api.with(&format!("{token}|org_svix_python_tests"), "GET", "/app", None).await.is(200);
    api.with(&format!("{token}|org_other"), "GET", "/app", None).await.is(403);
}

#[tokio::test]
async fn a_token_of_one_application_sees_nothing_else() {
    let api = Api::start().await;
    let own = api.app("own").await;
    let other = api.app("other").await;
    let token = api
        .key(Scope::Application { id: ApplicationId::parse(&own).unwrap(), feature_flags: [].into() })
        .await;
    api.with(&token, "GET", &format!("/app/{own}"), None).await.is(200);
    let endpoint = json!({"url": "https://example.com"});
    let created = api.with(&token, "POST", &format!("/app/{own}/endpoint"), Some(endpoint.clone())).await;
    created.is(201);
    for name in [other.as_str(), "other", "absent"] {
        let foreign = api.with(&token, "GET", &format!("/app/{name}/endpoint"), None).await;
        assert_eq!(foreign.is(404).body, json!({"code": "not_found", "detail": "Application not found"}));
        api.with(&token, "POST", &format!("/app/{name}/endpoint"), Some(endpoint.clone())).await.is(404);
    }
    for (method, path) in [
        ("GET", "/app"),
        ("POST", "/app"),
        ("DELETE", "/app/own"),
        ("PATCH", "/app/own"),
        ("PUT", "/app/own"),
        ("POST", "/event-type"),
    ] {
        let refused = api.with(&token, method, path, Some(json!({"name": "x", "description": ""}))).await;
        assert_eq!(refused.is(403).body["code"], "insufficient access", "{method} {path}");
    }
}

#[tokio::test]
async fn a_key_for_publishing_reads_nothing() {
    let api = Api::start().await;
    api.app("a").await;
    let token = api.key(Scope::Publish { application: None }).await;
    for path in ["/app", "/app/a", "/app/a/endpoint", "/event-type"] {
        api.with(&token, "GET", path, None).await.is(403);
    }
    api.with(&token, "GET", "/auth/whoami", None).await.is(200);
}

#[tokio::test]
async fn a_revoked_key_is_refused() {
    let api = Api::start().await;
    let caller = Caller { environment: api.environment.clone(), scope: Scope::Environment };
    let new = NewApiKey { caller, name: "old".to_owned(), expires_at: None };
    let (key, token) = api.store.create_api_key(new).await.unwrap();
    api.with(token.expose_secret(), "GET", "/app", None).await.is(200);
    api.store.revoke_api_key(&api.environment, key.id).await.unwrap();
    api.with(token.expose_secret(), "GET", "/app", None).await.is(401);
}

/// K10.
#[tokio::test]
async fn guessing_tokens_is_slowed_down() {
    let api = Api::start().await;
    for guess in 0..20 {
        api.from([192, 0, 2, 1], &format!("prk_guess{guess}")).await.is(401);
    }
    let refused = api.from([192, 0, 2, 1], "prk_guess").await;
    assert!(refused.is(429).headers.contains_key("retry-after"));
    api.from([192, 0, 2, 2], "prk_guess").await.is(401);
    let token = api.token.clone();
    api.from([192, 0, 2, 1], &token).await.is(200);
}
