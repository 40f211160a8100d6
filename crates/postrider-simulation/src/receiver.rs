//! Model endpoints: how they behave, phase after phase. Pure: time and randomness are arguments.

use crate::random::Random;
use postrider_model::outcome::Outcome;
use std::time::Duration;

/// How an endpoint behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes messages at once.
    Quick,
    /// Takes them after seconds.
    Slow,
    /// Accepts connections and never answers.
    Hanging,
    /// Answers with this status.
    Failing(u16),
    /// Answers 429 and asks to wait so many seconds.
    Throttling(u64),
    /// Nobody listens.
    Refusing,
    /// Its name does not resolve.
    Unresolvable,
    /// Takes the message, and the connection breaks before the answer.
    Dropping,
    /// Takes a message or fails, at random.
    Flapping,
    /// Takes messages one after the other, however many come at once.
    Queueing,
    /// Says that it is gone for good.
    Gone,
}

/// The phases of an endpoint, over and over.
#[derive(Debug, Clone)]
pub struct Script {
    /// For how long it behaves how.
    pub phases: Vec<(Duration, Behaviour)>,
}

/// What comes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaction {
    /// The request arrives at the receiver.
    pub arrives: bool,
    /// The time until the answer; `None` for ever.
    pub after: Option<Duration>,
    /// How it ends.
    pub outcome: Outcome,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Its `Retry-After`.
    pub retry_after: Option<u64>,
}

const KINDS: [Behaviour; 15] = [
    Behaviour::Quick,
    Behaviour::Quick,
    Behaviour::Quick,
    Behaviour::Slow,
    Behaviour::Hanging,
    Behaviour::Failing(500),
    Behaviour::Failing(404),
    Behaviour::Failing(401),
    Behaviour::Failing(302),
    Behaviour::Refusing,
    Behaviour::Unresolvable,
    Behaviour::Dropping,
    Behaviour::Flapping,
    Behaviour::Queueing,
    Behaviour::Gone,
];

impl Script {
    /// Always the same.
    pub fn always(behaviour: Behaviour) -> Self {
        Self { phases: vec![(Duration::from_hours(1), behaviour)] }
    }

    /// Drawn: some stay what they are, others change from minute to minute.
    pub fn draw(random: &mut Random) -> Self {
        let phases = if random.permille(300) { 1 } else { random.within(2..=5) };
        let phases = (0..phases).map(|_| (random.millis(500..=90_000), behaviour(random)));
        Self { phases: phases.collect() }
    }

    fn at(&self, since_start: Duration) -> Behaviour {
        let round: Duration = self.phases.iter().map(|(length, _)| *length).sum();
        let micros = since_start.as_micros() % round.as_micros().max(1);
        let mut left = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        for (length, behaviour) in &self.phases {
            match left.checked_sub(*length) {
                Some(rest) => left = rest,
                None => return *behaviour,
            }
        }
        Behaviour::Quick
    }

    /// What comes of a request that is sent now, while so many others are under way there.
    pub fn react(&self, since_start: Duration, others: usize, random: &mut Random) -> Reaction {
        let quick = random.millis(0..=40);
        match self.at(since_start) {
            Behaviour::Quick => answer(quick, 200),
            Behaviour::Slow => answer(random.millis(1_500..=9_000), 204),
            Behaviour::Hanging => Reaction {
                arrives: true,
                after: None,
                outcome: Outcome::Timeout,
                status: None,
                retry_after: None,
            },
            Behaviour::Failing(status) => answer(quick, status),
            Behaviour::Throttling(seconds) => Reaction { retry_after: Some(seconds), ..answer(quick, 429) },
            Behaviour::Refusing => unheard(quick, Outcome::Connect),
            Behaviour::Unresolvable => unheard(quick, Outcome::Dns),
            Behaviour::Dropping => Reaction { arrives: true, ..unheard(quick, Outcome::Connect) },
            Behaviour::Flapping if random.permille(500) => answer(quick, 200),
            Behaviour::Flapping => answer(quick, 503),
            Behaviour::Queueing => {
                let turns = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
                answer(Duration::from_millis(50).saturating_mul(turns), 200)
            }
            Behaviour::Gone => answer(quick, 410),
        }
    }
}

fn behaviour(random: &mut Random) -> Behaviour {
    // A retry that a receiver asks for may be an hour away: seldom, else simulations are made of waiting.
    if random.permille(80) {
        let seconds = if random.permille(50) { 100_000 } else { random.within(0..=60) };
        return Behaviour::Throttling(seconds);
    }
    match random.pick(&KINDS) {
        Behaviour::Gone if random.permille(700) => Behaviour::Quick,
        other => other,
    }
}

fn answer(after: Duration, status: u16) -> Reaction {
    let outcome = match status {
        200..=299 => Outcome::Succeeded,
        300..=399 => Outcome::RedirectNotFollowed,
        _ => Outcome::HttpError,
    };
    Reaction { arrives: true, after: Some(after), outcome, status: Some(status), retry_after: None }
}

fn unheard(after: Duration, outcome: Outcome) -> Reaction {
    Reaction { arrives: false, after: Some(after), outcome, status: None, retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other_and_begin_anew() {
        let phase = Duration::from_secs(10);
        let script = Script { phases: vec![(phase, Behaviour::Quick), (phase, Behaviour::Gone)] };
        let seen: Vec<_> = [0, 9, 10, 19, 20, 35].map(|at| script.at(Duration::from_secs(at))).into();
        let expected = [0, 0, 1, 1, 0, 1].map(|phase| script.phases[phase].1);
        assert_eq!(seen, expected);
    }
}
