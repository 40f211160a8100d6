//! One attempt as a list of steps: settings, admission, request, token, turn, send, redact, record. It decides nothing about retries
//! (`verdict` does) and stores nothing (`recorder` does).

use crate::{
    authorisation::Authorisation,
    config::Config,
    lanes::Place,
    ports::Ports,
    redaction,
    request::{self, Draft, Fault},
    verdict,
};
use bytes::Bytes;
use postrider_model::{
    attempt::{Attempt, Phases, Response},
    breaker::{self, Finding},
    delivery::Trigger,
    endpoint::Endpoint,
    id::AttemptId,
    outcome::Outcome,
    retry::{self, Answer, RetryPolicy},
    time::Timestamp,
};
use postrider_outbound::{Exchange, oauth::TokenOwner};
use postrider_store::{
    Store, StoreError,
    deliveries::{AttemptRecord, ClaimedDelivery},
    snapshot::{Credentials, SendSettings},
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;

/// What attempts need.
pub(crate) struct Attempts {
    store: Arc<dyn Store>,
    ports: Ports,
    config: Config,
    default_policy: RetryPolicy,
}

/// An attempt from its start on. It outlives the steps, so that a panic in one of them can still be recorded.
pub(crate) struct Run {
    id: AttemptId,
    started_at: Timestamp,
    begun: Instant,
    /// What it was sent with, once known.
    settings: OnceLock<Arc<SendSettings>>,
}

/// How an attempt ended.
pub(crate) enum Ended {
    /// With a result that the history must get, and what it says of the endpoint.
    Attempted(Box<AttemptRecord>, Finding),
    /// Before it began: the endpoint is left alone at present, or had its share of this second. The store knows until
    /// when.
    Withheld,
    /// Before it began: the endpoint is deleted, disabled or just changed, or its configuration cannot be read at
    /// present. The delivery is due as before.
    NotWanted,
    /// Before it began: another claim of the delivery counts.
    LeaseLost,
}

/// Why the steps stopped before a request was sent.
enum Stop {
    Failed(Box<Exchange>),
    Withheld,
    NotWanted,
    LeaseLost,
}

impl Attempts {
    pub(crate) fn new(store: Arc<dyn Store>, ports: Ports, config: Config) -> Self {
        let default_policy = config.retry_policy();
        Self { store, ports, config, default_policy }
    }

    pub(crate) fn begin(&self) -> Run {
        let started_at = self.store.clock().now();
        Run {
            id: self.store.ids().next(started_at),
            started_at,
            begun: Instant::now(),
            settings: OnceLock::new(),
        }
    }

    pub(crate) async fn run(&self, claimed: &ClaimedDelivery, run: &Run, place: &mut Place) -> Ended {
        match self.steps(claimed, run, place).await {
            Ok(exchange) => self.attempted(claimed, run, exchange),
            Err(Stop::Failed(exchange)) => self.attempted(claimed, run, *exchange),
            Err(Stop::Withheld) => Ended::Withheld,
            Err(Stop::NotWanted) => Ended::NotWanted,
            Err(Stop::LeaseLost) => Ended::LeaseLost,
        }
    }

    /// The end of a run that a defect ended.
    pub(crate) fn defect(&self, claimed: &ClaimedDelivery, run: &Run) -> Ended {
        let detail = "a defect of this server ended the attempt; its log has more".to_owned();
        self.attempted(claimed, run, unsent(Outcome::Internal, detail))
    }

    /// A random number in `0.0..1.0`.
    pub(crate) fn jitter(&self) -> f64 {
        (self.ports.jitter)()
    }

    async fn steps(&self, claimed: &ClaimedDelivery, run: &Run, place: &mut Place) -> Result<Exchange, Stop> {
        let deadline = run.begun + self.config.total_deadline();
        let settings = self.settings(claimed).await?;
        let settings = run.settings.get_or_init(|| settings);
        if !place.admit(settings.endpoint.version, claimed.trigger == Trigger::Manual) {
            return Err(Stop::Withheld);
        }
        let credentials = opened(settings)?;
        let mut draft =
            request::build(claimed, &settings.endpoint, credentials, &self.config, run.started_at)?;
        let mut authorisation = self.authorise(claimed, credentials, &mut draft, deadline).await?;
        self.still_wanted(claimed, settings, authorisation.as_ref()).await?;
        if !place.pace(settings.throttle_rate).await {
            return Err(Stop::Withheld);
        }
        self.announce(claimed, settings)?;
        place.sends();

        let mut exchange = self.ports.sender.send(&draft.request, deadline).await;
        if let Some(authorisation) = &mut authorisation {
            if exchange.status == Some(401) {
                exchange = self
                    .resend_authorised(claimed, settings, &mut draft, authorisation, exchange, deadline)
                    .await;
            }
            exchange.phases.token = Some(authorisation.took());
        }
        let tokens = authorisation.as_ref().map_or(&[][..], Authorisation::tokens);
        let (body, cut) = redaction::redact(exchange.body, credentials, tokens);
        exchange.body = body;
        exchange.truncated |= cut;
        Ok(exchange)
    }

    /// The endpoint as it stands now, whatever it was when the message was accepted.
    async fn settings(&self, claimed: &ClaimedDelivery) -> Result<Arc<SendSettings>, Stop> {
        let endpoint = claimed.lease.delivery.endpoint;
        match self.store.send_settings(&claimed.scope, endpoint).await {
            Ok(Some(settings)) if settings.endpoint.disabled.is_none() => Ok(settings),
            Ok(_) | Err(StoreError::Unavailable { .. } | StoreError::Full { .. }) => Err(Stop::NotWanted),
            Err(StoreError::Sealed { detail }) => Err(Fault::credential(&detail).into()),
            Err(error) => {
                tracing::error!(endpoint.id = %endpoint, %error, "an endpoint's configuration cannot be read");
                let detail = "the endpoint's stored configuration cannot be read; the server's log has more";
                Err(Fault { outcome: Outcome::Internal, detail: detail.to_owned() }.into())
            }
        }
    }

    /// Puts an access token into the request of an endpoint that wants one. Without it nothing is sent.
    async fn authorise<'a>(
        &'a self,
        claimed: &ClaimedDelivery,
        credentials: &'a Credentials,
        draft: &mut Draft,
        deadline: Instant,
    ) -> Result<Option<Authorisation<'a>>, Stop> {
        let Some(credential) = &credentials.oauth else { return Ok(None) };
        let owner = TokenOwner {
            environment: claimed.scope.environment.clone(),
            application: claimed.scope.application,
            endpoint: claimed.lease.delivery.endpoint,
        };
        match Authorisation::fetch(&*self.ports.sender, owner, credential, deadline).await {
            Ok(authorisation) => {
                authorisation.token().into_iter().for_each(|token| draft.authorize(token));
                Ok(Some(authorisation))
            }
            Err((failure, took)) => {
                let mut exchange = unsent(failure.outcome, failure.detail);
                exchange.phases.token = Some(took);
                Err(Stop::Failed(Box::new(exchange)))
            }
        }
    }

    /// Fetching a token takes time, in which the endpoint may have been disabled or changed: looks again.
    async fn still_wanted(
        &self,
        claimed: &ClaimedDelivery,
        settings: &SendSettings,
        authorisation: Option<&Authorisation<'_>>,
    ) -> Result<(), Stop> {
        if !authorisation.is_some_and(Authorisation::is_fresh) {
            return Ok(());
        }
        let now = self.settings(claimed).await?;
        if now.endpoint.version == settings.endpoint.version { Ok(()) } else { Err(Stop::NotWanted) }
    }

    /// Tells the store that the first byte is about to be sent: should the process die of this delivery, it counts.
    fn announce(&self, claimed: &ClaimedDelivery, settings: &SendSettings) -> Result<(), Stop> {
        let url = settings.endpoint.url.as_str();
        if self.store.started(&claimed.lease, claimed.number, url) { Ok(()) } else { Err(Stop::LeaseLost) }
    }

    /// The endpoint refused the access token: once more with a new one, if one may be fetched and the endpoint is
    /// still wanted as it was.
    async fn resend_authorised(
        &self,
        claimed: &ClaimedDelivery,
        settings: &SendSettings,
        draft: &mut Draft,
        authorisation: &mut Authorisation<'_>,
        refused: Exchange,
        deadline: Instant,
    ) -> Exchange {
        match authorisation.renew().await {
            None if authorisation.is_fresh() => unauthorised(refused),
            None => refused,
            Some(Err(failure)) => Exchange {
                outcome: failure.outcome,
                detail: format!(
                    "the endpoint answered 401, and there is no new access token: {}",
                    failure.detail
                ),
                ..refused
            },
            Some(Ok(())) if self.still_wanted(claimed, settings, Some(authorisation)).await.is_err() => {
                refused
            }
            Some(Ok(())) => {
                authorisation.token().into_iter().for_each(|token| draft.authorize(token));
                let second = self.ports.sender.send(&draft.request, deadline).await;
                if second.status == Some(401) { unauthorised(second) } else { second }
            }
        }
    }

    /// What is stored: the attempt, and the next step of its delivery.
    fn attempted(&self, claimed: &ClaimedDelivery, run: &Run, exchange: Exchange) -> Ended {
        let endpoint = run.settings.get().map(|settings| &settings.endpoint);
        let policy = endpoint.map(|endpoint| endpoint.retry.over(&self.default_policy));
        let policy = policy.as_ref().unwrap_or(&self.default_policy);
        let now = self.store.clock().now().as_seconds();
        let answer = Answer {
            outcome: exchange.outcome,
            status: exchange.status,
            retry_after: exchange.retry_after.and_then(|value| retry::parse_retry_after(&value, now)),
        };
        let next = verdict::next_step(claimed.trigger, &answer, claimed.number, policy, self.jitter());
        let attempt = Attempt {
            id: run.id,
            delivery: claimed.lease.delivery,
            number: claimed.number,
            trigger: claimed.trigger,
            url: endpoint.map(|endpoint| endpoint.url.as_str().to_owned()).unwrap_or_default(),
            started_at: run.started_at,
            duration: run.begun.elapsed(),
            outcome: exchange.outcome,
            detail: exchange.detail,
            status: exchange.status,
            response: Response { body: exchange.body, truncated: exchange.truncated, expunged: false },
            phases: exchange.phases,
        };
        log(&attempt, endpoint);
        let record = AttemptRecord { lease: claimed.lease, attempt, next };
        Ended::Attempted(Box::new(record), breaker::finding(&answer))
    }
}

impl Run {
    /// How long the attempt waited past the instant at which it was due.
    pub(crate) fn lag(&self, claimed: &ClaimedDelivery) -> Duration {
        self.started_at.since(claimed.due_at)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(Box::new(unsent(fault.outcome, fault.detail)))
    }
}

fn opened(settings: &SendSettings) -> Result<&Credentials, Fault> {
    settings.credentials.as_ref().map_err(|detail| Fault::credential(detail))
}

fn unauthorised(exchange: Exchange) -> Exchange {
    Exchange {
        outcome: Outcome::Unauthorized,
        detail:
            "the endpoint refused an access token that had just been fetched (401); check scopes and audience"
                .to_owned(),
        ..exchange
    }
}

/// An attempt that ended before anything was sent.
fn unsent(outcome: Outcome, detail: String) -> Exchange {
    Exchange {
        outcome,
        detail,
        status: None,
        retry_after: None,
        body: Bytes::new(),
        truncated: false,
        phases: Phases::default(),
        sent: false,
    }
}

/// One line for each attempt: failures for every operator, successes for those who look closely. Origin only: paths can
/// hold secrets.
fn log(attempt: &Attempt, endpoint: Option<&Endpoint>) {
    let milliseconds = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                message.id = %attempt.delivery.message,
                endpoint.id = %attempt.delivery.endpoint,
                attempt.number = attempt.number,
                origin = endpoint.map(|endpoint| endpoint.url.origin()),
                outcome = attempt.outcome.name(),
                status = attempt.status,
                milliseconds,
                detail = attempt.detail.as_str(),
                $text
            )
        };
    }
    if attempt.outcome == Outcome::Succeeded {
        line!(debug, "attempt succeeded");
    } else {
        line!(info, "attempt failed");
    }
}
