//! What is known of one coded picture or audio frame once it is complete.

/// Facts about one access unit, read from its own bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessUnitInfo {
    /// The kind of picture; [`PictureType::Unknown`] for anything but video.
    pub picture_type: PictureType,
    /// Whole frame or single field.
    pub picture_structure: PictureStructure,
    /// Whether decoding can start here.
    pub random_access: RandomAccess,
    /// Temporal sub-layer, 0 being the base (H.265 §7.4.2.2, H.264 Annex G).
    pub temporal_id: u8,
    /// How long it plays, in samples of the audio track's sampling rate; 0 when unknown and for video.
    pub samples: u32,
    /// Number of fields it is shown for when the stream tells (`pic_struct`, `repeat_first_field`); 0 when it does not.
    pub fields: u8,
    /// The first time code carried with it.
    pub timecode: Option<Timecode>,
    /// Its bytes break the syntax of the codec, so something is missing or altered.
    pub damaged: bool,
    /// Nothing of the coded sequence follows it (`end_of_seq`, `end_of_stream`, `sequence_end_code`).
    pub ends_sequence: bool,
}

impl AccessUnitInfo {
    /// Whether a decoder that starts here shows correct pictures from here on: IDR, IRAP, recovery count 0.
    pub fn is_key(&self) -> bool {
        matches!(
            self.random_access,
            RandomAccess::Idr
                | RandomAccess::Cra
                | RandomAccess::Bla
                | RandomAccess::RecoveryPoint { frame_count: 0 }
                | RandomAccess::Intra
        )
    }
}

/// How a picture is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureType {
    /// Not told, or not a picture.
    #[default]
    Unknown,
    /// Intra only.
    I,
    /// Predicted from earlier pictures in decoding order, from one list.
    P,
    /// Predicted from two lists.
    B,
}

/// What part of a frame a coded picture holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureStructure {
    /// A whole frame (MBAFF included).
    #[default]
    Frame,
    /// A top field that starts a frame or stands alone.
    TopField,
    /// A bottom field that starts a frame or stands alone.
    BottomField,
    /// A top field that completes the frame of the access unit before.
    SecondTopField,
    /// A bottom field that completes the frame of the access unit before.
    SecondBottomField,
}

impl PictureStructure {
    /// Whether it completes the frame of the access unit before.
    pub const fn is_second_field(self) -> bool {
        matches!(self, Self::SecondTopField | Self::SecondBottomField)
    }
}

/// Whether and how decoding can start at an access unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RandomAccess {
    /// It cannot.
    #[default]
    None,
    /// Instantaneous decoding refresh (H.264 `nal_unit_type` 5, H.265 IDR).
    Idr,
    /// Clean random access picture (H.265).
    Cra,
    /// Broken link access picture (H.265).
    Bla,
    /// Recovery point SEI: pictures are right after this many frames (H.264 §D.2.8) or pictures (H.265 §D.3.8).
    RecoveryPoint {
        /// `recovery_frame_cnt`, or `recovery_poc_cnt` held at 0 when negative.
        frame_count: u16,
    },
    /// An intra picture after a sequence header (MPEG-2 video), an audio frame, a whole data unit.
    Intra,
}

/// A time code as the stream carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timecode {
    /// 0 to 23.
    pub hours: u8,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// Frames counted within the second.
    pub frames: u16,
    /// Frame numbers are dropped to keep to the clock (SMPTE ST 12-1).
    pub drop_frame: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_point_is_a_key_only_when_it_recovers_at_once() {
        let key = |random_access| AccessUnitInfo { random_access, ..Default::default() }.is_key();
        assert!(key(RandomAccess::Idr));
        assert!(key(RandomAccess::Cra));
        assert!(key(RandomAccess::RecoveryPoint { frame_count: 0 }));
        assert!(!key(RandomAccess::RecoveryPoint { frame_count: 1 }));
        assert!(!key(RandomAccess::None));
    }
}
