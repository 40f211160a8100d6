//! The database goes away and comes back: refused quickly, knocked at rarely, nothing lost, full speed again soon.
//!
//! The short forms run with all tests, those of a minute and of five when they are asked for:
//! `cargo test -p postrider --test it -- --ignored --nocapture shared::outages`.

use super::load::{Answered, Load, ids};
use postrider_testing::{Receiver, TestServer, Traffic, Way};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
const PUBLISHERS: usize = 4;
/// Each waits so long after an answer: the load is no more than what a busy machine does easily.
const PAUSE: Duration = Duration::from_millis(20);
/// How long full speed is measured before the outage.
const BEFORE: Duration = Duration::from_secs(3);
/// As fast as before: what the machine does otherwise changes it by as much.
const AS_FAST: f64 = 0.7;
/// A cut way is found out within this time at most; whoever waits then is told.
const FOUND_OUT: Duration = Duration::from_secs(8);
/// Afterwards nobody waits: a refusal is answered a second after its request came (decision 0010).
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// Everything works again so long after the database is back.
const BACK: Duration = Duration::from_secs(5);

/// DUR-3, PG: a database that was shut down refuses connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_shut_down_for_ten_seconds_costs_ten_seconds() {
    outage(Way::cut, 10 * SECOND).await;
}

/// A cable that was cut, a machine that stands still: nobody says anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_silent_for_ten_seconds_costs_ten_seconds() {
    outage(Way::fall_silent, 10 * SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes three minutes"]
async fn a_database_that_is_away_for_a_minute_costs_a_minute() {
    outage(Way::cut, 60 * SECOND).await;
    outage(Way::fall_silent, 60 * SECOND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes eleven minutes"]
async fn a_database_that_is_away_for_five_minutes_costs_five_minutes() {
    outage(Way::cut, 300 * SECOND).await;
    outage(Way::fall_silent, 300 * SECOND).await;
}

/// What the server did while the database was away.
struct Away {
    traffic: Traffic,
    processor: Duration,
    unready: Option<Duration>,
}

/// A server whose database goes away, and one whose database does not: what else the machine does slows both.
async fn outage(end: fn(&Way), length: Duration) {
    let (server, other) = (TestServer::shared(|_| {}).await, TestServer::shared(|_| {}).await);
    let (receiver, _unharmed) = (server.receiver([200]).await, other.receiver([200]).await);
    let load = Load::start(&server.client(), &server.default_app().await, PUBLISHERS, PAUSE);
    let beside = Load::start(&other.client(), &other.default_app().await, PUBLISHERS, PAUSE);
    tokio::time::sleep(BEFORE).await;
    let before = speed(&load, &beside, 2 * SECOND);

    let gone = Instant::now();
    let away = away(&server, end, length).await;
    server.way().open();
    let back = Instant::now();
    let (first, full, ready) = futures_util::join!(
        first_accepted(&load, back),
        full_speed(&load, &beside, back, before),
        ready(&server, back)
    );
    beside.stop().await;
    let answers = load.stop().await;

    let refused = refusals(&answers, gone, back);
    let repeated = all_delivered(&receiver, &ids(&answers)).await;
    println!(
        "away for {length:?}: {} refusals, the slowest {:?}, later ones {:?} at most; not ready after {:?}; \
         {} connections tried, {:?} of processor time; accepted again after {first:?}, at full speed after \
         {full:?}, ready after {ready:?}; {} accepted, {repeated} deliveries more",
        refused.count,
        refused.slowest,
        refused.later,
        away.unready,
        away.traffic.connections,
        away.processor,
        ids(&answers).len(),
    );
    assert!(away.unready.is_some_and(|after| after <= FOUND_OUT), "ready after {:?}", away.unready);
    assert!(
        refused.count > 0 && refused.slowest <= FOUND_OUT,
        "the slowest refusal took {:?}",
        refused.slowest
    );
    assert!(refused.later <= AT_ONCE, "a refusal took {:?} when it was known long", refused.later);
    // One knock a second, and what each part of the server tried before it was known.
    let most = length.as_secs() * 2 + 20;
    assert!(away.traffic.connections <= most, "{} connections were tried", away.traffic.connections);
    assert!(away.processor <= length / 4, "{:?} of processor time in {length:?}", away.processor);
    assert!(full <= BACK && ready <= BACK, "full speed after {full:?}, ready after {ready:?}");
}

/// Cuts the way, and watches.
async fn away(server: &TestServer, end: fn(&Way), length: Duration) -> Away {
    let (gone, client) = (Instant::now(), server.client());
    let (before, processor) = (server.way().traffic(), server.processor_time());
    end(server.way());
    let mut unready = None;
    while gone.elapsed() < length {
        client.get("/api/v1/health/ping").await.expect(204);
        let left = length.saturating_sub(gone.elapsed());
        // An answer that takes longer than the outage says nothing about it.
        if let Ok(health) = tokio::time::timeout(left, client.get("/api/v1/health")).await {
            assert!(health.status == 503 || unready.is_none(), "ready again during the outage: {health:?}");
            if health.status == 503 {
                unready.get_or_insert(gone.elapsed());
            }
        }
        tokio::time::sleep(SECOND.min(length.saturating_sub(gone.elapsed()))).await;
    }
    let after = server.way().traffic();
    let connections = after.connections - before.connections;
    let traffic = Traffic { connections, statements: after.statements - before.statements };
    Away { traffic, processor: server.processor_time().saturating_sub(processor), unready }
}

/// How much faster the one was than the other, within the last time.
fn speed(load: &Load, beside: &Load, within: Duration) -> f64 {
    let since = Instant::now().checked_sub(within).unwrap();
    let accepted = |load: &Load| {
        let count = load.since(since).iter().filter(|answer| answer.accepted()).count();
        f64::from(u32::try_from(count).unwrap())
    };
    accepted(load) / accepted(beside).max(1.0)
}

async fn first_accepted(load: &Load, back: Instant) -> Duration {
    loop {
        if let Some(first) = load.since(back).iter().find(|answer| answer.accepted()) {
            return first.asked + first.took - back;
        }
        assert!(back.elapsed() < 4 * BACK, "nothing is accepted: {:?}", load.since(back).last());
        tokio::time::sleep(SECOND / 50).await;
    }
}

/// When the second began that went as well as before.
async fn full_speed(load: &Load, beside: &Load, back: Instant, before: f64) -> Duration {
    loop {
        tokio::time::sleep(SECOND / 20).await;
        let (elapsed, now) = (back.elapsed(), speed(load, beside, SECOND));
        if elapsed > SECOND && now >= before * AS_FAST {
            return elapsed.saturating_sub(SECOND);
        }
        assert!(elapsed < 6 * BACK, "{now} times the other's speed, {before} times before");
    }
}

async fn ready(server: &TestServer, back: Instant) -> Duration {
    while server.client().get("/api/v1/health").await.status != 200 {
        assert!(back.elapsed() < 6 * BACK, "it is not ready any more");
        tokio::time::sleep(SECOND / 20).await;
    }
    back.elapsed()
}

struct Refusals {
    count: usize,
    slowest: Duration,
    /// Of those asked when the outage could be known.
    later: Duration,
}

fn refusals(answers: &[Answered], gone: Instant, back: Instant) -> Refusals {
    let during = || answers.iter().filter(|answer| answer.asked >= gone && answer.asked < back);
    let refused = || answers.iter().filter(|answer| !answer.accepted());
    for answer in refused() {
        assert_eq!((answer.status, answer.retry_after), (503, true), "{answer:?}");
        assert!(answer.asked + answer.took >= gone, "refused before the outage: {answer:?}");
    }
    let later = during().filter(|answer| answer.asked > gone + FOUND_OUT);
    Refusals {
        count: refused().count(),
        slowest: refused().map(|answer| answer.took).max().unwrap_or_default(),
        later: later.map(|answer| answer.took).max().unwrap_or_default(),
    }
}

/// Everything accepted arrives; returns how often something came that was there already, or was refused.
async fn all_delivered(receiver: &Receiver, accepted: &BTreeSet<String>) -> usize {
    let begun = Instant::now();
    loop {
        let requests = receiver.requests();
        let arrived: BTreeSet<String> =
            requests.iter().filter_map(|request| request.header("webhook-id")).map(str::to_owned).collect();
        let missing = accepted.difference(&arrived).count();
        if missing == 0 {
            return requests.len() - accepted.len();
        }
        assert!(begun.elapsed() < 60 * SECOND, "{missing} of {} did not arrive", accepted.len());
        tokio::time::sleep(SECOND / 10).await;
    }
}
