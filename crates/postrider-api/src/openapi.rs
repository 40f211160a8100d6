//! The OpenAPI document: generated from the handlers, served as JSON, and written to a file by `cargo xtask openapi`.

use crate::{
    docs_page,
    error::{ErrorBody, Problem, ValidationErrorBody},
    router,
    state::ApiState,
};
use axum::{Router, routing};
use bytes::Bytes;
use http::header;
use utoipa::openapi::{
    ComponentsBuilder, Info, License, OpenApi, OpenApiBuilder, Paths, SecurityRequirement,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    tag::TagBuilder,
};

/// Where the document is served; the page beside it and client libraries' test suites know this path.
pub(crate) const PATH: &str = "/api/v1/openapi.json";

const DESCRIPTION: &str = "\
Postrider delivers webhooks: you publish a message for one of your customers' applications, and it reaches every endpoint \
configured there, signed, retried until it arrives, with a history of what happened.

**The way of a message.** Create an *application* for each customer, *endpoints* below it, and publish *messages* to the \
application. Each *attempt* to deliver one is listed by endpoint and by message.

**Authentication.** `Authorization: Bearer <token>` with an API key: of an environment (everything), of one application \
(its endpoints and history), or for publishing only. What belongs to somebody else answers 404, as if it did not exist.

**Compatibility.** Paths, members and errors follow the Svix API v1, so its client libraries work when only the server's \
address is changed. Members that Postrider adds stand beside them. Operations of that API that are not built yet answer 501.

**Lists** return `data`, `iterator`, `prevIterator` and `done`: pass `iterator` to go on until `done` is true. \
**Dates** are RFC 3339 in UTC. **Errors** are JSON with `code` and `detail`; 422 lists every problem with its place. \
**Repeated requests**: give `idempotency-key`, and the answer to a repeated POST is that of the first one.";

const TAGS: [(&str, &str); 7] = [
    ("Application", "One for each of your customers."),
    ("Endpoint", "Where an application's messages go, with headers, secrets and OAuth2."),
    ("Event Type", "The kinds of messages, with schemas and examples."),
    ("Message", "Publish messages, and read what was published."),
    ("Message Attempt", "What happened to messages, and sending them again."),
    ("Authentication", "Who the caller is."),
    ("Health", "For operators."),
];

/// What the document says besides its operations.
pub fn base() -> OpenApi {
    let mut info = Info::new("Postrider API", env!("CARGO_PKG_VERSION"));
    info.description = Some(DESCRIPTION.to_owned());
    info.license = Some(License::new(env!("CARGO_PKG_LICENSE")));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
    // The errors are described once for all operations, so their schemas are not found through any one of them.
    let components = ComponentsBuilder::new()
        .schema_from::<ErrorBody>()
        .schema_from::<ValidationErrorBody>()
        .schema_from::<Problem>()
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .build();
    let tags =
        TAGS.map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build());
    OpenApiBuilder::new()
        .info(info)
        .paths(Paths::new())
        .components(Some(components))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .tags(Some(tags))
        .build()
}

/// The document as JSON, as `docs/` keeps it.
pub fn openapi_json() -> String {
    text(&router::operations().split_for_parts().1)
}

fn text(document: &OpenApi) -> String {
    match document.to_pretty_json() {
        Ok(text) => text + "\n",
        // Strings, numbers and maps with string keys always serialise.
        Err(error) => format!("{{\"error\": \"{error}\"}}\n"),
    }
}

/// The document's own routes; they need no token.
pub fn routes(document: &OpenApi) -> Router<ApiState> {
    let text = Bytes::from(text(document));
    // Without a charset: client libraries' test suites compare the exact value.
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    Router::new().route(PATH, routing::get(answer)).merge(docs_page::routes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_document_is_valid_json_with_operations_that_are_all_described() {
        let document: Value = serde_json::from_str(&openapi_json()).unwrap();
        let operations: Vec<&Value> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
            .filter(|operation| operation.get("responses").is_some())
            .collect();
        assert!(!operations.is_empty());
        for operation in &operations {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{operation}");
        }
        let mut names: Vec<&str> =
            operations.iter().filter_map(|item| item["operationId"].as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "operation ids are unique");
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let text = openapi_json();
        let document: Value = serde_json::from_str(&text).unwrap();
        for part in text.split("\"#/").skip(1) {
            let pointer = format!("/{}", part.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
