//! `migrate-store`: from the embedded database to PostgreSQL, one way, with progress for people or programs.

use super::{print, reached::existing_keyring, read};
use crate::{cli::MigrateStore, config::Config, failure::Failure};
use postrider_store::transfer::{Moved, Progress};
use postrider_store_postgres::import;
use postrider_store_sqlite::Export;
use serde_json::json;
use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    sync::{Arc, Mutex},
};

pub(super) async fn run(arguments: MigrateStore) -> Result<(), Failure> {
    let MigrateStore { mut settings, from_data_dir, to, undo, json } = arguments;
    settings.data_dir = from_data_dir.or(settings.data_dir);
    let config = read(&settings, Vec::new())?.config;
    let keyring = existing_keyring(&config)?;
    let from =
        postrider_store_sqlite::Config { data_dir: config.server.data_dir.clone(), ..config.sqlite.clone() };
    let of_source = |error: postrider_store_sqlite::OpenError| Failure::config(error.to_string());
    if undo {
        let undone = Export::undo(&from, &keyring).map_err(of_source)?;
        return print(if undone {
            "The embedded database can be served again. What was moved of it is of no use any more: drop that database.\n"
        } else {
            "The embedded database was not moved.\n"
        });
    }
    let url = to.ok_or_else(|| Failure::config("name the target with --to postgres://…"))?;
    let same = existing_keyring(&config)?;
    let export = Export::begin(&from, &keyring, same, &shown(&url)).await.map_err(of_source)?;
    let target = target(&config, url);
    let moved = import(&target, &keyring, Arc::new(Mutex::new(export)), teller(json)).await;
    let moved = moved.map_err(|error| Failure::other(error.to_string()))?;
    told(&moved, json)
}

fn target(config: &Config, url: String) -> postrider_store_postgres::Config {
    postrider_store_postgres::Config {
        url: Some(url.into()),
        data_dir: None,
        serves: false,
        ..config.database.clone()
    }
}

/// The URL without user and password, to be shown and kept.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split_once('?').map_or(place, |(place, _)| place);
    format!("{scheme}://{place}")
}

fn teller(json: bool) -> impl Fn(Progress) + Send {
    let shows = std::io::stderr().is_terminal();
    move |progress: Progress| {
        let Progress { thing, compares, rows, done } = progress;
        // A reader that went away is no reason to stop.
        if json {
            let line = json!({ "thing": thing, "step": if compares { "compare" } else { "move" }, "rows": rows, "done": done });
            let _ = writeln!(std::io::stdout(), "{line}");
        } else if shows || done {
            let verb = if compares { "compared" } else { "moved" };
            let (begin, end) = if shows { ("\r\x1b[K", "") } else { ("", "\n") };
            let end = if done { "\n" } else { end };
            let _ = write!(std::io::stderr(), "{begin}{verb} {thing}: {rows}{end}");
        }
    }
}

fn told(moved: &[Moved], json: bool) -> Result<(), Failure> {
    if json {
        let things: Vec<_> = moved
            .iter()
            .map(|one| json!({ "thing": one.thing, "rows": one.rows, "checksum": format!("{:016x}", one.checksum) }))
            .collect();
        return print(&format!("{}\n", json!({ "moved": things })));
    }
    let mut text = String::from("Both databases hold the same, row by row:\n\n");
    for one in moved {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {:<12} {:>12}   {:016x}", one.thing, one.rows, one.checksum);
    }
    text.push_str(
        "\nServe the new one now: set `database.url`, with the same keyring. The embedded database is marked as moved and \
         cannot be served any more; keep it until you trust the new one, then delete it.\n",
    );
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_shown_without_its_password() {
        for (url, expected) in [
            ("postgres://me:p@ss@db:5432/hooks?sslmode=require", "postgres://db:5432/hooks"),
            ("postgresql://db/hooks", "postgresql://db/hooks"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
