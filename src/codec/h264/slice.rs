//! The front of a slice header (H.264 §7.3.3), as far as it tells one picture from the next.

use super::nal::{self, NalHeader};
use super::parameters::{ParameterSets, SequenceParameters};
use crate::base::bits::BitReader;
use crate::codec::annexb::JUDGED_BYTES_MAX;
use crate::codec::nal_syntax::unescape;
use crate::media::PictureType;

/// What of a slice header is compared (H.264 §7.4.1.2.4), and the kind of the slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceHeader {
    /// `first_mb_in_slice`.
    pub first_macroblock: u32,
    /// From `slice_type`: SI counts as I, SP as P.
    pub picture_type: PictureType,
    /// `nal_ref_idc` is not 0.
    pub is_reference: bool,
    /// `IdrPicFlag`.
    pub is_idr: bool,
    /// `pic_parameter_set_id`.
    pub picture_parameters: u8,
    /// What can only be read with the parameter sets at hand.
    pub picture: Option<PictureFields>,
}

/// The part of a slice header whose layout the parameter sets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureFields {
    /// `seq_parameter_set_id`.
    pub sequence_parameters: u8,
    /// `colour_plane_id`.
    pub colour_plane: u8,
    /// `frame_num`.
    pub frame_num: u16,
    /// `field_pic_flag`.
    pub is_field: bool,
    /// `bottom_field_flag`.
    pub is_bottom: bool,
    /// `idr_pic_id`.
    pub idr_pic_id: u32,
    /// `pic_order_cnt_lsb`.
    pub poc_lsb: u16,
    /// `delta_pic_order_cnt_bottom`.
    pub delta_poc_bottom: i32,
    /// `delta_pic_order_cnt`.
    pub delta_poc: [i32; 2],
    /// `redundant_pic_cnt`: 0 in a primary coded picture.
    pub redundant_count: u8,
}

/// What stands at the front of a slice NAL unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedSlice {
    /// It ends too early.
    Short,
    /// A value is one that the standard forbids.
    Broken,
    /// A header.
    Header(SliceHeader),
}

/// Reads the NAL unit's bytes, header and emulation prevention included.
pub fn parse(unit: &[u8], sets: &ParameterSets) -> ParsedSlice {
    let Some((&first, rest)) = unit.split_first() else {
        return ParsedSlice::Short;
    };
    let Some(header) = NalHeader::parse(first) else {
        return ParsedSlice::Broken;
    };
    let mut buffer = [0; JUDGED_BYTES_MAX];
    let mut reader = BitReader::new(unescape(rest, &mut buffer));
    read(&mut reader, header, sets).unwrap_or(ParsedSlice::Short)
}

fn read(r: &mut BitReader<'_>, header: NalHeader, sets: &ParameterSets) -> Option<ParsedSlice> {
    let first_macroblock = r.unsigned_exp_golomb()?;
    let picture_type = match r.unsigned_exp_golomb()? {
        0 | 3 | 5 | 8 => PictureType::P,
        1 | 6 => PictureType::B,
        2 | 4 | 7 | 9 => PictureType::I,
        _ => return Some(ParsedSlice::Broken),
    };
    let Ok(picture_parameters) = u8::try_from(r.unsigned_exp_golomb()?) else {
        return Some(ParsedSlice::Broken);
    };
    let is_idr = header.unit_type == nal::IDR_SLICE;
    let mut slice = SliceHeader {
        first_macroblock,
        picture_type,
        is_reference: header.ref_idc != 0,
        is_idr,
        picture_parameters,
        picture: None,
    };
    let Some(pps) = sets.picture(picture_parameters) else {
        return Some(ParsedSlice::Header(slice));
    };
    let Some(sps) = sets.sequence(pps.sequence_id) else {
        return Some(ParsedSlice::Header(slice));
    };
    if first_macroblock >= sps.frame_macroblocks {
        return Some(ParsedSlice::Broken);
    }
    let mut fields = read_picture_fields(r, sps, pps.bottom_field_poc_present, is_idr)?;
    if pps.redundant_pictures_present {
        fields.redundant_count = match u8::try_from(r.unsigned_exp_golomb()?) {
            Ok(count @ 0..=127) => count,
            _ => return Some(ParsedSlice::Broken),
        };
    }
    slice.picture = Some(fields);
    Some(ParsedSlice::Header(slice))
}

fn read_picture_fields(
    r: &mut BitReader<'_>,
    sps: &SequenceParameters,
    bottom_field_poc_present: bool,
    is_idr: bool,
) -> Option<PictureFields> {
    let colour_plane = if sps.separate_colour_planes { r.bits(2)? as u8 } else { 0 };
    let frame_num = r.bits(u32::from(sps.frame_num_bits))? as u16;
    let is_field = !sps.frame_mbs_only && r.flag()?;
    let is_bottom = is_field && r.flag()?;
    let idr_pic_id = if is_idr { r.unsigned_exp_golomb()? } else { 0 };
    let (mut poc_lsb, mut delta_poc_bottom, mut delta_poc) = (0, 0, [0; 2]);
    if sps.poc_type == 0 {
        poc_lsb = r.bits(u32::from(sps.poc_lsb_bits))? as u16;
        if bottom_field_poc_present && !is_field {
            delta_poc_bottom = r.signed_exp_golomb()?;
        }
    } else if sps.poc_type == 1 && !sps.delta_poc_always_zero {
        delta_poc[0] = r.signed_exp_golomb()?;
        if bottom_field_poc_present && !is_field {
            delta_poc[1] = r.signed_exp_golomb()?;
        }
    }
    Some(PictureFields {
        sequence_parameters: sps.id,
        colour_plane,
        frame_num,
        is_field,
        is_bottom,
        idr_pic_id,
        poc_lsb,
        delta_poc_bottom,
        delta_poc,
        redundant_count: 0,
    })
}

impl SliceHeader {
    /// Whether this slice is of another primary coded picture than the slice `before` (H.264 §7.4.1.2.4).
    pub fn starts_picture_after(&self, before: &Self) -> bool {
        if self.picture_parameters != before.picture_parameters
            || self.is_reference != before.is_reference
            || self.is_idr != before.is_idr
        {
            return true;
        }
        let (Some(now), Some(then)) = (&self.picture, &before.picture) else {
            return false;
        };
        // Colour planes share a picture; the rest must agree in all its slices.
        PictureFields { colour_plane: then.colour_plane, redundant_count: then.redundant_count, ..*now } != *then
    }

    /// It repeats a part of the picture in case the primary slice is lost.
    pub fn is_redundant(&self) -> bool {
        self.picture.is_some_and(|picture| picture.redundant_count > 0)
    }
}
