//! What the tracks of a stream are called: a name is given once, and to no other track as long as the stream's directory is there.

use headworks_frame_ring::stream_descriptor::Track;

use super::frame_ring::TRACKS_MAX;
use crate::media::TrackKind;
use crate::pipeline::frame::TrackDescription;

const KINDS: [TrackKind; 4] = [TrackKind::Video, TrackKind::Audio, TrackKind::Data, TrackKind::Transport];

/// What makes two tracks the same one, whenever they come and in whatever order the tables list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrackKey {
    programme: u32,
    /// `None` outside of transport streams: a stream has one RTP source at a time, and that draws a new SSRC whenever it starts
    /// (RFC 3550 §8.1).
    pid: Option<u32>,
    codec: [u8; 4],
}

impl TrackKey {
    fn new(programme: u32, source_id: u32, codec: [u8; 4]) -> Self {
        Self { programme, pid: (programme != 0).then_some(source_id), codec }
    }
}

impl From<&TrackDescription> for TrackKey {
    fn from(track: &TrackDescription) -> Self {
        Self::new(u32::from(track.programme), track.id, track.codec.fourcc())
    }
}

impl From<&Track> for TrackKey {
    fn from(track: &Track) -> Self {
        Self::new(track.programme, track.source_id, track.codec)
    }
}

/// The names of one stream.
#[derive(Debug)]
pub(super) struct TrackNames {
    /// Tracks that the stream had before it was taken up and has not had since, [`TRACKS_MAX`] at most.
    recorded: Vec<Track>,
    /// The number in the next name of each kind.
    next: [u32; KINDS.len()],
}

impl TrackNames {
    /// Goes on from the tracks that a stream was described with.
    pub fn new(mut recorded: Vec<Track>) -> Self {
        let mut next = [0; KINDS.len()];
        // A name becomes that of a directory: one that was never given is not believed.
        recorded.retain(|track| {
            let number = number_of(&track.name);
            if let Some((kind, number)) = number {
                next[kind] = number.saturating_add(1).max(next[kind]);
            }
            number.is_some()
        });
        let mut names = Self { recorded, next };
        names.keep(TRACKS_MAX);
        names
    }

    /// The name of a track: the one it had before, or one that none had.
    pub fn give(&mut self, key: TrackKey, kind: TrackKind) -> String {
        if let Some(place) = self.recorded.iter().position(|track| TrackKey::from(track) == key) {
            return self.recorded.remove(place).name;
        }
        let next = &mut self.next[kind as usize];
        let name = format!("{}{next}", kind.name());
        *next = next.saturating_add(1);
        name
    }

    /// Forgets the tracks that were described first, until there are no more than `most`.
    pub fn keep(&mut self, most: usize) {
        let beyond = self.recorded.len().saturating_sub(most);
        self.recorded.drain(..beyond);
    }

    /// Tracks of before that have not come back.
    pub fn recorded(&self) -> &[Track] {
        &self.recorded
    }
}

/// Which kind of name it is, and its number; `None` if [`TrackNames`] gives no such name.
fn number_of(name: &str) -> Option<(usize, u32)> {
    let of_kind = |kind: TrackKind| {
        let number: u32 = name.strip_prefix(kind.name())?.parse().ok()?;
        (name == format!("{}{number}", kind.name())).then_some((kind as usize, number))
    };
    KINDS.into_iter().find_map(of_kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(name: &str, source_id: u32) -> Track {
        Track { name: name.to_owned(), programme: 1, source_id, codec: *b"mp2 ", ..Track::default() }
    }

    fn key(source_id: u32) -> TrackKey {
        TrackKey::new(1, source_id, *b"mp2 ")
    }

    #[test]
    fn a_track_that_is_known_has_its_name_again_and_a_new_one_a_name_that_none_had() {
        let mut names = TrackNames::new(vec![track("audio0", 256), track("audio7", 257), track("data0", 258)]);
        assert_eq!(names.give(key(257), TrackKind::Audio), "audio7");
        assert_eq!(names.give(TrackKey { programme: 2, ..key(256) }, TrackKind::Audio), "audio8");
        assert_eq!(names.give(TrackKey { codec: *b"aac ", ..key(256) }, TrackKind::Audio), "audio9");
        assert_eq!(names.give(key(300), TrackKind::Video), "video0");
        assert_eq!(names.give(key(301), TrackKind::Data), "data1");
        assert_eq!(names.give(key(256), TrackKind::Audio), "audio0");
        assert_eq!(names.recorded(), [track("data0", 258)]);
    }

    #[test]
    fn an_rtp_source_that_returns_with_another_ssrc_has_its_name_again_and_another_codec_has_not() {
        let before = Track { name: "video0".to_owned(), source_id: 0x1111, codec: *b"h264", ..Track::default() };
        let mut names = TrackNames::new(vec![before]);
        assert_eq!(names.give(TrackKey::new(0, 0x2222, *b"hevc"), TrackKind::Video), "video1");
        assert_eq!(names.give(TrackKey::new(0, 0x2222, *b"h264"), TrackKind::Video), "video0");
    }

    #[test]
    fn what_is_no_name_of_a_track_is_not_believed() {
        let strange = ["", "audio", "audio-1", "audio+1", "audio01", "../audio0", "audio0/..", "audio4294967296", "x0"];
        let names = TrackNames::new(strange.map(|name| track(name, 256)).to_vec());
        assert_eq!((names.recorded(), names.next), (&[][..], [0; 4]));
    }

    #[test]
    fn what_is_kept_of_earlier_tracks_is_bounded_and_their_names_are_not_given_again() {
        let recorded = (0..300).map(|number| track(&format!("audio{number}"), number)).collect();
        let mut names = TrackNames::new(recorded);
        assert_eq!((names.recorded().len(), names.recorded()[0].name.as_str()), (TRACKS_MAX, "audio44"));
        names.keep(2);
        assert_eq!(names.give(key(0), TrackKind::Audio), "audio300");
        assert_eq!(names.give(key(299), TrackKind::Audio), "audio299");
    }
}
