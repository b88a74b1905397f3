//! The supplemental enhancement information that the framer reads (H.264 Annex D).

use super::parameters::Vui;
use crate::base::bits::BitReader;
use crate::codec::nal_syntax::{self, messages};
use crate::media::Timecode;

/// How much of a picture timing message is kept until its SPS is known; three clock time stamps with the longest fields
/// take 55 bytes.
pub const PICTURE_TIMING_BYTES_MAX: usize = 64;

const PICTURE_TIMING: u32 = 1;
const RECOVERY_POINT: u32 = 6;
const ALTERNATIVE_TRANSFER_CHARACTERISTICS: u32 = 147;

/// A message that means something to the framer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// §D.1.3, to be read when the active SPS is known.
    PictureTiming(&'a [u8]),
    /// §D.1.8.
    RecoveryPoint {
        /// `recovery_frame_cnt`.
        frame_count: u16,
    },
    /// §D.1.37: `preferred_transfer_characteristics`.
    AlternativeTransfer(u8),
}

/// Calls `take` for each message of the unit's payload, emulation prevention taken out, that means something here.
pub fn read_messages<'a>(payload: &'a [u8], mut take: impl FnMut(Message<'a>)) {
    for (payload_type, body) in messages(payload) {
        match payload_type {
            PICTURE_TIMING => take(Message::PictureTiming(body)),
            RECOVERY_POINT => {
                if let Some(count) = BitReader::new(body).unsigned_exp_golomb() {
                    take(Message::RecoveryPoint { frame_count: count.min(u32::from(u16::MAX)) as u16 });
                }
            }
            ALTERNATIVE_TRANSFER_CHARACTERISTICS => {
                if let Some(&preferred) = body.first() {
                    take(Message::AlternativeTransfer(preferred));
                }
            }
            _ => {}
        }
    }
}

/// What a picture timing message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureTiming {
    /// `pic_struct` (Table D-1).
    pub pic_struct: Option<u8>,
    /// The first clock time stamp that is complete.
    pub timecode: Option<Timecode>,
}

impl PictureTiming {
    /// Reads it as the active SPS tells.
    pub fn parse(body: &[u8], vui: &Vui) -> Self {
        let mut timing = Self::default();
        timing.read(&mut BitReader::new(body), vui);
        timing
    }

    /// Number of fields that the picture is shown for; 0 when not told.
    pub fn fields(&self) -> u8 {
        match self.pic_struct {
            Some(1 | 2) => 1,
            Some(0 | 3 | 4) => 2,
            Some(5 | 6) => 3,
            Some(7) => 4,
            Some(8) => 6,
            _ => 0,
        }
    }

    fn read(&mut self, r: &mut BitReader<'_>, vui: &Vui) -> Option<()> {
        if let Some((removal, output)) = vui.delay_bits {
            r.skip(usize::from(removal) + usize::from(output))?;
        }
        if !vui.pic_struct_present {
            return Some(());
        }
        let pic_struct = r.bits(4)? as u8;
        let clocks = match pic_struct {
            0..=2 => 1,
            3 | 4 | 7 => 2,
            5 | 6 | 8 => 3,
            _ => return None,
        };
        self.pic_struct = Some(pic_struct);
        for _ in 0..clocks {
            if r.flag()? {
                let timecode = read_clock(r, vui)?;
                self.timecode = self.timecode.or(timecode);
            }
        }
        Some(())
    }
}

/// One clock time stamp; `Some(None)` when it leaves out hours, minutes or seconds.
fn read_clock(r: &mut BitReader<'_>, vui: &Vui) -> Option<Option<Timecode>> {
    r.skip(3)?;
    let timecode = nal_syntax::read_clock(r, 8)?;
    r.skip(usize::from(vui.time_offset_bits))?;
    Some(timecode)
}
