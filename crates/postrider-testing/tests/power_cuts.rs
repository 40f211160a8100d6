//! The rig of power cuts can fail: on a disk that ignores syncs it finds losses, on an honest one none.

use postrider_testing::power::{Ignored, Options, run};

/// I1, R-POWER
#[test]
fn nothing_answered_is_lost_on_an_honest_disk() {
    let report = run(Options { seed: 1, seeds: 20, ignored: Ignored::None }, |_| {});
    assert_eq!(report.violations, [""; 0]);
    assert!(report.accepted > 500 && report.recorded > 500 && report.errors > 0, "{report:?}");
}

#[test]
fn losses_are_found_when_syncs_do_nothing() {
    for ignored in [Ignored::Commits, Ignored::All] {
        let report = run(Options { seed: 1, seeds: 20, ignored }, |_| {});
        let lost = report.violations.iter().filter(|text| text.contains("is lost")).count();
        assert!(lost > 0, "{ignored:?}: {report:?}");
    }
}
