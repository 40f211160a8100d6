//! The short form of the simulation; the long one is `cargo xtask rig simulate --seeds 10000`.

use postrider_simulation::{Mode, run};

/// Entries of a trace that a failure shows.
const TAIL: usize = 60;
const SEEDS: u64 = 300;

fn hold(seeds: impl IntoIterator<Item = u64>, mode: Mode) {
    for seed in seeds {
        let report = run(seed, mode, TAIL);
        let repeat = format!("cargo xtask rig simulate --seeds 1 --from {seed} --mode {mode}");
        assert_eq!(report.failure, None, "repeat it: {repeat}");
    }
}

/// I1 to I12: nothing forbidden happens while nodes die, databases fail, clocks jump and endpoints change.
#[test]
fn nothing_forbidden_happens_in_the_middle_of_trouble() {
    hold(1..=SEEDS, Mode::Safety);
}

/// I1, I12: once trouble is over, everything that was accepted comes to its end.
#[test]
fn everything_comes_to_its_end_once_trouble_is_over() {
    hold(1..=SEEDS, Mode::Liveness);
}

/// Seeds that found something, each with what it was: a plan that is drawn differently makes them ordinary ones.
#[test]
fn seeds_that_found_something_hold() {
    for (seed, mode, _found) in [
        (18, Mode::Liveness, "deferrals outlived a clock that was set back"),
        (224, Mode::Safety, "a drain gave back what had been sent"),
        (
            10_588,
            Mode::Liveness,
            "a delivery that waited for its turn at a rate waited for a clock that was set back",
        ),
        (685, Mode::Safety, "a slow endpoint that closed its breaker got more than a slow one's places"),
    ] {
        hold([seed], mode);
    }
}

/// Without it a seed that failed could not be looked into.
#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in 1_000..1_020 {
        for mode in Mode::ALL {
            assert_eq!(run(seed, mode, TAIL), run(seed, mode, TAIL), "seed {seed}, {mode}");
        }
    }
    assert_ne!(run(1_000, Mode::Safety, TAIL).hash, run(1_001, Mode::Safety, TAIL).hash);
}
