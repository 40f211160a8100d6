//! OAuth2 access tokens (client credentials): fetched once for many waiters, cached, renewed early, and after a 401.
//! When a token is used and renewed is decided in `token_cache`; what is asked and accepted in `token_request` and
//! `token_response`. Tokens live in memory only.

use crate::{
    client::{BodyCaps, Exchange, Outbound, Shared},
    token_cache::{Decision, Moment, Replacement, State},
    token_request,
    token_response::{self, ANSWER_BYTES, Grant, Refusal, RefusalKind},
};
use aws_lc_rs::digest;
use postrider_model::{
    environment::EnvironmentId,
    id::{ApplicationId, EndpointId},
    oauth::{AuthMethod, OAuthCredential},
    outcome::Outcome,
    url::Scheme,
};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Longest time of one token request, its answer included.
const TOKEN_REQUEST_TIME: Duration = Duration::from_secs(10);
/// Credentials whose tokens are remembered. The least recently used are forgotten first: that costs one request.
const CREDENTIALS: usize = 10_000;

/// Whose credential: part of every cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenOwner {
    /// The environment.
    pub environment: EnvironmentId,
    /// The application.
    pub application: ApplicationId,
    /// The endpoint.
    pub endpoint: EndpointId,
}

/// An access token.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token, for `Authorization: Bearer`.
    pub value: SecretString,
    /// It came from the cache (it was not fetched during this call).
    pub cached: bool,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFailure {
    /// `TokenUnavailable`, `TokenRejected` or `TokenInvalid`.
    pub outcome: Outcome,
    /// One sentence for a person. Contains neither `error_description` nor anything of the answer but a registered
    /// error code.
    pub detail: String,
}

/// SHA-256 over everything that makes one credential another, each part with its length.
type Key = [u8; 32];

/// The result of a token request, for everybody who waits for it.
type Fetched = Result<Grant, TokenFailure>;

/// The tokens of the process.
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Key, Slot>>,
    wall: Box<dyn Fn() -> Duration + Send + Sync>,
}

/// One credential.
#[derive(Debug)]
struct Slot {
    state: State,
    flight: Option<watch::Receiver<Option<Fetched>>>,
    used: Instant,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::with_wall_clock(Box::new(system_time))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tokens").field("credentials", &self.lock().len()).finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the default of an argument; beside the monotonic clock, for machines that slept"
)]
fn system_time() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

impl Outbound {
    /// A usable token: from the cache, or fetched. Concurrent callers of one credential share one request and its
    /// result, also when it fails. A failure is remembered for a while, by version of the credential.
    pub async fn token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        deadline: Instant,
    ) -> Result<Token, TokenFailure> {
        let key = key(owner, credential);
        let decision = {
            let tokens = &self.shared.tokens;
            let now = tokens.now();
            let mut slots = tokens.lock();
            let slot = slot(&mut slots, key, now.monotonic);
            match slot.state.decide(now) {
                Decision::Use(value) => return Ok(Token { value, cached: true }),
                Decision::UseAndRefresh(value) => {
                    // Nobody waits for this one; its failure shows when the old token is no longer usable.
                    drop(self.fetch_shared(slot, key, owner, credential));
                    return Ok(Token { value, cached: true });
                }
                Decision::Fail(failure) => Err(failure),
                Decision::Fetch => Ok(self.fetch_shared(slot, key, owner, credential)),
            }
        };
        wait(decision?, credential, deadline).await
    }

    /// The endpoint answered 401 to this token. Forgets it and returns a newly fetched one, or `None` when no refresh
    /// is allowed now (the token was not cached or just fetched, or the credential was refreshed this way within the
    /// last minute).
    pub async fn replace_token(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        rejected: &Token,
        deadline: Instant,
    ) -> Option<Result<Token, TokenFailure>> {
        if !rejected.cached {
            return None;
        }
        let key = key(owner, credential);
        let flight = {
            let tokens = &self.shared.tokens;
            let now = tokens.now();
            let mut slots = tokens.lock();
            let slot = slot(&mut slots, key, now.monotonic);
            match slot.state.replace(&rejected.value, slot.is_fetching(), now) {
                Replacement::Use(value) => return Some(Ok(Token { value, cached: false })),
                Replacement::Fail(failure) => return Some(Err(failure)),
                Replacement::Nothing => return None,
                Replacement::Fetch => self.fetch_shared(slot, key, owner, credential),
            }
        };
        Some(wait(flight, credential, deadline).await)
    }

    /// Joins the request that is under way, or starts one. It runs in a task of its own: a caller that gives up does
    /// not end it for the others.
    fn fetch_shared(
        &self,
        slot: &mut Slot,
        key: Key,
        owner: &TokenOwner,
        credential: &OAuthCredential,
    ) -> watch::Receiver<Option<Fetched>> {
        if let Some(flight) = slot.flight.as_ref().filter(|_| slot.is_fetching()) {
            return flight.clone();
        }
        let (result, flight) = watch::channel(None);
        slot.flight = Some(flight.clone());
        let (shared, owner, credential) = (Arc::clone(&self.shared), owner.clone(), credential.clone());
        tokio::spawn(async move {
            let fetched = shared.fetch_and_record(key, &owner, &credential).await;
            // Waiters may all have gone.
            let _ = result.send(Some(fetched));
        });
        flight
    }
}

impl Shared {
    async fn fetch_and_record(&self, key: Key, owner: &TokenOwner, credential: &OAuthCredential) -> Fetched {
        let asked = self.tokens.now();
        let result = self.fetch(owner, credential, asked.monotonic + TOKEN_REQUEST_TIME).await;
        let jitter = rand::random::<f64>();
        let mut slots = self.tokens.lock();
        // Forgotten meanwhile: the waiters still get the result.
        let mut slot = slots.get_mut(&key);
        if let Some(slot) = &mut slot {
            slot.flight = None;
        }
        match result {
            Ok(grant) => {
                if let Some(slot) = slot {
                    slot.state.granted(&grant, asked, jitter);
                }
                Ok(grant)
            }
            Err(refusal) => {
                let failure = refused(&refusal, credential);
                if let Some(slot) = slot {
                    slot.state.failed(failure.clone(), refusal.kind, Instant::now(), jitter);
                }
                Err(failure)
            }
        }
    }

    async fn fetch(
        &self,
        owner: &TokenOwner,
        credential: &OAuthCredential,
        deadline: Instant,
    ) -> Result<Grant, Refusal> {
        // The request carries the client secret, whatever is allowed for endpoints.
        if credential.settings.token_url.scheme() == Scheme::Http && !self.is_dev() {
            let reason = "was not asked: credentials are sent over https only, change tokenUrl".to_owned();
            return Err(Refusal { kind: RefusalKind::Invalid, reason });
        }
        let request = token_request::build(owner, credential);
        let caps = BodyCaps { bytes: ANSWER_BYTES, time: TOKEN_REQUEST_TIME };
        let (exchange, is_json) = self.send(&request, deadline, caps).await;
        let result = token_response::accept(&exchange, is_json);
        if let Err(refusal) = &result {
            log(owner, credential, &exchange, refusal);
        }
        result
    }
}

/// For the operator, with the outcome that the history does not tell consumers.
fn log(owner: &TokenOwner, credential: &OAuthCredential, exchange: &Exchange, refusal: &Refusal) {
    tracing::warn!(
        endpoint.id = %owner.endpoint,
        token.origin = credential.settings.token_url.origin(),
        outcome = exchange.outcome.name(),
        status = exchange.status,
        reason = refusal.reason,
        "no access token"
    );
}

fn refused(refusal: &Refusal, credential: &OAuthCredential) -> TokenFailure {
    let outcome = match refusal.kind {
        RefusalKind::Unavailable { .. } | RefusalKind::Unreachable => Outcome::TokenUnavailable,
        RefusalKind::Rejected => Outcome::TokenRejected,
        RefusalKind::Invalid => Outcome::TokenInvalid,
    };
    let detail = format!("the token endpoint {} {}", credential.settings.token_url.origin(), refusal.reason);
    TokenFailure { outcome, detail }
}

async fn wait(
    mut flight: watch::Receiver<Option<Fetched>>,
    credential: &OAuthCredential,
    deadline: Instant,
) -> Result<Token, TokenFailure> {
    let unavailable = |what: &str| TokenFailure {
        outcome: Outcome::TokenUnavailable,
        detail: format!("the token endpoint {} {what}", credential.settings.token_url.origin()),
    };
    match timeout_at(deadline, flight.wait_for(Option::is_some)).await {
        Err(_) => Err(unavailable("gave no answer before the time of this attempt ended")),
        Ok(Err(_)) => Err(unavailable("was being asked when this server stopped")),
        Ok(Ok(result)) => match &*result {
            Some(Ok(grant)) => Ok(Token { value: grant.value.clone(), cached: false }),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(unavailable("gave no answer")),
        },
    }
}

impl Tokens {
    pub(crate) fn with_wall_clock(wall: Box<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self { slots: Mutex::default(), wall }
    }

    fn now(&self) -> Moment {
        Moment { monotonic: Instant::now(), wall: (self.wall)() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing inside can panic half-way.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// A request is under way. One whose task died without a result is not.
    fn is_fetching(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.has_changed().is_ok())
    }
}

fn slot(slots: &mut HashMap<Key, Slot>, key: Key, now: Instant) -> &mut Slot {
    if slots.len() >= CREDENTIALS && !slots.contains_key(&key) {
        forget_oldest(slots);
    }
    let slot = slots.entry(key).or_insert_with(|| Slot { state: State::default(), flight: None, used: now });
    slot.used = now;
    slot
}

/// The least recently used eighth, so that this is rare.
fn forget_oldest(slots: &mut HashMap<Key, Slot>) {
    let mut used: Vec<Instant> = slots.values().map(|slot| slot.used).collect();
    let eighth = used.len() / 8;
    let (_, limit, _) = used.select_nth_unstable(eighth);
    let limit = *limit;
    let mut most = eighth + 1;
    slots.retain(|_, slot| {
        let forget = slot.used <= limit && most > 0;
        most -= usize::from(forget);
        !forget
    });
}

/// Includes the secret: a credential that is tried before it is saved must not find the token of the saved one.
fn key(owner: &TokenOwner, credential: &OAuthCredential) -> Key {
    let settings = &credential.settings;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        hash.update(&bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    part(owner.environment.as_str().as_bytes());
    part(owner.application.ksuid().as_bytes());
    part(owner.endpoint.ksuid().as_bytes());
    part(&credential.version.to_le_bytes());
    part(credential.client_secret.expose_secret().as_bytes());
    part(match settings.auth_method {
        AuthMethod::ClientSecretBasic => b"basic",
        AuthMethod::ClientSecretPost => b"post",
    });
    part(settings.client_id.as_bytes());
    part(settings.token_url.as_str().as_bytes());
    part(&settings.scopes.len().to_le_bytes());
    for scope in &settings.scopes {
        part(scope.as_bytes());
    }
    for map in [&settings.extra_params, &settings.extra_headers] {
        part(&map.len().to_le_bytes());
        for (name, value) in map {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
