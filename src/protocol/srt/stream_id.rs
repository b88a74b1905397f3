//! The Stream ID: what a caller asks for (draft-sharabayko-srt §3.2.1.3, appendix B; libsrt's access control guide).

use std::fmt;

use thiserror::Error;

use super::handshake::RejectReason;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// Longest Stream ID, in bytes.
pub const STREAM_ID_LEN_MAX: usize = 512;

/// Longest name of a resource that is taken as a stream's name, in bytes.
pub const NAME_LEN_MAX: usize = 128;

const KEYED: &str = "#!::";
const NESTED: &str = "#!:{";
/// The single letters that the guide gives a meaning; all others are reserved.
const STANDARD_KEYS: [&str; 6] = ["u", "r", "h", "s", "t", "m"];
/// Words of four bytes that are shown of what is no Stream ID.
const READABLE_WORDS: usize = 32;
/// Blocks within blocks of the nested syntax, at most.
const DEPTH_MAX: usize = 8;

/// Why a Stream ID is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamIdError {
    /// Longer than 512 bytes.
    #[error("the Stream ID is longer than {STREAM_ID_LEN_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or with control characters in it.
    #[error("the Stream ID contains bytes that are no printable text")]
    NotText,
    /// Braces of the nested syntax that do not match, with something behind the last, or too many within each other.
    #[error("the braces of #!:{{…}} do not match, or there are more than {DEPTH_MAX} within each other")]
    Braces,
    /// A standard key with a block as its value.
    #[error("a key of one letter has a block {{…}} for its value")]
    Block,
    /// `#!` with neither `::` nor `:{` behind it.
    #[error("the Stream ID begins with #! but is neither of the form #!::key=value,… nor #!:{{key=value,…}}")]
    Syntax,
    /// A single letter that the guide reserves.
    #[error("a key of one letter is none of u, r, h, s, t, m")]
    Key,
    /// A pair without `=` or without a key.
    #[error("a part of the Stream ID is not key=value")]
    Pair,
    /// A key that stands there twice.
    #[error("a key stands twice in the Stream ID")]
    Repeated,
    /// `m=` with a value that the guide does not know.
    #[error("the mode is none of request, publish, bidirectional")]
    Mode,
    /// `t=` with a value that the guide does not know.
    #[error("the type is none of stream, file, auth")]
    Type,
    /// The resource has a name that cannot be a stream's name.
    #[error("the resource name is too long or is not a plain name")]
    Name,
}

impl StreamIdError {
    /// What a caller with such a Stream ID is told.
    pub const fn reject_reason(self) -> RejectReason {
        match self {
            Self::Key => RejectReason::KeyNotSupported,
            Self::Mode => RejectReason::BadMode,
            Self::Type => RejectReason::UnsupportedMedia,
            Self::TooLong
            | Self::NotText
            | Self::Braces
            | Self::Block
            | Self::Syntax
            | Self::Pair
            | Self::Repeated
            | Self::Name => RejectReason::BadRequest,
        }
    }
}

/// Which way the media is to flow, seen from the caller (`m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The caller wants to receive: what the guide says a missing `m` means.
    #[default]
    Request,
    /// The caller wants to send.
    Publish,
    /// Both.
    Bidirectional,
}

/// What kind of transfer is asked for (`t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResourceType {
    /// A live stream.
    #[default]
    Stream,
    /// A file.
    File,
    /// Only a sign-in.
    Auth,
}

/// A Stream ID, checked when it came in; pairs are read from the text when asked for.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct StreamId {
    text: String,
}

impl StreamId {
    /// Checks a Stream ID.
    ///
    /// # Errors
    /// When it is too long, no text, or not in one of the two syntaxes that are understood.
    pub fn new(text: &str) -> Result<Self, StreamIdError> {
        let stream_id = Self::for_call(text)?;
        stream_id.check()?;
        Ok(stream_id)
    }

    /// A Stream ID to call somebody else with. What it means is for that listener to say: others know names and keys that a caller here
    /// would be refused for.
    ///
    /// # Errors
    /// When it is too long, or no text.
    pub fn for_call(text: &str) -> Result<Self, StreamIdError> {
        if text.len() > STREAM_ID_LEN_MAX {
            return Err(StreamIdError::TooLong);
        }
        if text.chars().any(is_hostile) {
            return Err(StreamIdError::NotText);
        }
        Ok(Self { text: text.to_owned() })
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        to.bytes(self.text.as_bytes());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Self::for_call(from.text()?).map_err(|_| RestoreError::Invalid)
    }

    fn check(&self) -> Result<(), StreamIdError> {
        match self.content() {
            None if self.text.starts_with("#!:{") => return Err(StreamIdError::Braces),
            None if self.text.starts_with("#!") => return Err(StreamIdError::Syntax),
            None => {}
            Some((pairs, Syntax::Flat)) => check_pairs(pairs, Syntax::Flat, true)?,
            Some((pairs, Syntax::Nested)) => {
                check_braces(pairs)?;
                check_pairs(pairs, Syntax::Nested, true)?;
            }
        }
        match self.resource() {
            Some(name) if !is_name(name) => Err(StreamIdError::Name),
            _ => Ok(()),
        }
    }

    /// The pairs of a keyed text, and how they are written.
    fn content(&self) -> Option<(&str, Syntax)> {
        let flat = self.text.strip_prefix(KEYED).map(|pairs| (pairs, Syntax::Flat));
        flat.or_else(|| Some((self.text.strip_prefix(NESTED)?.strip_suffix('}')?, Syntax::Nested)))
    }

    /// Reads the content of a Stream ID extension: words of four bytes, each with its bytes reversed, zeros at the end.
    ///
    /// # Errors
    /// As [`StreamId::new`].
    pub fn from_wire(content: &[u8]) -> Result<Self, StreamIdError> {
        if content.len() > STREAM_ID_LEN_MAX {
            return Err(StreamIdError::TooLong);
        }
        let mut bytes: Vec<u8> = content.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Self::new(std::str::from_utf8(&bytes).map_err(|_| StreamIdError::NotText)?)
    }

    /// Appends the content of a Stream ID extension.
    pub fn to_wire(&self, buffer: &mut Vec<u8>) {
        for word in self.text.as_bytes().chunks(4) {
            let mut reversed = [0; 4];
            for (to, from) in reversed.iter_mut().rev().zip(word) {
                *to = *from;
            }
            buffer.extend_from_slice(&reversed);
        }
    }

    /// The text as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the caller gave none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether it is in one of the two syntaxes of keys and values.
    pub fn is_keyed(&self) -> bool {
        self.content().is_some()
    }

    /// The value of `key` in a keyed syntax, standard (`r u h s m t`) or custom; in the nested one it may be a block, with its braces.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All pairs of a keyed syntax, in order; of the nested one those outside of all blocks.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let (pairs, syntax) = self.content().unwrap_or(("", Syntax::Flat));
        parts(pairs, syntax).filter_map(|pair| pair.split_once('='))
    }

    /// The name of the resource: the whole text in the plain syntax, `r` in the keyed one. Never an empty name.
    pub fn resource(&self) -> Option<&str> {
        let name = if self.is_keyed() { self.value("r")? } else { &self.text };
        (!name.is_empty()).then_some(name)
    }

    /// Which way the media is to flow; `None` when the caller did not say, as with the plain syntax, so that the listener
    /// decides by what it is for.
    pub fn mode(&self) -> Option<Mode> {
        self.value("m").and_then(mode)
    }

    /// What kind of transfer is asked for.
    pub fn resource_type(&self) -> ResourceType {
        self.value("t").and_then(resource_type).unwrap_or_default()
    }

    /// Who wants it (`u`).
    pub fn user(&self) -> Option<&str> {
        self.value("u")
    }

    /// Which host is meant (`h`).
    pub fn host(&self) -> Option<&str> {
        self.value("h")
    }

    /// A session that the caller belongs to (`s`).
    pub fn session(&self) -> Option<&str> {
        self.value("s")
    }
}

/// How pairs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// Commas part them, and braces are letters.
    Flat,
    /// A value may be a block in braces, with commas of its own.
    Nested,
}

/// What stands between commas; of the nested syntax, between those outside of all blocks.
fn parts(pairs: &str, syntax: Syntax) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    pairs.split(move |character| {
        match character {
            '{' if syntax == Syntax::Nested => depth += 1,
            '}' if syntax == Syntax::Nested => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
}

fn check_braces(pairs: &str) -> Result<(), StreamIdError> {
    let mut depth = 0_usize;
    for character in pairs.chars() {
        depth = match character {
            '{' => depth + 1,
            '}' => depth.checked_sub(1).ok_or(StreamIdError::Braces)?,
            _ => depth,
        };
        if depth > DEPTH_MAX {
            return Err(StreamIdError::Braces);
        }
    }
    if depth == 0 { Ok(()) } else { Err(StreamIdError::Braces) }
}

/// `is_outermost`: standard keys have their meaning there, and in no block.
fn check_pairs(pairs: &str, syntax: Syntax, is_outermost: bool) -> Result<(), StreamIdError> {
    for (index, pair) in parts(pairs, syntax).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else { return Err(StreamIdError::Pair) };
        if key.is_empty() || syntax == Syntax::Nested && key.contains(['{', '}']) {
            return Err(StreamIdError::Pair);
        }
        if parts(pairs, syntax).take(index).any(|earlier| earlier.split('=').next() == Some(key)) {
            return Err(StreamIdError::Repeated);
        }
        let is_standard = STANDARD_KEYS.contains(&key);
        if syntax == Syntax::Nested && value.contains(['{', '}']) {
            let block =
                value.strip_prefix('{').and_then(|value| value.strip_suffix('}')).ok_or(StreamIdError::Braces)?;
            if is_outermost && is_standard {
                return Err(StreamIdError::Block);
            }
            check_braces(block)?;
            check_pairs(block, syntax, false)?;
        }
        if is_outermost {
            match key {
                "m" if mode(value).is_none() => return Err(StreamIdError::Mode),
                "t" if resource_type(value).is_none() => return Err(StreamIdError::Type),
                _ if !is_standard && key.len() == 1 => return Err(StreamIdError::Key),
                _ => {}
            }
        }
    }
    Ok(())
}

fn mode(value: &str) -> Option<Mode> {
    Some(match value {
        "request" => Mode::Request,
        "publish" => Mode::Publish,
        "bidirectional" => Mode::Bidirectional,
        _ => return None,
    })
}

fn resource_type(value: &str) -> Option<ResourceType> {
    Some(match value {
        "stream" => ResourceType::Stream,
        "file" => ResourceType::File,
        "auth" => ResourceType::Auth,
        _ => return None,
    })
}

/// Control characters, and the invisible ones that turn the direction of a line in a terminal or a log.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// What stands in an extension that is no Stream ID, as far as it can be shown to people.
pub fn readable(content: &[u8]) -> String {
    let bytes: Vec<u8> = content.chunks(4).take(READABLE_WORDS).flat_map(|word| word.iter().rev().copied()).collect();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').chars().map(|it| if is_hostile(it) { '\u{fffd}' } else { it }).collect()
}

/// A name that can stand in a path, a log line and an URL: never a way out of a directory.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_LEN_MAX
        && !name.contains('\\')
        && !name.starts_with('/')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_text_is_the_name_of_the_resource() {
        let stream_id = StreamId::new("cam1").expect("plain");
        assert_eq!(stream_id.resource(), Some("cam1"));
        assert_eq!((stream_id.mode(), stream_id.resource_type()), (None, ResourceType::Stream));
        assert_eq!(StreamId::default().resource(), None);
        assert_eq!(StreamId::new("live/north/cam-1 é").expect("plain").resource(), Some("live/north/cam-1 é"));
    }

    #[test]
    fn a_call_may_ask_for_what_a_caller_would_be_refused_for_but_not_for_what_is_no_text() {
        let long = "x".repeat(NAME_LEN_MAX + 1);
        for text in ["/live/cam1", "#!::x=1", "#!::r=live/cam1?secret=a,m=play", "../cam1", &long] {
            assert!(StreamId::new(text).is_err(), "{text}");
            let mut wire = Vec::new();
            StreamId::for_call(text).expect("text").to_wire(&mut wire);
            assert_eq!(readable(&wire)[..], text[..text.len().min(4 * READABLE_WORDS)]);
        }
        assert_eq!(StreamId::for_call(&"x".repeat(STREAM_ID_LEN_MAX + 1)), Err(StreamIdError::TooLong));
        assert_eq!(StreamId::for_call("cam\n1"), Err(StreamIdError::NotText));
    }

    #[test]
    fn keyed_text_is_read_pair_by_pair() {
        let stream_id =
            StreamId::new("#!::r=cam1,m=publish,u=haivision,s=42,h=studio,t=stream,acme_zone=7=b").expect("keyed");
        assert_eq!(stream_id.resource(), Some("cam1"));
        assert_eq!(stream_id.mode(), Some(Mode::Publish));
        assert_eq!(
            (stream_id.user(), stream_id.session(), stream_id.host()),
            (Some("haivision"), Some("42"), Some("studio"))
        );
        assert_eq!(stream_id.value("acme_zone"), Some("7=b"));
        assert_eq!(stream_id.pairs().count(), 7);
        assert_eq!(StreamId::new("#!::m=request").expect("keyed").resource(), None);
        assert_eq!(StreamId::new("#!::").expect("empty").resource(), None);
    }

    #[test]
    fn hostile_and_broken_texts_are_refused_with_the_reason() {
        let long = "a".repeat(STREAM_ID_LEN_MAX + 1);
        let long_name = "a".repeat(NAME_LEN_MAX + 1);
        for (text, error) in [
            (long.as_str(), StreamIdError::TooLong),
            (long_name.as_str(), StreamIdError::Name),
            ("cam\n1", StreamIdError::NotText),
            ("cam\u{1b}[31m", StreamIdError::NotText),
            ("cam\u{202e}1", StreamIdError::NotText),
            ("cam\0x", StreamIdError::NotText),
            ("../etc/passwd", StreamIdError::Name),
            ("#!::r=a/../../b", StreamIdError::Name),
            ("/abs", StreamIdError::Name),
            ("a\\b", StreamIdError::Name),
            ("..", StreamIdError::Name),
            ("#!:{r=x", StreamIdError::Braces),
            ("#!:{r=x}y", StreamIdError::Braces),
            ("#!:{", StreamIdError::Braces),
            ("#!:{r=x}}", StreamIdError::Braces),
            ("#!:{a_b={c=d}", StreamIdError::Braces),
            ("#!:{a_b=c{d=e}}", StreamIdError::Braces),
            ("#!:{a_b={c=d}{e=f}}", StreamIdError::Braces),
            ("#!:{a_b={{c=d}}}", StreamIdError::Pair),
            ("#!:{a_b={c}}", StreamIdError::Pair),
            ("#!:{a_b={c=d,c=e}}", StreamIdError::Repeated),
            ("#!:{r={x=y}}", StreamIdError::Block),
            ("#!:{r=../x}", StreamIdError::Name),
            ("#!:{m=steal}", StreamIdError::Mode),
            ("#!:{x=1}", StreamIdError::Key),
            ("#!::r=a,x=1", StreamIdError::Key),
            ("#!::R=a", StreamIdError::Key),
            ("#!r=x", StreamIdError::Syntax),
            ("#!:x", StreamIdError::Syntax),
            ("#!::r", StreamIdError::Pair),
            ("#!::=x", StreamIdError::Pair),
            ("#!::r=a,r=b", StreamIdError::Repeated),
            ("#!::m=steal", StreamIdError::Mode),
            ("#!::t=disk", StreamIdError::Type),
        ] {
            assert_eq!(StreamId::new(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn nested_text_is_read_as_flat_text_is_and_its_blocks_are_one_value() {
        let text = "#!:{u=admin,r=north/cam1,m=publish,acme_site={zone=7,rack={row=1,column=2}},user_note=a}";
        let stream_id = StreamId::new(text).expect("nested");
        assert!(stream_id.is_keyed());
        assert_eq!((stream_id.resource(), stream_id.mode()), (Some("north/cam1"), Some(Mode::Publish)));
        assert_eq!((stream_id.user(), stream_id.value("user_note")), (Some("admin"), Some("a")));
        assert_eq!(stream_id.value("acme_site"), Some("{zone=7,rack={row=1,column=2}}"));
        assert_eq!((stream_id.value("zone"), stream_id.pairs().count()), (None, 5));
        assert_eq!(StreamId::new("#!:{}").expect("empty").resource(), None);
        assert_eq!(StreamId::new("#!:{a_b={x=1,m=2}}").expect("no standard keys in blocks").mode(), None);
        assert_eq!(StreamId::new("#!::r={x}").expect("letters there").resource(), Some("{x}"));
        let deep = |depth: usize| format!("#!:{{{}b=c{}}}", "a_b={".repeat(depth), "}".repeat(depth));
        assert!(StreamId::new(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(StreamId::new(&deep(DEPTH_MAX + 1)), Err(StreamIdError::Braces));
    }

    #[test]
    fn custom_keys_are_kept_and_single_letters_are_reserved() {
        let stream_id = StreamId::new("#!::r=a,user_x=1,acme_y=2,latency=3").expect("custom keys");
        assert_eq!((stream_id.value("user_x"), stream_id.value("acme_y")), (Some("1"), Some("2")));
        for letter in ('a'..='z').chain('A'..='Z').filter(|it| !"urhstm".contains(*it)) {
            let error = StreamId::new(&format!("#!::{letter}=1")).unwrap_err();
            assert_eq!((error, error.reject_reason().code()), (StreamIdError::Key, 1001));
        }
    }

    #[test]
    fn every_fault_has_the_reject_code_of_the_guide() {
        for (text, code) in [
            ("#!::r=a,x=1", 1001),
            ("#!::r=a,r=b", 1400),
            ("#!:{r=a", 1400),
            ("#!r=a", 1400),
            ("../a", 1400),
            ("a\u{7}", 1400),
            ("#!::m=steal", 1405),
            ("#!::t=disk", 1415),
        ] {
            assert_eq!(StreamId::new(text).unwrap_err().reject_reason().code(), code, "{text:?}");
        }
    }

    #[test]
    fn the_wire_form_reverses_the_bytes_of_each_word() {
        let mut wire = Vec::new();
        StreamId::new("STREAM").expect("plain").to_wire(&mut wire);
        assert_eq!(wire, *b"ERTS\0\0MA");
        assert_eq!(StreamId::from_wire(&wire).expect("plain").as_str(), "STREAM");
        assert_eq!(StreamId::from_wire(&[]), Ok(StreamId::default()));
        assert_eq!(StreamId::from_wire(&[0; STREAM_ID_LEN_MAX + 4]), Err(StreamIdError::TooLong));
        assert_eq!(StreamId::from_wire(&[0xff; 8]), Err(StreamIdError::NotText));
    }

    #[test]
    fn a_stream_id_of_each_length_up_to_the_longest_survives_the_wire() {
        let text = |length: usize| ["#!::user_id=", &"abcdefg".repeat(100)].concat()[..length].to_owned();
        for length in 12..=STREAM_ID_LEN_MAX {
            let stream_id = StreamId::new(&text(length)).expect("not too long");
            let mut wire = Vec::new();
            stream_id.to_wire(&mut wire);
            assert_eq!(wire.len(), length.next_multiple_of(4));
            assert_eq!(StreamId::from_wire(&wire).expect("not too long").as_str(), text(length));
        }
        assert_eq!(StreamId::new(&text(STREAM_ID_LEN_MAX + 1)), Err(StreamIdError::TooLong));
    }

    proptest! {
        #[test]
        fn every_accepted_text_survives_the_wire(text in "(#!:[:{])?[a-z#!:=,/.é{}]{0,40}") {
            if let Ok(stream_id) = StreamId::new(&text) {
                let mut wire = Vec::new();
                stream_id.to_wire(&mut wire);
                prop_assert_eq!(wire.len() % 4, 0);
                prop_assert_eq!(StreamId::from_wire(&wire), Ok(stream_id));
            }
        }

        #[test]
        fn no_wire_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = StreamId::from_wire(&bytes);
        }
    }
}
