//! The `idempotency-key` header of POST requests.

use crate::{error::ApiError, state::ApiState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use postrider_store::idempotency::IdempotencyKey;
use utoipa::IntoParams;

/// Longest key, in bytes.
const KEY_BYTES: usize = 256;

/// The header, for the OpenAPI document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyParams {
    /// A repeated request with the same key is answered as the first one was, and does nothing.
    #[param(rename = "idempotency-key", max_length = 256)]
    pub idempotency_key: Option<String>,
}

/// The key of a request, if it has one: same method, path, query and key mean the same request.
#[derive(Debug, Clone, Copy)]
pub struct Idempotency(pub Option<IdempotencyKey>);

impl FromRequestParts<ApiState> for Idempotency {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        Self::of(parts)
    }
}

impl Idempotency {
    /// Reads the header.
    pub(crate) fn of(parts: &Parts) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let key = value
            .to_str()
            .ok()
            .filter(|key| (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
            .filter(|_| values.next().is_none())
            .ok_or_else(|| {
                ApiError::bad_request(
                    "invalid_idempotency_key",
                    "The header `idempotency-key` must be given once, with 1 to 256 visible ASCII characters.",
                )
            })?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self(Some(IdempotencyKey::new(parts.method.as_str(), target, key))))
    }
}
