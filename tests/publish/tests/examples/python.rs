//! The Python example, with psycopg 3, which is installed into a virtual environment once. Skipped, and said so, where there
//! is no Python or no way to install.

use crate::{example, shop::Shop};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The oldest release of the driver's third generation that has wheels for the Python of today's distributions.
const DRIVER: &str = "psycopg[binary]==3.2.13";

/// A Python that knows the driver.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask/clients/python-psycopg-3.2.13");
    let python = venv.join("bin/python");
    let knows = |python: &Path| {
        Command::new(python).args(["-c", "import psycopg"]).output().is_ok_and(|done| done.status.success())
    };
    if knows(&python) {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
    };
    let made = run(Path::new("python3"), &["-m", "venv", venv.to_str()?])
        && run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", DRIVER]);
    (made && knows(&python)).then_some(python)
}

/// Runs the example as it stands; it finds the database in `dsn`, and leaves the message in `message_id`.
fn run(python: &Path, shop: &Shop) -> Output {
    let code = format!("import sys\ndsn = sys.argv[1]\n{}\nprint(message_id)\n", example("python"));
    Command::new(python).args(["-c", &code, &shop.url]).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_publishes_if_and_only_if_it_commits() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python 3 with venv, or {DRIVER} could not be installed");
        return;
    };
    let shop = Shop::open().await;
    let refused = run(&python, &shop);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains("refused: fraud"), "{errors}");
    shop.has_nothing().await;
    shop.trust().await;
    let done = run(&python, &shop);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    shop.has(String::from_utf8_lossy(&done.stdout).trim(), "paid-44").await;
}
