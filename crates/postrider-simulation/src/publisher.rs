//! Publishers: each publishes what its plan says, and repeats what was not answered under the same key, as client
//! libraries do.

use crate::{trace::Entry, world::World};
use bytes::Bytes;
use postrider_model::event_type::EventTypeName;
use postrider_store::{
    WriteError,
    endpoints::AppScope,
    idempotency::IdempotencyKey,
    messages::{Accepted, Audience, Messages, NewMessage},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long a publisher waits before it asks again.
const AGAIN: Duration = Duration::from_millis(300);
/// How often it asks: longer than any outage, so that a liveness run knows what became of everything.
const TRIES: usize = 1_000;

/// Publishes all that the plan has for an application.
pub(crate) async fn run(world: Arc<World>, application: usize, scope: AppScope, event_type: EventTypeName) {
    let publications = world.plan.applications[application].publications.clone();
    for (at, count) in publications {
        tokio::time::sleep_until(world.instant(at)).await;
        for _ in 0..count {
            publish(&world, application, &scope, &event_type).await;
        }
    }
}

async fn publish(world: &World, application: usize, scope: &AppScope, event_type: &EventTypeName) {
    let at = world.elapsed();
    let (number, body) = world.state().oracle.publications.add(application, at);
    let new = message(world, scope, event_type, number, body);
    for _ in 0..TRIES {
        let (one, asked) = (new.clone(), |store: Arc<crate::store::ModelStore>, one| async move {
            store.accept(vec![one]).await.pop()
        });
        match world.call(|store| asked(store, one)).await.flatten() {
            Some(Ok(accepted)) => return acknowledged(world, application, number, &accepted),
            Some(Err(WriteError::Store(_))) | None => {}
            // The application is gone.
            Some(Err(_)) => break,
        }
        tokio::time::sleep(AGAIN).await;
    }
    world.note(Entry::Published(number as u64, None));
}

fn message(
    world: &World,
    scope: &AppScope,
    event_type: &EventTypeName,
    number: usize,
    payload: Bytes,
) -> NewMessage {
    let random = &mut world.state().random;
    let later = random.permille(30).then(|| random.millis(0..=20_000));
    NewMessage {
        scope: scope.clone(),
        event_id: None,
        event_type: event_type.clone(),
        channels: BTreeSet::new(),
        tags: BTreeSet::new(),
        content_type: None,
        payload,
        payload_lifetime: random.permille(30).then_some(Duration::from_secs(1)),
        deliver_at: later.filter(|_| !world.plan.fairness).map(|later| world.clock.now().plus(later)),
        audience: Audience::Matching,
        idempotency: Some(IdempotencyKey::new("POST", "/messages", &number.to_string())),
    }
}

/// The promise is given: what is owed from here on.
fn acknowledged(world: &World, application: usize, number: usize, accepted: &Accepted) {
    let message = accepted.message.id;
    world.note(Entry::Published(number as u64, Some(message)));
    world.judge(|state, _| {
        let oracle = &mut state.oracle;
        oracle.counts.messages += 1;
        oracle.publications.became(number, message)?;
        let tried_at = oracle.publications.get(number).map(|one| one.tried_at).unwrap_or_default();
        // Not in the same instant: which of the two was first nobody knows.
        let certain = |view: &crate::oracle::EndpointView| {
            view.application == application && view.certain_since.is_some_and(|since| since < tried_at)
        };
        let owed = oracle.endpoints.iter().enumerate().filter(|(_, view)| certain(view));
        let owed = owed.map(|(number, _)| number).collect();
        oracle.publications.acknowledged(number, owed);
        Ok(())
    });
}
