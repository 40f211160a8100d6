//! `serve`: runs a server until a signal says stop.

use super::read;
use crate::{
    cli::Serve,
    config::Config,
    dev,
    failure::{EXIT_FAILURE, Failure},
    logging,
    node::{Mode, Node},
    process,
};
use std::fs;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) async fn run(arguments: Serve) -> Result<(), Failure> {
    let flags = arguments.listen.map(|address| ("server", "listen", address.to_string()));
    let database = arguments.database_url.map(|url| ("database", "url", url));
    let roles = arguments.roles.map(|roles| ("server", "roles", roles));
    let flags = flags.into_iter().chain(database).chain(roles).collect();
    let config = read(&arguments.settings, flags)?.config;
    logging::install(&config.log)?;
    // Before anything starts, so that no signal is lost.
    let mut signals =
        Signals::listen().map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))?;
    process::raise_file_limit();
    // Not in development, where one wants to attach a debugger.
    if !arguments.dev {
        process::seal_memory();
    }
    let mode = if arguments.dev { Mode::Dev } else { Mode::Production };
    let node = Node::start(&config, mode).await?;
    if arguments.dev
        && let Err(failure) = greet(&config, &node).await
    {
        node.stop().await;
        return Err(failure);
    }
    tokio::select! {
        () = signals.next() => {}
        // Nothing more can be acknowledged or recorded: every moment longer sends what will be sent again.
        detail = node.store.broken() => end_at_once(&Failure::broken(&detail)),
    }
    tracing::info!("stopping: finishing what runs; a second signal ends it at once");
    let stopped = tokio::select! {
        () = node.stop() => Ok(()),
        () = signals.next() => Err(Failure { code: EXIT_FAILURE, text: "ended at once by a second signal".to_owned() }),
    };
    let _ = fs::remove_file(config.server.data_dir.join(dev::FILE));
    match stopped {
        Ok(()) => Ok(()),
        Err(failure) => end_at_once(&failure),
    }
}

/// Threads that still work must not hold the process up.
fn end_at_once(failure: &Failure) -> ! {
    tracing::error!("{failure}");
    std::process::exit(i32::from(failure.code))
}

async fn greet(config: &Config, node: &Node) -> Result<(), Failure> {
    let folder = &config.server.data_dir;
    let token = dev::key(node.store.as_ref()).await?;
    let receiver = dev::receiver(node.address).await?;
    dev::say(&dev::greeting(node, folder, &token, &receiver));
    dev::write_file(folder, &node.url, &token).map_err(|error| {
        Failure::other(format!("cannot write {}: {error}", folder.join(dev::FILE).display()))
    })
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
