//! Settings of the process: address, files, TLS, proxies, stopping.

use crate::listener::proxies::Network;
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Settings of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port of the API. Other than loopback needs `tls_certificate` and `tls_key`, or `trusted_proxies`.
    pub listen: SocketAddr,
    /// What this node does: `api` accepts messages and answers the API, `engine` delivers. Both by default, and always with
    /// the embedded store. A node without `api` answers health and metrics only. `--roles` and `POSTRIDER_ROLES` set it too.
    pub roles: Vec<Role>,
    /// Directory of the database and of the admin socket; created when missing.
    pub data_dir: PathBuf,
    /// Keyring file (`postrider keyring create <file>`). Required, and outside of `data_dir`, unless `--dev` is given:
    /// a backup of the data directory must not contain the keys that open it.
    pub keyring: Option<PathBuf>,
    /// Certificate chain of the API in PEM, the server's own first. Together with `tls_key` the API is served by HTTPS.
    pub tls_certificate: Option<PathBuf>,
    /// Private key of `tls_certificate` in PEM.
    pub tls_key: Option<PathBuf>,
    /// Addresses or networks (`10.1.2.3`, `10.0.0.0/8`) of reverse proxies in front of the API. Only from them
    /// `X-Forwarded-For` is believed; beyond loopback and without a certificate, only they may connect.
    pub trusted_proxies: Vec<Network>,
    /// Seconds that a client may take to send the head of a request, from its first byte (1 to 300).
    pub header_seconds: u64,
    /// Seconds that a connection may rest between requests, or leave an answer unread, before it is closed (1 to 3600).
    /// Longer than a load balancer in front keeps it (AWS: 60), else that sends requests into closed connections.
    pub idle_seconds: u64,
    /// Connections to the API that may be open at one time, at most half of the files that the process may open; further
    /// ones are told so with 503 and closed.
    pub connections: usize,
    /// Connections that one address may have open at one time, trusted proxies aside; further ones are told so with 429
    /// and closed.
    pub connections_per_address: usize,
    /// Seconds that requests may take to finish after SIGTERM before they are cut off. Attempts that run have
    /// `delivery.total_deadline_ms` and three seconds.
    pub drain_seconds: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8071)),
            roles: vec![Role::Api, Role::Engine],
            data_dir: PathBuf::from("./postrider-data"),
            keyring: None,
            tls_certificate: None,
            tls_key: None,
            trusted_proxies: Vec::new(),
            header_seconds: 10,
            idle_seconds: 75,
            connections: 10_000,
            connections_per_address: 1_000,
            drain_seconds: 25,
        }
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts messages and answers the API.
    Api,
    /// Delivers.
    Engine,
}

impl Server {
    /// Does this node do that?
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Checks what the types cannot; `alone`: no other process can work on the database. The text names the setting.
    pub fn check(&self, alone: bool) -> Result<(), String> {
        if self.roles.is_empty() {
            return Err("`server.roles` is empty: a node does `api`, `engine` or both".to_owned());
        }
        if alone && !(self.has_role(Role::Api) && self.has_role(Role::Engine)) {
            return Err("`server.roles` splits the work among nodes, which needs a database that they share: set \
                        `database.url` (--database-url postgres://…), or leave `server.roles` away, because the embedded \
                        store serves one process, which does both"
                .to_owned());
        }
        Ok(())
    }

    /// The socket of the commands that need a running server's database.
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The keyring that `--dev` creates when none is set.
    pub fn dev_keyring(&self) -> PathBuf {
        self.data_dir.join("dev-keyring.toml")
    }

    /// See `header_seconds`.
    pub fn header_time(&self) -> Duration {
        Duration::from_secs(self.header_seconds.clamp(1, 300))
    }

    /// See `idle_seconds`.
    pub fn idle_time(&self) -> Duration {
        Duration::from_secs(self.idle_seconds.clamp(1, 3600))
    }

    /// See `drain_seconds`.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// Certificate and key, when both are set.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        self.tls_certificate.as_deref().zip(self.tls_key.as_deref())
    }
}
