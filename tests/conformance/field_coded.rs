//! Clips coded as fields, which no free encoder makes: H.264 with single fields and frames mixed (PAFF), and MPEG-2 with
//! field pictures. They are small but whole: decoders show them without complaint.

use super::bitstream::BitWriter;

/// What part of a frame a picture of the clip is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    Frame,
    Top,
    Bottom,
}

/// One coded picture with everything before it.
#[derive(Clone, Debug)]
pub struct Picture {
    pub bytes: Vec<u8>,
    pub structure: Structure,
    /// It starts a frame.
    pub is_first: bool,
    pub is_key: bool,
}

/// Frame size of both clips.
pub const WIDTH: u32 = 32;
pub const HEIGHT: u32 = 64;
/// Macroblocks of a field of that size.
const FIELD_MACROBLOCKS: u32 = 4;
const GOP_FRAMES: u32 = 6;

/// `frames` frames of H.264 at 25 frames per second: in each GOP of 6 an IDR field with a P field, four pairs of P fields,
/// and a P frame. Access unit delimiters, picture timing with a time code, four-byte start codes at access units.
pub fn h264(frames: u32) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for frame in 0..frames {
        let in_gop = frame % GOP_FRAMES;
        if in_gop == GOP_FRAMES - 1 {
            pictures.push(h264_picture(frame, Structure::Frame, true));
        } else {
            pictures.push(h264_picture(frame, Structure::Top, true));
            pictures.push(h264_picture(frame, Structure::Bottom, false));
        }
    }
    pictures
}

fn h264_picture(frame: u32, structure: Structure, is_first: bool) -> Picture {
    let in_gop = frame % GOP_FRAMES;
    let is_idr = in_gop == 0 && is_first;
    let mut bytes = Vec::new();
    let mut put = |unit: Vec<u8>| {
        bytes.extend_from_slice(if bytes.is_empty() { &[0, 0, 0, 1] } else { &[0, 0, 1] });
        bytes.extend(unit);
    };
    put(BitWriter::default().bits(3, if is_idr { 0 } else { 1 }).nal(0x09));
    if is_idr {
        put(h264_sps());
        put(h264_pps());
    }
    put(h264_picture_timing(frame, structure));
    put(h264_slice(in_gop, frame / GOP_FRAMES, structure, is_idr));
    Picture { bytes, structure, is_first, is_key: is_idr }
}

fn h264_sps() -> Vec<u8> {
    let mut w = BitWriter::default();
    w.bits(8, 77).bits(8, 0x40).bits(8, 30).ue(0);
    // frame_num and picture order count of 8 bits
    w.ue(4).ue(0).ue(4);
    w.ue(2).bit(false).ue(WIDTH / 16 - 1).ue(HEIGHT / 32 - 1);
    // frame_mbs_only_flag, mb_adaptive_frame_field_flag, direct_8x8_inference_flag, no cropping
    w.bit(false).bit(false).bit(true).bit(false);
    // VUI: only timing and pic_struct_present_flag
    w.bit(true).bits(4, 0);
    w.bit(true).bits(32, 1).bits(32, 50).bit(true);
    w.bit(false).bit(false).bit(true).bit(false);
    w.nal(0x67)
}

fn h264_pps() -> Vec<u8> {
    let mut w = BitWriter::default();
    w.ue(0).ue(0).bit(false).bit(false).ue(0).ue(0).ue(0);
    w.bit(false).bits(2, 0).se(0).se(0).se(0).bit(false).bit(false).bit(false);
    w.nal(0x68)
}

/// Time code 10:20:30 and the frame's number.
fn h264_picture_timing(frame: u32, structure: Structure) -> Vec<u8> {
    let mut timing = BitWriter::default();
    let (pic_struct, clocks) = match structure {
        Structure::Frame => (3, 2),
        Structure::Top => (1, 1),
        Structure::Bottom => (2, 1),
    };
    timing.bits(4, pic_struct).bit(true);
    // ct_type, nuit_field_based_flag, counting_type, full_timestamp_flag, discontinuity_flag, cnt_dropped_flag
    timing.bits(2, 1).bit(true).bits(5, 0).bit(true).bit(false).bit(false);
    timing.bits(8, frame % 25).bits(6, 30).bits(6, 20).bits(5, 10).bits(24, 0);
    for _ in 1..clocks {
        timing.bit(false);
    }
    let body = timing.bit(true).align().bytes().to_vec();
    BitWriter::default().bits(8, 1).bits(8, body.len() as u32).raw(&body).nal(0x06)
}

fn h264_slice(in_gop: u32, gop: u32, structure: Structure, is_idr: bool) -> Vec<u8> {
    let mut w = BitWriter::default();
    w.ue(0).ue(if is_idr { 7 } else { 5 }).ue(0).bits(8, in_gop);
    w.bit(structure != Structure::Frame);
    if structure != Structure::Frame {
        w.bit(structure == Structure::Bottom);
    }
    if is_idr {
        w.ue(gop % 2);
    }
    w.bits(8, 2 * in_gop + u32::from(structure == Structure::Bottom));
    if !is_idr {
        // num_ref_idx_active_override_flag, ref_pic_list_modification_flag_l0
        w.bit(false).bit(false);
    }
    // dec_ref_pic_marking
    if is_idr {
        w.bit(false).bit(false);
    } else {
        w.bit(false);
    }
    w.se(0);
    if is_idr {
        for macroblock in 0..FIELD_MACROBLOCKS {
            // I_PCM
            w.ue(25).align().raw(&[(40 + 40 * macroblock) as u8; 256]).raw(&[128; 128]);
        }
    } else {
        w.ue(if structure == Structure::Frame { 2 * FIELD_MACROBLOCKS } else { FIELD_MACROBLOCKS });
    }
    w.nal(if is_idr { 0x65 } else { 0x61 })
}

/// `frames` frames of MPEG-2 at 25 frames per second, each as two field pictures: in each GOP of 6 an I field with a P
/// field, then pairs of P fields.
pub fn mpeg2(frames: u32) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for frame in 0..frames {
        pictures.push(mpeg2_picture(frame, Structure::Top, true));
        pictures.push(mpeg2_picture(frame, Structure::Bottom, false));
    }
    pictures
}

fn mpeg2_picture(frame: u32, structure: Structure, is_first: bool) -> Picture {
    let in_gop = frame % GOP_FRAMES;
    let is_intra = in_gop == 0 && is_first;
    let mut w = BitWriter::default();
    if is_intra {
        w.bits(32, 0x1b3).bits(12, WIDTH).bits(12, HEIGHT).bits(4, 2).bits(4, 3).bits(18, 5000).bit(true);
        w.bits(10, 20).bit(false).bit(false).bit(false).align();
        // Main profile at main level, interlaced, 4:2:0
        w.bits(32, 0x1b5).bits(4, 1).bits(8, 0x48).bit(false).bits(2, 1).bits(4, 0).bits(12, 0).bit(true);
        w.bits(8, 0).bit(false).bits(7, 0).align();
        w.bits(32, 0x1b8).bit(false).bits(5, 10).bits(6, 20).bit(true).bits(6, 30).bits(6, frame % 25);
        w.bit(true).bit(false).align();
    }
    w.bits(32, 0x100).bits(10, in_gop).bits(3, if is_intra { 1 } else { 2 }).bits(16, 0xffff);
    if !is_intra {
        w.bit(false).bits(3, 7);
    }
    w.bit(false).align();
    let f_code = if is_intra { 0xffff } else { 0x11ff };
    w.bits(32, 0x1b5).bits(4, 8).bits(16, f_code).bits(2, 0);
    w.bits(2, if structure == Structure::Top { 1 } else { 2 });
    // top_field_first to progressive_frame: frame_pred_frame_dct and top_field_first are 0 in field pictures
    w.bits(10, 0).align();
    for row in 1..=HEIGHT / 32 {
        w.bits(32, 0x100 + row).bits(5, 8).bit(false);
        for _ in 0..WIDTH / 16 {
            // macroblock_address_increment 1
            w.bit(true);
            if is_intra {
                // macroblock_type intra; each block: DC difference 0 (luma 100, chroma 00) and end of block
                w.bit(true);
                w.bits(20, 0b10010_10010_10010_10010).bits(8, 0b0010_0010);
            } else {
                // No coded blocks, forward, field_motion_type field: the other parity, motion vector 0
                w.bits(3, 0b001).bits(2, 1).bit(structure == Structure::Top).bits(2, 0b11);
            }
        }
        w.align();
    }
    Picture { bytes: w.bytes().to_vec(), structure, is_first, is_key: is_intra }
}
