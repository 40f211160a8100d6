//! What happens to the cluster: drawn from a seed, and done.

use super::{
    LEASE, Stage,
    book::{Micros, now},
    member::Member,
};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use std::{fmt, ops::Range, time::Duration};
use tokio::time::sleep;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// `kill -9` of a node, which is started again
    Kill,
    /// `kill -9` of all nodes at once
    KillAll,
    /// `kill -9` of a node whose disk is lost: the next start is a stranger
    Lose,
    /// SIGTERM of a node, which is started again: nothing may be repeated
    Stop,
    /// SIGSTOP of a node for longer than its lease, then SIGCONT
    Pause,
    /// SIGSTOP of a node for less than its lease
    Blink,
    /// A node's connections to the database are cut, and new ones refused
    Cut,
    /// What a node sends to the database is held, and arrives late
    HoldOut,
    /// What the database answers a node is held, and arrives late
    HoldBack,
    /// Both are held
    Hold,
    /// The way of a node to the database is slow
    Slow,
    /// The database is ended as by a crash, and started again
    Restart,
    /// The database is gone, and a synchronous standby takes its place
    Failover,
}

impl Kind {
    /// It happens to a node, not to the database or to all.
    const fn of_a_node(self) -> bool {
        !matches!(self, Self::KillAll | Self::Restart | Self::Failover)
    }

    /// How long it may last, in milliseconds.
    fn holds(self) -> Range<u64> {
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(0);
        match self {
            Self::Kill | Self::KillAll | Self::Lose | Self::Stop => 0..3_000,
            Self::Pause => lease + 2_000..lease + 6_000,
            Self::Blink => 200..lease / 2,
            Self::Cut | Self::HoldOut | Self::HoldBack | Self::Hold => 500..lease + 8_000,
            Self::Slow => 2_000..6_000,
            Self::Restart | Self::Failover => 1_000..2_500,
        }
    }
}

/// A fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Which node, where it is about one.
    node: usize,
    /// Until it begins.
    after: Duration,
    /// Until it is made good.
    hold: Duration,
}

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) first: Fault,
    /// At the same time to another node.
    pub(crate) second: Option<Fault>,
}

/// A fault that was, with what was seen of the recovery.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) kind: Kind,
    /// The nodes that may have lost results by it.
    pub(crate) nodes: Vec<usize>,
    pub(crate) began: Micros,
    pub(crate) healed: Micros,
    /// Everything had recovered.
    pub(crate) settled: Micros,
    /// Deliveries that were owed when the last fault of the round was made good.
    pub(crate) owed: usize,
    /// From then until every node had acknowledged a message.
    pub(crate) served: Option<Duration>,
    /// From then until all of those had arrived.
    pub(crate) delivered: Option<Duration>,
    /// It went as it must; only an orderly stop says no.
    pub(crate) orderly: bool,
}

/// Rounds in which every kind comes up as often as the others. Kinds that were asked for come alone.
pub(crate) fn draw(random: &mut StdRng, rounds: u32, nodes: u8, asked: &[Kind]) -> Vec<Plan> {
    let (mut plans, mut bag) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        if bag.is_empty() {
            bag = if asked.is_empty() { Kind::value_variants().to_vec() } else { asked.to_vec() };
            bag.shuffle(random);
        }
        let Some(kind) = bag.pop() else { break };
        let first = fault(random, kind, nodes);
        let second = (asked.is_empty() && nodes > 1 && random.random_range(0..3) == 0)
            .then(|| companion(random, &first, nodes));
        plans.push(Plan { first, second });
    }
    plans
}

fn fault(random: &mut StdRng, kind: Kind, nodes: u8) -> Fault {
    Fault {
        kind,
        node: usize::from(random.random_range(0..nodes.max(1))),
        after: Duration::ZERO,
        hold: Duration::from_millis(random.random_range(kind.holds())),
    }
}

/// Something that can happen beside it: to another node, or to a node while the database is away.
fn companion(random: &mut StdRng, first: &Fault, nodes: u8) -> Fault {
    let kinds =
        [Kind::Kill, Kind::Lose, Kind::Pause, Kind::Cut, Kind::HoldOut, Kind::HoldBack, Kind::Restart];
    let fits = |kind: Kind| {
        if first.kind.of_a_node() { true } else { kind.of_a_node() && first.kind != Kind::KillAll }
    };
    let mut kind = kinds[random.random_range(0..kinds.len())];
    if !fits(kind) {
        kind = if first.kind == Kind::KillAll { Kind::Restart } else { Kind::Kill };
    }
    let second = fault(random, kind, nodes);
    let step = usize::from(random.random_range(1..nodes.max(2)));
    let node = (first.node + step) % usize::from(nodes);
    let after = Duration::from_millis(random.random_range(0..2_500));
    Fault { node, after, ..second }
}

/// Lets it happen and makes it good.
pub(super) async fn inject(stage: &Stage, fault: &Fault) -> Result<Window> {
    sleep(fault.after).await;
    let member = &stage.members[fault.node];
    if fault.kind == Kind::Failover {
        return fail_over(stage, fault).await;
    }
    let began = now();
    let mut orderly = true;
    match fault.kind {
        Kind::KillAll => {
            for member in &stage.members {
                member.kill().await?;
            }
            sleep(fault.hold).await;
            for member in &stage.members {
                member.launch().await?;
            }
        }
        Kind::Stop => {
            orderly = member.stop().await?;
            sleep(fault.hold).await;
            member.launch().await?;
        }
        Kind::Restart => stage.database.lock().await.restart().await?,
        _ => hurt(member, fault).await?,
    }
    let nodes = match fault.kind {
        // A node that goes in order, or is slow, loses nothing that it had begun.
        Kind::Stop | Kind::Blink | Kind::Slow => Vec::new(),
        kind if kind.of_a_node() => vec![fault.node],
        _ => all(stage),
    };
    Ok(window(fault.kind, nodes, began, orderly))
}

/// What happens to one node and its way.
async fn hurt(member: &Member, fault: &Fault) -> Result<()> {
    let proxy = &member.proxy;
    match fault.kind {
        Kind::Kill | Kind::Lose => {
            member.kill().await?;
            if fault.kind == Kind::Lose {
                member.lose_disk()?;
            }
            sleep(fault.hold).await;
            return member.launch().await;
        }
        Kind::Pause | Kind::Blink => {
            member.pause().await?;
            sleep(fault.hold).await;
            return member.resume().await;
        }
        Kind::Cut => proxy.set(|way| way.cut = true),
        Kind::HoldOut => proxy.set(|way| way.holds_out = true),
        Kind::HoldBack => proxy.set(|way| way.holds_back = true),
        Kind::Hold => proxy.set(|way| (way.holds_out, way.holds_back) = (true, true)),
        _ => proxy.set(|way| way.delay = Duration::from_millis(40)),
    }
    sleep(fault.hold).await;
    proxy.set(|way| {
        way.cut = false;
        (way.holds_out, way.holds_back) = (false, false);
        way.delay = Duration::ZERO;
    });
    Ok(())
}

/// Load runs on a primary whose commits wait for a standby, until the primary is gone.
async fn fail_over(stage: &Stage, fault: &Fault) -> Result<Window> {
    let mut database = stage.database.lock().await;
    let standby = database.add_standby().await?;
    sleep(fault.hold).await;
    let began = now();
    database.fail_over(standby).await?;
    let address = database.address();
    for member in &stage.members {
        member.proxy.set(|way| way.to = address);
    }
    ensure!(address.port() == standby, "the standby listens elsewhere");
    Ok(window(Kind::Failover, all(stage), began, true))
}

fn all(stage: &Stage) -> Vec<usize> {
    (0..stage.members.len()).collect()
}

fn window(kind: Kind, nodes: Vec<usize>, began: Micros, orderly: bool) -> Window {
    let healed = now();
    Window { kind, nodes, began, healed, settled: healed, owed: 0, served: None, delivered: None, orderly }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.first)?;
        match &self.second {
            None => Ok(()),
            Some(second) => write!(formatter, ", and {second}, {} ms later", second.after.as_millis()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.kind)?;
        if self.kind.of_a_node() {
            write!(formatter, " of node {}", self.node)?;
        }
        write!(formatter, " for {} ms", self.hold.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn the_same_seed_draws_the_same_and_every_kind_comes_up() {
        let plans = |seed| draw(&mut StdRng::seed_from_u64(seed), 26, 3, &[]);
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
        for kind in Kind::value_variants() {
            assert_eq!(plans(7).iter().filter(|plan| plan.first.kind == *kind).count(), 2, "{kind:?}");
        }
    }

    #[test]
    fn what_happens_at_once_happens_to_different_things() {
        let plans = draw(&mut StdRng::seed_from_u64(1), 2_000, 3, &[]);
        let both = plans.iter().filter_map(|plan| Some((plan.first, plan.second?)));
        for (first, second) in both {
            if first.kind.of_a_node() && second.kind.of_a_node() {
                assert_ne!(first.node, second.node);
            }
            assert!(first.kind.of_a_node() || second.kind.of_a_node() || first.kind == Kind::KillAll);
            assert!(first.kind != Kind::KillAll || second.kind == Kind::Restart);
        }
        let asked = draw(&mut StdRng::seed_from_u64(1), 50, 3, &[Kind::Pause]);
        assert!(asked.iter().all(|plan| plan.first.kind == Kind::Pause && plan.second.is_none()));
    }
}
