//! The page at `/docs` that shows the OpenAPI document: Swagger UI from files inside the binary. It loads nothing from
//! elsewhere, and its content security policy sees to that.

use crate::{error::ApiError, state::ApiState};
use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing,
};
use http::{HeaderValue, header};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

/// Scripts and data only from this server. Styles may stand inline: Swagger UI sets them on elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of Swagger UI that the page uses.
const FILES: [&str; 4] =
    ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"];

/// Addresses are relative, so that the page works below a prefix of a proxy.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>Postrider API</title>
    <link rel="stylesheet" href="docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="docs/favicon-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/swagger-ui-standalone-preset.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"#;

/// The document's address follows from the page's, with or without a slash at its end.
const START: &str = r##"const page = location.pathname.replace(/\/+$/, "");
SwaggerUIBundle({
  url: page.replace(/docs$/, "api/v1/openapi.json"),
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: "BaseLayout",
});
"##;

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("openapi.json")));

/// The page and its files.
pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/docs", routing::get(async || guarded(PAGE.into_response(), "text/html; charset=utf-8")))
        .route("/docs/{*file}", routing::get(file))
}

async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    // The page also works under `/docs/`, where its relative addresses have `docs/` twice.
    let name = name.strip_prefix("docs/").unwrap_or(&name);
    if name == "start.js" {
        return Ok(guarded(START.into_response(), "text/javascript; charset=utf-8"));
    }
    let name = FILES.into_iter().find(|known| *known == name).ok_or_else(ApiError::entity_not_found)?;
    let found =
        utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).map_err(|error| ApiError::internal(&error))?;
    let found = found.ok_or_else(ApiError::entity_not_found)?;
    let kind = match name.rsplit_once('.') {
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        _ => "image/png",
    };
    Ok(guarded(found.bytes.into_owned().into_response(), kind))
}

fn guarded(mut response: Response, content_type: &'static str) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// TEN-5: no address of another host stands in what we wrote, and every file that it names is there.
    #[tokio::test]
    async fn the_page_loads_its_own_files_and_nothing_else() {
        assert!(!PAGE.contains("//") && !START.contains("http"));
        for name in PAGE.split('"').filter(|part| part.starts_with("docs/")) {
            for path in [name.strip_prefix("docs/").unwrap(), name] {
                let response = file(Path(path.to_owned())).await.unwrap();
                assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
                assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
            }
        }
        assert!(file(Path("index.html".to_owned())).await.is_err());
    }
}
