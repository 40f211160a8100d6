//! The machine that figures are from.

use anyhow::{Context, Result};
use serde::Serialize;
use std::{fs, io::Write, path::Path, time::Instant};

/// Syncs that are timed.
const SYNCS: usize = 300;
/// Bytes that each of them carries: a page of the database's log.
const SYNC_BYTES: usize = 4096;

/// What matters of it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// `fdatasync` of an appended page where databases are put, in milliseconds: median and 99th percentile. What a durable
    /// commit costs at least.
    pub(crate) sync_p50_ms: f64,
    pub(crate) sync_p99_ms: f64,
}

impl Machine {
    /// Describes it; `scratch` is where databases are put.
    pub(crate) fn describe(scratch: &Path) -> Result<Self> {
        let (sync_p50_ms, sync_p99_ms) =
            sync(scratch).with_context(|| format!("writing to {}", scratch.display()))?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        Ok(Self {
            processor: value("/proc/cpuinfo", "model name").unwrap_or_else(|| String::from("unknown")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: value("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel,
            sync_p50_ms,
            sync_p99_ms,
        })
    }

    /// In one sentence.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{}, {} cores, {:.1} GiB, Linux {}; fdatasync p50 {:.2} ms, p99 {:.2} ms.",
            self.processor,
            self.cores,
            f64::from(u32::try_from(self.memory_mib).unwrap_or(u32::MAX)) / 1024.0,
            self.kernel,
            self.sync_p50_ms,
            self.sync_p99_ms
        )
    }
}

/// The value behind a name and a colon.
fn value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn sync(folder: &Path) -> Result<(f64, f64)> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[7; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(SYNCS * part / 100).copied().unwrap_or(f64::NAN);
    Ok((at(50), at(99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_memory_and_a_disk() {
        let machine = Machine::describe(&std::env::temp_dir()).unwrap();
        assert!(machine.cores >= 1 && machine.memory_mib > 0, "{machine:?}");
        assert!(machine.sync_p50_ms <= machine.sync_p99_ms, "{machine:?}");
        assert!(machine.sentence().contains("cores"));
    }
}
