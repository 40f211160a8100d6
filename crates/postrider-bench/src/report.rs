//! The report of a run: for people as Markdown, for programs as JSON, with plots beside them.
//!
//! The JSON is one object: `version` (of this layout, 1), `started_at` (RFC 3339), `machine`, `settings` (what the sizes and
//! durations were), `seconds` (of the whole run) and `scenarios`. Each scenario has `name`, `about`, `seconds`, `error` (null, or
//! why it has no figures), `notes`, `plots` (file names) and `figures`. Each figure has `name`, `unit` (`per_second`,
//! `microseconds`, `milliseconds`, `seconds`, `mebibytes`, `bytes`, `percent`, `count`), `values` (one a pair; null where it
//! could not be measured), `median`, `ratio` (null, or `to`, `values`, `median`) and `reach` (null, or `better` (`more` or `less`),
//! `floor`, `goal`, `verdict` (`goal`, `floor` or `missed`)).

use crate::{
    figures::{Figure, Judged, Unit},
    machine::Machine,
    plot::Plot,
    settings::Settings,
};
use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use std::{fmt::Write, fs, path::Path};

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    started_at: String,
    machine: Machine,
    settings: Sizes,
    pub(crate) seconds: f64,
    pub(crate) scenarios: Vec<ScenarioReport>,
}

/// What the run was told, as far as it moves figures.
#[derive(Debug, Serialize)]
struct Sizes {
    seconds: f64,
    pairs: usize,
    connections: usize,
    payload_bytes: usize,
    pending: u64,
    attempts: u64,
    applications: usize,
    own_server: bool,
    nodes: usize,
    /// PostgreSQL's version and settings, when servers are on it.
    database: String,
}

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct ScenarioReport {
    pub(crate) name: &'static str,
    /// What was done, in a sentence or two.
    pub(crate) about: String,
    pub(crate) seconds: f64,
    pub(crate) error: Option<String>,
    pub(crate) figures: Vec<Figure>,
    /// What a reader must know to judge them.
    pub(crate) notes: Vec<String>,
    #[serde(serialize_with = "names")]
    pub(crate) plots: Vec<Plot>,
}

impl ScenarioReport {
    pub(crate) fn new(name: &'static str, about: impl Into<String>, figures: Vec<Figure>) -> Self {
        Self { name, about: about.into(), seconds: 0.0, error: None, figures, notes: vec![], plots: vec![] }
    }

    pub(crate) fn failed(name: &'static str, error: &anyhow::Error) -> Self {
        Self { error: Some(format!("{error:#}")), ..Self::new(name, "", vec![]) }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn plot(mut self, plot: Plot) -> Self {
        self.plots.push(plot);
        self
    }
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            version: 1,
            started_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            machine: Machine::describe(&settings.scratch)?,
            settings: Sizes {
                seconds: settings.duration.as_secs_f64(),
                pairs: settings.pairs,
                connections: settings.connections,
                payload_bytes: settings.payload_bytes,
                pending: settings.pending,
                attempts: settings.attempts,
                applications: settings.applications,
                own_server: settings.launch.is_own(),
                nodes: settings.launch.nodes(),
                database: String::new(),
            },
            seconds: 0.0,
            scenarios: Vec::new(),
        })
    }

    /// What the servers' database says of itself.
    pub(crate) fn describe_database(&mut self, sentence: &str) {
        sentence.clone_into(&mut self.settings.database);
    }

    /// Writes `report.md`, `report.json` and the plots into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(folder.join("report.md"), self.markdown())?;
        fs::write(folder.join("report.json"), self.json()?)?;
        for plot in self.scenarios.iter().flat_map(|scenario| &scenario.plots) {
            fs::write(folder.join(format!("{}.svg", plot.name)), plot.svg())?;
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// For people.
    pub(crate) fn markdown(&self) -> String {
        let Sizes { seconds, pairs, connections, payload_bytes, .. } = &self.settings;
        let mut text = format!(
            "# Figures of {}\n\n{}\n\nMedians of {pairs} interleaved pairs of {seconds} s, {connections} connections, payloads of \
             {payload_bytes} bytes; least and most in parentheses. Publisher, server and receiver share the machine. The whole \
             run took {:.0} minutes.\n",
            self.started_at,
            self.machine.sentence(),
            self.seconds / 60.0
        );
        if !self.settings.database.is_empty() {
            let _ = writeln!(text, "\nNodes: {}. {}", self.settings.nodes, self.settings.database);
        }
        self.write_verdicts(&mut text);
        for scenario in &self.scenarios {
            write_scenario(&mut text, scenario);
        }
        text
    }

    /// All that is judged, on one table.
    fn write_verdicts(&self, text: &mut String) {
        let judged: Vec<_> = self
            .scenarios
            .iter()
            .flat_map(|scenario| scenario.figures.iter().map(move |figure| (scenario.name, figure)))
            .filter_map(|(scenario, figure)| figure.reach.map(|reach| (scenario, figure, reach)))
            .collect();
        if judged.is_empty() {
            return;
        }
        text.push_str(
            "\n## Verdicts\n\n| figure | measured | at least | goal | verdict |\n|---|---|---|---|---|\n",
        );
        for (scenario, figure, judged) in judged {
            let (value, show) = shown(figure);
            let Judged { reach, verdict } = judged;
            let goal = reach.goal.map(|goal| format!("{} {}", reach.sign(), show(goal))).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {scenario}: {} | {value} | {} {} | {goal} | {} |",
                figure.name,
                reach.sign(),
                show(reach.floor),
                verdict.text(reach.goal.is_some())
            );
        }
    }
}

/// What is judged of a figure, and how its bounds are written.
fn shown(figure: &Figure) -> (String, impl Fn(f64) -> String) {
    let unit = figure.unit;
    let is_ratio = figure.ratio.is_some();
    let value = match &figure.ratio {
        Some(ratio) => format!("{:.3} of {}", ratio.median, ratio.to),
        None => unit.show(figure.median),
    };
    (value, move |bound: f64| if is_ratio { format!("{bound:.2}") } else { unit.show(bound) })
}

fn write_scenario(text: &mut String, scenario: &ScenarioReport) {
    let _ = writeln!(text, "\n## {}\n", scenario.name);
    if !scenario.about.is_empty() {
        let _ = writeln!(text, "{}\n", scenario.about);
    }
    if let Some(error) = &scenario.error {
        let _ = writeln!(text, "**Not measured:** {error}");
        return;
    }
    text.push_str("| figure | median | against |\n|---|---|---|\n");
    for figure in &scenario.figures {
        let ratio = figure.ratio.as_ref().map(|ratio| format!("{:.3} of {}", ratio.median, ratio.to));
        let _ = writeln!(
            text,
            "| {} | {}{} | {} |",
            figure.name,
            figure.unit.show(figure.median),
            range(figure.unit, &figure.values),
            ratio.unwrap_or_default()
        );
    }
    for note in &scenario.notes {
        let _ = writeln!(text, "\n{note}");
    }
    for plot in &scenario.plots {
        let _ = writeln!(text, "\n![{}]({}.svg)", plot.title, plot.name);
    }
}

/// Least and most, when there are several.
fn range(unit: Unit, values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() > 1 { format!(" ({} to {})", unit.show(least), unit.show(most)) } else { String::new() }
}

fn names<S: Serializer>(plots: &[Plot], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(plots.iter().map(|plot| format!("{}.svg", plot.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach;

    fn scenario() -> ScenarioReport {
        let rate = Figure::new("accepted", Unit::PerSecond, vec![20.0, 30.0, 25.0]);
        let rate = rate.against("limit", &[100.0, 100.0, 100.0]).judged(reach::STEADY);
        let p99 = Figure::once("p99", Unit::Milliseconds, 30.0).judged(reach::LATENCY_P99);
        ScenarioReport::new("steady", "One endpoint.", vec![rate, p99]).note("Beware.")
    }

    fn report(scenarios: Vec<ScenarioReport>) -> Report {
        Report {
            version: 1,
            started_at: "2026-11-23T00:00:00Z".to_owned(),
            machine: Machine::describe(&std::env::temp_dir()).unwrap(),
            settings: Sizes {
                seconds: 1.0,
                pairs: 3,
                connections: 64,
                payload_bytes: 1024,
                pending: 1,
                attempts: 1,
                applications: 1,
                own_server: true,
                nodes: 1,
                database: String::new(),
            },
            seconds: 90.0,
            scenarios,
        }
    }

    #[test]
    fn each_figure_stands_beside_its_floor_and_goal() {
        let text = report(vec![scenario()]).markdown();
        for line in [
            "| steady: accepted | 0.250 of limit | ≥ 0.20 | ≥ 0.30 | met floor |",
            "| steady: p99 | 30.00 ms | ≤ 15.00 ms | ≤ 5.00 ms | **missed** |",
            "| accepted | 25/s (20/s to 30/s) | 0.250 of limit |",
            "| p99 | 30.00 ms |  |",
            "Beware.",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn what_failed_says_why_and_has_no_table() {
        let error = anyhow::anyhow!("it died").context("publishing");
        let text = report(vec![ScenarioReport::failed("steady", &error)]).markdown();
        assert!(text.contains("**Not measured:** publishing: it died"), "{text}");
        assert!(!text.contains("Verdicts") && !text.contains("| median |"));
    }

    /// Others read it: names are a promise.
    #[test]
    fn the_json_has_the_layout_that_is_documented() {
        let json: serde_json::Value =
            serde_json::from_slice(&report(vec![scenario()]).json().unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        let figure = &json["scenarios"][0]["figures"][0];
        assert_eq!(figure["unit"], "per_second");
        assert_eq!(figure["ratio"]["median"], 0.25);
        assert_eq!(figure["reach"]["verdict"], "floor");
        assert_eq!(figure["reach"]["better"], "more");
        assert_eq!(json["scenarios"][0]["figures"][1]["reach"]["goal"], 5.0);
    }
}
