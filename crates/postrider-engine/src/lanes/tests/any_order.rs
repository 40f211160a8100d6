//! Whatever comes in whatever order: the books of the lanes add up, and no endpoint has two probes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What happens, to one of a few deliveries of a few endpoints.
#[derive(Debug, Clone)]
enum Step {
    /// It goes on: enters, is admitted, ends as this says, leaves.
    Next(Finding, Duration),
    /// The same, by hand.
    Urgent,
    /// The same, with a new configuration of its endpoint.
    Newer,
    /// It leaves, wherever it is.
    Leave,
    Pace(u16),
    Paced,
    Wait(Duration),
    Sweep,
}

fn any_step() -> impl Strategy<Value = Step> {
    let trouble = (0..Trouble::ALL.len()).prop_map(|which| Finding::Trouble(Trouble::ALL[which], None));
    let finding = prop_oneof![2 => Just(Finding::Well), 20 => trouble, 1 => Just(Finding::Nothing)];
    let took = prop_oneof![4 => Just(QUICK), 1 => Just(SLOW)];
    prop_oneof![
        60 => (finding, took).prop_map(|(finding, took)| Step::Next(finding, took)),
        3 => Just(Step::Urgent),
        1 => Just(Step::Newer),
        3 => Just(Step::Leave),
        3 => (1_u16..100).prop_map(Step::Pace),
        3 => Just(Step::Paced),
        6 => (0_u64..15_000).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        1 => Just(Step::Sweep),
    ]
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Entered,
    Admitted,
    /// The probe of the configuration of this version.
    Probing(u64),
    Ended,
}

/// The lanes, and what runs in them.
struct Run {
    lanes: Bench,
    phases: BTreeMap<(u8, u8), Phase>,
    versions: [u64; 3],
}

impl Run {
    fn step(&mut self, step: Step, of: u8, message: u8) {
        let at = (of, message);
        let phase = self.phases.get(&at).copied();
        match (step, phase) {
            (Step::Wait(time), _) => self.lanes.now = self.lanes.now.plus(time),
            (Step::Sweep, _) => drop(self.lanes.state.sweep(self.lanes.now)),
            (Step::Paced, _) => self.lanes.state.paced(),
            (Step::Pace(rate), Some(Phase::Admitted | Phase::Probing(_))) => {
                let paced = self.lanes.state.pace(endpoint(of), rate, self.lanes.now);
                if let Paced::At(at) | Paced::Shut(at) = paced {
                    assert!(at > self.lanes.now);
                }
            }
            (Step::Pace(_), _) | (Step::Leave, None) => {}
            (Step::Leave, Some(_)) | (_, Some(Phase::Ended)) => {
                self.lanes.leave(of, message);
                self.phases.remove(&at);
            }
            (_, None) => {
                if self.lanes.enter(of, message) {
                    self.phases.insert(at, Phase::Entered);
                }
            }
            (step, Some(Phase::Entered)) => self.admit(&step, at),
            (Step::Next(finding, took), Some(_)) => {
                self.lanes.end(of, message, finding, took);
                self.phases.insert(at, Phase::Ended);
            }
            (Step::Urgent | Step::Newer, Some(_)) => {}
        }
        self.lanes.state.check();
    }

    fn admit(&mut self, step: &Step, at: (u8, u8)) {
        let version = &mut self.versions[usize::from(at.0)];
        *version += u64::from(matches!(step, Step::Newer));
        let version = *version;
        let probe = |((of, _), phase): (&(u8, u8), &Phase)| *of == at.0 && *phase == Phase::Probing(version);
        let out = self.phases.iter().any(probe);
        let phase = match self.lanes.admit(at.0, at.1, version, matches!(step, Step::Urgent)) {
            Gate::Open | Gate::Mended => Phase::Admitted,
            Gate::Probe(until) => {
                assert!(!out, "a second probe");
                assert!(until > self.lanes.now);
                Phase::Probing(version)
            }
            Gate::Shut(until, _) => {
                assert!(until > self.lanes.now, "the store would not wait");
                Phase::Entered
            }
        };
        self.phases.insert(at, phase);
    }
}

proptest! {
    #[test]
    fn the_books_add_up_and_there_is_one_probe_at_most(
        steps in proptest::collection::vec((any_step(), 1_u8..=2, 0_u8..12), 1..1200),
    ) {
        let (phases, versions) = (BTreeMap::new(), [1; 3]);
        let mut run = Run { lanes: lanes(22), phases, versions };
        for (step, of, message) in steps {
            run.step(step, of, message);
        }
        for (of, message) in run.phases.into_keys() {
            run.lanes.leave(of, message);
        }
        let lanes = &mut run.lanes;
        lanes.state.check();
        prop_assert_eq!((lanes.state.in_flight(), lanes.state.room().total), (0, 22));
        prop_assert!(lanes.state.room().wide.is_empty());
        lanes.now = lanes.now.plus(Duration::from_hours(3));
        lanes.state.sweep(lanes.now);
        prop_assert_eq!((lanes.state.remembered(), lanes.state.breakers()), (0, (0, 0)));
    }
}
