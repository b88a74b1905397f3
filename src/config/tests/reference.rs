//! The reference in README.md, held against the configuration: every key is there, with its default, and no other.

use std::collections::BTreeSet;

use super::super::keys::{collect_keys, known_keys};
use super::super::load::NOT_YET_IN_EFFECT;
use super::load_text;
use crate::config::Config;

/// The block of YAML behind a line of README.md.
fn block<'a>(readme: &'a str, behind: &str) -> &'a str {
    let from = &readme[readme.find(behind).unwrap()..];
    from.split_once("```yaml\n").unwrap().1.split_once("```").unwrap().0
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect()
}

#[test]
fn the_readme_has_every_key_with_its_default_and_no_other() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let reference = block(&readme, "The defaults:\n");
    let loaded = load_text(reference).unwrap();
    assert_eq!((loaded.config, loaded.not_yet_in_effect.len()), (Config::default(), 0));
    // Keys that have no default stand there as comments.
    let with_all: String =
        reference.lines().map(|line| line.replacen("# ", "", usize::from(is_key(line))) + "\n").collect();
    let mut keys = Vec::new();
    collect_keys(&serde_saphyr::from_str(&with_all).unwrap(), "", &mut keys);
    let of_streams = words(reference.lines().find(|line| line.starts_with("streams:")).unwrap());
    let of_calls = words(block(&readme, "## Fetching streams"));
    let of_users = words(reference.lines().find(|line| line.trim_start().starts_with("users:")).unwrap());
    let is_later = |key: &str| NOT_YET_IN_EFFECT.iter().any(|later| key.starts_with(later));
    for key in known_keys().iter().filter(|key| !key.ends_with('*') && !is_later(key)) {
        let name = key.rsplit('.').next().unwrap();
        let is_there = match key.split_once(".*.") {
            Some(("streams", below)) if below.starts_with("srt.") => of_calls.contains(name),
            Some(("streams", _)) => of_streams.contains(name),
            Some(_) => of_users.contains(name),
            None => keys.contains(key),
        };
        assert!(is_there, "README.md says nothing of {key}");
    }
}

/// A comment that is a key with its value.
fn is_key(line: &str) -> bool {
    let comment = line.trim_start().strip_prefix("# ");
    comment.and_then(|it| it.split_once(": ")).is_some_and(|(key, _)| words(key).len() == 1 && !key.contains(' '))
}
