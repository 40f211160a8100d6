//! What processes and threads cost, from `/proc`: processor time, memory, wake-ups.

use anyhow::{Context, Result};
use std::{collections::HashMap, fs, path::Path, time::Duration};

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux that is not special (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A process and its children.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// User and system time so far.
    pub(crate) cpu_seconds: f64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// How often its threads went to sleep by themselves so far: each time something had to wake them.
    pub(crate) waits: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            waits: self.waits + other.waits,
        }
    }
}

/// Processor time of the calling thread.
pub(crate) fn this_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time of the threads of this process with such a name.
pub(crate) fn threads_named(name: &str) -> Result<f64> {
    let mut seconds = 0.0;
    for thread in fs::read_dir("/proc/self/task")?.flatten() {
        // A thread may end while they are read.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
        if let Some(stat) = Stat::parse(&stat)
            && stat.name == name
        {
            seconds += stat.cpu_seconds;
        }
    }
    Ok(seconds)
}

/// A process and all its descendants.
pub(crate) fn of_tree(pid: u32) -> Result<Usage> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if let Some(stat) = Stat::parse(&stat) {
            children.entry(stat.parent).or_default().push(id);
        }
    }
    let mut usage = of(pid)?;
    let mut rest = children.remove(&pid).unwrap_or_default();
    while let Some(child) = rest.pop() {
        rest.extend(children.remove(&child).unwrap_or_default());
        // A child may end while they are read.
        if let Ok(more) = of(child) {
            usage = usage + more;
        }
    }
    Ok(usage)
}

/// One process.
pub(crate) fn of(pid: u32) -> Result<Usage> {
    let folder = Path::new("/proc").join(pid.to_string());
    let gone = || format!("process {pid} is gone");
    let stat = fs::read_to_string(folder.join("stat")).with_context(gone)?;
    let stat = Stat::parse(&stat).with_context(|| format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(folder.join("status")).with_context(gone)?;
    let rss_bytes = field(&status, "VmRSS:").unwrap_or(0) * 1024;
    let mut waits = 0;
    for thread in fs::read_dir(folder.join("task")).with_context(gone)?.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        waits += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(Usage { cpu_seconds: stat.cpu_seconds, rss_bytes, waits })
}

/// The number behind a name in `/proc/<pid>/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The parts of `/proc/<pid>/stat` that are used.
struct Stat<'a> {
    name: &'a str,
    parent: u32,
    cpu_seconds: f64,
}

impl<'a> Stat<'a> {
    /// The name stands in parentheses and may hold anything, also parentheses.
    fn parse(text: &'a str) -> Option<Self> {
        let (_, rest) = text.split_once('(')?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(1);
        let parent = fields.next()?.parse().ok()?;
        let mut times = fields.skip(9);
        let user: f64 = times.next()?.parse().ok()?;
        let system: f64 = times.next()?.parse().ok()?;
        Some(Self { name, parent, cpu_seconds: (user + system) / TICKS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat =
            Stat::parse("71 (a) b) (c) S 7 71 71 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 9 0 1 2 3").unwrap();
        assert_eq!((stat.name, stat.parent), ("a) b) (c", 7));
        assert!((stat.cpu_seconds - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_number_of_the_status_is_found_by_its_name() {
        let status =
            "Name:\tx\nVmRSS:\t    1024 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4\n";
        assert_eq!(field(status, "VmRSS:"), Some(1024));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(4));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let own = of_tree(std::process::id()).unwrap();
        assert!(own.rss_bytes > 100_000, "{own:?}");
        assert!(of(u32::MAX).is_err());
    }
}
