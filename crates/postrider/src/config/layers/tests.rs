//! Tests of the layers: order, refusals, environment forms.

use super::*;

fn with_file(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.toml");
    std::fs::write(&path, text).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Inputs { file: Some(path), environment, flags: Vec::new() })
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\ndrain_seconds = 3\nheader_seconds = 4\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let environment = vec![
        ("POSTRIDER_SERVER__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
        ("POSTRIDER_SERVER__DRAIN_SECONDS".to_owned(), "5".to_owned()),
    ];
    let flags = vec![("server", "listen", "127.0.0.1:3".to_owned())];
    let loaded = load(&Inputs { file: Some(path), environment, flags }).unwrap();
    assert_eq!(loaded.config.server.listen.port(), 3);
    assert_eq!(loaded.config.server.drain_seconds, 5);
    assert_eq!(loaded.config.server.header_seconds, 4);
    assert_eq!(loaded.config.server.connections, Config::default().server.connections);
    assert_eq!(loaded.origins["server.listen"], Origin::Flag);
}

/// MIG-6, MIG-7.
#[test]
fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
    let error = with_file("[server]\nlisten_adress = \"x\"\n", &[]).unwrap_err();
    assert!(error.0.contains("server.listen_adress") && error.0.contains("`server.listen`"), "{error}");
    let error = with_file("[sever]\nlisten = \"x\"\n", &[]).unwrap_err();
    assert!(error.0.contains("`[server]`"), "{error}");
    let error = with_file("drain_seconds = 3\n", &[]).unwrap_err();
    assert!(error.0.contains("write it below `[server]`"), "{error}");
    let error = with_file("", &[("POSTRIDER_SERVER__DRAIN_SECONDS", "x")]).unwrap_err();
    assert!(error.0.contains("a whole number"), "{error}");
    let error = with_file("", &[("POSTRIDER_SERVER__LISTN", "x")]).unwrap_err();
    assert!(error.0.contains("POSTRIDER_SERVER__LISTN") && error.0.contains("`server.listen`"), "{error}");
}

#[test]
fn variables_that_a_container_platform_sets_are_left_alone() {
    with_file("", &[("POSTRIDER_PORT", "tcp://10.0.0.1:80"), ("POSTRIDER_SERVICE_HOST", "10.0.0.1")])
        .unwrap();
}

#[test]
fn a_value_of_the_wrong_type_names_the_setting_and_its_origin() {
    let error = with_file("", &[("POSTRIDER_SERVER__CONNECTIONS", "many")]).unwrap_err();
    assert!(
        error.0.contains("server.connections") && error.0.contains("POSTRIDER_SERVER__CONNECTIONS"),
        "{error}"
    );
    let error = with_file("[log]\nformat = \"xml\"\n", &[]).unwrap_err();
    assert!(error.0.contains("log.format"), "{error}");
}

/// OPS-8.
#[test]
fn lists_and_files_in_the_environment_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("level");
    std::fs::write(&path, "debug\n").unwrap();
    let loaded = with_file(
        "",
        &[
            ("POSTRIDER_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7"),
            ("POSTRIDER_LOG__LEVEL_FILE", path.to_str().unwrap()),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.server.trusted_proxies.len(), 2);
    assert_eq!(loaded.config.log.level, "debug");
}

#[test]
fn a_broken_file_is_refused_without_showing_its_text() {
    let error = with_file("[api]\njwt_secret = \"very secret\n", &[]).unwrap_err();
    assert!(error.0.contains("line 2") && !error.0.contains("very secret"), "{error}");
}
