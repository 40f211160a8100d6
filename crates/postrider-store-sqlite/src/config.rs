//! Settings of the embedded store.

use postrider_model::retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Settings of the embedded store. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the database lies; created when missing. A local file system, never a network one. Not part of the file:
    /// the server's own setting counts.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Connections that read; each serves one query at a time.
    pub readers: usize,
    /// Operations that may wait for the writer. Beyond that callers wait, and after 5 seconds are told to come back.
    pub write_queue: usize,
    /// Operations that share one commit at most.
    pub batch: usize,
    /// Below this much free space, in bytes, publishing is refused while deliveries go on. At least 64 MiB.
    pub low_water_bytes: u64,
    /// Payload bytes of just accepted messages that may be kept in memory until they are claimed.
    pub hand_over_bytes: usize,
    /// Endpoints whose configuration is kept in memory for matching and sending.
    pub cached_endpoints: usize,
    /// How long a payload is kept when the publisher does not say, in seconds.
    pub payload_retention_seconds: u64,
    /// Age at which deliveries of endpoints that set nothing of their own about retries expire, in seconds. Not part
    /// of the file: it follows from the engine's retry policy.
    #[serde(skip)]
    pub delivery_deadline_seconds: u64,
    /// Largest size of the database in pages of 8 KiB; for tests of a full disk.
    #[serde(skip)]
    pub max_pages: Option<u32>,
    /// For tests of failing disks.
    #[serde(skip)]
    pub disk: Option<TestDisk>,
}

/// What stands in for the disk in tests.
#[derive(Debug, Clone, Copy)]
pub struct TestDisk {
    /// SQLite's layer over the file system, by the name that it was registered under.
    pub vfs: &'static str,
    /// Syncs the file at this path, as `fdatasync` would.
    pub sync: fn(&Path) -> io::Result<()>,
}

impl PartialEq for TestDisk {
    fn eq(&self, other: &Self) -> bool {
        self.vfs == other.vfs
    }
}

impl Eq for TestDisk {}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("postrider-data"),
            readers: 4,
            write_queue: 4096,
            batch: 512,
            low_water_bytes: 64 * 1024 * 1024,
            hand_over_bytes: 64 * 1024 * 1024,
            cached_endpoints: 20_000,
            payload_retention_seconds: 30 * 24 * 3600,
            delivery_deadline_seconds: RetryPolicy::default().deadline().as_secs(),
            max_pages: None,
            disk: None,
        }
    }
}
