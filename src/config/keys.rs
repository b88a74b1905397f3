//! Which keys there are, and on which line of a file each stands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Config, ConfigError, CryptoMode, Readers, SrtVersion, Stream, StreamRtp, StreamSrt, User};

/// What is said of a passphrase that YAML takes for a number or the like.
const PASSPHRASE_IS_NO_TEXT: &str = "is not a text: quote it";

/// Refuses a key that does not exist, with the known key that is most like it.
pub(super) fn check_known(key: &str, place: &str) -> Result<(), ConfigError> {
    let known = known_keys();
    let generic = generic_key(key);
    if known.contains(&generic) {
        return Ok(());
    }
    // What stands below a passphrase is the passphrase, written so that YAML takes it for keys.
    if let Some((above, _)) = generic.split_once(".passphrase.") {
        let key = joined(names(key).into_iter().take(names(above).len() + 1));
        let reason = PASSPHRASE_IS_NO_TEXT.to_owned();
        return Err(ConfigError::Value { place: place.to_owned(), key, reason });
    }
    let chosen = names(key);
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(candidate, &generic), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 2)
        .map(|(_, candidate)| match chosen.get(1) {
            Some(name) if candidate.starts_with("streams.*") => candidate.replacen('*', &quoted(name), 1),
            _ if candidate.starts_with("ingestion.srt.access.users.*") => {
                candidate.replacen('*', &quoted(chosen.get(4).unwrap_or(&"NAME")), 1)
            }
            _ => candidate.clone(),
        });
    Err(ConfigError::UnknownKey { place: place.to_owned(), key: key.to_owned(), nearest })
}

/// Keys below which anything may stand: a map that the user fills, or a section whose own keys are not settled yet.
fn is_open(key: &str) -> bool {
    key.ends_with(".payload_types") || matches!(key, "control.auth" | "control.tls" | "streams.*.redundancy")
}

/// `streams.cam1.latency` as `streams.*.latency`, a user's keys likewise, and what stands in an open section as the section.
pub(super) fn generic_key(key: &str) -> String {
    let mut parts = names(key);
    if parts.len() > 1 && parts[0] == "streams" {
        parts[1] = "*";
    }
    if parts.len() > 4 && parts[..4] == ["ingestion", "srt", "access", "users"] {
        parts[4] = "*";
    }
    let above = |count: usize| joined(parts[..count].iter().copied());
    (1..=parts.len()).map(above).find(|key| is_open(key)).unwrap_or_else(|| above(parts.len()))
}

/// A name as it stands in a key: one with dots (a stream's, a user's) in quotes.
fn quoted(name: &str) -> Cow<'_, str> {
    if name.contains('.') { format!("\"{name}\"").into() } else { name.into() }
}

/// The key of a name below another key; at the top of the file there is none.
pub(super) fn below(key: &str, name: &str) -> String {
    if key.is_empty() { quoted(name).into_owned() } else { format!("{key}.{}", quoted(name)) }
}

/// The key of something that is set for a stream: `streams.cam1.latency`.
pub fn stream_key(stream: &str, key: &str) -> String {
    format!("{}.{key}", below("streams", stream))
}

/// The key of something that is set for a user.
pub fn user_key(user: &str, key: &str) -> String {
    format!("{}.{key}", below("ingestion.srt.access.users", user))
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.fold(String::new(), |key, name| below(&key, name))
}

/// The names that a key is made of, without their quotes.
pub(super) fn names(key: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = Some(key);
    while let Some(text) = rest {
        let in_quotes = text.strip_prefix('"').and_then(|text| text.split_once('"'));
        let in_quotes = in_quotes.filter(|(_, after)| after.is_empty() || after.starts_with('.'));
        let (name, after) = match in_quotes {
            Some((name, after)) => (name, after.strip_prefix('.')),
            None => text.split_once('.').map_or((text, None), |(name, after)| (name, Some(after))),
        };
        names.push(name);
        rest = after;
    }
    names
}

/// The known keys as dotted paths; `*` stands for a name that the user chooses.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    collect_keys(&template(), "", &mut keys);
    keys
}

/// A configuration in which everything is set that has a type of its own: it shows of what kind each value is.
fn template() -> Value {
    let address = Some(IpAddr::from([0; 4]));
    let mut config = Config::default();
    config.ingestion.srt.passphrase = Some(String::new());
    config.ingestion.srt.packet_filter = Some(String::new());
    config.ingestion.srt.version_min = Some(SrtVersion(0));
    config.ingestion.srt.traffic_class = Some(0);
    config.ingestion.srt.ttl = Some(0);
    config.ingestion.srt.interface = Some(String::new());
    config.output.hugetlbfs = Some(PathBuf::new());
    config.output.broker.socket = Some(PathBuf::new());
    config.shards.dpdk.device = Some(String::new());
    config.shards.dpdk.vlan = Some(0);
    let rtp = StreamRtp {
        port: Some(0),
        address,
        source: address,
        interface: Some(String::new()),
        ssrc: Some(0),
        payload_types: BTreeMap::new(),
        sdp: Some(PathBuf::new()),
    };
    let stream = Stream {
        passphrase: Some(String::new()),
        crypto_mode: Some(CryptoMode::Auto),
        packet_filter: Some(String::new()),
        reorder_tolerance: Some(0),
        latency: Some(Duration::ZERO),
        enforced_encryption: Some(true),
        source: address,
        rtp: Some(rtp),
        srt: Some(StreamSrt::template()),
        redundancy: None,
        readers: Some(Readers::default()),
        ..Stream::default()
    };
    let user = User { passphrase: Some(String::new()), ..User::default() };
    config.ingestion.srt.access.users.insert("*".to_owned(), user);
    config.streams.insert("*".to_owned(), stream);
    serde_json::to_value(config).expect("a configuration can be written as JSON")
}

/// What stands at a key in the template.
fn template_value(key: &str) -> Option<Value> {
    names(&generic_key(key)).into_iter().try_fold(template(), |value, part| value.get(part).cloned())
}

/// Whether the value of a key is written as text: a word, a name, a path, an address, a duration.
pub(super) fn is_text(key: &str) -> bool {
    template_value(key).is_some_and(|value| value.is_string())
}

/// Whether a key is a secret, which no message shows.
pub(super) fn is_passphrase(key: &str) -> bool {
    generic_key(key).ends_with(".passphrase")
}

/// The first passphrase that is no text, or section that has no keys: its key and what is wrong. The values themselves are not
/// shown, for a passphrase may be among them.
pub(super) fn first_misfit(value: &Value, prefix: &str) -> Option<(String, String)> {
    let Value::Object(map) = value else { return None };
    map.iter().find_map(|(name, child)| {
        let key = below(prefix, name);
        if is_open(&generic_key(&key)) {
            return None;
        }
        let reason = match child {
            Value::Null if is_passphrase(&key) => "is empty: quote it, or leave the key out to have none",
            Value::String(_) if is_passphrase(&key) => return None,
            _ if is_passphrase(&key) => PASSPHRASE_IS_NO_TEXT,
            Value::Null | Value::Object(_) => return first_misfit(child, &key),
            _ if template_value(&key).is_some_and(|it| it.is_object()) => "expected keys and values below it",
            _ => return None,
        };
        Some((key, reason.to_owned()))
    })
}

/// All dotted paths in `value`, groups included, arrays and empty maps as leaves.
pub(super) fn collect_keys(value: &Value, prefix: &str, keys: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (name, child) in map {
        let key = below(prefix, name);
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
        lines.push((joined(open.iter().map(|(_, name)| name.as_str())), index + 1));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_every_value_is_known() {
        for key in known_keys() {
            let is_known = !template_value(&key).unwrap().is_null();
            assert!(is_known || is_open(&key), "{key}: set it in the template");
        }
        for key in
            ["ingestion.srt.passphrase", "streams.cam1.latency", "control.listen", "shards.packet_io", "output.root"]
        {
            assert!(is_text(key), "{key}");
        }
        for key in ["ingestion.srt.port", "streams.cam1", "streams.passphrase", "control.tls", "streams.cam1.rtp.ssrc"]
        {
            assert!(!is_text(key), "{key}");
        }
    }
}
