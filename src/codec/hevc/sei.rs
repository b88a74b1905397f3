//! The supplemental enhancement information that the framer reads (H.265 Annex D).

use super::parameters::SequenceParameters;
use crate::base::bits::BitReader;
use crate::codec::nal_syntax::{self, messages};
use crate::media::{PictureStructure, Timecode};

const PICTURE_TIMING: u32 = 1;
const RECOVERY_POINT: u32 = 6;
const TIME_CODE: u32 = 136;
const ALTERNATIVE_TRANSFER_CHARACTERISTICS: u32 = 147;

/// A message that means something to the framer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// §D.2.3: the first byte, which has all that is read and needs the active SPS.
    PictureTiming(u8),
    /// §D.2.8.
    RecoveryPoint {
        /// `recovery_poc_cnt`, 0 when negative.
        picture_count: u16,
    },
    /// §D.2.27: the first complete clock time stamp.
    TimeCode(Timecode),
    /// §D.2.38: `preferred_transfer_characteristics`.
    AlternativeTransfer(u8),
}

/// Calls `take` for each message of the unit's payload, emulation prevention taken out, that means something here.
pub fn read_messages(payload: &[u8], mut take: impl FnMut(Message)) {
    for (payload_type, body) in messages(payload) {
        let message = match payload_type {
            PICTURE_TIMING => body.first().map(|&byte| Message::PictureTiming(byte)),
            RECOVERY_POINT => BitReader::new(body)
                .signed_exp_golomb()
                .map(|count| Message::RecoveryPoint { picture_count: count.clamp(0, i32::from(u16::MAX)) as u16 }),
            TIME_CODE => read_time_code(&mut BitReader::new(body)).map(Message::TimeCode),
            ALTERNATIVE_TRANSFER_CHARACTERISTICS => body.first().map(|&byte| Message::AlternativeTransfer(byte)),
            _ => None,
        };
        if let Some(message) = message {
            take(message);
        }
    }
}

/// What a picture timing message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureTiming {
    /// `pic_struct` (Table D.2).
    pub pic_struct: Option<u8>,
}

impl PictureTiming {
    /// Reads its first byte as the active SPS tells.
    pub fn parse(byte: u8, sps: &SequenceParameters) -> Self {
        Self { pic_struct: sps.vui.frame_field_info_present.then_some(byte >> 4) }
    }

    /// Number of fields that the picture is shown for; 0 when not told.
    pub fn fields(self) -> u8 {
        match self.pic_struct {
            Some(1 | 2 | 9..=12) => 1,
            Some(0 | 3 | 4) => 2,
            Some(5 | 6) => 3,
            Some(7) => 4,
            Some(8) => 6,
            _ => 0,
        }
    }

    /// What part of a frame the picture is.
    pub fn structure(self) -> PictureStructure {
        match self.pic_struct {
            Some(1 | 11) => PictureStructure::TopField,
            Some(2 | 12) => PictureStructure::BottomField,
            Some(9) => PictureStructure::SecondTopField,
            Some(10) => PictureStructure::SecondBottomField,
            _ => PictureStructure::Frame,
        }
    }
}

fn read_time_code(r: &mut BitReader<'_>) -> Option<Timecode> {
    for _ in 0..r.bits(2)? {
        if r.flag()?
            && let Some(timecode) = read_clock(r)?
        {
            return Some(timecode);
        }
    }
    None
}

/// One clock time stamp; `Some(None)` when it leaves out hours, minutes or seconds.
fn read_clock(r: &mut BitReader<'_>) -> Option<Option<Timecode>> {
    r.flag()?;
    let timecode = nal_syntax::read_clock(r, 9)?;
    let offset_bits = r.bits(5)? as usize;
    r.skip(offset_bits)?;
    Some(timecode)
}
