//! The sources of a configuration, read and merged: the file, the environment, the assignments of `--set`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::Config;
use super::keys::{
    below, check_known, collect_keys, first_misfit, generic_key, is_passphrase, is_text, key_lines, names,
};

/// Keys that are read and checked, but have no effect yet.
pub(super) const NOT_YET_IN_EFFECT: &[&str] = &[
    "control.auth",
    "control.tls",
    "ingestion.backpressure",
    "ingestion.buffer.read_timeout",
    "ingestion.buffer.write_timeout",
    "ingestion.gop.force_idr_interval",
    "ingestion.gop.max_gop_size",
    "ingestion.memory.gc_interval",
    "ingestion.sync",
    "streams.*.redundancy",
];

/// Reads the file if there is one, then the environment, then the assignments of `--set`.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    assignments: &[String],
) -> Result<Loaded, ConfigError> {
    let mut sources = Sources::default();
    if let Some(path) = file {
        sources.read_file(path)?;
    }
    for (name, value) in environment {
        // A name that is not UTF-8 is none of ours.
        let Some(name) = name.to_str() else { continue };
        // `HEADWORKS_LOG` and the like without a group are not configuration keys.
        if let Some(key) = name.strip_prefix("HEADWORKS_").filter(|key| key.contains("__")) {
            let (key, place) = (key.to_lowercase().replace("__", "."), format!("environment variable {name}"));
            match value.to_str() {
                Some(value) => sources.assign(&key, value, place)?,
                None => return Err(ConfigError::Value { place, key, reason: "is not UTF-8".to_owned() }),
            }
        }
    }
    for assignment in assignments {
        let (key, value) =
            assignment.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment(without_secret(assignment)))?;
        // The value is not shown: it may be a passphrase, also under a key that is misspelt.
        sources.assign(key.trim(), value, "--set".to_owned())?;
    }
    sources.into_config()
}

/// A word without `=` up to where a passphrase may begin.
fn without_secret(assignment: &str) -> String {
    let secret = assignment.find("pass").and_then(|at| Some(at + assignment[at..].find([':', ' '])?));
    secret.map_or_else(|| assignment.to_owned(), |at| format!("{}…", &assignment[..at]))
}

/// A configuration with what is to be said about it at start.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Keys that were set and have no effect yet; of a section, those set in it.
    pub not_yet_in_effect: Vec<String>,
}

/// Why a configuration was refused. Each names the key or the line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A key that means nothing here.
    #[error("{place}: unknown key {key}{}", nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// File and line, environment variable or flag.
        place: String,
        /// The key as dotted path.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong kind, or out of range.
    #[error("{place}: {key}: {reason}")]
    Value {
        /// File and line, environment variable or flag.
        place: String,
        /// The key as dotted path.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A `--set` without `=`.
    #[error("--set {0}: expected key=value")]
    NotAnAssignment(String),
}

/// The values of all sources merged, and where each was set.
#[derive(Default)]
pub(super) struct Sources {
    values: Map<String, Value>,
    places: BTreeMap<String, String>,
}

impl Sources {
    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        self.read_text(&text, path)
    }

    pub(super) fn read_text(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax { path: path.to_owned(), reason };
        let value: Value = if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            Value::Object(Map::new())
        } else {
            serde_saphyr::from_str(text).map_err(|error| syntax(describe_syntax(text, &error)))?
        };
        let Value::Object(values) = value else {
            return Err(syntax("expected keys and values at the top level".to_owned()));
        };
        for (key, line) in key_lines(text) {
            self.places.entry(key).or_insert_with(|| format!("{}:{line}", path.display()));
        }
        let mut keys = Vec::new();
        collect_keys(&Value::Object(values.clone()), "", &mut keys);
        for key in keys {
            let place = self.place(&key).unwrap_or_else(|| path.display().to_string());
            check_known(&key, &place)?;
        }
        self.values = values;
        Ok(())
    }

    pub(super) fn assign(&mut self, key: &str, value: &str, place: String) -> Result<(), ConfigError> {
        check_known(key, &place)?;
        let value = match value {
            "null" if is_text(key) => None,
            "" if is_passphrase(key) => {
                let reason = format!("is empty: leave it out, or set {key}=null, to have none");
                return Err(ConfigError::Value { place, key: key.to_owned(), reason });
            }
            // Text is no YAML, for which `#`, `: ` and digits mean something.
            text if is_text(key) && !text.is_empty() => Some(Value::String(text.to_owned())),
            text => Some(serde_saphyr::from_str(text).unwrap_or_else(|_| Value::String(text.trim().to_owned()))),
        };
        let mut below = Vec::new();
        value.iter().for_each(|value| collect_keys(value, key, &mut below));
        below.iter().try_for_each(|key| check_known(key, &place))?;
        let mut parts = names(key).into_iter().peekable();
        let mut map = &mut self.values;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                match value {
                    Some(value) => map.insert(part.to_owned(), value),
                    None => map.remove(part),
                };
                break;
            }
            let child = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if !child.is_object() {
                *child = Value::Object(Map::new());
            }
            map = child.as_object_mut().expect("it was just made an object");
        }
        self.places.insert(key.to_owned(), place);
        Ok(())
    }

    /// Where a key was set, or the section that it stands in, or something else of that section.
    fn place(&self, key: &str) -> Option<String> {
        std::iter::successors(Some(key), |key| key.rsplit_once(['.', '[']).map(|(above, _)| above)).find_map(|key| {
            let of_section = || self.places.iter().find(|(other, _)| is_below(other, key)).map(|(_, place)| place);
            self.places.get(key).or_else(of_section).cloned()
        })
    }

    pub(super) fn into_config(self) -> Result<Loaded, ConfigError> {
        let place = |key: &str| self.place(key).unwrap_or_else(|| "configuration".to_owned());
        let values = Value::Object(self.values.clone());
        if let Some((key, reason)) = first_misfit(&values, "") {
            return Err(ConfigError::Value { place: place(&key), key, reason });
        }
        let config: Config = serde_path_to_error::deserialize(values).map_err(|error| {
            let key = key_of(error.path());
            ConfigError::Value { place: place(&key), key, reason: in_plain_words(&error.into_inner().to_string()) }
        })?;
        if let Some((key, reason)) = config.first_fault() {
            return Err(ConfigError::Value { place: place(&key), key, reason });
        }
        let mut keys = Vec::new();
        collect_keys(&Value::Object(self.values), "", &mut keys);
        let mut not_yet: Vec<String> = keys
            .iter()
            .filter(|key| {
                let generic = generic_key(key);
                let is_group = keys.iter().any(|other| is_below(other, key));
                !is_group && NOT_YET_IN_EFFECT.iter().any(|later| generic == *later || is_below(&generic, later))
            })
            .cloned()
            .collect();
        not_yet.sort();
        Ok(Loaded { config, not_yet_in_effect: not_yet })
    }
}

/// Whether a key stands in a section, directly or not.
fn is_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// The key that a value of the wrong kind stands at.
fn key_of(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |key, segment| match segment {
        Segment::Map { key: name } => below(&key, name),
        Segment::Seq { index } => format!("{key}[{index}]"),
        Segment::Enum { .. } | Segment::Unknown => key,
    })
}

/// What is wrong with a value, in words that do not suppose a programmer.
fn in_plain_words(reason: &str) -> String {
    let Some((found, expected)) = reason.rsplit_once(", expected ") else { return reason.to_owned() };
    let expected = match expected {
        "u8" => "a number from 0 to 255",
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 4294967295",
        "u64" | "usize" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list, such as [one, another]",
        other => other,
    };
    match found {
        "invalid type: null" if expected.starts_with("struct ") || expected == "a map" => {
            "has nothing below it: leave it out, or write {} for it".to_owned()
        }
        "invalid type: null" => format!("is empty, expected {expected}"),
        _ => format!("{found}, expected {expected}"),
    }
}

/// What is wrong with a text that is not YAML; of one that has passphrases, only where.
fn describe_syntax(text: &str, error: &serde_saphyr::Error) -> String {
    match error.location() {
        _ if !text.to_lowercase().contains("pass") => error.to_string(),
        Some(at) => format!(
            "not YAML in line {}, column {} (not shown: there is a passphrase in the file); is all quoted that holds a colon or begins with a sign?",
            at.line(),
            at.column()
        ),
        None => "not YAML (not shown: there is a passphrase in the file)".to_owned(),
    }
}
