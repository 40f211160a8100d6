//! Where a command finds the administration: at the running server's socket, or, when none runs, on the store that it
//! opens itself. Never a second writer.

use super::read;
use crate::{
    admin::{self, Administration},
    cli::Settings,
    config::Config,
    failure::Failure,
    local::Place,
    node,
};
use postrider_store::Store;
use postrider_vault::keyring::Keyring;
use std::{path::Path, sync::Arc};

/// An administration that can be called.
pub(super) struct Reached {
    pub(super) administration: Administration,
    store: Option<Arc<dyn Store>>,
}

impl Reached {
    /// Finds it.
    pub(super) async fn of(settings: &Settings) -> Result<Self, Failure> {
        let config = read(settings, Vec::new())?.config;
        let socket = config.server.admin_socket();
        if answers(&socket).await {
            return Ok(Self { administration: Administration::Running(Place::Unix(socket)), store: None });
        }
        let store = node::open_store(&config, existing_keyring(&config)?, false).await?;
        let administration = Administration::Here(admin::router(Arc::clone(&store), None));
        Ok(Self { administration, store: Some(store) })
    }

    /// Closes what was opened.
    pub(super) async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

/// The keyring that the database was made with: never a new one here.
pub(super) fn existing_keyring(config: &Config) -> Result<Keyring, Failure> {
    let dev = config.server.keyring.is_none() && config.server.dev_keyring().exists();
    node::keyring(&config.server, if dev { node::Mode::Dev } else { node::Mode::Production })
}

async fn answers(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}
