//! The document, its page, and what is not built.

use crate::server::Server;
use http::Method;
use serde_json::Value;

#[tokio::test]
async fn the_document_and_its_page_are_served_without_a_token() {
    let server = Server::start();
    let document = server.get("", "/api/v1/openapi.json").await;
    assert_eq!(document.content_type, "application/json");
    let document = document.expect(200);
    assert!(document["paths"]["/api/v1/app/{app_id}/msg"]["post"].is_object());
    assert_eq!(document, serde_json::from_str::<Value>(&postrider_api::openapi::openapi_json()).unwrap());
    for path in ["/docs", "/docs/", "/docs/swagger-ui.css", "/docs/docs/start.js"] {
        assert_eq!(server.get("", path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_built_says_so_after_authentication() {
    let server = Server::start();
    let tenant = server.tenant("a").await;
    for (method, path) in [
        (Method::POST, "/api/v1/app/x/endpoint/y/recover"),
        (Method::POST, "/api/v1/auth/app-portal-access/x"),
        (Method::GET, "/api/v1/background-task/qtask_1srOrx2ZWZBpBUvZwXKQmoEYga2"),
        (Method::PUT, "/api/v1/app/x/endpoint/y/mtls"),
        (Method::GET, "/api/v1/operational-webhook/endpoint"),
    ] {
        let body = bytes::Bytes::new();
        let answer = server.call(&tenant.token, method.clone(), path, None, body.clone()).await;
        assert_eq!(answer.expect(501)["code"], "not_implemented", "{path}");
        server.call("", method, path, None, body).await.expect(401);
    }
    for path in
        ["/api/v1/stream", "/ingest/api/v1/source", "/api/v1/app/x/destination", "/", "/api/v1/nothing"]
    {
        assert_eq!(server.get(&tenant.token, path).await.expect(404)["code"], "not_found", "{path}");
    }
}

/// Every code that this crate answers with stands in the error catalogue.
#[test]
fn the_error_catalogue_names_every_code() {
    let catalogue = include_str!("../../../../docs/errors.md");
    for source in [
        include_str!("../../src/error.rs"),
        include_str!("../../src/idempotency.rs"),
        include_str!("../../src/json.rs"),
        include_str!("../../src/auth/jwt.rs"),
        include_str!("../../src/v1/applications.rs"),
        include_str!("../../src/v1/destinations.rs"),
        include_str!("../../src/v1/endpoints.rs"),
        include_str!("../../src/v1/event_types.rs"),
        include_str!("../../src/v1/examples.rs"),
        include_str!("../../src/v1/messages.rs"),
        include_str!("../../src/v1/stats.rs"),
        include_str!("../../src/v1/test_send.rs"),
    ] {
        let source: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
        for call in
            ["bad_request(", "conflict(", "no_result_yet(", "coded( StatusCode::", "coded(StatusCode::"]
        {
            for rest in source.split(call).skip(1) {
                let Some(code) = rest.split(')').next().and_then(|arguments| arguments.split('"').nth(1))
                else {
                    continue;
                };
                assert!(catalogue.contains(&format!("`{code}`")), "{code} is missing in docs/errors.md");
            }
        }
    }
}
