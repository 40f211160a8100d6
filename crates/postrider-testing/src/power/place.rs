//! Directories of a run: the world that every run begins with, and the file of begun attempts as a power cut leaves it.

use crate::disk::Disk;
use postrider_model::{
    application::Metadata,
    environment::EnvironmentId,
    event_type::EventTypeName,
    filter::Filter,
    headers::CustomHeaders,
    id::EndpointId,
    retry::RetryOverride,
    signature::SigningSecret,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    Store,
    applications::ApplicationFields,
    endpoints::{AppScope, EndpointFields, NewEndpoint},
};
use postrider_store_sqlite::{Config, OpenError, SqliteStore};
use postrider_vault::keyring::Keyring;
use rand::{RngExt, rngs::StdRng};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// The database's file.
pub(super) const DATABASE: &str = "postrider.db";
/// The store's own file of attempts that have begun; it is written past SQLite and never synced.
const IN_FLIGHT: &str = "in_flight";
/// Bytes of one note in it.
const NOTE: usize = 512;

/// What the endpoints of the world get.
pub(super) const AUDIENCES: [Option<&str>; 3] = [None, None, Some("a.one")];

/// The world that runs begin with: an application with three endpoints, in a database that was closed in order.
pub(super) struct World {
    folder: TempDir,
    pub(super) scope: AppScope,
    pub(super) endpoints: Vec<EndpointId>,
    database: Vec<u8>,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = temporary();
        Keyring::create(&keyring(folder.path())).unwrap();
        let data = folder.path().join("data");
        let store = open(&data, &keyring(folder.path()), &Config::default()).unwrap();
        let (scope, endpoints) = settle(&*store).await.unwrap();
        store.close().await;
        drop(store);
        let database = fs::read(data.join(DATABASE)).unwrap();
        Self { folder, scope, endpoints, database }
    }

    /// A new directory with the world in it, or an empty one.
    pub(super) fn begin(&self, empty: bool) -> TempDir {
        let folder = temporary();
        if !empty {
            fs::write(folder.path().join(DATABASE), &self.database).unwrap();
        }
        folder
    }

    pub(super) fn keyring(&self) -> PathBuf {
        keyring(self.folder.path())
    }
}

fn keyring(folder: &Path) -> PathBuf {
    folder.join("keyring.toml")
}

/// In memory where there is such a place: nothing is ever synced there.
pub(super) fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens a store on a failing disk.
pub(super) fn open(data: &Path, keyring: &Path, config: &Config) -> Result<Arc<SqliteStore>, OpenError> {
    let config = Config { data_dir: data.to_owned(), low_water_bytes: 0, ..config.clone() };
    SqliteStore::open(config, Keyring::load(keyring).unwrap())
}

/// Creates the application and its endpoints.
pub(super) async fn settle(store: &dyn Store) -> Option<(AppScope, Vec<EndpointId>)> {
    let environment = EnvironmentId::parse("org_power")?;
    let application = create_application(store, &environment, "the world").await?;
    let scope = AppScope { environment, application };
    let mut endpoints = Vec::new();
    for only in AUDIENCES {
        let new = NewEndpoint { fields: fields(only), secret: secret(0), headers: CustomHeaders::default() };
        endpoints.push(store.create_endpoint(&scope, new, None).await.ok()?.item.id);
    }
    Some((scope, endpoints))
}

pub(super) async fn create_application(
    store: &dyn Store,
    environment: &EnvironmentId,
    name: &str,
) -> Option<postrider_model::id::ApplicationId> {
    let fields = ApplicationFields { name: name.to_owned(), ..ApplicationFields::default() };
    Some(store.create_application(environment, fields, None).await.ok()?.item.id)
}

pub(super) fn event_type(name: &str) -> EventTypeName {
    EventTypeName::parse(name).unwrap()
}

fn fields(only: Option<&str>) -> EndpointFields {
    EndpointFields {
        uid: None,
        url: EndpointUrl::parse("https://example.com/hook", &UrlRules::default()).unwrap(),
        description: "0".to_owned(),
        throttle_rate: None,
        filter: Filter {
            event_types: only.map(|only| [event_type(only)].into()).unwrap_or_default(),
            ..Filter::default()
        },
        disabled: false,
        metadata: Metadata::default(),
        retry: RetryOverride::default(),
        legacy_version: 1,
    }
}

/// The signing secret with this number.
pub(super) fn secret(number: u64) -> SigningSecret {
    let mut bytes = [7; 24];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    SigningSecret::hmac(bytes)
}

/// The file of begun attempts, as it stood at several moments: any of its sectors may be the one of any moment.
#[derive(Debug, Default)]
pub(super) struct Notes {
    versions: Vec<Vec<u8>>,
}

impl Notes {
    /// Remembers how it stands.
    pub(super) fn look(&mut self, data: &Path) {
        if let Ok(bytes) = fs::read(data.join(IN_FLIGHT)) {
            self.versions.push(bytes);
        }
    }

    /// Writes what a cut left of it.
    pub(super) fn after_cut(&self, data: &Path, random: &mut StdRng) {
        let Some(last) = self.versions.last() else { return };
        let mut bytes = match random.random_range(0..10) {
            0 => return,
            1 => Vec::new(),
            2 => vec![0; last.len()],
            3 | 4 => last.clone(),
            _ => {
                let longest = self.versions.iter().map(Vec::len).max().unwrap_or(0);
                let mut mixed = vec![0; longest];
                for (number, sector) in mixed.chunks_mut(NOTE).enumerate() {
                    let version = &self.versions[random.random_range(0..self.versions.len())];
                    let at = number * NOTE;
                    // The last one may be short.
                    let part = version.get(at..).unwrap_or_default();
                    let length = part.len().min(sector.len());
                    sector[..length].copy_from_slice(&part[..length]);
                }
                mixed
            }
        };
        if !bytes.is_empty() && random.random_bool(0.3) {
            // Torn where no sector ends, or damaged.
            let at = random.random_range(0..bytes.len());
            if random.random_bool(0.5) {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x55;
            }
        }
        fs::write(data.join(IN_FLIGHT), bytes).unwrap();
    }
}

/// What a cut left of a directory, in a new one: the database as the disk says, the file of begun attempts, and perhaps the
/// file of shared memory, which nobody may trust.
pub(super) fn after_cut(disk: &Disk, notes: &Notes, random: &mut StdRng) -> (TempDir, Arc<Disk>) {
    let folder = temporary();
    notes.after_cut(folder.path(), random);
    if random.random_bool(0.3) {
        let garbage: Vec<u8> = (0..32 * 1024).map(|_| random.random()).collect();
        fs::write(folder.path().join(format!("{DATABASE}-shm")), garbage).unwrap();
    }
    let disk = disk.after_cut(folder.path(), random.random());
    (folder, disk)
}
