//! Figures and how they are written: medians, and ratios to the limit of the same pair.

use crate::Settings;
use serde::Serialize;
use std::fmt::Write;

/// All figures of a run, one entry a pair.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    machine: Machine,
    seconds: u64,
    connections: usize,
    /// Deliveries per second without storage.
    pub(crate) limit: Vec<f64>,
    pub(crate) steady: Vec<Steady>,
    pub(crate) latency: Vec<Latency>,
}

/// One endpoint, closed loop.
#[derive(Debug, Serialize)]
pub(crate) struct Steady {
    pub(crate) accepted_per_second: f64,
    /// Over the whole time until the last message arrived.
    pub(crate) delivered_per_second: f64,
    pub(crate) drain_seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time per delivery, in microseconds: the server's process, our publisher, our receiver.
    pub(crate) server_cpu_us: Option<f64>,
    pub(crate) publisher_cpu_us: f64,
    pub(crate) receiver_cpu_us: f64,
}

/// One endpoint, open loop.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    fn describe() -> Self {
        let processor = std::fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                text.lines().find_map(|line| {
                    line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
                })
            })
            .unwrap_or_else(|| String::from("unknown"));
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        Self { processor, cores: std::thread::available_parallelism().map_or(1, usize::from), kernel }
    }
}

impl Figures {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            machine: Machine::describe(),
            seconds: settings.duration.as_secs(),
            connections: settings.connections,
            limit: Vec::new(),
            steady: Vec::new(),
            latency: Vec::new(),
        }
    }

    /// Median over pairs of a figure's ratio to the limit of its pair.
    fn ratio(&self, figure: impl Fn(&Steady) -> f64) -> f64 {
        median(self.steady.iter().zip(&self.limit).map(|(steady, limit)| figure(steady) / limit))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// A table for people.
pub(crate) fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    let Machine { processor, cores, kernel } = &figures.machine;
    let _ = writeln!(
        text,
        "{processor}, {cores} cores, Linux {kernel}. Medians of {} pairs, {} s each, {} connections.\n",
        figures.limit.len(),
        figures.seconds,
        figures.connections
    );
    let _ = writeln!(text, "| figure | median | of the limit |\n|---|---|---|");
    let limit = median(figures.limit.iter().copied());
    let _ = writeln!(text, "| limit: signed deliveries without storage | {limit:.0}/s | 1 |");
    if !figures.steady.is_empty() {
        let of = |figure: fn(&Steady) -> f64| median(figures.steady.iter().map(figure));
        let _ = writeln!(
            text,
            "| steady, accepted | {:.0}/s | {:.3} |",
            of(|run| run.accepted_per_second),
            figures.ratio(|run| run.accepted_per_second)
        );
        let _ = writeln!(
            text,
            "| steady, delivered | {:.0}/s | {:.3} |",
            of(|run| run.delivered_per_second),
            figures.ratio(|run| run.delivered_per_second)
        );
        let _ = writeln!(text, "| steady, drain after publishing | {:.2} s | |", of(|run| run.drain_seconds));
        let _ = writeln!(
            text,
            "| steady, end to end p50 / p99 | {:.1} / {:.1} ms | |",
            of(|run| run.p50_ms),
            of(|run| run.p99_ms)
        );
        let _ = writeln!(
            text,
            "| steady, processor per delivery: server / publisher / receiver | {:.1} / {:.1} / {:.1} µs | |",
            of(|run| run.server_cpu_us.unwrap_or(f64::NAN)),
            of(|run| run.publisher_cpu_us),
            of(|run| run.receiver_cpu_us)
        );
    }
    if !figures.latency.is_empty() {
        let of = |figure: fn(&Latency) -> f64| median(figures.latency.iter().map(figure));
        let _ = writeln!(
            text,
            "| open loop at {:.0}/s, end to end p50 / p99 / p99.9 | {:.2} / {:.2} / {:.2} ms | |",
            of(|run| run.rate),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            of(|run| run.p999_ms)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_pairs_is_not_moved_by_one_bad_run() {
        assert!((median([3.0, 1.0, 2.0, 100.0, 2.5].into_iter()) - 2.5).abs() < f64::EPSILON);
        assert!((median([1.0, 2.0].into_iter()) - 1.5).abs() < f64::EPSILON);
    }
}
