//! What leaves for endpoints: only what was published for them, signed, by the configuration of now, within the limits.

use super::{EndpointView, Oracle, Receipt};
use crate::store::Disk;
use postrider_model::{delivery::DeliveryId, id::MessageId, outcome::Outcome, signature, time::Timestamp};
use postrider_outbound::{Exchange, HeaderValue, Request};
use secrecy::ExposeSecret;
use std::{collections::VecDeque, time::Duration};

/// Costly troubles in a row after which an endpoint's breaker must be open.
const OPENS_AFTER: u32 = postrider_model::breaker::COSTLY_IN_A_ROW as u32;
/// Between a result and what follows from it.
const SETTLING: Duration = Duration::from_millis(100);
/// Beside a saturating application: how long the first places take to turn over, and what a message may wait after that.
const WARM_UP: Duration = Duration::from_secs(8);
const FAIR_DELAY: Duration = Duration::from_millis(250);

/// A request that is under way.
pub(super) struct Sending {
    endpoint: usize,
    claimed_at: Duration,
    begun: Duration,
    suspect: bool,
}

/// A request that may leave.
pub(crate) struct Leaving {
    pub(crate) number: usize,
    pub(crate) delivery: DeliveryId,
}

/// How an endpoint answered the node that lives.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since when every answer was slow.
    slow_since: Option<Duration>,
    costly_in_a_row: u32,
    last: Duration,
    /// Since when its breaker must be open.
    open_since: Option<Duration>,
    /// The version of its configuration, and until when answers may speak of the one before: a change closes a breaker.
    version: u64,
    unclear_until: Duration,
    /// What was sent in the last second.
    sent: VecDeque<Duration>,
}

impl Oracle {
    /// A request is about to leave.
    pub(crate) fn leaves(
        &mut self,
        request: &Request,
        disk: &Disk,
        now: Timestamp,
        at: Duration,
    ) -> Result<Leaving, String> {
        self.counts.requests += 1;
        let number = self.endpoint_of(request)?;
        let message = MessageId::parse(&header(request, "webhook-id").unwrap_or_default())
            .ok_or("a request without an id")?;
        self.is_published(request, message, number, disk)?;
        self.endpoints[number].is_genuine(request, message, self.limits.deadline, at)?;
        let delivery = self.attempt_of(message, number, disk, at)?;
        let begun = at;
        let (claimed_at, suspect) = self.claimed.get(&delivery).copied().unwrap_or_default();
        let sending = Sending { endpoint: number, claimed_at, begun, suspect };
        if self.sending.insert(delivery, sending).is_some() {
            return Err(format!("I5: {delivery:?} is sent twice at the same time"));
        }
        self.check_limits(number, at)?;
        self.notice_change(number, disk, at);
        self.check_breaker(number)?;
        self.check_rate(number, at)?;
        self.check_delay(delivery, number, disk, now, at)?;
        Ok(Leaving { number, delivery })
    }

    fn endpoint_of(&self, request: &Request) -> Result<usize, String> {
        let url = request.url.as_str();
        let knows = |view: &EndpointView| view.urls.iter().any(|(_, known)| known == url);
        self.endpoints
            .iter()
            .position(knows)
            .ok_or_else(|| format!("I3: a request to {url}, which nobody set"))
    }

    /// I2, I3: its body is what was published, for the application of the endpoint, under this id.
    fn is_published(
        &mut self,
        request: &Request,
        message: MessageId,
        number: usize,
        disk: &Disk,
    ) -> Result<(), String> {
        let application = self.endpoints[number].application;
        self.publications.is_of(&request.body, message, application)?;
        let (stored, environment, payload) =
            disk.message(message).ok_or_else(|| format!("I3: {message} is sent and was never accepted"))?;
        if stored.application != request.application || *environment != request.environment {
            return Err(format!("I3: {message} is sent for another application"));
        }
        match payload {
            Some(payload) if *payload != request.body => {
                Err(format!("I2: {message} is sent with another body"))
            }
            _ => Ok(()),
        }
    }

    /// Which attempt sends: the one that just began, or one that sends once more after a 401.
    fn attempt_of(
        &mut self,
        message: MessageId,
        number: usize,
        disk: &Disk,
        at: Duration,
    ) -> Result<DeliveryId, String> {
        let endpoint = self.endpoints[number].id;
        let is_it =
            |delivery: &DeliveryId| delivery.message == message && Some(delivery.endpoint) == endpoint;
        if let Some((delivery, _, when)) = self.about_to_leave.take() {
            let enabled = disk.live_endpoint(delivery.endpoint).is_some_and(|it| it.disabled.is_none());
            return if is_it(&delivery) && when == at && enabled {
                Ok(delivery)
            } else {
                Err(format!("{delivery:?} began and something else was sent, or it was no longer wanted"))
            };
        }
        let again =
            self.running.keys().find(|delivery| is_it(delivery) && !self.sending.contains_key(delivery));
        match again {
            Some(delivery) if self.endpoints[number].oauth => Ok(*delivery),
            _ => Err(format!("{message} is sent to endpoint {number} without an attempt that began")),
        }
    }

    fn check_limits(&self, number: usize, at: Duration) -> Result<(), String> {
        let counted = || self.sending.values().filter(|one| !one.suspect);
        let of = |wanted: usize| counted().filter(move |one| one.endpoint == wanted).count();
        let (all, here) = (counted().count(), of(number));
        if all > self.limits.total {
            return Err(format!("{all} requests are under way, {} may be", self.limits.total));
        }
        if here > self.limits.per_quick_endpoint {
            return Err(format!("{here} requests are under way to endpoint {number}"));
        }
        // Whatever entered while it still counted as quick has ended since.
        let settled = 2 * self.limits.deadline + Duration::from_secs(5);
        let is_slow = |view: &EndpointView| {
            view.health.slow_since.is_some_and(|since| at.saturating_sub(since) > settled)
        };
        if is_slow(&self.endpoints[number]) {
            if here > self.limits.per_slow_endpoint {
                return Err(format!("{here} requests are under way to endpoint {number}, which is slow"));
            }
            let slow: usize =
                (0..self.endpoints.len()).filter(|one| is_slow(&self.endpoints[*one])).map(of).sum();
            if slow > self.limits.total.div_ceil(2) {
                return Err(format!(
                    "{slow} requests to slow endpoints are under way, of {}",
                    self.limits.total
                ));
            }
        }
        Ok(())
    }

    fn notice_change(&mut self, number: usize, disk: &Disk, at: Duration) {
        let view = &mut self.endpoints[number];
        let version = view.id.and_then(|id| disk.live_endpoint(id)).map_or(0, |endpoint| endpoint.version);
        if version != view.health.version {
            let unclear_until = at + 2 * self.limits.deadline + Duration::from_secs(10);
            let Health { slow_since, sent, .. } = std::mem::take(&mut view.health);
            view.health = Health { slow_since, version, unclear_until, sent, ..Health::default() };
        }
    }

    /// Of what was claimed since the breaker opened, one is out.
    fn check_breaker(&self, number: usize) -> Result<(), String> {
        let Some(open_since) = self.endpoints[number].health.open_since else { return Ok(()) };
        let since = |one: &&Sending| one.endpoint == number && one.claimed_at > open_since + SETTLING;
        let probes = self.sending.values().filter(since).count();
        if probes > 1 {
            return Err(format!("{probes} probes are out to endpoint {number}, whose breaker is open"));
        }
        Ok(())
    }

    /// In no second more than the rate, a fiftieth, and one. Where a token is fetched between the turn and the request,
    /// requests can come closer together.
    fn check_rate(&mut self, number: usize, at: Duration) -> Result<(), String> {
        let view = &mut self.endpoints[number];
        let Some(rate) = view.rate.filter(|_| !view.oauth) else { return Ok(()) };
        let sent = &mut view.health.sent;
        sent.push_back(at);
        while sent.front().is_some_and(|first| at.saturating_sub(*first) >= Duration::from_secs(1)) {
            sent.pop_front();
        }
        if sent.len() > usize::from(rate) + usize::from(rate).div_ceil(50) + 1 {
            return Err(format!(
                "{} requests in a second to endpoint {number}, whose rate is {rate}",
                sent.len()
            ));
        }
        Ok(())
    }

    /// The clock was set, by which rates go, and by which what was not heard of for an hour is forgotten.
    pub(crate) fn clock_was_set(&mut self) {
        for view in &mut self.endpoints {
            let Health { version, unclear_until, .. } = view.health;
            view.health = Health { version, unclear_until, ..Health::default() };
        }
    }

    /// I11.
    fn check_delay(
        &mut self,
        delivery: DeliveryId,
        number: usize,
        disk: &Disk,
        now: Timestamp,
        at: Duration,
    ) -> Result<(), String> {
        if !self.fairness || self.endpoints[number].application != 1 || at < WARM_UP {
            return Ok(());
        }
        let Some((message, ..)) = disk.message(delivery.message) else { return Ok(()) };
        let delay = now.since(message.created_at);
        self.counts.measured += 1;
        if delay > FAIR_DELAY {
            return Err(format!("I11: a message waited {delay:?} behind another application's"));
        }
        Ok(())
    }

    /// A request arrived; the endpoint answers it, or not.
    pub(crate) fn arrives(&mut self, delivery: DeliveryId, status: Option<u16>) {
        let Some(number) = self.running.get(&delivery).copied() else { return };
        let taken = status.is_some_and(|status| (200..300).contains(&status));
        self.receipts.push(Receipt { delivery, number, taken });
    }

    /// An answer came, or none.
    pub(crate) fn answered(
        &mut self,
        number: usize,
        delivery: DeliveryId,
        exchange: &Exchange,
        took: Duration,
        at: Duration,
    ) -> Result<(), String> {
        let Some(sending) = self.sending.remove(&delivery) else {
            return Err(format!("an answer to {delivery:?}, which was not sent"));
        };
        if took > self.limits.deadline + Duration::from_millis(2) {
            return Err(format!("a request took {took:?}, longer than its deadline"));
        }
        if exchange.outcome == Outcome::Succeeded {
            self.succeeded.insert(delivery);
        }
        let slow = at.saturating_sub(sending.begun) >= self.limits.slow_after;
        self.endpoints[number].health.answered(exchange.outcome, slow, at);
        Ok(())
    }
}

impl Health {
    /// An attempt ended quickly, sent or not.
    pub(super) fn was_quick(&mut self) {
        self.slow_since = None;
    }

    fn answered(&mut self, outcome: Outcome, slow: bool, at: Duration) {
        self.slow_since = if slow { self.slow_since.or(Some(at)) } else { None };
        let costly = matches!(outcome, Outcome::Timeout | Outcome::Connect | Outcome::Dns);
        if at.saturating_sub(self.last) > postrider_model::breaker::MEMORY && self.open_since.is_none() {
            self.costly_in_a_row = 0;
        }
        self.last = at;
        if !costly || at < self.unclear_until {
            (self.costly_in_a_row, self.open_since) = (0, None);
            return;
        }
        self.costly_in_a_row += 1;
        if self.costly_in_a_row >= OPENS_AFTER {
            self.open_since.get_or_insert(at);
        }
    }
}

impl EndpointView {
    /// It goes to the URL that holds, with a signature of a secret of the endpoint, and with a token where one is needed.
    fn is_genuine(
        &self,
        request: &Request,
        message: MessageId,
        deadline: Duration,
        at: Duration,
    ) -> Result<(), String> {
        let url = request.url.as_str();
        let position = self.urls.iter().rposition(|(_, known)| known == url);
        let replaced_at = position.and_then(|position| self.urls.get(position + 1)).map(|(since, _)| *since);
        // What was read when the attempt began may have been replaced since.
        if replaced_at.is_some_and(|replaced| at.saturating_sub(replaced) > deadline) {
            return Err(format!("a request to {url}, which was replaced long ago"));
        }
        let value = |name: &str| header(request, name).unwrap_or_default();
        let (signatures, seconds) = (value("webhook-signature"), value("webhook-timestamp"));
        let seconds: i64 = seconds.parse().map_err(|_| format!("the timestamp {seconds:?}"))?;
        let signed = |secret| {
            let expected = signature::sign_text(&[secret], &message.to_string(), seconds, &request.body);
            signatures.split(' ').any(|one| one == expected)
        };
        if !self.secrets.iter().any(signed) {
            return Err(format!("{message} is not signed with a secret of its endpoint"));
        }
        let authorized = value("Authorization").starts_with("Bearer token-of-");
        if self.oauth != authorized {
            return Err(format!(
                "{message}: a token is {} it",
                if authorized { "with" } else { "missing from" }
            ));
        }
        Ok(())
    }
}

fn header(request: &Request, name: &str) -> Option<String> {
    let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(match &header.value {
        HeaderValue::Plain(text) => text.clone(),
        HeaderValue::Secret(secret) => secret.expose_secret().to_owned(),
    })
}
