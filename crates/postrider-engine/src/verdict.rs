//! What follows an attempt. Pure: the model's schedule, and the one attempt that a manual delivery gets.

use postrider_model::{
    delivery::Trigger,
    retry::{self, Answer, GiveUp, NextStep, RetryPolicy},
};

/// The next step of a delivery. A manual one is never retried: whoever asked for it sees what came of it and asks again,
/// and the automatic chain of the same message goes on beside it. What it proves holds all the same: it delivers, and
/// 410 Gone disables.
pub(crate) fn next_step(
    trigger: Trigger,
    answer: &Answer,
    number: u32,
    policy: &RetryPolicy,
    jitter: f64,
) -> NextStep {
    let next = retry::next_step(answer, number, policy, jitter);
    match (trigger, next) {
        (Trigger::Manual, NextStep::RetryAfter(_)) => NextStep::GiveUp(GiveUp::Exhausted),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::outcome::Outcome;
    use std::time::Duration;

    fn answer(outcome: Outcome, status: Option<u16>) -> Answer {
        Answer { outcome, status, retry_after: None }
    }

    #[test]
    fn a_manual_delivery_is_never_retried() {
        let policy = RetryPolicy::default();
        let manual = |given: Answer| next_step(Trigger::Manual, &given, 1, &policy, 0.0);
        assert_eq!(manual(answer(Outcome::Succeeded, Some(200))), NextStep::Delivered);
        assert_eq!(manual(answer(Outcome::HttpError, Some(503))), NextStep::GiveUp(GiveUp::Exhausted));
        assert_eq!(manual(answer(Outcome::Timeout, None)), NextStep::GiveUp(GiveUp::Exhausted));
        assert_eq!(manual(answer(Outcome::HttpError, Some(410))), NextStep::GiveUp(GiveUp::Gone));
    }

    #[test]
    fn a_scheduled_delivery_follows_its_schedule() {
        let policy = RetryPolicy { waits: vec![Duration::from_millis(7)], deadline: None };
        let scheduled =
            |number| next_step(Trigger::Scheduled, &answer(Outcome::Dns, None), number, &policy, 0.0);
        assert_eq!(scheduled(1), NextStep::RetryAfter(Duration::from_millis(7)));
        assert_eq!(scheduled(2), NextStep::GiveUp(GiveUp::Exhausted));
    }
}
