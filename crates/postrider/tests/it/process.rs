//! The built binary as an operator runs it.

use postrider_testing::{Backend, Client};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What a command that ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// A command of the binary in the given folder, and in an environment that says no more than which database it has.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(arguments).current_dir(folder).env_clear().stdin(Stdio::null());
    // The others have nothing to do with it.
    if matches!(arguments, ["serve" | "api-key" | "health", ..]) {
        command.envs(Backend::chosen().variables(folder));
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = command(folder, arguments).envs(environment.iter().copied()).output().unwrap();
    Said {
        code: output.status.code(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    data: PathBuf,
    pub(crate) token: String,
    pub(crate) url: String,
}

impl Process {
    /// Starts `serve --dev` on a random port with its data in `folder/data`, and waits until it listens.
    pub(crate) fn dev(folder: &Path) -> Self {
        let data = folder.join("data");
        // A process that was killed leaves its file behind.
        let _ = fs::remove_file(data.join("dev.json"));
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command(folder, &["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", "data"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Self { child, data, token: String::new(), url: String::new() };
        let started = Instant::now();
        while process.url.is_empty() {
            assert!(started.elapsed() < PATIENCE, "no start: {}", process.log());
            assert!(process.child.try_wait().unwrap().is_none(), "it ended: {}", process.log());
            let text = fs::read_to_string(process.data.join("dev.json")).unwrap_or_default();
            let ready: Value = serde_json::from_str(&text).unwrap_or_default();
            if let (Some(url), Some(token)) = (ready["url"].as_str(), ready["token"].as_str()) {
                url.clone_into(&mut process.url);
                token.clone_into(&mut process.token);
            }
            std::thread::sleep(POLL);
        }
        process
    }

    /// What it printed and logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.with_file_name("log")).unwrap_or_default()
    }

    /// A client with its development key.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.url.trim_start_matches("http://").parse().unwrap(), Some(&self.token))
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
