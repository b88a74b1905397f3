//! The name that a file is kept under. It comes from somebody's Stream ID, so it is hostile until it is shown to be a plain name: one
//! that stays in its directory, is seen there, and does nothing to a terminal or a shell.

use crate::protocol::srt::stream_id::StreamId;

/// What a file is called while it comes in.
pub const PART: &str = ".part";
/// File systems take 255 bytes, and the name of the part is longer than that of the file.
const NAME_LEN_MAX: usize = 255 - PART.len();

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("the Stream ID names no file")]
    Missing,
    /// Somewhere else.
    #[error("the name of a file is no path: / and \\ are not taken")]
    Path,
    /// Hidden from those who look into the directory, or `.` and `..`.
    #[error("a name that begins with a dot would be hidden")]
    Hidden,
    /// An option to whatever is called with it.
    #[error("a name that begins with - would be taken for an option")]
    Option,
    /// Not to be told apart by eye, or worse.
    #[error("the name holds a control character, or begins or ends with a space")]
    Unprintable,
    /// Too long for a file system.
    #[error("the name is longer than {NAME_LEN_MAX} bytes")]
    TooLong,
    /// As a file is called that is not whole.
    #[error("a name that ends with {PART} is that of a file that is not whole")]
    Part,
}

/// Judges a name.
///
/// # Errors
/// [`NameError`].
pub fn judge(name: &str) -> Result<&str, NameError> {
    let is_hostile = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    match name {
        "" => Err(NameError::Missing),
        _ if name.contains(['/', '\\']) => Err(NameError::Path),
        _ if name.starts_with('.') => Err(NameError::Hidden),
        _ if name.starts_with('-') => Err(NameError::Option),
        _ if name.trim() != name || name.chars().any(is_hostile) => Err(NameError::Unprintable),
        _ if name.len() > NAME_LEN_MAX => Err(NameError::TooLong),
        _ if name.ends_with(PART) => Err(NameError::Part),
        _ => Ok(name),
    }
}

/// The name that a Stream ID asks for: the plain text, or `r` of the keyed one.
///
/// # Errors
/// [`NameError`].
pub fn of_stream_id(stream_id: &StreamId) -> Result<&str, NameError> {
    judge(stream_id.resource().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_name_is_taken_as_it_is() {
        let long = "a".repeat(NAME_LEN_MAX);
        for name in ["clip.ts", "Abend schau 20:15.mxf", "é…ö.bin", "a", "x.part.ts", "#1", long.as_str()] {
            assert_eq!(judge(name), Ok(name));
        }
    }

    #[test]
    fn what_is_no_plain_name_is_refused_with_the_reason() {
        for (name, error) in [
            ("", NameError::Missing),
            ("../../etc/passwd", NameError::Path),
            ("/etc/passwd", NameError::Path),
            ("a/b", NameError::Path),
            ("a\\b", NameError::Path),
            ("..", NameError::Hidden),
            (".", NameError::Hidden),
            (".bashrc", NameError::Hidden),
            ("-rf", NameError::Option),
            ("a\nb", NameError::Unprintable),
            ("a\0", NameError::Unprintable),
            ("\u{1b}[2J", NameError::Unprintable),
            ("abc\u{202e}txt.exe", NameError::Unprintable),
            (" a", NameError::Unprintable),
            ("a ", NameError::Unprintable),
            ("clip.ts.part", NameError::Part),
        ] {
            assert_eq!(judge(name), Err(error), "{name:?}");
        }
        assert_eq!(judge(&"a".repeat(NAME_LEN_MAX + 1)), Err(NameError::TooLong));
    }

    #[test]
    fn both_syntaxes_of_the_stream_id_name_a_file() {
        let named = |text: &str| of_stream_id(&StreamId::new(text).expect("a Stream ID")).map(str::to_owned);
        assert_eq!(named("clip.ts"), Ok("clip.ts".to_owned()));
        assert_eq!(named("#!::r=clip.ts,m=publish,t=file,size=7"), Ok("clip.ts".to_owned()));
        assert_eq!(named("#!::m=publish,t=file"), Err(NameError::Missing));
        assert_eq!(named(""), Err(NameError::Missing));
        assert_eq!(named("north/clip.ts"), Err(NameError::Path));
        assert_eq!(named("#!::r=.profile"), Err(NameError::Hidden));
    }

    proptest! {
        #[test]
        fn no_name_that_is_taken_leaves_its_directory(name in "\\PC{0,40}|[./\\\\a-c]{0,12}") {
            if let Ok(name) = judge(&name) {
                let joined = std::path::Path::new("/directory").join(name);
                prop_assert_eq!(joined.parent(), Some(std::path::Path::new("/directory")));
                prop_assert_eq!(joined.file_name().and_then(|name| name.to_str()), Some(name));
            }
        }
    }
}
