//! Which keys there are, and on which line of a file each stands.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Config, ConfigError, Readers, Stream, StreamRtp};

/// Refuses a key that does not exist, with the known key that is most like it.
pub(super) fn check_known(key: &str, place: &str) -> Result<(), ConfigError> {
    let known = known_keys();
    let generic = generic_key(key);
    if known.contains(&generic) {
        return Ok(());
    }
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, &generic), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 2)
        .map(|(_, candidate)| match key.split('.').nth(1) {
            Some(name) if candidate.starts_with("streams.*") => candidate.replacen('*', name, 1),
            _ => candidate.clone(),
        });
    Err(ConfigError::UnknownKey { place: place.to_owned(), key: key.to_owned(), nearest })
}

/// Keys below which anything may stand: a map that the user fills, or a section whose own keys are not settled yet.
fn is_open(key: &str) -> bool {
    key.ends_with(".payload_types") || matches!(key, "control.auth" | "control.tls" | "streams.*.redundancy")
}

/// `streams.cam1.latency` as `streams.*.latency`, and what stands in an open section as the section.
pub(super) fn generic_key(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').collect();
    if parts.len() > 1 && parts[0] == "streams" {
        parts[1] = "*";
    }
    (1..=parts.len()).map(|count| parts[..count].join(".")).find(|key| is_open(key)).unwrap_or_else(|| parts.join("."))
}

/// The known keys as dotted paths; `*` stands for a name that the user chooses.
fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    let template = Config {
        streams: BTreeMap::from([(
            "*".to_owned(),
            Stream { rtp: Some(StreamRtp::default()), readers: Some(Readers::default()), ..Stream::default() },
        )]),
        ..Config::default()
    };
    let value = serde_json::to_value(template).expect("a configuration can be written as JSON");
    collect_keys(&value, "", &mut keys);
    keys
}

/// All dotted paths in `value`, groups included, arrays and empty maps as leaves.
pub(super) fn collect_keys(value: &Value, prefix: &str, keys: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (name, child) in map {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        keys.push(key.clone());
        if !is_open(&generic_key(&key)) {
            collect_keys(child, &key, keys);
        }
    }
}

/// The line of each key of a block-style YAML text, by dotted path.
///
/// Only for messages: what cannot be followed (flow style, anchors) gets no line, and the file is named without one.
pub(super) fn key_lines(text: &str) -> Vec<(String, usize)> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with(['#', '-']) {
            continue;
        }
        let Some((name, _)) = content.split_once(':') else { continue };
        let indent = line.len() - content.len();
        open.retain(|(depth, _)| *depth < indent);
        open.push((indent, name.trim().trim_matches(['"', '\'']).to_owned()));
        let path: Vec<&str> = open.iter().map(|(_, name)| name.as_str()).collect();
        lines.push((path.join("."), index + 1));
    }
    lines
}
