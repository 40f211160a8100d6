//! The network of a node: requests go to model endpoints, and whatever they do has ended by the deadline.

use crate::{node::Gate, receiver::Reaction, trace::Entry, world::World};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_engine::Sender;
use postrider_model::{attempt::Phases, delivery::DeliveryId, oauth::OAuthCredential, outcome::Outcome};
use postrider_outbound::{
    Exchange, Request,
    oauth::{Token, TokenFailure, TokenOwner},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// The network as one node has it.
pub(crate) struct Network {
    world: Arc<World>,
    gate: Arc<Gate>,
}

/// A request on its way; what it was counted for ends with it.
struct UnderWay<'a> {
    world: &'a World,
    gate: &'a Gate,
    number: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // What a dead node had under way was forgotten when the next one came up.
        if !self.gate.lives() {
            return;
        }
        let receiver = &mut self.world.state().receivers[self.number];
        receiver.under_way = receiver.under_way.saturating_sub(1);
    }
}

impl Network {
    pub(crate) fn new(world: Arc<World>, gate: Arc<Gate>) -> Self {
        Self { world, gate }
    }

    /// The request leaves: what the oracle says of it, to which endpoint it goes, and what that will do with it.
    fn leaves(&self, request: &Request) -> Option<(usize, DeliveryId, Reaction)> {
        let (disk, now) = (self.world.disk(), self.world.clock.now());
        let mut found = None;
        self.world.judge(|state, at| {
            let sent = state.oracle.leaves(request, &disk, now, at)?;
            let others = state.receivers[sent.number].under_way;
            let reaction = state.receivers[sent.number].script.react(at, others, &mut state.random);
            state.receivers[sent.number].under_way += 1;
            found = Some((sent.number, sent.delivery, reaction));
            Ok(())
        });
        found
    }

    async fn exchange(&self, number: usize, delivery: DeliveryId, reaction: Reaction) -> Exchange {
        let way = self.world.state().random.millis(0..=3);
        if !way.is_zero() {
            sleep(way).await;
        }
        self.gate.pass().await;
        if reaction.arrives {
            self.world.note(Entry::Arrived(number, delivery));
            self.world.state().oracle.arrives(delivery, reaction.status);
        }
        match reaction.after {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
        exchange(&reaction)
    }
}

#[async_trait]
impl Sender for Network {
    async fn send(&self, request: &Request, deadline: Instant) -> Exchange {
        if !self.gate.lives() {
            std::future::pending::<()>().await;
        }
        let Some((number, delivery, reaction)) = self.leaves(request) else {
            // Something forbidden happened: the run ends.
            return std::future::pending().await;
        };
        let begun = Instant::now();
        let under_way = UnderWay { world: &self.world, gate: &self.gate, number };
        let answered = timeout_at(deadline, self.exchange(number, delivery, reaction)).await;
        drop(under_way);
        let took = begun.elapsed();
        self.gate.pass().await;
        let answered = answered.unwrap_or_else(|_| timed_out());
        self.world.note(Entry::Answered(delivery, answered.outcome, answered.status));
        self.world.judge(|state, at| state.oracle.answered(number, delivery, &answered, took, at));
        answered
    }

    async fn token(
        &self,
        owner: &TokenOwner,
        _credential: &OAuthCredential,
        deadline: Instant,
    ) -> Result<Token, TokenFailure> {
        self.gate.pass().await;
        let (kind, delay) = {
            let mut state = self.world.state();
            let kind = state.random.within(0..=19);
            (if state.healed { kind.min(16) } else { kind }, state.random.millis(0..=300))
        };
        if kind > 12 && timeout_at(deadline, sleep(delay)).await.is_err() {
            return Err(no_token(Outcome::TokenUnavailable));
        }
        self.gate.pass().await;
        match kind {
            0..=16 => Ok(token(owner, kind <= 12)),
            17 | 18 => Err(no_token(Outcome::TokenUnavailable)),
            _ => Err(no_token(Outcome::TokenRejected)),
        }
    }

    async fn replace_token(
        &self,
        owner: &TokenOwner,
        _credential: &OAuthCredential,
        rejected: &Token,
        deadline: Instant,
    ) -> Option<Result<Token, TokenFailure>> {
        if !rejected.cached {
            return None;
        }
        self.gate.pass().await;
        let delay = self.world.state().random.millis(0..=300);
        let fetched = timeout_at(deadline, sleep(delay)).await;
        self.gate.pass().await;
        Some(fetched.map(|()| token(owner, false)).map_err(|_| no_token(Outcome::TokenUnavailable)))
    }
}

fn token(owner: &TokenOwner, cached: bool) -> Token {
    Token { value: format!("token-of-{}", owner.endpoint).into(), cached }
}

fn no_token(outcome: Outcome) -> TokenFailure {
    TokenFailure { outcome, detail: "simulated".to_owned() }
}

fn exchange(reaction: &Reaction) -> Exchange {
    Exchange {
        outcome: reaction.outcome,
        detail: if reaction.outcome == Outcome::Succeeded { String::new() } else { "simulated".to_owned() },
        status: reaction.status,
        retry_after: reaction.retry_after.map(|seconds| seconds.to_string().into_bytes()),
        body: Bytes::new(),
        truncated: false,
        phases: Phases { first_byte: reaction.after, ..Phases::default() },
        sent: reaction.arrives,
    }
}

fn timed_out() -> Exchange {
    let none = Reaction {
        arrives: true,
        after: Some(Duration::ZERO),
        outcome: Outcome::Timeout,
        status: None,
        retry_after: None,
    };
    exchange(&none)
}
