//! The configuration of the binary as an operator meets it.

use crate::process::run;
use std::{fs, os::unix::fs::PermissionsExt as _};

/// MIG-6.
#[test]
fn an_unknown_setting_stops_the_start_and_names_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("postrider.toml"), "[server]\nlisten_adress = \"127.0.0.1:0\"\n").unwrap();
    let said = run(folder.path(), &["serve", "--dev"], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(
        said.errors.contains("server.listen_adress") && said.errors.contains("`server.listen`"),
        "{said:?}"
    );
    assert!(!folder.path().join("postrider-data").exists(), "nothing was created");
}

/// MIG-7.
#[test]
fn the_effective_configuration_is_printed_with_its_origins_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("postrider.toml"), "[delivery]\ntotal_deadline_ms = 9000\n").unwrap();
    let canary = "canary-canary-canary-canary-canary-canary";
    let said =
        run(folder.path(), &["config", "--data-dir", "elsewhere"], &[("POSTRIDER_API__JWT_SECRET", canary)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.output.contains("data_dir = \"elsewhere\" # flag"), "{said:?}");
    assert!(said.output.contains("total_deadline_ms = 9000 # postrider.toml"), "{said:?}");
    assert!(said.output.contains("jwt_secret = \"********\" # POSTRIDER_API__JWT_SECRET"), "{said:?}");
    assert!(!said.output.contains("canary"), "{said:?}");
}

/// K01: each of these is refused with 78 and a reason, before anything listens.
#[test]
fn a_start_without_a_usable_keyring_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let said = run(folder.path(), &["serve"], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(said.errors.contains("postrider keyring create"), "{said:?}");

    let refused = |file: &str, reason: &str| {
        let said = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--keyring", file], &[]);
        assert_eq!(said.code, Some(78), "{said:?}");
        assert!(said.errors.contains(reason), "{reason}: {said:?}");
    };
    refused("missing.toml", "postrider keyring create");
    fs::write(path("short.toml"), "primary = \"k\"\n[keys]\nk = \"c2hvcnQ=\"\n").unwrap();
    fs::set_permissions(path("short.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    refused("short.toml", "32");
    assert_eq!(run(folder.path(), &["keyring", "create", "open.toml"], &[]).code, Some(0));
    fs::set_permissions(path("open.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    refused("open.toml", "chmod 600");
    assert_eq!(run(folder.path(), &["keyring", "create", "postrider-data/inside.toml"], &[]).code, Some(0));
    refused("postrider-data/inside.toml", "inside the data directory");
}

#[test]
fn plain_http_beyond_this_machine_is_refused_without_a_named_proxy() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["keyring", "create", "keyring.toml"], &[]).code, Some(0));
    let said = run(folder.path(), &["serve", "--listen", "0.0.0.0:0", "--keyring", "keyring.toml"], &[]);
    assert_eq!(said.code, Some(78), "{said:?}");
    assert!(
        said.errors.contains("server.tls_certificate") && said.errors.contains("server.trusted_proxies"),
        "{said:?}"
    );
}

/// What another process holds may be free a moment later: exit code 1, unlike a configuration to put right.
#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = run(folder.path(), &["serve", "--dev", "--listen", &address], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.errors.contains(&address) && said.errors.contains("`--listen`"), "{said:?}");
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_and_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (own, other) = (made(), made());
    for (name, text) in [
        ("cert.pem", own.cert.pem()),
        ("other.key", other.signing_key.serialize_pem()),
        ("empty.pem", String::new()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let refused = |certificate: &str, key: &str, words: &[&str]| {
        let environment =
            [("POSTRIDER_SERVER__TLS_CERTIFICATE", certificate), ("POSTRIDER_SERVER__TLS_KEY", key)];
        let said = run(folder.path(), &["serve", "--dev", "--listen", "127.0.0.1:0"], &environment);
        assert_eq!(said.code, Some(78), "{said:?}");
        assert!(words.iter().all(|word| said.errors.contains(word)), "{words:?}: {said:?}");
        assert!(!folder.path().join("postrider-data").exists(), "nothing was created");
    };
    refused("cert.pem", "other.key", &["`server.tls_certificate`", "`server.tls_key`", "made for"]);
    refused("cert.pem", "empty.pem", &["`server.tls_key`", "no private key", "PEM"]);
    refused("empty.pem", "other.key", &["`server.tls_certificate`", "no certificate", "PEM"]);
    refused("missing.pem", "other.key", &["`server.tls_certificate`", "missing.pem", "name a file"]);
}

#[test]
fn a_keyring_is_created_once_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let create = || run(folder.path(), &["keyring", "create", "keyring.toml"], &[]);
    assert_eq!(create().code, Some(0));
    let kept = fs::read(folder.path().join("keyring.toml")).unwrap();
    assert_eq!(create().code, Some(78), "it is never overwritten");
    assert_eq!(fs::read(folder.path().join("keyring.toml")).unwrap(), kept);
    let said = run(folder.path(), &["keyring", "check", "keyring.toml"], &[]);
    assert!(said.code == Some(0) && said.output.contains("check value"), "{said:?}");
}

#[test]
fn version_and_openapi_are_printed_for_machines() {
    let folder = tempfile::tempdir().unwrap();
    let version: serde_json::Value =
        serde_json::from_str(&run(folder.path(), &["version", "--json"], &[]).output).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let document: serde_json::Value =
        serde_json::from_str(&run(folder.path(), &["openapi"], &[]).output).unwrap();
    assert!(document["paths"].as_object().unwrap().contains_key("/api/v1/app"), "{document}");
}

/// Examples in the documents are examples of what works.
#[test]
fn the_configuration_files_in_the_documents_are_accepted() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for page in fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap_or_default();
        for example in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !example.contains("[keys]") {
                fs::write(folder.path().join("example.toml"), example).unwrap();
                let said = run(folder.path(), &["config", "--config", "example.toml"], &[]);
                assert_eq!(said.code, Some(0), "{}: {said:?}\n{example}", page.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "no example was found");
}
