//! HS256 tokens of svix-server: `sub: org_…` for an environment, `sub: app_…` with `org: org_…` for one application.

use crate::{config::Config, error::ApiError};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use postrider_model::{
    access::{Caller, Scope},
    environment::EnvironmentId,
    id::ApplicationId,
    time::Timestamp,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// The only issuer whose tokens are accepted; tokens without one are.
const ISSUER: &str = "svix-server";
/// Clocks of issuer and server may differ by this much.
const LEEWAY_SECONDS: i64 = 60;

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    org: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    #[serde(default)]
    feature_flags: Option<BTreeSet<String>>,
}

/// Who a signed token is. `None`: not such a token, or no `jwt_secret` is configured.
pub(super) fn verify(token: &str, config: &Config, now: Timestamp) -> Result<Option<Caller>, ApiError> {
    let Some(secret) = &config.jwt_secret else { return Ok(None) };
    if verify_slices_are_equal(token.as_bytes(), secret.expose().as_bytes()).is_ok() {
        return Err(ApiError::unauthorized(
            "The JWT secret itself is not a token: use a token that was signed with it.",
        ));
    }
    // API keys of this server have no dots.
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return Ok(None);
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_aud = false;
    // Times are checked below, against the store's clock.
    validation.validate_exp = false;
    validation.set_issuer(&[ISSUER]);
    let key = DecodingKey::from_secret(secret.expose().as_bytes());
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .map_err(|_| ApiError::unauthorized(super::INVALID_TOKEN))?
        .claims;
    #[expect(clippy::cast_precision_loss, reason = "seconds of this age of the world are exact in a double")]
    let (latest, earliest) =
        ((now.as_seconds() - LEEWAY_SECONDS) as f64, (now.as_seconds() + LEEWAY_SECONDS) as f64);
    if claims.exp.is_some_and(|exp| exp < latest) || claims.nbf.is_some_and(|nbf| nbf > earliest) {
        return Err(ApiError::unauthorized(super::INVALID_TOKEN));
    }
    identity(claims).map(Some)
}

fn identity(claims: Claims) -> Result<Caller, ApiError> {
    let Some(subject) = claims.sub else {
        return Err(ApiError::unauthorized("Invalid token (missing `sub`)."));
    };
    let Some(organization) = claims.org else {
        let environment = EnvironmentId::parse(&subject)
            .ok_or_else(|| ApiError::bad_request("bad_token", "`sub` is not a valid organization id."))?;
        return Ok(Caller { environment, scope: Scope::Environment });
    };
    let environment = EnvironmentId::parse(&organization)
        .ok_or_else(|| ApiError::bad_request("bad token", "`org` is not a valid organization id."))?;
    let id = ApplicationId::parse(&subject)
        .ok_or_else(|| ApiError::bad_request("bad token", "`sub` is not a valid application id."))?;
    let feature_flags = claims.feature_flags.unwrap_or_default();
    Ok(Caller { environment, scope: Scope::Application { id, feature_flags } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    const SECRET: &str = "a secret that is long enough for HS256";
    const NOW: i64 = 1_767_225_600;

    fn config() -> Config {
        Config { jwt_secret: Some(SECRET.to_owned().into()), ..Config::default() }
    }

    fn token(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn check(token: &str) -> Result<Option<Caller>, ApiError> {
        verify(token, &config(), Timestamp::from_micros(NOW * 1_000_000))
    }

    #[test]
    fn tokens_of_svix_server_are_accepted() {
        let claims = json!({"sub": "org_svix_python_tests", "iss": "svix-server", "exp": NOW + 10});
        let caller = check(&token(&claims, Algorithm::HS256, SECRET)).unwrap().unwrap();
        assert_eq!(
            (caller.environment.as_str(), caller.scope),
            ("org_svix_python_tests", Scope::Environment)
        );
        let app = "app_1srOrx2ZWZBpBUvZwXKQmoEYga2";
        let claims = json!({"sub": app, "org": "org_x", "feature_flags": ["beta"]});
        let caller = check(&token(&claims, Algorithm::HS256, SECRET)).unwrap().unwrap();
        let id = ApplicationId::parse(app).unwrap();
        assert_eq!(caller.scope, Scope::Application { id, feature_flags: ["beta".to_owned()].into() });
    }

    #[test]
    fn other_tokens_are_refused() {
        let good = json!({"sub": "org_x", "iss": "svix-server", "exp": NOW + 10});
        for (token, status) in [
            (token(&good, Algorithm::HS256, "another secret, long enough as well"), 401),
            (token(&good, Algorithm::HS384, SECRET), 401),
            (token(&json!({"sub": "org_x", "exp": NOW - 100}), Algorithm::HS256, SECRET), 401),
            (token(&json!({"sub": "org_x", "nbf": NOW + 100}), Algorithm::HS256, SECRET), 401),
            (token(&json!({"sub": "org_x", "iss": "somebody"}), Algorithm::HS256, SECRET), 401),
            (token(&json!({"iss": "svix-server"}), Algorithm::HS256, SECRET), 401),
            (token(&json!({"sub": "user_x"}), Algorithm::HS256, SECRET), 400),
            (token(&json!({"sub": "org_x", "org": "org_x"}), Algorithm::HS256, SECRET), 400),
            (SECRET.to_owned(), 401),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJvcmdfeCJ9.".to_owned(), 401),
        ] {
            assert_eq!(check(&token).unwrap_err().status().as_u16(), status, "{token}");
        }
    }

    #[test]
    fn api_keys_are_left_to_the_store() {
        assert_eq!(check("prk_abc"), Ok(None));
        let without = Config::default();
        assert_eq!(verify("a.b.c", &without, Timestamp::default()), Ok(None));
    }
}
