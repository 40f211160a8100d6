//! What the disk says, from time to time and at the end.

use super::Oracle;
use crate::store::{Disk, StoredDelivery};
use postrider_model::{
    attempt::Attempt,
    delivery::{DeliveryId, State, Trigger},
    outcome::Outcome,
};
use std::collections::{BTreeMap, BTreeSet};

impl Oracle {
    /// Compares the disk with what it held at the last look.
    pub(crate) fn look(&mut self, disk: &Disk) -> Result<(), String> {
        for (id, delivery) in disk.deliveries() {
            let now = (delivery.state, delivery.attempts);
            if let Some((before, attempts)) = self.states.insert(id, now) {
                let was_final = !matches!(before, State::Pending { .. });
                if was_final && before != delivery.state {
                    return Err(format!("I8: {id:?} was {before:?} and is {:?}", delivery.state));
                }
                if attempts > delivery.attempts {
                    return Err(format!("{id:?} had {attempts} attempts and has {}", delivery.attempts));
                }
            }
            if let State::Pending { next_attempt_at } = delivery.state {
                check_pending(disk, id, delivery, next_attempt_at)?;
            }
        }
        self.check_owed(disk)
    }

    /// At the end: what was promised, sent and stored fit together.
    pub(crate) fn conclude(&mut self, disk: &Disk) -> Result<(), String> {
        self.look(disk)?;
        let mut attempts: BTreeMap<DeliveryId, Vec<&Attempt>> = BTreeMap::new();
        for attempt in disk.attempts() {
            attempts.entry(attempt.delivery).or_default().push(attempt);
        }
        for (id, delivery) in disk.deliveries() {
            let of_it = attempts.get(&id).map_or(&[][..], Vec::as_slice);
            self.check_attempts(id, delivery, of_it)?;
        }
        self.check_receipts(&attempts)
    }

    /// I5, I6: the attempts of a delivery are numbered, no more than its schedule has, and end with the first success.
    fn check_attempts(
        &self,
        id: DeliveryId,
        delivery: &StoredDelivery,
        attempts: &[&Attempt],
    ) -> Result<(), String> {
        let mut numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        numbers.sort_unstable();
        if numbers.iter().zip(1..).any(|(number, expected)| *number != expected)
            || numbers.len() != delivery.attempts as usize
        {
            return Err(format!("{id:?} counts {} attempts and has {numbers:?}", delivery.attempts));
        }
        let of = |outcome| attempts.iter().filter(|attempt| attempt.outcome == outcome).count();
        // A failure of this server to read what an endpoint wants costs none of the endpoint's attempts.
        let uncounted = of(Outcome::Interrupted) + of(Outcome::Internal);
        let successes = of(Outcome::Succeeded);
        let scheduled = self.endpoints.iter().find(|view| view.id == Some(id.endpoint));
        let most = match delivery.trigger {
            Trigger::Manual => 1,
            Trigger::Scheduled => scheduled.map_or(usize::MAX, |view| view.most_attempts),
        };
        if attempts.len() - uncounted > most {
            return Err(format!("I6: {id:?} has {} attempts, {most} at most", attempts.len()));
        }
        if successes > 1 {
            return Err(format!("I5: {id:?} succeeded {successes} times"));
        }
        if delivery.state == State::Delivered && successes == 0 && delivery.trigger == Trigger::Manual {
            let settled_by_another = self.receipts.iter().any(|receipt| {
                receipt.delivery.message == id.message
                    && receipt.delivery.endpoint == id.endpoint
                    && receipt.taken
            });
            if !settled_by_another {
                return Err(format!("{id:?} is delivered and nobody took it"));
            }
        }
        Ok(())
    }

    /// I4: whatever arrived is in the history; and what the history calls a success was taken.
    fn check_receipts(&self, attempts: &BTreeMap<DeliveryId, Vec<&Attempt>>) -> Result<(), String> {
        for receipt in &self.receipts {
            let of_it = attempts.get(&receipt.delivery).into_iter().flatten();
            if !of_it.into_iter().any(|attempt| attempt.number == receipt.number) {
                return Err(format!(
                    "I4: attempt {} of {:?} arrived and is in no history",
                    receipt.number, receipt.delivery
                ));
            }
        }
        let taken: BTreeSet<(DeliveryId, u32)> =
            self.receipts.iter().filter(|one| one.taken).map(|one| (one.delivery, one.number)).collect();
        for attempt in attempts.values().flatten() {
            if attempt.outcome == Outcome::Succeeded && !taken.contains(&(attempt.delivery, attempt.number)) {
                return Err(format!("{:?} is said to have succeeded and was not taken", attempt.delivery));
            }
        }
        Ok(())
    }

    /// I1: every acknowledged message is there, with a delivery for each endpoint that was to get it.
    fn check_owed(&self, disk: &Disk) -> Result<(), String> {
        for (message, owed) in self.publications.owed() {
            if disk.message(message).is_none() {
                return Err(format!("I1: {message} was acknowledged and is lost"));
            }
            for number in owed {
                let Some(endpoint) = self.endpoints[*number].id else { continue };
                let id = DeliveryId { message, endpoint, generation: 0 };
                if disk.delivery(id).is_none() {
                    return Err(format!("I1: {message} has no delivery to endpoint {number}"));
                }
            }
        }
        Ok(())
    }
}

/// I12: what is pending can be sent, and has a time at which that, or its end, comes.
fn check_pending(
    disk: &Disk,
    id: DeliveryId,
    delivery: &StoredDelivery,
    next_attempt_at: postrider_model::time::Timestamp,
) -> Result<(), String> {
    if disk.live_endpoint(id.endpoint).is_none() {
        return Err(format!("I12: {id:?} is pending for an endpoint that is gone"));
    }
    if disk.message(id.message).is_none_or(|(_, _, payload)| payload.is_none()) {
        return Err(format!("I12: {id:?} is pending without a payload"));
    }
    if next_attempt_at > delivery.deadline_at {
        return Err(format!("I12: {id:?} is due at {next_attempt_at:?}, after its deadline"));
    }
    Ok(())
}
