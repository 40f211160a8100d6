//! The operator's keys: reads, checks and creates the keyring file. Knows nothing of data keys or sealed values.
//!
//! What the file looks like: `docs/operating.md`. No passphrase is ever stretched into a key.

use crate::random;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a key encryption key (AES-256).
pub(crate) const KEY_BYTES: usize = 32;
/// Longest name of a key: it is written with one length byte into every wrapped data key.
const KEY_NAME_BYTES: usize = 64;
/// Largest keyring file: hundreds of keys; anything larger is some other file.
const FILE_BYTES: u64 = 64 * 1024;
const CHECK_INFO: &[u8] = b"postrider/kcv";
/// How to make a key by hand, for messages.
const HOW_TO_MAKE: &str = "make one with `openssl rand -base64 32`";

/// Key encryption keys by name; one of them is primary and wraps new data keys.
pub struct Keyring {
    primary: String,
    keys: BTreeMap<String, Kek>,
}

/// One key encryption key, wiped on drop.
pub(crate) struct Kek(Zeroizing<[u8; KEY_BYTES]>);

/// Why a keyring cannot be used; the text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct KeyringError(pub String);

impl Kek {
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Names only.
impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.keys.keys().collect();
        formatter.debug_struct("Keyring").field("primary", &self.primary).field("keys", &names).finish()
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl Keyring {
    /// Reads a keyring file: `primary = "…"` and `[keys]` of names to base64 of 32 bytes. Refuses a file that others
    /// can read, a short key, a missing primary.
    pub fn load(path: &Path) -> Result<Self, KeyringError> {
        let shown = path.display();
        let file = fs::File::open(path).map_err(|error| {
            KeyringError(format!(
                "the keyring {shown} cannot be read ({error}); name an existing file, or create one with \
                 `postrider keyring create`"
            ))
        })?;
        let about = file.metadata().map_err(|error| KeyringError(format!("the keyring {shown}: {error}")))?;
        if !about.is_file() {
            return Err(KeyringError(format!("the keyring {shown} is not a regular file")));
        }
        if about.mode() & 0o077 != 0 {
            return Err(KeyringError(format!(
                "the keyring {shown} can be read by others (mode {:04o}); run: chmod 600 {shown}",
                about.mode() & 0o7777
            )));
        }
        if about.len() > FILE_BYTES {
            return Err(KeyringError(format!(
                "the keyring {shown} is larger than {FILE_BYTES} bytes: not a keyring"
            )));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(|error| {
            KeyringError(format!("the keyring {shown} cannot be read as text ({})", error.kind()))
        })?;
        Self::parse(&text)
            .map_err(|KeyringError(reason)| KeyringError(format!("the keyring {shown}: {reason}")))
    }

    /// Creates a keyring file with one random key, mode 0600; never overwrites. Missing folders are made for the
    /// owner alone. The key's name is random too, so that two keyrings are told apart by it.
    pub fn create(path: &Path) -> Result<Self, KeyringError> {
        let failed = |error: std::io::Error| {
            let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
                "it exists and is never overwritten: what it seals would be lost; use it, or name another file"
            } else {
                "choose a folder that this user can write to"
            };
            KeyringError(format!("the keyring {} cannot be created ({error}); {hint}", path.display()))
        };
        let name = format!("k{}", crate::hex(&random::<4>()));
        let mut key = Zeroizing::new(random::<KEY_BYTES>());
        let mut encoded = Zeroizing::new(STANDARD.encode(*key));
        // One in billions of random keys looks like text.
        while looks_like_text(&encoded, &key) {
            *key = random();
            *encoded = STANDARD.encode(*key);
        }
        let text = Zeroizing::new(format!(
            "# The keys of a Postrider server: every credential in its database is sealed with them.\n\
             # A backup of the database is useless without this file, and keeping both in one place defeats it.\n\
             primary = \"{name}\"\n\n[keys]\n{name} = \"{}\"\n",
            *encoded
        ));
        let folder = parent(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        write_new(path, folder, text.as_bytes()).map_err(failed)?;
        Ok(Self { primary: name.clone(), keys: BTreeMap::from([(name, Kek(key))]) })
    }

    /// Refuses a keyring inside the data directory: whoever copies that directory (every backup does) would hold the
    /// sealed credentials and the keys that open them. Links are followed. Only `--dev` goes without this check.
    pub fn ensure_outside(path: &Path, data_dir: &Path) -> Result<(), KeyringError> {
        let unresolvable = |error: std::io::Error| {
            KeyringError(format!(
                "the place of the keyring {} cannot be determined ({error})",
                path.display()
            ))
        };
        let keyring = resolve(path).map_err(unresolvable)?;
        let data = resolve(data_dir).map_err(unresolvable)?;
        if keyring.starts_with(&data) {
            return Err(KeyringError(format!(
                "the keyring {} lies inside the data directory {}: a backup of that directory would carry the sealed \
                 credentials together with the keys that open them; move the keyring elsewhere, for example to \
                 /etc/postrider/keyring.toml",
                path.display(),
                data_dir.display()
            )));
        }
        Ok(())
    }

    /// Names of the keys with their check values (8 bytes of HMAC), to compare with what a database remembers.
    pub fn check_values(&self) -> Vec<(String, [u8; 8])> {
        self.keys.iter().map(|(name, kek)| (name.clone(), check_value(kek))).collect()
    }

    /// Name of the key that wraps new data keys.
    pub fn primary(&self) -> &str {
        &self.primary
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Kek> {
        self.keys.get(name)
    }

    fn parse(text: &str) -> Result<Self, KeyringError> {
        let refuse = |reason: String| Err(KeyringError(reason));
        // The parser's own message quotes the line, and with it a key.
        let mut table: toml::Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            KeyringError(format!(
                "line {line} is not TOML; a keyring has `primary = \"name\"` and, below `[keys]`, names with base64 of 32 \
                 bytes"
            ))
        })?;
        if let Some(unknown) = table.keys().find(|member| !matches!(member.as_str(), "primary" | "keys")) {
            return refuse(format!(
                "unknown member `{}`; only `primary` and `[keys]` are known",
                shorten(unknown)
            ));
        }
        let Some(toml::Value::Table(entries)) = table.get_mut("keys") else {
            return refuse(format!("the table `[keys]` is missing; add a key below it: {HOW_TO_MAKE}"));
        };
        let mut keys = BTreeMap::new();
        for (name, value) in entries.iter_mut() {
            let kek = read_key(name, value)?;
            keys.insert(name.clone(), kek);
        }
        if keys.is_empty() {
            return refuse(format!("the table `[keys]` is empty; add a key: {HOW_TO_MAKE}"));
        }
        let Some(toml::Value::String(primary)) = table.get("primary") else {
            return refuse("`primary` is missing; name the key that wraps new data keys".to_owned());
        };
        if !keys.contains_key(primary) {
            return refuse(format!("`primary` names `{}`, which is not below `[keys]`", shorten(primary)));
        }
        Ok(Self { primary: primary.clone(), keys })
    }
}

/// Reads one entry below `[keys]` and wipes its text.
fn read_key(name: &str, value: &mut toml::Value) -> Result<Kek, KeyringError> {
    let shown = shorten(name);
    let refuse = |reason: &str| Err(KeyringError(format!("the key `{shown}` {reason}; {HOW_TO_MAKE}")));
    let name_is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if name.is_empty() || name.len() > KEY_NAME_BYTES || !name_is_plain {
        return Err(KeyringError(format!(
            "the key name `{shown}` must have 1 to {KEY_NAME_BYTES} letters, digits, `-` or `_`"
        )));
    }
    let toml::Value::String(text) = value else {
        return refuse("is not a text of base64");
    };
    let text = Zeroizing::new(std::mem::take(text));
    let Ok(bytes) = STANDARD.decode(text.trim()) else {
        return refuse("is not base64 of 32 random bytes; passphrases are not accepted");
    };
    let bytes = Zeroizing::new(bytes);
    let Ok(mut key) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) else {
        return refuse(&format!("has {} bytes instead of {KEY_BYTES}", bytes.len()));
    };
    let kek = Kek(Zeroizing::new(key));
    key.zeroize();
    if looks_like_text(text.trim(), kek.bytes()) {
        return refuse("looks like a passphrase, not like 32 random bytes; passphrases are not accepted");
    }
    Ok(kek)
}

/// Random bytes practically never look like this: printable throughout, without capital or small letters in base64,
/// or made of a few different bytes.
fn looks_like_text(encoded: &str, key: &[u8; KEY_BYTES]) -> bool {
    let printable = key.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let one_case = !encoded.bytes().any(|byte| byte.is_ascii_uppercase())
        || !encoded.bytes().any(|byte| byte.is_ascii_lowercase());
    let different: std::collections::BTreeSet<_> = key.iter().collect();
    printable || one_case || different.len() < KEY_BYTES / 2
}

fn check_value(kek: &Kek) -> [u8; 8] {
    crate::first_8(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, kek.bytes()), CHECK_INFO).as_ref())
}

/// Writes under a name of its own, then links to the final name: that fails when the name exists, and nobody ever
/// sees half a file.
fn write_new(path: &Path, folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let scratch = folder.join(format!(".keyring-{}.new", crate::hex(&random::<8>())));
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch).and_then(
        |mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::hard_link(&scratch, path)
        },
    );
    let removed = fs::remove_file(&scratch);
    written.and(removed)?;
    fs::File::open(folder)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The real place of a path whose last parts need not exist yet.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |path, part| path.join(part))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (Some(folder), Some(name)) = (existing.parent(), existing.file_name()) else {
                    return Ok(absolute);
                };
                missing.push(name.to_owned());
                existing = folder;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A name for a message: bounded, without control characters.
fn shorten(name: &str) -> String {
    const SHOWN: usize = 64;
    name.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
