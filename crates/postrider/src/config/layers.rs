//! Layers of configuration: defaults < file < environment < flags. Unknown settings are refused with the nearest
//! known one. Reads the file and the `*_FILE` secrets; everything else is an argument.

use super::{
    Config, ConfigError,
    keys::{self, Key, Kind},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// The file that is read when no `--config` names one.
pub const DEFAULT_FILE: &str = "postrider.toml";
/// Longest configuration or secret file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// What a configuration is read from.
#[derive(Debug, Default)]
pub struct Inputs {
    /// `--config`; must exist. `None` reads [`DEFAULT_FILE`] of the working directory if there is one.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags, as section, name and text.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag,
}

/// The configuration and where each value that is not a default comes from.
#[derive(Debug)]
pub struct Loaded {
    /// What the parts get.
    pub config: Config,
    /// Values that were set, by section and name.
    pub set: Table,
    /// Their origins, by `section.name`.
    pub origins: BTreeMap<String, Origin>,
}

/// Reads all layers.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::default();
    if let Some((path, text)) = file(inputs.file.as_deref())? {
        layers.add_file(&path, &text)?;
    }
    for (variable, text) in &inputs.environment {
        layers.add_variable(variable, text)?;
    }
    for (section, name, text) in &inputs.flags {
        let key = keys::find(section, name).ok_or_else(|| unknown(section, name))?;
        layers.put(key, value(key, text), Origin::Flag);
    }
    layers.finish()
}

#[derive(Default)]
struct Layers {
    set: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        // The parser's own message is used without its excerpt, which could show a secret.
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line =
                error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError(format!("{}, line {line}: {}", path.display(), error.message()))
        })?;
        self.add_table(path, "", table)
    }

    fn add_table(&mut self, path: &Path, section: &str, table: Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let below = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let is_section = keys::sections().any(|known| known == below);
            match (keys::find(section, &name), value) {
                (_, Value::Table(values)) if is_section => self.add_table(path, &below, values)?,
                (_, _) if is_section => {
                    return Err(ConfigError(format!(
                        "`{below}` is a section: write `[{below}]`, its settings below"
                    )));
                }
                (Some(key), value) => self.put(key, value, Origin::File(path.to_owned())),
                (None, Value::Table(_)) if section.is_empty() => return Err(unknown_section(&name)),
                (None, _) if section.is_empty() => return Err(homeless(&name)),
                (None, _) => return Err(unknown(section, &name)),
            }
        }
        Ok(())
    }

    fn add_variable(&mut self, variable: &str, text: &str) -> Result<(), ConfigError> {
        // The short names, which container platforms and people expect.
        match variable {
            "POSTRIDER_DATABASE_URL" => return self.add_variable("POSTRIDER_DATABASE__URL", text),
            "POSTRIDER_ROLES" => return self.add_variable("POSTRIDER_SERVER__ROLES", text),
            _ => {}
        }
        // Names without `__` are left alone: container platforms set `POSTRIDER_PORT` and the like for a service of
        // this name.
        let Some((section, name)) =
            variable.strip_prefix("POSTRIDER_").and_then(|rest| rest.rsplit_once("__"))
        else {
            return Ok(());
        };
        let (section, name) = (section.to_ascii_lowercase().replace("__", "."), name.to_ascii_lowercase());
        let origin = Origin::Variable(variable.to_owned());
        if let Some(key) = keys::find(&section, &name) {
            self.put(key, value(key, text), origin);
            return Ok(());
        }
        if let Some(key) = name.strip_suffix("_file").and_then(|name| keys::find(&section, name)) {
            let text = read(Path::new(text)).map_err(|error| ConfigError(format!("{variable}: {error}")))?;
            self.put(key, value(key, text.trim_end_matches(['\r', '\n'])), origin);
            return Ok(());
        }
        let error = if keys::sections().any(|known| known == section) {
            unknown(&section, &name)
        } else {
            unknown_section(&section)
        };
        Err(ConfigError(format!("environment variable {variable}: {error}")))
    }

    fn put(&mut self, key: &Key, value: Value, origin: Origin) {
        key.put(&mut self.set, value);
        self.origins.insert(key.path(), origin);
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        // One setting at a time first, so that an error names the setting and where it was set.
        for key in keys::all() {
            let Some(value) = key.of(&self.set) else { continue };
            let mut alone = Table::new();
            key.put(&mut alone, value.clone());
            if let Err(error) = alone.try_into::<Config>() {
                let why =
                    if key.secret { "the value cannot be used".to_owned() } else { plain(error.message()) };
                return Err(ConfigError(format!(
                    "`{}` ({}): {why}",
                    key.path(),
                    from(self.origins.get(&key.path()))
                )));
            }
        }
        let config: Config = self
            .set
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError(error.message().into()))?;
        config.check()?;
        Ok(Loaded { config, set: self.set, origins: self.origins })
    }
}

/// A phrase for where a value comes from.
pub fn from(origin: Option<&Origin>) -> String {
    match origin {
        None => "default".to_owned(),
        Some(Origin::File(path)) => path.display().to_string(),
        Some(Origin::Variable(name)) => name.clone(),
        Some(Origin::Flag) => "flag".to_owned(),
    }
}

/// A text of the environment or of a flag as the kind of value that the setting takes. Lists are TOML lists, or parts
/// with commas between them. What does not read stays text, and is refused by the setting's type.
fn value(key: &Key, text: &str) -> Value {
    let number = |text: &str| text.trim().parse().map_or_else(|_| Value::String(text.into()), Value::Integer);
    match key.kind {
        Kind::Text => Value::String(text.to_owned()),
        Kind::Bool => text.trim().parse().map_or_else(|_| Value::String(text.into()), Value::Boolean),
        Kind::Integer => number(text),
        Kind::Float => text.trim().parse().map_or_else(|_| Value::String(text.into()), Value::Float),
        Kind::Numbers | Kind::Texts => {
            let list =
                format!("list = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("list"));
            list.filter(Value::is_array).unwrap_or_else(|| {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Value::Array(match key.kind {
                    Kind::Numbers => parts.map(number).collect(),
                    _ => parts.map(|part| Value::String(part.to_owned())).collect(),
                })
            })
        }
    }
}

fn file(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    if named.is_none() && !path.exists() {
        return Ok(None);
    }
    let text = read(path).map_err(|error| {
        ConfigError(format!("cannot read the configuration file {error}; name one with `--config`"))
    })?;
    Ok(Some((path.to_owned(), text)))
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if length > FILE_BYTES {
        return Err(format!("{}: longer than {FILE_BYTES} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn unknown(section: &str, name: &str) -> ConfigError {
    let names = keys::all().iter().filter(|key| key.section == section).map(|key| key.name);
    let hint = keys::nearest(name, names).map_or_else(
        || format!("`postrider config` lists the settings of [{section}]"),
        |near| format!("did you mean `{section}.{near}`?"),
    );
    ConfigError(format!("unknown setting `{section}.{name}`: {hint}"))
}

/// A setting outside of any section.
fn homeless(name: &str) -> ConfigError {
    let hint = keys::all().iter().find(|key| key.name == name).map_or_else(
        || format!("the sections are {}", keys::sections().collect::<Vec<_>>().join(", ")),
        |key| format!("write it below `[{}]`", key.section),
    );
    ConfigError(format!("`{name}` stands outside of any section: {hint}"))
}

/// The deserializer's sentence without the names of Rust's types.
fn plain(message: &str) -> String {
    ["u64", "u32", "u16", "usize", "i64"].iter().fold(message.to_owned(), |text, integer| {
        text.replace(&format!("expected {integer}"), "expected a whole number, 0 or more")
    })
}

fn unknown_section(section: &str) -> ConfigError {
    let known: Vec<_> = keys::sections().collect();
    let hint = keys::nearest(section, keys::sections()).map_or_else(
        || format!("known are {}", known.join(", ")),
        |near| format!("did you mean `[{near}]`?"),
    );
    ConfigError(format!("unknown section `[{section}]`: {hint}"))
}

#[cfg(test)]
mod tests;
