//! Opening a database: one process, a known schema, the right keys; and what the file never holds.

mod place;

use place::{Place, claim, publish, success, world};
use postrider_model::{
    application::Ref, environment::EnvironmentId, signature::SigningSecret, time::Timestamp,
};
use postrider_store::{
    Store as _,
    access::Access as _,
    deliveries::Deliveries as _,
    endpoints::Endpoints as _,
    messages::{Messages as _, NewMessage},
    retention::{Cutoffs, Retention as _},
};
use postrider_store_sqlite::{OpenError, SqliteStore};
use postrider_vault::keyring::Keyring;
use secrecy::ExposeSecret as _;
use std::{io::ErrorKind, os::unix::fs::PermissionsExt as _, time::Duration};

/// CLM-9
#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused_until_the_first_has_closed() {
    let place = Place::new();
    let first = place.open();
    let refused = SqliteStore::open(place.config(), place.keyring()).err().unwrap();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    assert!(refused.is_temporary());
    assert!(refused.to_string().contains(&place.config().data_dir.display().to_string()), "{refused}");
    first.close().await;
    place.open();
}

/// MIG-1
#[tokio::test]
async fn a_database_of_a_later_release_is_refused_with_the_instruction() {
    let place = Place::new();
    place.open().close().await;
    let connection = place.connection();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let refused = SqliteStore::open(place.config(), place.keyring()).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    assert!(refused.to_string().contains("start the release that wrote it"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_the_way_out_and_left_as_it_is() {
    for bytes in [b"a note".to_vec(), vec![0x5a; 10_000]] {
        let place = Place::new();
        std::fs::create_dir(place.config().data_dir).unwrap();
        std::fs::write(place.database(), &bytes).unwrap();
        let refused = SqliteStore::open(place.config(), place.keyring()).err().unwrap();
        assert!(matches!(refused, OpenError::NoDatabase { .. }), "{refused}");
        assert!(refused.to_string().contains("move the file away") && !refused.is_temporary(), "{refused}");
        assert_eq!(std::fs::read(place.database()).unwrap(), bytes);
    }
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_way_out() {
    let error = |kind: ErrorKind| OpenError::Io {
        what: "open the lock file in the data directory",
        path: "/srv/data".into(),
        source: kind.into(),
    };
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::NotADirectory] {
        let refused = error(kind);
        assert!(refused.to_string().contains("server.data_dir") && !refused.is_temporary(), "{refused}");
    }
    assert!(error(ErrorKind::StorageFull).is_temporary());
    // As it comes from the file system, whoever runs the test.
    let place = Place::new();
    std::fs::write(place.config().data_dir, "a file in its place").unwrap();
    let refused = SqliteStore::open(place.config(), place.keyring()).err().unwrap();
    assert!(refused.to_string().contains("server.data_dir") && !refused.is_temporary(), "{refused}");
}

#[tokio::test]
async fn a_keyring_without_the_databases_key_is_refused_by_name() {
    let place = Place::new();
    let store = place.open();
    world(&*store).await;
    store.close().await;
    drop(store);
    let other = Keyring::create(&place.folder().join("other.toml")).unwrap();
    let refused = SqliteStore::open(place.config(), other).err().unwrap();
    let OpenError::Keyring { missing, different } = &refused else { panic!("{refused}") };
    assert_eq!(missing.len() + different.len(), 1, "{refused}");
    assert!(missing.iter().chain(different).all(|name| refused.to_string().contains(name)), "{refused}");
    place.open();
}

#[tokio::test]
async fn a_keyring_with_another_key_opens_an_empty_database() {
    let place = Place::new();
    place.open().close().await;
    let other = Keyring::create(&place.folder().join("other.toml")).unwrap();
    let store = SqliteStore::open(place.config(), other).unwrap();
    store.ensure_environment(&EnvironmentId::parse("org_a").unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_refused_after_an_unclean_stop() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    for _ in 0..50 {
        publish(&*store, &scope, 2000).await.unwrap();
    }
    store.close().await;
    drop(store);
    let path = place.database();
    let mut bytes = std::fs::read(&path).unwrap();
    // A whole page.
    let middle = bytes.len() / 2 / 8192 * 8192;
    bytes[middle..middle + 8192].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    // The file that an orderly end would have removed.
    std::fs::write(place.config().data_dir.join("in_flight"), []).unwrap();
    let refused = SqliteStore::open(place.config(), place.keyring()).err().unwrap();
    assert!(
        refused.to_string().contains("damaged") || refused.to_string().contains("malformed"),
        "{refused}"
    );
}

/// K06: the credentials of a database stand nowhere in its files.
#[tokio::test]
async fn no_file_holds_a_credential_in_clear() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let endpoint = place::endpoint_with_secrets(&*store, &scope, "CANARY-header", "CANARY-oauth").await;
    let secret = store.signing_secret(&scope, endpoint).await.unwrap().unwrap();
    let canary = secret.to_text().expose_secret().trim_start_matches("whsec_").to_owned();
    store
        .rotate_signing_secret(&scope, endpoint, SigningSecret::hmac([9; 24]), Duration::from_mins(1), None)
        .await
        .unwrap();
    let scan = || {
        for entry in std::fs::read_dir(place.config().data_dir).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for needle in ["CANARY-header", "CANARY-oauth", canary.as_str()] {
                assert!(!bytes.windows(needle.len()).any(|part| part == needle.as_bytes()), "{needle}");
            }
        }
    };
    scan();
    store.close().await;
    scan();
}

#[tokio::test]
async fn what_lies_in_the_data_directory_is_for_the_servers_user_alone() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    publish(&*store, &scope, 10).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let data_dir = place.config().data_dir;
    assert_eq!(mode(&data_dir), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&data_dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    assert_eq!(names, ["in_flight", "lock", "postrider.db", "postrider.db-shm", "postrider.db-wal"]);
    store.close().await;
}

/// The flags of `.cargo/config.toml`: without them each allocation of SQLite takes a process-wide mutex.
#[test]
fn sqlite_is_built_with_our_flags() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let mut statement = connection.prepare("PRAGMA compile_options").unwrap();
    let options: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    for flag in ["DEFAULT_MEMSTATUS=0", "DQS=0", "OMIT_SHARED_CACHE"] {
        assert!(options.iter().any(|option| option == flag), "{flag}: {options:?}");
    }
    for flag in ["ENABLE_API_ARMOR", "ENABLE_STAT4"] {
        assert!(!options.iter().any(|option| option == flag), "{flag}: {options:?}");
    }
}

/// The shape before migration 0007: payloads numbered as they came, with an index of their expiry.
const NUMBERED_AS_THEY_CAME: &str = "
    CREATE TABLE older (
        id         INTEGER PRIMARY KEY,
        message    BLOB NOT NULL,
        expires_at INTEGER NOT NULL,
        body       BLOB NOT NULL
    ) STRICT;
    INSERT INTO older (message, expires_at, body)
        SELECT message.id, message.payload_expires_at, payload.body
        FROM message JOIN payload ON payload.id = message.payload ORDER BY message.id;
    UPDATE message SET payload = (SELECT older.id FROM older WHERE older.message = message.id);
    DROP TABLE payload;
    ALTER TABLE older RENAME TO payload;
    CREATE INDEX payload_expiry ON payload (expires_at);
    PRAGMA user_version = 6;";

/// MIG-1
#[tokio::test]
async fn payloads_of_an_older_schema_are_found_and_expire_as_they_were_to() {
    let place = Place::new();
    let store = place.open();
    let scope = world(&*store).await;
    let mut accepted = Vec::new();
    for (body, days) in [("{\"n\":1}", 30), ("{\"n\":2}", 5), ("{\"n\":3}", 60)] {
        let new = NewMessage {
            payload_lifetime: Some(Duration::from_hours(24 * days)),
            ..place::message(&scope, bytes::Bytes::from_static(body.as_bytes()))
        };
        let message = store.accept(vec![new]).await.pop().unwrap().unwrap().message;
        accepted.push((message.id, body));
    }
    assert!(store.expunge_payload(&scope, accepted[2].0).await.unwrap());
    store.close().await;
    place.connection().execute_batch(NUMBERED_AS_THEY_CAME).unwrap();

    let store = place.open();
    let payload = async |id| {
        let found = store.message(&scope, &Ref::Id(id)).await.unwrap().unwrap();
        found.payload.map(|body| String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(payload(accepted[0].0).await.as_deref(), Some(accepted[0].1));
    assert_eq!(payload(accepted[1].0).await.as_deref(), Some(accepted[1].1));
    assert_eq!(payload(accepted[2].0).await, None);
    let claimed = claim(&*store, 10).await;
    let mut sent: Vec<_> = claimed.iter().map(|one| one.payload.to_vec()).collect();
    sent.sort();
    assert_eq!(sent, accepted[..2].iter().map(|(_, body)| body.as_bytes().to_vec()).collect::<Vec<_>>());
    let results = claimed.iter().map(|claimed| success(&*store, claimed)).collect();
    assert!(store.record(results).await.iter().all(Result::is_ok));
    let none = Cutoffs { messages: Timestamp::default(), attempts: Timestamp::default() };
    store.clock().advance(Duration::from_hours(24 * 6));
    while store.expire(none, 10).await.unwrap().more {}
    assert_eq!(payload(accepted[1].0).await, None);
    assert_eq!(payload(accepted[0].0).await.as_deref(), Some(accepted[0].1));
}
