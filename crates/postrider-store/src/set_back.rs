//! What a clock that was set back means for what waits: what was scheduled while it showed a later time would wait for it to
//! get there again. Pure; each backend finds what is due later, and writes what is due again.

use postrider_model::{delivery::DeliveryId, time::Timestamp};

/// A delivery that is due later than now.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Which one.
    pub delivery: DeliveryId,
    /// When it is due as it stands.
    pub due_at: Timestamp,
    /// It has been attempted: its wait is one of the retry schedule.
    pub attempted: bool,
    /// When its publisher wants it delivered at the earliest.
    pub deliver_at: Option<Timestamp>,
    /// When its last attempt began.
    pub last_started: Option<Timestamp>,
}

/// When the delivery is due by the clock as it goes now; `None` when that is no earlier.
pub fn due_again(waiting: &Waiting, now: Timestamp) -> Option<Timestamp> {
    let due = if waiting.attempted {
        // Scheduled by the later time: its wait begins now.
        let started = waiting.last_started.filter(|started| *started > now)?;
        now.plus(waiting.due_at.since(started))
    } else {
        let dated = waiting.deliver_at.filter(|_| waiting.delivery.generation == 0);
        dated.map_or(now, |at| at.max(now))
    };
    (due < waiting.due_at).then_some(due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::id::{EndpointId, Ksuid, MessageId};

    #[test]
    fn only_what_the_later_clock_scheduled_is_due_earlier() {
        let at = |minute: i64| Timestamp::from_micros(minute * 60_000_000);
        let waiting = |due, generation, deliver_at: Option<i64>, last_started: Option<i64>| Waiting {
            delivery: DeliveryId {
                message: MessageId::new(Ksuid::from_bytes([1; 20])),
                endpoint: EndpointId::new(Ksuid::from_bytes([2; 20])),
                generation,
            },
            due_at: at(due),
            attempted: last_started.is_some(),
            deliver_at: deliver_at.map(at),
            last_started: last_started.map(at),
        };
        for (one, expected, why) in [
            (waiting(160, 0, None, None), Some(100), "it was due when it was accepted"),
            (waiting(160, 1, Some(150), None), Some(100), "it was due when it was resent"),
            (waiting(180, 0, Some(180), None), None, "its publisher said when"),
            (waiting(160, 0, Some(120), None), Some(120), "its publisher said earlier"),
            (waiting(165, 0, None, Some(160)), Some(105), "its wait is five minutes"),
            (waiting(130, 0, None, Some(70)), None, "it was scheduled by the right time"),
        ] {
            assert_eq!(due_again(&one, at(100)), expected.map(at), "{why}");
        }
    }
}
