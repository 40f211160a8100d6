//! The storage contract in memory, written to be obviously right: plain maps, looked through from end to end.
//!
//! The cast: [`Disk`] is what survives a crash; [`ModelStore`] is one process that owns it, with what only its memory
//! knows (leases, deferrals); [`Weather`] is what happens to it from outside; a file per noun of the contract. Crashing
//! is dropping a store; opening its disk anew finds what had been committed. It passes the suite of the contract
//! (`tests/conformance.rs`), so that what is simulated on it holds for the others.

mod access;
mod applications;
mod attempts;
mod claim;
mod deliveries;
mod disk;
mod endpoints;
mod event_types;
mod health;
mod hold;
mod memory;
mod messages;
mod paging;
mod record;
mod retention;
mod start;
mod weather;

pub use disk::{Disk, StoredDelivery};
pub use weather::{Call, Calm, Deed, Weather};

use memory::Memory;
use postrider_model::time::Timestamp;
use postrider_store::{Clock, Ids, Store, StoreError, WriteError};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// What survives a crash, shared by the processes that own it one after the other.
pub type SharedDisk = Arc<Mutex<Disk>>;

/// One process with a disk.
pub struct ModelStore {
    disk: SharedDisk,
    memory: Mutex<Memory>,
    clock: Arc<Clock>,
    ids: Arc<Ids>,
    claimable: Notify,
    weather: Arc<dyn Weather>,
    boot: u64,
    /// Age at which deliveries of endpoints without own settings expire.
    age: Duration,
}

/// What a store is opened with.
pub struct Setup {
    /// The time that everything goes by.
    pub clock: Arc<Clock>,
    /// Where ids come from; the same for all processes, which here follow each other within an id's 4 ms.
    pub ids: Arc<Ids>,
    /// What happens to it.
    pub weather: Arc<dyn Weather>,
    /// Age at which deliveries of endpoints that set nothing of their own about retries expire.
    pub delivery_age: Duration,
}

impl ModelStore {
    /// Takes over a disk: whoever had it before can do nothing more. Attempts that had begun are booked as interrupted.
    pub fn open(disk: SharedDisk, setup: Setup) -> Self {
        let Setup { clock, ids, weather, delivery_age } = setup;
        let boot = {
            let mut disk = lock(&disk);
            disk.boot += 1;
            start::recover(&mut disk, &ids, clock.now());
            disk.boot
        };
        let memory = Mutex::default();
        Self { disk, memory, clock, ids, claimable: Notify::new(), weather, boot, age: delivery_age }
    }

    /// The disk.
    pub fn disk(&self) -> SharedDisk {
        Arc::clone(&self.disk)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// A look at the disk.
    async fn read<T>(&self, look: impl FnOnce(&Disk) -> T) -> Result<T, StoreError> {
        self.weather.before(Call::Read).await?;
        let answer = {
            let disk = lock(&self.disk);
            self.check_open(&disk)?;
            look(&disk)
        };
        self.weather.after(Call::Read).await?;
        Ok(answer)
    }

    /// A transaction. It must change nothing when it refuses.
    async fn write<T, E: From<StoreError>>(
        &self,
        call: Call,
        change: impl FnOnce(&mut Disk, &mut Memory, Timestamp) -> Result<T, E>,
    ) -> Result<T, E> {
        self.weather.before(call).await?;
        let answer = {
            let mut disk = lock(&self.disk);
            self.check_open(&disk)?;
            let (mut memory, now) = (self.memory(), self.clock.now());
            memory.latest = memory.latest.max(now);
            let answer = change(&mut disk, &mut memory, now);
            disk.commits += u64::from(answer.is_ok());
            answer
        };
        self.claimable.notify_one();
        self.weather.after(call).await?;
        answer
    }

    fn check_open(&self, disk: &Disk) -> Result<(), StoreError> {
        if self.memory().closed || disk.boot != self.boot {
            let detail = "the store is closed".to_owned();
            return Err(StoreError::Unavailable { detail, retry_after: Duration::from_secs(1) });
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for ModelStore {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn ids(&self) -> &Ids {
        &self.ids
    }

    async fn close(&self) {
        self.memory().closed = true;
    }
}

/// The error of a write that only the store can fail.
fn store_error(error: WriteError) -> StoreError {
    match error {
        WriteError::Store(error) => error,
        other => StoreError::Internal { detail: other.to_string() },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
