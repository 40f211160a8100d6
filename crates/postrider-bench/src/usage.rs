//! What processes and threads cost, from `/proc`: processor time, memory, sleeps.

use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    time::Duration,
};

/// Clock ticks per second in `/proc/<pid>/stat`: 100 on every Linux that is not special (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A process and its children.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// User and system time so far, also of children that have ended.
    pub(crate) cpu_seconds: f64,
    /// Resident memory of its own: what PostgreSQL's processes share would count once for each.
    pub(crate) rss_bytes: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            rss_bytes: self.rss_bytes + other.rss_bytes,
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

/// A process and all its descendants, by the name of their program.
pub(crate) fn of_tree(pid: u32) -> Result<BTreeMap<String, Usage>> {
    let mut usages: BTreeMap<String, Usage> = BTreeMap::new();
    let (name, usage) = of(pid)?;
    usages.insert(name, usage);
    let mut rest = children(pid);
    while let Some(child) = rest.pop() {
        rest.extend(children(child));
        // A child may end while they are read.
        if let Ok((name, usage)) = of(child) {
            let sum = usages.remove(&name).map_or(usage, |sum| sum + usage);
            usages.insert(name, sum);
        }
    }
    Ok(usages)
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// One process: the name of its program, and what it uses.
fn of(pid: u32) -> Result<(String, Usage)> {
    let folder = Path::new("/proc").join(pid.to_string());
    let gone = || format!("process {pid} is gone");
    let stat = fs::read_to_string(folder.join("stat")).with_context(gone)?;
    let stat = Stat::parse(&stat).with_context(|| format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(folder.join("status")).with_context(gone)?;
    let resident = field(&status, "VmRSS:").unwrap_or(0);
    let rss_bytes = resident.saturating_sub(field(&status, "RssShmem:").unwrap_or(0)) * 1024;
    Ok((stat.name.to_owned(), Usage { cpu_seconds: stat.cpu_seconds, rss_bytes }))
}

/// How often each thread of a process and its descendants went to sleep by itself so far: each time something had to wake
/// it. By thread: the sum would fall when one of them ends.
pub(crate) fn waits(pid: u32) -> HashMap<String, u64> {
    let (mut waits, mut rest) = (HashMap::new(), vec![pid]);
    while let Some(process) = rest.pop() {
        rest.extend(children(process));
        for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let id = thread.file_name().to_string_lossy().into_owned();
            waits.insert(id, field(&status, "voluntary_ctxt_switches:").unwrap_or(0));
        }
    }
    waits
}

/// The number behind a name in `/proc/<pid>/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The parts of `/proc/<pid>/stat` that are used.
struct Stat<'a> {
    name: &'a str,
    cpu_seconds: f64,
}

impl<'a> Stat<'a> {
    /// The name stands in parentheses and may hold anything, also parentheses.
    fn parse(text: &'a str) -> Option<Self> {
        let (_, rest) = text.split_once('(')?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut times = rest.split(' ').skip(11);
        let mut ticks = 0.0;
        // Its own user and system time, then that of children it has waited for.
        for _ in 0..4 {
            ticks += times.next()?.parse::<f64>().ok()?;
        }
        Some(Self { name, cpu_seconds: ticks / TICKS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat =
            Stat::parse("71 (a) b) (c) S 7 71 71 0 -1 4194560 99 0 0 0 250 40 7 3 20 0 9 0 1 2 3").unwrap();
        assert_eq!(stat.name, "a) b) (c");
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
    fn a_process_is_measured_with_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let usages = of_tree(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(usages.values().any(|own| own.rss_bytes > 1_000_000), "{usages:?}");
        assert!(usages.len() >= 2, "the child is missing: {usages:?}");
        assert!(of(u32::MAX).is_err());
    }
}
