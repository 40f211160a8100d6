//! Publishes messages from a thread of its own, in a closed loop (as fast as answers come) or an open one (at a fixed
//! rate). It writes prepared bytes and looks at no more of an answer than its status and length: what it costs is missing
//! to the server beside it.

use crate::{
    message::Messages,
    pace::{Schedule, Ticker},
    usage,
    wire::{self, Answer},
};
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, oneshot},
    task::{JoinSet, LocalSet},
    time::{Instant, timeout},
};

/// How long the last answers may take after publishing ended.
const LAST_ANSWERS: Duration = Duration::from_mins(1);
/// Longest latency that is told apart, in microseconds.
pub(crate) const LONGEST: u64 = 600_000_000;
const READ_BYTES: usize = 16 * 1024;

/// What to publish, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Where connections go in turn: one address, or one of each node.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    pub(crate) duration: Duration,
    /// Ends after so many messages, if that is before.
    pub(crate) most: u64,
    /// Answers of 429 and 503 are counted; else they are an error.
    pub(crate) may_refuse: bool,
    /// Times in payloads count from here.
    pub(crate) epoch: Instant,
    /// The number of the first message.
    pub(crate) first: u64,
}

/// When messages are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection publishes as soon as its last message was answered.
    Closed,
    /// So many per second, whether or not earlier ones were answered: each carries the time at which it was meant to be
    /// sent, so that a stall counts against every message that it held up.
    PerSecond(f64),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) accepted: u64,
    /// 429 and 503.
    pub(crate) refused: u64,
    /// Those of them that did not say when to come back.
    pub(crate) refused_without_retry_after: u64,
    /// Connections that ended without an answer, when refusing was allowed.
    pub(crate) broken: u64,
    /// Until the last answer.
    pub(crate) seconds: f64,
    /// From the time a message was (meant to be) sent until it was accepted, in microseconds.
    pub(crate) accept: Histogram<u64>,
    /// Processor time of the publisher itself.
    pub(crate) cpu_seconds: f64,
    /// Serial numbers of what was accepted; only where refusing was allowed.
    pub(crate) serials: Vec<u64>,
}

/// Publishers at work; dropping this stops them.
#[derive(Debug)]
pub(crate) struct Running {
    result: oneshot::Receiver<Result<Published>>,
    _stop: oneshot::Sender<()>,
}

impl Plan {
    /// Starts publishing.
    pub(crate) fn start(self) -> Result<Running> {
        let (done, result) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("publisher".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let published = runtime.block_on(local.run_until(async {
                tokio::select! {
                    published = publish(self) => published,
                    _ = stopped => Err(anyhow::anyhow!("publishing was stopped")),
                }
            }));
            // Nobody listens when it was stopped.
            let _ = done.send(published);
        })?;
        Ok(Running { result, _stop: stop })
    }
}

impl Running {
    /// Waits for the end.
    pub(crate) async fn finish(self) -> Result<Published> {
        self.result.await.context("the publisher ended early")?
    }
}

/// What the connections of one publisher share; one thread has it all.
struct Shared {
    plan: Plan,
    started: Instant,
    /// Numbers that were taken, and those that may be.
    taken: Cell<u64>,
    released: Cell<u64>,
    news: Notify,
    published: RefCell<Published>,
}

async fn publish(plan: Plan) -> Result<Published> {
    let cpu = usage::this_thread();
    let streams = connect(&plan).await?;
    let shared = Rc::new(Shared {
        started: Instant::now(),
        taken: Cell::new(0),
        released: Cell::new(0),
        news: Notify::new(),
        published: RefCell::new(Published::nothing()?),
        plan,
    });
    let mut tasks = JoinSet::new();
    for (server, stream) in streams {
        let connection =
            Connection { server, stream, out: Vec::new(), answer: Vec::with_capacity(READ_BYTES) };
        let shared = Rc::clone(&shared);
        tasks.spawn_local(async move {
            match shared.plan.pace {
                Pace::Closed => closed(&shared, connection).await,
                Pace::PerSecond(rate) => open(&shared, connection, rate).await,
            }
        });
    }
    if let Pace::PerSecond(rate) = shared.plan.pace {
        tasks.spawn_local(release(Rc::clone(&shared), rate));
    }
    let end = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    let Ok(ended) = timeout(shared.plan.duration + LAST_ANSWERS, end).await else {
        bail!("the server left publications without an answer for {LAST_ANSWERS:?}");
    };
    ended?;
    let mut published = shared.published.replace(Published::nothing()?);
    published.seconds = shared.started.elapsed().as_secs_f64();
    published.cpu_seconds = usage::this_thread().saturating_sub(cpu).as_secs_f64();
    Ok(published)
}

async fn connect(plan: &Plan) -> Result<Vec<(SocketAddr, TcpStream)>> {
    let mut streams = Vec::with_capacity(plan.connections);
    for server in plan.servers.iter().copied().cycle().take(plan.connections.max(1)) {
        streams.push((server, dial(server).await?));
    }
    Ok(streams)
}

async fn dial(server: SocketAddr) -> Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "the bench is a client of the server, not a part of it")]
    let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn closed(shared: &Shared, mut connection: Connection) -> Result<()> {
    let until = shared.started + shared.plan.duration;
    loop {
        let now = Instant::now();
        let number = shared.taken.get();
        if now >= until || number >= shared.plan.most {
            return Ok(());
        }
        shared.taken.set(number + 1);
        shared.exchange(&mut connection, number, now).await?;
    }
}

async fn open(shared: &Shared, mut connection: Connection, rate: f64) -> Result<()> {
    let schedule = Schedule::new(rate, shared.plan.duration);
    loop {
        let number = shared.taken.get();
        if number >= schedule.total {
            return Ok(());
        }
        if number < shared.released.get() {
            shared.taken.set(number + 1);
            shared.exchange(&mut connection, number, shared.started + schedule.due(number)).await?;
        } else {
            shared.news.notified().await;
        }
    }
}

/// Lets connections take the messages that are due.
async fn release(shared: Rc<Shared>, rate: f64) -> Result<()> {
    let schedule = Schedule::new(rate, shared.plan.duration);
    let ticker = Ticker::new(schedule.tick())?;
    while shared.released.get() < schedule.total {
        let due = schedule.released(shared.started.elapsed());
        let new = due - shared.released.replace(due);
        for _ in 0..new.min(u64::try_from(shared.plan.connections).unwrap_or(u64::MAX)) {
            shared.news.notify_one();
        }
        ticker.tick().await?;
    }
    // The last message may have gone to another connection.
    while shared.taken.get() < schedule.total {
        shared.news.notify_waiters();
        ticker.tick().await?;
    }
    shared.news.notify_waiters();
    Ok(())
}

impl Shared {
    /// Publishes one message and notes the answer.
    async fn exchange(&self, connection: &mut Connection, number: u64, meant: Instant) -> Result<()> {
        let serial = self.plan.first + number;
        let sent = micros(meant.saturating_duration_since(self.plan.epoch));
        self.plan.messages.write(serial, sent, &mut connection.out);
        let answer = match connection.exchange().await {
            Ok(answer) => answer,
            Err(_) if self.plan.may_refuse => {
                self.published.borrow_mut().broken += 1;
                // Else a server that cannot be reached would be asked without a pause.
                tokio::time::sleep(Duration::from_millis(10)).await;
                connection.stream = dial(connection.server).await?;
                return Ok(());
            }
            Err(error) => return Err(error.context("publishing")),
        };
        self.note(&answer, serial, meant).with_context(|| {
            let body = connection.answer.get(answer.body_at..).unwrap_or_default();
            format!("publishing answered {}: {}", answer.status, String::from_utf8_lossy(body))
        })?;
        if answer.closes {
            connection.stream = dial(connection.server).await?;
        }
        Ok(())
    }

    /// `None` for an answer that must not be.
    fn note(&self, answer: &Answer, serial: u64, meant: Instant) -> Option<()> {
        let mut published = self.published.borrow_mut();
        match answer.status {
            202 => {
                published.accepted += 1;
                published.accept.saturating_record(micros(meant.elapsed()));
                if self.plan.may_refuse {
                    published.serials.push(serial);
                }
                Some(())
            }
            429 | 503 if self.plan.may_refuse => {
                published.refused += 1;
                published.refused_without_retry_after += u64::from(!answer.retry_after);
                Some(())
            }
            _ => None,
        }
    }
}

/// One connection, with the request it sends next and the answer it received last.
struct Connection {
    server: SocketAddr,
    stream: TcpStream,
    out: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    async fn exchange(&mut self) -> Result<Answer> {
        self.stream.write_all(&self.out).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed the connection without an answer");
            if let Some(answer) = wire::answer(&self.answer)? {
                return Ok(answer);
            }
        }
    }
}

impl Published {
    fn nothing() -> Result<Self> {
        Ok(Self {
            accepted: 0,
            refused: 0,
            refused_without_retry_after: 0,
            broken: 0,
            seconds: 0.0,
            accept: Histogram::new_with_max(LONGEST, 3)?,
            cpu_seconds: 0.0,
            serials: Vec::new(),
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
