//! `ingestion.srt.access`: who is let in, and how often anybody may ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Network;

/// `ingestion.srt.access`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// The networks that callers may come from; none: from anywhere.
    pub allow: Vec<Network>,
    /// The networks that they may not come from, though they are in one of `allow`.
    pub deny: Vec<Network>,
    /// The names that this host answers to in a Stream ID (`h=`); none: to any.
    pub hosts: Vec<String>,
    /// Refuse streams that `streams` does not name.
    pub configured_streams_only: bool,
    /// Who may call, by the user name in the Stream ID (`u=`); none: anybody, with or without a name.
    pub users: BTreeMap<String, User>,
    /// Most sessions of one source address (of IPv6: of one /64); 0: as many as `max_connections`.
    pub max_per_source: u32,
    /// Inductions of one source answered in a second, four times as many at once; 0: all.
    pub inductions_per_second: u32,
    /// Conclusions of one source judged in a second, four times as many at once; 0: all.
    pub conclusions_per_second: u32,
    /// Passphrases of one source that are tried in a second (PBKDF2), four times as many at once; 0: all.
    pub derivations_per_second: u32,
    /// The same of all sources together that have not shown the right passphrase of late, a second's worth at once; 0: all.
    pub derivations_per_second_total: u32,
}

/// `ingestion.srt.access.users.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// What the user must know, 10 to 79 bytes, in place of the stream's passphrase; none: the stream's.
    pub passphrase: Option<String>,
    /// The streams that the user may send: names, or beginnings of names followed by `*`; none: all.
    pub streams: Vec<String>,
}

impl User {
    /// Whether the user may send this stream.
    pub fn may_send(&self, stream: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => stream.starts_with(beginning),
            None => stream == pattern,
        };
        self.streams.is_empty() || self.streams.iter().any(matches)
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            hosts: Vec::new(),
            configured_streams_only: false,
            users: BTreeMap::new(),
            max_per_source: 0,
            inductions_per_second: 100,
            conclusions_per_second: 50,
            derivations_per_second: 50,
            derivations_per_second_total: 400,
        }
    }
}

/// `streams.NAME.takeover`: when a caller gets the name of a stream that somebody else sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takeover {
    /// When that one has been silent for a second, or comes from the same address.
    #[default]
    SilentOrSameSource,
    /// When that one has been silent for a second.
    Silent,
    /// When that one comes from the same address.
    SameSource,
    /// Not before that one's session has ended.
    Never,
    /// At once.
    Always,
}

impl Takeover {
    /// The word for it, as it is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SilentOrSameSource => "silent_or_same_source",
            Self::Silent => "silent",
            Self::SameSource => "same_source",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_sends_what_is_named_or_begins_as_is_said() {
        let user =
            |streams: &[&str]| User { streams: streams.iter().map(|&it| it.to_owned()).collect(), ..User::default() };
        assert!(user(&[]).may_send("anything"));
        let north = user(&["cam1", "north/*"]);
        assert!(north.may_send("cam1") && north.may_send("north/a/b"));
        assert!(!north.may_send("cam10") && !north.may_send("north") && !north.may_send("south/north/a"));
    }
}
