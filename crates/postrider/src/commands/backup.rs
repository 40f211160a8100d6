//! `backup`: has the server make one, or makes it itself, and shows how far it is.

use super::{print, reached::Reached};
use crate::{admin::backups::Ask, cli::Backup, failure::Failure};
use serde_json::Value;
use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// How often the server is asked how far it is.
const ASK: Duration = Duration::from_millis(200);

pub(super) async fn run(arguments: Backup) -> Result<(), Failure> {
    let to = target(&arguments.to)?;
    let ask = Ask { to: to.clone(), bytes_per_second: arguments.mib_per_second * 1024 * 1024 };
    let ask = serde_json::to_value(&ask).map_err(|error| Failure::other(error.to_string()))?;
    let reached = Reached::of(&arguments.settings).await?;
    let made = make(&reached, &ask).await;
    reached.close().await;
    let made = made?;
    if arguments.json {
        return print(&format!("{made}\n"));
    }
    print(&format!(
        "{}\n\nA backup of {} as of {}, {}. It cannot be used without the keyring, which is not in it (keys: {}): keep a \
         copy of the keyring elsewhere.\n",
        to.display(),
        made["instance"].as_str().unwrap_or("-"),
        made["takenAt"].as_str().unwrap_or("-"),
        mebibytes(made["bytes"].as_u64().unwrap_or(0)),
        keys(&made["keyringKeys"]),
    ))
}

/// A file in a directory is named by the time. The server may have another working directory.
fn target(to: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(to)
        .map_err(|error| Failure::other(format!("cannot find {}: {error}", to.display())))?;
    if !absolute.is_dir() {
        return Ok(absolute);
    }
    let now = postrider_store::Clock::default().now().to_rfc3339();
    let name: String = now.chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    Ok(absolute.join(format!("postrider-{name}Z.db")))
}

async fn make(reached: &Reached, ask: &Value) -> Result<Value, Failure> {
    let mut stands = reached.administration.call("POST", "/backup", Some(ask)).await?;
    let shows = std::io::stderr().is_terminal();
    loop {
        match stands["state"].as_str() {
            Some("done") => {
                if shows {
                    show("\r\x1b[K");
                }
                return Ok(stands);
            }
            Some("running") => {
                let (done, total) =
                    (stands["done"].as_u64().unwrap_or(0), stands["total"].as_u64().unwrap_or(0));
                if shows && total > 0 {
                    show(&format!("\r\x1b[K{} of {}", mebibytes(done), mebibytes(total)));
                }
            }
            _ => {
                let detail =
                    stands["detail"].as_str().unwrap_or("the server does not know of the backup any more");
                return Err(Failure::other(detail));
            }
        }
        tokio::time::sleep(ASK).await;
        stands = reached.administration.call("GET", "/backup", None).await?;
    }
}

fn show(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes / (1024 * 1024 / 10);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn keys(value: &Value) -> String {
    let names = value.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}
