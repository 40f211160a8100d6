//! A running server for the stages that need one: the built binary with `--dev` on a database of its own.

use crate::process::{command, succeeds};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) url: String,
    /// A key for everything in its environment.
    pub(crate) token: String,
}

impl Server {
    /// Builds the binary and starts it in `target/xtask/<name>`: on the PostgreSQL database of this URL, or else on an
    /// embedded one there, which is empty.
    pub(crate) fn start(root: &Path, name: &str, database: Option<&str>) -> Result<Self> {
        anyhow::ensure!(
            succeeds(&mut command(root, "cargo", ["build", "--quiet", "-p", "postrider"])),
            "the build failed"
        );
        let data = root.join("target/xtask").join(name);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        }
        fs::create_dir_all(&data)?;
        let log = fs::File::create(data.join("server.log"))?;
        let binary = target(root).join("debug/postrider");
        let mut run = std::process::Command::new(&binary);
        run.current_dir(&data).args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        if let Some(url) = database {
            // A throw-away cluster does not sync.
            run.env("POSTRIDER_DATABASE_URL", url)
                .env("POSTRIDER_DATABASE__DANGEROUS_ACCEPT_DATA_LOSS", "true");
        }
        run.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = run.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
        let mut server = Self { child, url: String::new(), token: String::new() };
        server.wait(&data)?;
        Ok(server)
    }

    /// Waits for the file that a `--dev` server writes when it listens.
    fn wait(&mut self, data: &Path) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < START {
            let text = fs::read_to_string(data.join("dev.json")).unwrap_or_default();
            let ready: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if let (Some(url), Some(token)) = (ready["url"].as_str(), ready["token"].as_str()) {
                (self.url, self.token) = (url.to_owned(), token.to_owned());
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(data.join("server.log")).unwrap_or_default();
                anyhow::bail!("the server ended ({status}):\n{log}");
            }
            sleep(POLL);
        }
        anyhow::bail!("the server did not start within {START:?}")
    }

    /// Asks it to stop as an operator would. `true` when it ended with exit code 0.
    pub(crate) fn stop(mut self) -> Result<bool> {
        let id = self.child.id().to_string();
        anyhow::ensure!(
            succeeds(&mut command(Path::new("."), "kill", ["-TERM", &id])),
            "cannot signal the server"
        );
        let started = Instant::now();
        while started.elapsed() < STOP {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    println!("the server ended with {status} after SIGTERM");
                }
                return Ok(status.success());
            }
            sleep(POLL);
        }
        println!("the server did not end within {STOP:?} after SIGTERM");
        Ok(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of build results.
fn target(root: &Path) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "cargo's own setting, not one of the server")]
    std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root.join("target"), |folder| root.join(folder))
}
