//! What must hold after a cut: everything that was answered is there, whole and unchanged; nothing is there that nobody
//! asked for; and what is pending is delivered without help.

use super::{
    changes::beside,
    claims,
    ledger::{Kind, Ledger, Sent, serial_of},
    place,
    workload::{Life, accept},
};
use bytes::Bytes;
use postrider_model::{
    application::Ref,
    id::{AttemptId, EndpointId, MessageId},
    outcome::Outcome,
    retry::NextStep,
};
use postrider_store::{
    StoreError,
    attempts::{AttemptFilter, AttemptsOf},
    deliveries::Room,
    messages::MessageFilter,
    page::{Order, Page, PageRequest},
};
use rand::rngs::StdRng;
use secrecy::ExposeSecret as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// How long the rest may take to be delivered.
const DRAIN: Duration = Duration::from_secs(20);
const PAGE: usize = 250;

/// What the store shows.
#[derive(Debug, Default)]
struct Found {
    messages: BTreeMap<MessageId, Option<Bytes>>,
    standing: HashMap<(MessageId, EndpointId), Kind>,
    attempts: HashMap<(MessageId, EndpointId), BTreeMap<AttemptId, Outcome>>,
}

/// Checks everything after a start; violations go to the ledger, which learns what the cut decided.
pub(super) async fn check(life: &Life) {
    if let Err(text) = integrity(life) {
        life.ledger.borrow_mut().fail(text);
    }
    match read(life).await {
        Ok(found) => compare(&mut life.ledger.borrow_mut(), &found),
        Err(error) => life.ledger.borrow_mut().fail(format!("the history cannot be read: {error}")),
    }
    if let Err(error) = configuration(life).await {
        life.ledger.borrow_mut().fail(format!("the configuration cannot be read: {error}"));
    }
}

fn integrity(life: &Life) -> Result<(), String> {
    let check = |connection: rusqlite::Connection| {
        connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    };
    match beside(&life.data).and_then(check).as_deref() {
        Ok("ok") => Ok(()),
        Ok(verdict) => Err(format!("the database is damaged: {verdict}")),
        Err(error) => Err(format!("the database cannot be checked: {error}")),
    }
}

async fn read(life: &Life) -> Result<Found, StoreError> {
    let (store, scope) = (life.store(), &life.scope);
    let mut found = Found::default();
    let messages = async |page| store.messages(scope, MessageFilter::default(), true, page).await;
    for message in all(messages, |message| message.message.id).await? {
        found.messages.insert(message.message.id, message.payload);
    }
    let endpoints: Vec<EndpointId> = life.ledger.borrow().endpoints.iter().map(|target| target.id).collect();
    for endpoint in endpoints {
        let standing = async |page| {
            store.endpoint_messages(scope, endpoint, MessageFilter::default(), None, false, page).await
        };
        for one in all(standing, |one| one.message.message.id).await? {
            found.standing.insert((one.message.message.id, endpoint), Kind::of(one.progress.state));
        }
        let attempts = async |page| {
            store.attempts(scope, AttemptsOf::Endpoint(endpoint), AttemptFilter::default(), false, page).await
        };
        for one in all(attempts, |one| one.attempt.id).await? {
            let attempt = one.attempt;
            let of = found.attempts.entry((attempt.delivery.message, endpoint)).or_default();
            of.insert(attempt.id, attempt.outcome);
        }
    }
    Ok(found)
}

/// All pages of a list.
async fn all<T, C: Copy>(
    list: impl AsyncFn(PageRequest<C>) -> Result<Page<T>, StoreError>,
    position: impl Fn(&T) -> C,
) -> Result<Vec<T>, StoreError> {
    let mut items = Vec::new();
    loop {
        let cursor = items.last().map(&position);
        let page =
            list(PageRequest { limit: PAGE, order: Order::Ascending, cursor, backward: false }).await?;
        items.extend(page.items);
        if page.done {
            return Ok(items);
        }
    }
}

fn compare(ledger: &mut Ledger, found: &Found) {
    for (id, payload) in &found.messages {
        let serial = payload.as_deref().and_then(serial_of).or_else(|| ledger.serials.get(id).copied());
        match serial {
            Some(serial) => ledger.exists(serial, *id),
            // Its payload is gone, and nobody was told its id.
            None if ledger.retention => {}
            None => ledger.fail(format!("{id} is a message without a payload that nobody knows")),
        }
    }
    let serials: Vec<u64> = ledger.messages.keys().copied().collect();
    let mut violations = Vec::new();
    let retention = ledger.retention;
    for serial in serials {
        let Some(sent) = ledger.messages.get_mut(&serial) else { continue };
        settle(sent, found, retention);
        let mut fail = |text: &str| violations.push(format!("message {serial} {text}"));
        compare_message(sent, found, retention, &mut fail);
        sent.resends.clear();
    }
    for text in violations {
        ledger.fail(text);
    }
}

/// What was not answered is decided now: it is there or will never be. Where old records are deleted that cannot be seen.
fn settle(sent: &mut Sent, found: &Found, retention: bool) {
    let Some(id) = sent.id else { return };
    for ((endpoint, _), duty) in &mut sent.duties {
        let listed = found.attempts.get(&(id, *endpoint));
        for (attempt, (number, kind)) in duty.unanswered.clone() {
            if listed.is_some_and(|listed| listed.contains_key(&attempt)) {
                duty.unanswered.remove(&attempt);
                duty.record(attempt, number, kind);
            } else if !retention {
                duty.unanswered.remove(&attempt);
            }
        }
    }
}

fn compare_message(sent: &mut Sent, found: &Found, retention: bool, fail: &mut impl FnMut(&str)) {
    let Some(id) = sent.id else { return };
    let may_be_gone = retention && sent.may_be_final();
    let Some(payload) = found.messages.get(&id) else {
        if !may_be_gone {
            fail("is lost");
        }
        return;
    };
    match payload {
        Some(payload) if *payload != sent.payload => fail("has another payload than was accepted"),
        None if !may_be_gone => fail("has lost its payload"),
        _ => {}
    }
    let endpoints: BTreeSet<EndpointId> = sent.duties.keys().map(|(endpoint, _)| *endpoint).collect();
    for endpoint in endpoints {
        let may = sent.may_stand(endpoint);
        match found.standing.get(&(id, endpoint)) {
            None => fail("has lost a delivery"),
            Some(kind) if !may.contains(kind) => fail(&format!("stands as {kind:?} instead of {may:?}")),
            // A resend that was not answered, or one of several deliveries that another one settled.
            Some(_) => {}
        }
        let none = BTreeMap::new();
        let listed = found.attempts.get(&(id, endpoint)).unwrap_or(&none);
        compare_attempts(sent, endpoint, listed, retention, fail);
    }
}

fn compare_attempts(
    sent: &Sent,
    endpoint: EndpointId,
    listed: &BTreeMap<AttemptId, Outcome>,
    retention: bool,
    fail: &mut impl FnMut(&str),
) {
    let duties = || sent.duties.iter().filter(|((of, _), _)| *of == endpoint);
    let started = duties().any(|(_, duty)| duty.started);
    for (delivery, duty) in duties() {
        // Attempts of what is pending stay.
        let stays = !retention || !sent.may_have_ended(*delivery);
        if stays && duty.attempts.iter().any(|attempt| !listed.contains_key(attempt)) {
            fail("has lost a result that was answered");
        }
    }
    for (attempt, outcome) in listed {
        let known = duties()
            .any(|(_, duty)| duty.attempts.contains(attempt) || duty.unanswered.contains_key(attempt));
        let interrupted = *outcome == Outcome::Interrupted && started;
        if !known && !interrupted {
            fail(&format!("has an attempt that nobody made: {outcome:?}"));
        }
    }
}

async fn configuration(life: &Life) -> Result<(), StoreError> {
    let (store, scope) = (life.store(), &life.scope);
    let count = life.ledger.borrow().endpoints.len();
    for which in 0..count {
        let id = life.ledger.borrow().endpoints[which].id;
        let endpoint = store.endpoint(scope, &Ref::Id(id)).await?;
        let secret = store.signing_secret(scope, id).await?;
        let mut ledger = life.ledger.borrow_mut();
        let target = &mut ledger.endpoints[which];
        let description = endpoint.and_then(|endpoint| endpoint.description.parse().ok());
        let described = description.is_some_and(|number| target.description.settle(number));
        let text = secret.map(|secret| secret.to_text().expose_secret().to_owned());
        let numbers = target.secret.unanswered.iter().copied().chain([target.secret.answered]);
        let number = numbers
            .into_iter()
            .find(|number| Some(place::secret(*number).to_text().expose_secret()) == text.as_deref());
        let signs = number.is_some_and(|number| target.secret.settle(number));
        if !described {
            ledger.fail(format!("an answered change of an endpoint is lost: {description:?}"));
        }
        if !signs {
            ledger.fail("an answered change of a signing secret is lost".to_owned());
        }
    }
    let applications: Vec<_> = life.ledger.borrow().applications.clone().into_iter().collect();
    for (id, expected) in applications {
        let there = store.application(&scope.environment, &Ref::Id(id)).await?.is_some();
        let mut ledger = life.ledger.borrow_mut();
        if expected.is_some_and(|expected| expected != there) {
            ledger.fail(format!("an application that was answered as {expected:?} is there: {there}"));
        }
        ledger.applications.insert(id, Some(there));
    }
    Ok(())
}

/// Publishes again what bore a key: what is there is found, what is not is accepted now.
pub(super) async fn repeat(life: &Life) {
    let serials: Vec<u64> = {
        let ledger = life.ledger.borrow();
        // Where old records are deleted a key may be gone with its message.
        let keyed = ledger.messages.iter().filter(|(_, sent)| sent.key.is_some() && !ledger.retention);
        let (known, unknown): (Vec<_>, Vec<_>) = keyed.partition(|(_, sent)| sent.id.is_some());
        let some = |of: Vec<(&u64, &Sent)>| {
            of.into_iter().rev().take(3).map(|(serial, _)| *serial).collect::<Vec<_>>()
        };
        [some(known), some(unknown)].concat()
    };
    if let Some(error) = accept(life, &serials).await {
        life.ledger.borrow_mut().fail(format!("publishing again failed: {error}"));
    }
}

/// Delivers everything that is pending; afterwards nothing may be.
pub(super) async fn drain(life: &Life, random: &mut StdRng) {
    let begun = Instant::now();
    let room = Room { total: 500, per_endpoint: 500, ..Room::default() };
    loop {
        let claimed = match life.store().claim(&room).await {
            Ok(claimed) => claimed,
            Err(error) => return life.ledger.borrow_mut().fail(format!("nothing can be claimed: {error}")),
        };
        if !claimed.deliveries.is_empty() {
            let failure = claims::attempt(life, claimed.deliveries, Some(NextStep::Delivered), random).await;
            if let Some(error) = failure {
                return life.ledger.borrow_mut().fail(format!("a result cannot be stored: {error}"));
            }
            continue;
        }
        match life.store().backlog().await {
            Ok(backlog) if backlog.pending == 0 => break,
            Ok(backlog) if begun.elapsed() > DRAIN => {
                return life.ledger.borrow_mut().fail(format!("{} deliveries stay pending", backlog.pending));
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => {
                return life.ledger.borrow_mut().fail(format!("the backlog cannot be read: {error}"));
            }
        }
    }
    match read(life).await {
        Ok(found) => {
            let mut ledger = life.ledger.borrow_mut();
            compare(&mut ledger, &found);
            let left = found.standing.values().filter(|kind| **kind == Kind::Pending).count();
            if left > 0 {
                ledger.fail(format!("{left} deliveries are pending, and nobody can claim them"));
            }
        }
        Err(error) => life.ledger.borrow_mut().fail(format!("the history cannot be read: {error}")),
    }
}
