//! Every keyring that must be refused, and that nothing shows a key.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

/// Base64 of 32 bytes that look random.
const KEY: &str = "q83vEjRWeJASNFZ4kKvN7xIjRFVmd4iZqrvM3e7/ABE=";

fn refusal(text: &str) -> String {
    Keyring::parse(text).expect_err("refused").0
}

fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

#[test]
fn a_created_keyring_is_private_and_loads_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("etc/keyring.toml");
    let created = Keyring::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let loaded = Keyring::load(&path).unwrap();
    assert_eq!(loaded.check_values(), created.check_values());
    assert_eq!(loaded.primary(), created.primary());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no scratch file stays behind");
}

#[test]
fn an_existing_keyring_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.toml");
    Keyring::create(&path).unwrap();
    let before = fs::read(&path).unwrap();
    let error = Keyring::create(&path).unwrap_err().to_string();
    assert!(error.contains("never overwritten"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no scratch file stays behind");
}

/// K01.
#[test]
fn a_keyring_that_others_can_read_is_refused_with_the_command_to_run() {
    for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
        let (_folder, path) = written(&format!("primary = \"a\"\n[keys]\na = \"{KEY}\"\n"), mode);
        let error = Keyring::load(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
    let (_folder, path) = written(&format!("primary = \"a\"\n[keys]\na = \"{KEY}\"\n"), 0o400);
    assert!(Keyring::load(&path).is_ok());
}

/// K01.
#[test]
fn a_missing_keyring_or_something_else_in_its_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Keyring::load(&folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
    assert!(Keyring::load(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    let (_folder, path) = written(&"#".repeat(70_000), 0o600);
    assert!(Keyring::load(&path).unwrap_err().to_string().contains("larger than"));
    let (_folder, path) = written("", 0o600);
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Keyring::load(&path).unwrap_err().to_string().contains("as text"));
}

/// K01.
#[test]
fn what_is_no_keyring_is_refused_with_the_reason() {
    for (text, reason) in [
        (String::new(), "`[keys]` is missing"),
        ("primary = \"a\"\n".to_owned(), "`[keys]` is missing"),
        ("primary = \"a\"\n[keys]\n".to_owned(), "`[keys]` is empty"),
        (format!("[keys]\na = \"{KEY}\"\n"), "`primary` is missing"),
        (format!("primary = 7\n[keys]\na = \"{KEY}\"\n"), "`primary` is missing"),
        (format!("primary = \"b\"\n[keys]\na = \"{KEY}\"\n"), "not below `[keys]`"),
        (
            format!("primary = \"a\"\nsecondary = \"b\"\n[keys]\na = \"{KEY}\"\n"),
            "unknown member `secondary`",
        ),
        ("primary = \"a\"\n[keys]\na = 5\n".to_owned(), "not a text of base64"),
        (format!("primary = \"a\"\n[keys]\na = \"{}\"\n", &KEY[..40]), "has 30 bytes instead of 32"),
        (
            format!("primary = \"a\"\n[keys]\na = \"{}\"\n", STANDARD.encode([7; 33])),
            "has 33 bytes instead of 32",
        ),
        (format!("primary = \"a\"\n[keys]\n\"a b\" = \"{KEY}\"\n"), "key name"),
        (format!("primary = \"a\"\n[keys]\n{} = \"{KEY}\"\n", "a".repeat(65)), "key name"),
        ("primary = \"a\"\n[keys]\na = \n".to_owned(), "line 3 is not TOML"),
        (format!("primary = \"a\"\n[keys]\na = \"{KEY}\"\na = \"{KEY}\"\n"), "is not TOML"),
    ] {
        let error = refusal(&text);
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

/// K01.
#[test]
fn a_passphrase_is_not_a_key() {
    for text in [
        "correct horse battery staple",
        // 44 characters that happen to be base64 of 32 bytes.
        "correcthorsebatterystaplecorrecthorsebatter=",
        "CORRECTHORSEBATTERYSTAPLECORRECTHORSEBATTEA=",
        &STANDARD.encode("a long passphrase of 32 letters!"),
        &STANDARD.encode([0; 32]),
        &STANDARD.encode([0xa5, 0x5a].repeat(16)),
    ] {
        let error = refusal(&format!("primary = \"a\"\n[keys]\na = \"{text}\"\n"));
        assert!(error.contains("passphrases are not accepted"), "{text}: {error}");
    }
}

/// K01.
#[test]
fn a_keyring_inside_the_data_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("keys")).unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    std::os::unix::fs::symlink(data.join("keys"), folder.path().join("link")).unwrap();
    for inside in
        ["data/keyring.toml", "data/keys/k.toml", "etc/../data/k.toml", "link/k.toml", "data/new/k.toml"]
    {
        let error = Keyring::ensure_outside(&folder.path().join(inside), &data).unwrap_err().to_string();
        assert!(error.contains("inside the data directory") && error.contains("backup"), "{inside}: {error}");
    }
    for outside in ["etc/keyring.toml", "data.toml", "data2/keyring.toml"] {
        Keyring::ensure_outside(&folder.path().join(outside), &data).unwrap();
    }
    Keyring::ensure_outside(&folder.path().join("etc/k.toml"), &folder.path().join("not-yet")).unwrap();
}

/// K01: what a database remembers of a key tells another key of the same name apart, and is no key.
#[test]
fn a_check_value_belongs_to_its_key() {
    let of = |key: &str| {
        Keyring::parse(&format!("primary = \"a\"\n[keys]\na = \"{key}\"\n")).unwrap().check_values()
    };
    assert_eq!(of(KEY), of(KEY));
    assert_ne!(of(KEY), of(&KEY.replace("q83v", "r83v")));
    assert_ne!(of(KEY)[0].1.as_slice(), &STANDARD.decode(KEY).unwrap()[..8]);
}

/// K05.
#[test]
fn no_message_or_debug_form_shows_a_key() {
    let part = &KEY[8..20];
    let keyring = Keyring::parse(&format!("primary = \"a\"\n[keys]\na = \"{KEY}\"\n")).unwrap();
    assert_eq!(format!("{keyring:?}"), "Keyring { primary: \"a\", keys: [\"a\"] }");
    assert_eq!(format!("{:?}", keyring.get("a").unwrap()), "[secret]");
    for broken in [
        format!("primary = \"a\"\n[keys]\na = {KEY}\n"),
        format!("primary = \"a\"\n[keys]\na = \"{KEY}\" \"x\"\n"),
        format!("primary = \"a\"\n[keys]\na = \"{KEY}\n"),
        format!("primary = \"a\"\n[keys]\na = [\"{KEY}\"]\n"),
        format!("primary = \"a\"\nkeys = \"{KEY}\"\n"),
        format!("primary = \"a\"\n[keys]\na = \"{KEY}{KEY}\"\n"),
    ] {
        let error = KeyringError(refusal(&broken));
        assert!(!format!("{error} {error:?}").contains(part), "{broken}: {error}");
    }
}
