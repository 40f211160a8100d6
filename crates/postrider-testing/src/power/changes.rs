//! What else changes the store while messages come and go: resends, configuration, retention, and checkpoints.

use super::{
    place::{self, DATABASE},
    workload::{Life, STEPS},
};
use crate::disk::Disk;
use postrider_model::application::Ref;
use postrider_store::{
    WriteError, applications::ApplicationFields, deliveries::ResendError, endpoints::EndpointFields,
    retention::Cutoffs,
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, time::Duration};

/// Makes manual deliveries of what was accepted.
pub(super) async fn resend(life: Life, mut random: StdRng) {
    let mut met = 0;
    for _ in 0..STEPS / 2 {
        tokio::time::sleep(Duration::from_micros(300)).await;
        let known: Vec<(u64, _)> = {
            let ledger = life.ledger.borrow();
            ledger.messages.iter().filter_map(|(serial, sent)| Some((*serial, sent.id?))).collect()
        };
        let Some((serial, message)) = known.choose(&mut random).copied() else { continue };
        let endpoint = {
            let mut ledger = life.ledger.borrow_mut();
            let endpoint = ledger.endpoints[random.random_range(0..2)].id;
            if ledger.messages[&serial].resends.contains(&endpoint) {
                continue;
            }
            ledger.messages.get_mut(&serial).map(|sent| sent.resends.insert(endpoint));
            endpoint
        };
        let late = life.failed.get();
        let result = life.store().resend(&life.scope, message, endpoint, None).await;
        let error = {
            let mut ledger = life.ledger.borrow_mut();
            match result {
                Ok(created) => {
                    ledger.duty(serial, created.item);
                    ledger.messages.get_mut(&serial).map(|sent| sent.resends.remove(&endpoint));
                    None
                }
                Err(ResendError::Store(error)) => Some(error),
                Err(_) => {
                    ledger.messages.get_mut(&serial).map(|sent| sent.resends.remove(&endpoint));
                    continue;
                }
            }
        };
        match error {
            None => life.acknowledged(late, "a resend"),
            Some(error) if life.met(&error, &mut met).await => return,
            Some(_) => {}
        }
    }
}

/// Changes endpoints and their secrets, creates and deletes applications.
pub(super) async fn configure(life: Life, mut random: StdRng) {
    let mut met = 0;
    for number in 0..STEPS / 2 {
        tokio::time::sleep(Duration::from_micros(500)).await;
        let which = random.random_range(0..life.ledger.borrow().endpoints.len());
        let result = match random.random_range(0..4) {
            0 => describe(&life, which).await,
            1 => rotate(&life, which).await,
            2 => create(&life, &format!("application {number}")).await,
            _ => delete(&life).await,
        };
        if let Err(WriteError::Store(error)) = result
            && life.met(&error, &mut met).await
        {
            return;
        }
    }
}

async fn describe(life: &Life, which: usize) -> Result<(), WriteError> {
    let (id, next) = {
        let target = &mut life.ledger.borrow_mut().endpoints[which];
        let next = target.description.next();
        target.description.unanswered.push(next);
        (target.id, next)
    };
    let late = life.failed.get();
    let Some(endpoint) = life.store().endpoint(&life.scope, &Ref::Id(id)).await? else {
        return Err(WriteError::Missing);
    };
    let fields = EndpointFields {
        uid: endpoint.uid,
        url: endpoint.url,
        description: next.to_string(),
        throttle_rate: endpoint.throttle_rate,
        filter: endpoint.filter,
        disabled: false,
        metadata: endpoint.metadata,
        retry: endpoint.retry,
        legacy_version: endpoint.legacy_version,
    };
    life.store().replace_endpoint(&life.scope, id, endpoint.version, fields).await?;
    life.acknowledged(late, "a change of an endpoint");
    life.ledger.borrow_mut().endpoints[which].description.settle(next);
    Ok(())
}

async fn rotate(life: &Life, which: usize) -> Result<(), WriteError> {
    let (id, next) = {
        let target = &mut life.ledger.borrow_mut().endpoints[which];
        let next = target.secret.next();
        target.secret.unanswered.push(next);
        (target.id, next)
    };
    let late = life.failed.get();
    let secret = place::secret(next);
    life.store().rotate_signing_secret(&life.scope, id, secret, Duration::ZERO, None).await?;
    life.acknowledged(late, "a new secret");
    life.ledger.borrow_mut().endpoints[which].secret.settle(next);
    Ok(())
}

async fn create(life: &Life, name: &str) -> Result<(), WriteError> {
    let fields = ApplicationFields { name: name.to_owned(), ..ApplicationFields::default() };
    let late = life.failed.get();
    let created = life.store().create_application(&life.scope.environment, fields, None).await?;
    life.acknowledged(late, "an application");
    life.ledger.borrow_mut().applications.insert(created.item.id, Some(true));
    Ok(())
}

async fn delete(life: &Life) -> Result<(), WriteError> {
    let there =
        life.ledger.borrow().applications.iter().find(|(_, there)| **there == Some(true)).map(|(id, _)| *id);
    let Some(id) = there else { return Ok(()) };
    life.ledger.borrow_mut().applications.insert(id, None);
    let late = life.failed.get();
    life.store().delete_application(&life.scope.environment, id).await?;
    life.acknowledged(late, "a deletion");
    life.ledger.borrow_mut().applications.insert(id, Some(false));
    Ok(())
}

/// Deletes everything that is final and older than now.
pub(super) async fn expire(life: Life, mut random: StdRng) {
    let mut met = 0;
    for _ in 0..STEPS / 4 {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..3))).await;
        let now = life.store().clock().now();
        let cutoffs = Cutoffs { messages: now, attempts: now };
        if let Err(error) = life.store().expire(cutoffs, random.random_range(1..50)).await
            && life.met(&error, &mut met).await
        {
            return;
        }
    }
}

/// Checkpoints beside the writer, as the store itself makes them only for longer logs than there are here.
pub(super) async fn checkpoint(life: Life, mut random: StdRng) {
    let Ok(connection) = beside(&life.data) else { return };
    for _ in 0..STEPS {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..3000))).await;
        let how = ["PASSIVE", "PASSIVE", "RESTART", "TRUNCATE"][random.random_range(0..4)];
        // What fails is tried again later: so it is in the store.
        let _ = connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
        if life.disk.is_cut() {
            return;
        }
    }
}

/// A connection of the rig's own.
pub(super) fn beside(data: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags_and_vfs(
        data.join(DATABASE),
        OpenFlags::SQLITE_OPEN_READ_WRITE,
        Disk::vfs(),
    )?;
    connection.busy_timeout(Duration::from_millis(1))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}
