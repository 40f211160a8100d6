//! Wake-ups between nodes: what one of them committed and another one should look at soon.
//!
//! Sent after the commit in statements of their own, which carry all that gathered meanwhile: `NOTIFY` inside of
//! transactions would make their commits wait for each other. Losing one costs latency only: every node looks around
//! from time to time (see `keeper`).

use crate::{
    Shared,
    connection::{Connection, Own, Use},
    failure::Failure,
    identity::{NodeId, parse, show},
    neighbours,
    values::{hex, id_of, key, unhex},
};
use postrider_model::{
    delivery::DeliveryId,
    id::{ApiKeyId, ApplicationId, EndpointId, Id, Kind},
    time::Timestamp,
};
use postrider_store::agenda::Part;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client};

/// The channel that all nodes of a database listen to.
pub(crate) const CHANNEL: &str = "postrider";
/// A wake-up must be shorter than 8000 bytes.
const BYTES: usize = 7_000;
/// Lines that are kept to be sent; beyond them everybody is told to look at everything.
const LINES: usize = 5_000;
/// How long what others should hear gathers after a wake-up: each is a commit that all who speak wait for in turn.
const GATHER: Duration = Duration::from_millis(3);
/// How long after a failure the next wake-up is sent.
const PAUSE: Duration = Duration::from_secs(1);

/// What others are to hear.
#[derive(Default)]
pub(crate) struct Hints {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    /// New deliveries of an endpoint: its application, the earliest due time, how many.
    work: BTreeMap<EndpointId, (ApplicationId, Timestamp, u64)>,
    lines: BTreeSet<String>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Something to do for an endpoint.
    Work { application: ApplicationId, endpoint: EndpointId, due: Timestamp, count: u64 },
    /// The configuration at or below an application changed.
    Changed(ApplicationId),
    /// An API key was revoked.
    Revoked(ApiKeyId),
    /// A delivery ended without a result.
    Ended(DeliveryId),
    /// Shards came or went.
    Shards,
    /// An application published inside of a transaction of its own.
    Outbox,
    /// Whoever serves the endpoint is asked how it treats it.
    Asked(u64, EndpointId),
    /// The answer to the question with this number.
    Told(u64, String),
    /// Too much to say.
    Everything,
}

impl Hints {
    fn say(&self, add: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut waiting);
        if waiting.lines.len() + waiting.work.len() > LINES {
            *waiting = Waiting::default();
            waiting.lines.insert("all".to_owned());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// New deliveries of an endpoint that another node serves.
    pub(crate) fn work(&self, application: ApplicationId, endpoint: EndpointId, due: Timestamp) {
        self.say(|waiting| {
            let entry = waiting.work.entry(endpoint).or_insert((application, due, 0));
            entry.1 = entry.1.min(due);
            entry.2 += 1;
        });
    }

    /// The configuration at or below an application changed.
    pub(crate) fn changed(&self, application: ApplicationId, _version: u64) {
        self.say(|waiting| {
            waiting.lines.insert(format!("app {}", word(&application)));
        });
    }

    /// An API key was revoked.
    pub(crate) fn revoked(&self, id: ApiKeyId) {
        self.say(|waiting| {
            waiting.lines.insert(format!("key {}", word(&id)));
        });
    }

    /// A delivery of another node's endpoint ended without a result.
    pub(crate) fn ended(&self, delivery: DeliveryId) {
        let (message, endpoint) = (word(&delivery.message), word(&delivery.endpoint));
        let line = format!("end {message} {endpoint} {}", delivery.generation);
        self.say(|waiting| {
            waiting.lines.insert(line);
        });
    }

    /// Shards came or went.
    pub(crate) fn shards(&self) {
        self.say(|waiting| {
            waiting.lines.insert("shards".to_owned());
        });
    }

    /// Asks the node that serves an endpoint.
    pub(crate) fn ask(&self, number: u64, endpoint: EndpointId) {
        let line = format!("ask {number} {}", word(&endpoint));
        self.say(|waiting| {
            waiting.lines.insert(line);
        });
    }

    /// Answers a question. The answer has no white space.
    pub(crate) fn tell(&self, number: u64, answer: &str) {
        let line = format!("tell {number} {answer}");
        self.say(|waiting| {
            waiting.lines.insert(line);
        });
    }

    /// What one wake-up holds of what waits, after the line that says who speaks.
    fn take(&self, node: &NodeId) -> Option<String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = show(node);
        let empty = text.len();
        while text.len() < BYTES
            && let Some(line) = waiting.lines.pop_first()
        {
            let _ = write!(text, "\n{line}");
        }
        while text.len() < BYTES
            && let Some((endpoint, (application, due, count))) = waiting.work.pop_first()
        {
            let (application, endpoint) = (word(&application), word(&endpoint));
            let _ = write!(text, "\nwork {application} {endpoint} {} {count}", due.as_micros());
        }
        (text.len() > empty).then_some(text)
    }

    fn forget(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::default();
    }
}

/// Sends wake-ups until the store closes.
pub(crate) async fn send(shared: Arc<Shared>) {
    let mut own = Own::new(shared.address.clone(), Use::Notes);
    while !shared.is_closed() {
        let Some(text) = shared.hints.take(&shared.node()) else {
            shared.hints.wake.notified().await;
            continue;
        };
        if !shared.config.listen {
            shared.hints.forget();
            continue;
        }
        if let Err(failure) = notify(&mut own, &text).await {
            let error = postrider_store::StoreError::from(failure);
            tracing::debug!(%error, "a wake-up could not be sent");
            own.give_up();
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Sends what waits at once: the last words of a store that closes.
pub(crate) async fn last_words(shared: &Shared, connection: &Connection) -> Result<(), Failure> {
    if let Some(text) = shared.hints.take(&shared.node()).filter(|_| shared.config.listen) {
        connection.query("SELECT pg_notify($1, $2)", &[&CHANNEL, &text]).await?;
    }
    Ok(())
}

async fn notify(own: &mut Own, text: &str) -> Result<(), Failure> {
    own.get().await?.query("SELECT pg_notify($1, $2)", &[&CHANNEL, &text]).await?;
    Ok(())
}

/// Hears wake-ups until the store closes.
pub(crate) async fn hear(shared: Arc<Shared>) {
    while shared.listens() && !shared.is_closed() {
        if let Err(error) = listen(&shared).await {
            tracing::debug!(error, "wake-ups cannot be heard");
        }
        shared.keeper.deaf();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(shared: &Arc<Shared>) -> Result<(), String> {
    let shown = |error: tokio_postgres::Error| error.to_string();
    let reach = shared.address.reach();
    reach.check().map_err(|error| error.to_string())?;
    let silences = reach.silences();
    let (client, mut connection) = tokio::select! {
        connected = shared.address.connect() => connected.map_err(shown)?,
        () = reach.silent_after(silences) => return Err("the database does not answer".to_owned()),
    };
    let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    let (begun, mut listening) = tokio::sync::oneshot::channel::<Client>();
    tokio::spawn(async move {
        let done = client.batch_execute(&format!("LISTEN {CHANNEL}")).await;
        if done.is_ok() {
            // Kept there: the connection ends with its client.
            let _ = begun.send(client);
        }
    });
    let mut kept = None;
    loop {
        let message = tokio::select! {
            message = futures_util::StreamExt::next(&mut messages) => message,
            client = &mut listening, if kept.is_none() => {
                kept = Some(client.map_err(|_| "LISTEN was refused".to_owned())?);
                // What was said before is in the database.
                shared.keeper.hears();
                continue;
            }
            // Nobody tells whether what is not heard was not said.
            () = reach.silent_after(silences) => return Err("the database does not answer".to_owned()),
            () = shared.closing.notified() => return Ok(()),
        };
        match message {
            Some(Ok(AsyncMessage::Notification(notification))) => heard(shared, notification.payload()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(shown(error)),
            None => return Err("the connection ended".to_owned()),
        }
    }
}

fn heard(shared: &Arc<Shared>, text: &str) {
    let mut lines = text.lines();
    let speaker = lines.next().and_then(parse);
    if speaker.is_none_or(|speaker| speaker == shared.node()) {
        return;
    }
    let now = shared.clock.now();
    let mut changed = Vec::new();
    for line in lines {
        match read(line) {
            Some(Heard::Work { application, endpoint, due, count }) => {
                let mut agenda = shared.agenda();
                if shared.owns(endpoint) {
                    agenda.lies_in_database(application, endpoint, Part::First, None, due, now);
                    agenda.counted(count);
                }
            }
            Some(Heard::Ended(delivery)) if shared.owns(delivery.endpoint) => {
                shared.agenda().settled(delivery, now);
            }
            Some(Heard::Ended(_)) => {}
            Some(Heard::Changed(application)) => {
                shared.memory.changed(application);
                changed.push(application);
            }
            Some(Heard::Revoked(id)) => shared.memory.api_key_changed(id),
            Some(Heard::Shards) => shared.keeper.hurry(),
            Some(Heard::Outbox) => shared.routing.nudge(),
            Some(Heard::Asked(number, endpoint)) => neighbours::asked(shared, number, endpoint),
            Some(Heard::Told(number, answer)) => shared.questions.answered(number, answer),
            Some(Heard::Everything) | None => {
                shared.memory.all_changed();
                shared.keeper.look_around();
            }
        }
    }
    if !changed.is_empty() {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { crate::keeper::endpoints_changed(&shared, &changed).await });
    }
    shared.claimable.notify_one();
}

fn word<K: Kind>(id: &Id<K>) -> String {
    hex(key(id))
}

fn id<K: Kind>(word: &str) -> Option<Id<K>> {
    id_of(&unhex(word)?).ok()
}

/// A line of a wake-up; `None` for what a later release says.
fn read(line: &str) -> Option<Heard> {
    let words: Vec<&str> = line.split(' ').collect();
    Some(match words.as_slice() {
        ["work", application, endpoint, due, count] => Heard::Work {
            application: id(application)?,
            endpoint: id(endpoint)?,
            due: Timestamp::from_micros(due.parse().ok()?),
            count: count.parse().ok()?,
        },
        ["app", application] => Heard::Changed(id(application)?),
        ["key", key] => Heard::Revoked(id(key)?),
        ["end", message, endpoint, generation] => Heard::Ended(DeliveryId {
            message: id(message)?,
            endpoint: id(endpoint)?,
            generation: generation.parse().ok()?,
        }),
        ["shards"] => Heard::Shards,
        ["outbox"] => Heard::Outbox,
        ["ask", number, endpoint] => Heard::Asked(number.parse().ok()?, id(endpoint)?),
        ["tell", number, answer] => Heard::Told(number.parse().ok()?, (*answer).to_owned()),
        ["all"] => Heard::Everything,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::Ksuid;

    fn some<K: Kind>(byte: u8) -> Id<K> {
        Id::new(Ksuid::from_bytes([byte; 20]))
    }

    fn heard(hints: &Hints) -> Vec<Heard> {
        let text = hints.take(&[7; 16]).unwrap_or_default();
        assert!(text.len() < 8000);
        text.lines().skip(1).filter_map(read).collect()
    }

    #[test]
    fn what_is_said_is_heard_once_and_together() {
        let hints = Hints::default();
        let at = Timestamp::from_micros;
        hints.work(some(1), some(2), at(9));
        hints.work(some(1), some(2), at(5));
        hints.changed(some(1), 3);
        hints.changed(some(1), 4);
        hints.revoked(some(4));
        let delivery = DeliveryId { message: some(5), endpoint: some(6), generation: 7 };
        hints.ended(delivery);
        hints.shards();
        hints.ask(u64::MAX, some(8));
        hints.tell(9, r#"{"places":2}"#);
        let expected = [
            Heard::Changed(some(1)),
            Heard::Asked(u64::MAX, some(8)),
            Heard::Ended(delivery),
            Heard::Revoked(some(4)),
            Heard::Shards,
            Heard::Told(9, r#"{"places":2}"#.to_owned()),
            Heard::Work { application: some(1), endpoint: some(2), due: at(5), count: 2 },
        ];
        assert_eq!(heard(&hints), expected);
        assert_eq!(hints.take(&[7; 16]), None);
    }

    #[test]
    fn too_much_to_say_becomes_one_word() {
        let hints = Hints::default();
        for generation in 0..=5_001 {
            hints.ended(DeliveryId { message: some(5), endpoint: some(6), generation });
        }
        assert_eq!(heard(&hints)[0], Heard::Everything);
    }

    #[test]
    fn long_talk_comes_in_pieces() {
        let hints = Hints::default();
        for generation in 0..200 {
            hints.ended(DeliveryId { message: some(5), endpoint: some(6), generation });
        }
        let mut all = 0;
        while let Some(text) = hints.take(&[7; 16]) {
            assert!(text.len() < 8000);
            all += text.lines().count() - 1;
        }
        assert_eq!(all, 200);
        assert_eq!(read("something new"), None);
    }
}
