//! What the commands do: reads the configuration, calls the part, prints. Decides the exit code and nothing else.

mod access;
mod backup;
mod deliveries;
mod keyring;
mod migrate_store;
mod reached;
mod restore;
mod serve;

use crate::{
    cli::{Cli, Command, JwtCommand, Settings},
    config::{
        effective,
        layers::{Inputs, Loaded, load},
        reference,
    },
    failure::{EXIT_FAILURE, Failure},
};
use std::{io::Write as _, process::ExitCode};

/// Runs a command on a runtime of its own.
pub fn main(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::other(format!("cannot start: {error}"))),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    // A closed standard error is no reason for another exit code.
    let _ = writeln!(std::io::stderr(), "postrider: {failure}");
    ExitCode::from(failure.code)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::Demo => crate::demo::run().await,
        Command::Config { reference: true, .. } => print(&reference::page()),
        Command::Config { settings, .. } => print(&effective::render(&read(&settings, Vec::new())?)),
        Command::ApiKey(command) => access::api_key(command).await,
        Command::Jwt(JwtCommand::Generate { settings, environment }) => access::jwt(&settings, &environment),
        Command::Keyring(command) => keyring::run(command),
        Command::Backup(arguments) => backup::run(arguments).await,
        Command::Restore(arguments) => restore::run(arguments).await,
        Command::Deliveries(command) => deliveries::run(command).await,
        Command::MigrateStore(arguments) => migrate_store::run(arguments).await,
        Command::Openapi => print(&crate::openapi_document()),
        Command::Health(settings) => access::health(&settings).await,
        Command::Version { json } => print(&version(json)),
    }
}

fn version(json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        format!(
            "{}\n",
            serde_json::json!({ "name": "postrider", "version": version, "license": env!("CARGO_PKG_LICENSE") })
        )
    } else {
        format!("postrider {version}\n")
    }
}

/// Reads the configuration with the flags that every command has, and `flags` on top.
fn read(
    settings: &Settings,
    mut flags: Vec<(&'static str, &'static str, String)>,
) -> Result<Loaded, Failure> {
    let path = |path: &std::path::PathBuf| path.display().to_string();
    flags.extend(settings.data_dir.as_ref().map(|directory| ("server", "data_dir", path(directory))));
    flags.extend(settings.keyring.as_ref().map(|file| ("server", "keyring", path(file))));
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let environment = std::env::vars_os().filter_map(|(name, value)| text(name).zip(text(value))).collect();
    Ok(load(&Inputs { file: settings.config.clone(), environment, flags })?)
}

/// Writes to standard output; a reader that went away is a failure without words.
fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure { code: EXIT_FAILURE, text: error.to_string() })
}
