//! Body of the fuzz target: a configuration file that may hold anything.

use std::path::Path;

use super::ConfigError;
use super::load::Sources;

/// Reads `data` as a configuration file, its last line also as an assignment. It is taken or refused, and never panics.
pub fn fuzz_configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut sources = Sources::default();
    let read = sources.read_text(&text, Path::new("fuzz.yaml"));
    let assigned = text
        .lines()
        .next_back()
        .and_then(|line| line.split_once('='))
        .map_or(Ok(()), |(key, value)| sources.assign(key.trim(), value, "--set".to_owned()));
    let loaded = read.and(assigned).and_then(|()| sources.into_config());
    if let Err(ConfigError::Value { key, reason, .. }) = loaded {
        assert!(!reason.is_empty(), "{key} is refused without a reason");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[a-z:_ \n\"'0-9{}\\[\\],=.-]{0,200}") {
            super::fuzz_configuration(text.as_bytes());
        }
    }
}
