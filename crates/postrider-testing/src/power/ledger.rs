//! What the store was asked for and what it answered: the memory of a run, which outlives every cut. Pure.
//!
//! Whatever was answered must be there after a cut; whatever was not answered may be.

use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, State},
    id::{ApplicationId, AttemptId, EndpointId, MessageId},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A state without its details, in the order in which one prevails over another of the same message and endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Cancelled,
    Failed,
    Pending,
    Delivered,
}

impl Kind {
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Pending { .. } => Self::Pending,
            State::Delivered => Self::Delivered,
            State::Failed(_) => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// Everything of one run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Messages by the serial number in their payload.
    pub(super) messages: BTreeMap<u64, Sent>,
    /// Ids that were answered or found.
    pub(super) serials: HashMap<MessageId, u64>,
    pub(super) endpoints: Vec<Target>,
    /// Applications that were created on the way: `Some(true)` is there, `Some(false)` is deleted, `None` is unknown.
    pub(super) applications: BTreeMap<ApplicationId, Option<bool>>,
    /// Old records were deleted on the way, so that what is final may be gone.
    pub(super) retention: bool,
    pub(super) violations: Vec<String>,
    pub(super) accepted: u64,
    pub(super) recorded: u64,
}

/// An endpoint, with the numbers of its last changes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: EndpointId,
    pub(super) event_type: Option<&'static str>,
    pub(super) description: Versions,
    pub(super) secret: Versions,
}

/// A value that is a number which grows with each change.
#[derive(Debug, Default, Clone)]
pub(super) struct Versions {
    pub(super) answered: u64,
    pub(super) unanswered: Vec<u64>,
}

impl Versions {
    pub(super) fn next(&self) -> u64 {
        self.unanswered.iter().max().copied().unwrap_or(0).max(self.answered) + 1
    }

    /// `found` is what stands after a cut: an answer is never taken back, and what was found then stays.
    pub(super) fn settle(&mut self, found: u64) -> bool {
        let fine = found == self.answered || self.unanswered.contains(&found);
        *self = Self { answered: found, unanswered: Vec::new() };
        fine
    }
}

/// A message that the store was asked to accept.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) payload: Bytes,
    pub(super) event_type: &'static str,
    pub(super) key: Option<String>,
    /// The payload may go as soon as nothing is pending.
    pub(super) short_lived: bool,
    /// Once it was answered, or found after a cut.
    pub(super) id: Option<MessageId>,
    pub(super) duties: BTreeMap<(EndpointId, u32), Duty>,
    /// Resends without an answer.
    pub(super) resends: BTreeSet<EndpointId>,
}

/// A delivery.
#[derive(Debug, Clone)]
pub(super) struct Duty {
    pub(super) state: Kind,
    /// The number of the attempt that led to it: answers may be read in another order than they were given.
    pub(super) number: u32,
    /// Attempts that are recorded.
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Attempts whose record was not answered, with their numbers and the states that they lead to.
    pub(super) unanswered: BTreeMap<AttemptId, (u32, Kind)>,
    pub(super) started: bool,
}

impl Default for Duty {
    fn default() -> Self {
        Self {
            state: Kind::Pending,
            number: 0,
            attempts: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            started: false,
        }
    }
}

impl Duty {
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        std::iter::once(self.state).chain(self.unanswered.values().map(|(_, kind)| *kind))
    }

    /// An attempt is recorded, and led to this state.
    pub(super) fn record(&mut self, attempt: AttemptId, number: u32, state: Kind) {
        self.attempts.insert(attempt);
        if number > self.number {
            (self.number, self.state) = (number, state);
        }
    }
}

impl Sent {
    /// How it may stand with an endpoint, over all deliveries there.
    pub(super) fn may_stand(&self, endpoint: EndpointId) -> BTreeSet<Kind> {
        let duties = || self.duties.iter().filter(|((of, _), _)| *of == endpoint).map(|(_, duty)| duty);
        let least = duties().filter_map(|duty| duty.kinds().min()).max();
        let mut kinds: BTreeSet<Kind> = duties().flat_map(Duty::kinds).collect();
        if self.resends.contains(&endpoint) {
            kinds.insert(Kind::Pending);
        }
        kinds.retain(|kind| least.is_none_or(|least| *kind >= least));
        kinds
    }

    /// Nothing of it is pending for certain: it may be deleted.
    pub(super) fn may_be_final(&self) -> bool {
        self.duties.keys().all(|delivery| self.may_have_ended(*delivery))
    }

    /// A delivery that is not pending for certain: the success of a manual one settles the others of its endpoint.
    pub(super) fn may_have_ended(&self, (endpoint, generation): (EndpointId, u32)) -> bool {
        let ended = |duty: &Duty| duty.kinds().any(|kind| kind != Kind::Pending);
        let settles = |((of, manual), duty): (&(EndpointId, u32), &Duty)| {
            *of == endpoint && *manual > 0 && duty.kinds().any(|kind| kind == Kind::Delivered)
        };
        self.duties.get(&(endpoint, generation)).is_some_and(ended) || self.duties.iter().any(settles)
    }
}

impl Ledger {
    pub(super) fn fail(&mut self, text: String) {
        self.violations.push(text);
    }

    /// The endpoints that a message of this type goes to.
    pub(super) fn audience(&self, event_type: &str) -> Vec<EndpointId> {
        let gets = |target: &&Target| target.event_type.is_none_or(|only| only == event_type);
        self.endpoints.iter().filter(gets).map(|target| target.id).collect()
    }

    /// The store answered that a message is accepted.
    pub(super) fn accept(&mut self, serial: u64, id: MessageId) {
        self.accepted += 1;
        self.exists(serial, id);
    }

    /// A message is there.
    pub(super) fn exists(&mut self, serial: u64, id: MessageId) {
        if self.serials.insert(id, serial).is_some_and(|before| before != serial) {
            self.fail(format!("{id} names two messages"));
        }
        let Some(event_type) = self.messages.get(&serial).map(|sent| sent.event_type) else {
            return self.fail(format!("{id} is a message that nobody sent"));
        };
        let audience = self.audience(event_type);
        let Some(sent) = self.messages.get_mut(&serial) else { return };
        if sent.id.is_some_and(|before| before != id) {
            return self.fail(format!("message {serial} was accepted twice"));
        }
        sent.id = Some(id);
        for endpoint in audience {
            sent.duties.entry((endpoint, 0)).or_default();
        }
    }

    /// The delivery, known or not: it may be one whose resend was not answered.
    pub(super) fn duty(&mut self, serial: u64, delivery: DeliveryId) -> Option<&mut Duty> {
        let sent = self.messages.get_mut(&serial)?;
        Some(sent.duties.entry((delivery.endpoint, delivery.generation)).or_default())
    }
}

/// The serial number in a payload.
pub(super) fn serial_of(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload.get(..payload.len().min(40))?).ok()?;
    text.strip_prefix("{\"serial\":")?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::Ksuid;

    fn endpoint() -> EndpointId {
        EndpointId::new(Ksuid::from_bytes([1; 20]))
    }

    fn attempt(number: u8) -> AttemptId {
        AttemptId::new(Ksuid::from_bytes([number; 20]))
    }

    fn sent(duties: Vec<Duty>) -> Sent {
        Sent {
            payload: Bytes::new(),
            event_type: "a",
            key: None,
            short_lived: false,
            id: None,
            duties: (0..).zip(duties).map(|(generation, duty)| ((endpoint(), generation), duty)).collect(),
            resends: BTreeSet::new(),
        }
    }

    #[test]
    fn what_was_answered_must_stand_and_what_was_not_may() {
        let pending = Duty::default();
        let failed = Duty { state: Kind::Failed, ..Duty::default() };
        let delivered = Duty { state: Kind::Delivered, ..Duty::default() };
        let unanswered = |kind| Duty { unanswered: [(attempt(1), (1, kind))].into(), ..Duty::default() };
        for (duties, expected) in [
            (vec![pending.clone()], vec![Kind::Pending]),
            (vec![failed.clone()], vec![Kind::Failed]),
            (vec![unanswered(Kind::Delivered)], vec![Kind::Pending, Kind::Delivered]),
            (vec![failed.clone(), unanswered(Kind::Failed)], vec![Kind::Failed, Kind::Pending]),
            (vec![delivered, unanswered(Kind::Failed)], vec![Kind::Delivered]),
            (vec![pending, failed], vec![Kind::Pending]),
        ] {
            assert_eq!(sent(duties).may_stand(endpoint()), expected.into_iter().collect());
        }
        let mut resent = sent(vec![Duty { state: Kind::Failed, ..Duty::default() }]);
        resent.resends.insert(endpoint());
        assert_eq!(resent.may_stand(endpoint()), [Kind::Failed, Kind::Pending].into());
        assert!(resent.may_be_final());
        let settled = vec![Duty::default(), Duty { state: Kind::Delivered, ..Duty::default() }];
        assert!(sent(settled).may_be_final(), "by the manual one");
    }

    #[test]
    fn a_payload_tells_its_serial_number() {
        assert_eq!(serial_of(b"{\"serial\":17,\"fill\":\"\"}"), Some(17));
        assert_eq!(serial_of(b"{}"), None);
        assert_eq!(serial_of(b""), None);
    }
}
