//! Parameter sets, slice headers and SEI of H.264 against the crate `h264-reader`, an independent reading of the standard.

use h264_reader::Context;
use h264_reader::nal::pps::PicParameterSet;
use h264_reader::nal::sei::pic_timing::{ClockTimestamp, PicTiming, SecMinHour};
use h264_reader::nal::sei::{HeaderType, SeiReader};
use h264_reader::nal::slice::{Field, FieldPic, PicOrderCountLsb, SliceHeader};
use h264_reader::nal::sps::{FrameMbsFlags, PicOrderCntType, SeqParameterSet};
use h264_reader::nal::{Nal, RefNal};
use headworks::codec::h264::parameters::{ParameterSets, PictureParameters, SequenceParameters};
use headworks::codec::h264::sei::{Message, PictureTiming, read_messages};
use headworks::codec::h264::slice::{self, ParsedSlice};
use headworks::codec::nal_syntax::unescape;
use headworks::media::{Rational, Timecode};
use proptest::prelude::*;

use super::bitstream::BitWriter;

/// Small numbers as an encoder may write them.
#[derive(Clone, Debug)]
struct Choices(Vec<u32>);

impl Choices {
    fn next(&mut self, below: u32) -> u32 {
        self.0.pop().unwrap_or(0) % below
    }

    fn flag(&mut self) -> bool {
        self.next(2) == 1
    }
}

fn any_choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u32>(), 400).prop_map(Choices)
}

fn write_scaling_list(w: &mut BitWriter, c: &mut Choices, size: usize) {
    // One delta ends the list, or all of them are there.
    if c.flag() {
        w.se(-8);
    } else {
        for _ in 0..size {
            w.se(c.next(3) as i32 + 1);
        }
    }
}

fn write_hrd(w: &mut BitWriter, c: &mut Choices, lengths: (u32, u32, u32)) {
    let count = c.next(3);
    w.ue(count).bits(4, c.next(16)).bits(4, c.next(16));
    for _ in 0..=count {
        w.ue(c.next(9999)).ue(c.next(9999)).bit(c.flag());
    }
    w.bits(5, c.next(32)).bits(5, lengths.0).bits(5, lengths.1).bits(5, lengths.2);
}

fn sps(c: &mut Choices) -> Vec<u8> {
    let mut w = BitWriter::default();
    let profile = [66, 77, 88, 100, 110, 122, 244, 44][c.next(8) as usize];
    w.bits(8, profile).bits(8, c.next(64) << 2).bits(8, 52).ue(c.next(32));
    if profile >= 100 || profile == 44 {
        let chroma = c.next(4);
        w.ue(chroma);
        if chroma == 3 {
            w.bit(c.flag());
        }
        w.ue(c.next(7)).ue(c.next(7)).bit(c.flag());
        let lists = c.flag();
        w.bit(lists);
        if lists {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                let present = c.flag();
                w.bit(present);
                if present {
                    write_scaling_list(&mut w, c, if list < 6 { 16 } else { 64 });
                }
            }
        }
    }
    w.ue(c.next(13));
    let poc_type = c.next(3);
    w.ue(poc_type);
    match poc_type {
        0 => {
            w.ue(c.next(13));
        }
        1 => {
            w.bit(c.flag()).se(-3).se(c.next(100) as i32);
            let cycle = c.next(5);
            w.ue(cycle);
            for _ in 0..cycle {
                w.se(c.next(9) as i32 - 4);
            }
        }
        _ => {}
    }
    w.ue(1 + c.next(4)).bit(c.flag()).ue(4 + c.next(120)).ue(4 + c.next(60));
    let frames_only = c.flag();
    w.bit(frames_only);
    if !frames_only {
        w.bit(c.flag());
    }
    w.bit(true);
    let crop = c.flag();
    w.bit(crop);
    if crop {
        w.ue(c.next(5)).ue(c.next(5)).ue(c.next(5)).ue(c.next(5));
    }
    let vui = c.flag();
    w.bit(vui);
    if vui {
        write_vui(&mut w, c);
    }
    w.nal(0x67)
}

fn write_vui(w: &mut BitWriter, c: &mut Choices) {
    let aspect = c.flag();
    w.bit(aspect);
    if aspect {
        let idc = [0, 1, 2, 14, 16, 255][c.next(6) as usize];
        w.bits(8, idc);
        if idc == 255 {
            w.bits(16, 1 + c.next(300)).bits(16, 1 + c.next(300));
        }
    }
    let overscan = c.flag();
    w.bit(overscan);
    if overscan {
        w.bit(c.flag());
    }
    let signal = c.flag();
    w.bit(signal);
    if signal {
        w.bits(3, 5).bit(c.flag());
        let colour = c.flag();
        w.bit(colour);
        if colour {
            w.bits(8, 9).bits(8, [1, 14, 16, 18][c.next(4) as usize]).bits(8, 9);
        }
    }
    let location = c.flag();
    w.bit(location);
    if location {
        w.ue(c.next(6)).ue(c.next(6));
    }
    let timing = c.flag();
    w.bit(timing);
    if timing {
        w.bits(32, [1, 1001, 3003][c.next(3) as usize])
            .bits(32, [50, 60_000, 180_000][c.next(3) as usize])
            .bit(c.flag());
    }
    let lengths = (c.next(32), c.next(32), c.next(32));
    let (nal_hrd, vcl_hrd) = (c.flag(), c.flag());
    w.bit(nal_hrd);
    if nal_hrd {
        write_hrd(w, c, lengths);
    }
    w.bit(vcl_hrd);
    if vcl_hrd {
        write_hrd(w, c, lengths);
    }
    if nal_hrd || vcl_hrd {
        w.bit(c.flag());
    }
    w.bit(c.flag()).bit(false);
}

fn pps(c: &mut Choices, sequence: u32) -> Vec<u8> {
    let mut w = BitWriter::default();
    w.ue(c.next(256)).ue(sequence).bit(c.flag()).bit(c.flag());
    w.ue(0).ue(c.next(32)).ue(c.next(32)).bit(c.flag()).bits(2, c.next(3)).se(c.next(20) as i32 - 10).se(0).se(2);
    w.bit(c.flag()).bit(c.flag()).bit(c.flag());
    w.nal(0x68)
}

fn compare_sps(ours: &SequenceParameters, theirs: &SeqParameterSet) {
    assert_eq!(ours.id, theirs.seq_parameter_set_id.id());
    assert_eq!(ours.level_idc, theirs.level_idc);
    assert_eq!(u32::from(ours.chroma_format), theirs.chroma_info.chroma_format.to_u32());
    assert_eq!(ours.separate_colour_planes, theirs.chroma_info.separate_colour_plane_flag);
    assert_eq!(ours.bit_depth, theirs.chroma_info.bit_depth_luma_minus8 + 8);
    assert_eq!(ours.frame_num_bits, theirs.log2_max_frame_num_minus4 + 4);
    match &theirs.pic_order_cnt {
        PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4 } => {
            assert_eq!((ours.poc_type, ours.poc_lsb_bits), (0, log2_max_pic_order_cnt_lsb_minus4 + 4));
        }
        PicOrderCntType::TypeOne { delta_pic_order_always_zero_flag, .. } => {
            assert_eq!((ours.poc_type, ours.delta_poc_always_zero), (1, *delta_pic_order_always_zero_flag));
        }
        PicOrderCntType::TypeTwo => assert_eq!(ours.poc_type, 2),
    }
    assert_eq!(ours.frame_mbs_only, theirs.frame_mbs_flags == FrameMbsFlags::Frames);
    assert_eq!((ours.width, ours.height), theirs.pixel_dimensions().expect("a size"));
    let Some(vui) = &theirs.vui_parameters else { return };
    let ratio = vui.aspect_ratio_info.as_ref().and_then(|ratio| ratio.get());
    assert_eq!(
        ours.vui.sample_aspect_ratio,
        ratio.and_then(|(width, height)| Rational::new(u32::from(width), u32::from(height)))
    );
    if let Some(colour) = vui.video_signal_type.as_ref().and_then(|signal| signal.colour_description.as_ref()) {
        let theirs = [colour.colour_primaries, colour.transfer_characteristics, colour.matrix_coefficients];
        assert_eq!(ours.vui.colour, theirs);
    }
    let rate = theirs.fps().filter(|&rate| rate <= 300.0);
    assert_eq!(ours.vui.frame_rate.map(|rate| (rate.as_f64() * 1e6) as u64), rate.map(|rate| (rate * 1e6) as u64));
    assert_eq!(ours.vui.pic_struct_present, vui.pic_struct_present_flag);
    let hrd = vui.nal_hrd_parameters.as_ref().or(vui.vcl_hrd_parameters.as_ref());
    assert_eq!(
        ours.vui.delay_bits,
        hrd.map(|hrd| (hrd.cpb_removal_delay_length_minus1 + 1, hrd.dpb_output_delay_length_minus1 + 1))
    );
    assert_eq!(ours.vui.time_offset_bits, hrd.map_or(24, |hrd| hrd.time_offset_length));
}

proptest! {
    #[test]
    fn parameter_sets_read_the_same(mut choices in any_choices()) {
        let unit = sps(&mut choices);
        let ours = SequenceParameters::parse(&unit);
        let theirs = SeqParameterSet::from_bits(RefNal::new(&unit, &[], true).rbsp_bits());
        let (Some(ours), Ok(theirs)) = (&ours, &theirs) else {
            panic!("{ours:?} {theirs:?}");
        };
        compare_sps(ours, theirs);

        let unit = pps(&mut choices, u32::from(ours.id));
        let mut context = Context::new();
        context.put_seq_param_set(theirs.clone());
        let ours = PictureParameters::parse(&unit).expect("a set");
        let theirs = PicParameterSet::from_bits(&context, RefNal::new(&unit, &[], true).rbsp_bits()).expect("a set");
        prop_assert_eq!(ours.id, theirs.pic_parameter_set_id.id());
        prop_assert_eq!(ours.sequence_id, theirs.seq_parameter_set_id.id());
        prop_assert_eq!(ours.bottom_field_poc_present, theirs.bottom_field_pic_order_in_frame_present_flag);
        prop_assert_eq!(ours.redundant_pictures_present, theirs.redundant_pic_cnt_present_flag);
    }
}

/// Reads every unit of a stream both ways; gives the number of slices and of picture timing messages.
pub fn compare_stream(stream: &[u8]) -> (usize, usize) {
    let mut sets = ParameterSets::default();
    let mut context = Context::new();
    let (mut slices, mut timings) = (0, 0);
    let starts: Vec<usize> = memchr::memmem::find_iter(stream, &[0, 0, 1]).map(|at| at + 3).collect();
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(stream.len(), |next| next - 3);
        let zeros = stream[start..end].iter().rev().take_while(|&&byte| byte == 0).count();
        let unit = &stream[start..end - zeros];
        let nal = RefNal::new(unit, &[], true);
        match unit[0] & 0x1f {
            7 => {
                sets.store_sequence(unit).expect("a set");
                let theirs = SeqParameterSet::from_bits(nal.rbsp_bits()).expect("a set");
                compare_sps(&SequenceParameters::parse(unit).expect("a set"), &theirs);
                context.put_seq_param_set(theirs);
            }
            8 => {
                sets.store_picture(unit).expect("a set");
                context.put_pic_param_set(PicParameterSet::from_bits(&context, nal.rbsp_bits()).expect("a set"));
            }
            6 => timings += compare_sei(unit, &sets, &context),
            1 | 5 => {
                compare_slice(&unit[..unit.len().min(48)], unit, &sets, &context);
                slices += 1;
            }
            _ => {}
        }
    }
    (slices, timings)
}

fn compare_slice(front: &[u8], unit: &[u8], sets: &ParameterSets, context: &Context) {
    let nal = RefNal::new(unit, &[], true);
    let header = nal.header().expect("a header");
    let (theirs, ..) = SliceHeader::from_bits(context, &mut nal.rbsp_bits(), header, None).expect("a slice");
    let ParsedSlice::Header(ours) = slice::parse(front, sets) else { panic!("no slice header") };
    let picture = ours.picture.expect("parameter sets");
    assert_eq!(ours.first_macroblock, theirs.first_mb_in_slice);
    assert_eq!(format!("{:?}", ours.picture_type), format!("{:?}", theirs.slice_type.family));
    assert_eq!(picture.frame_num, theirs.frame_num);
    let field = match theirs.field_pic {
        FieldPic::Frame => (false, false),
        FieldPic::Field(Field::Top) => (true, false),
        FieldPic::Field(Field::Bottom) => (true, true),
    };
    assert_eq!((picture.is_field, picture.is_bottom), field);
    assert_eq!(picture.idr_pic_id, theirs.idr_pic_id.unwrap_or(0));
    match theirs.pic_order_cnt_lsb {
        Some(PicOrderCountLsb::Frame(lsb)) => assert_eq!(u32::from(picture.poc_lsb), lsb),
        Some(PicOrderCountLsb::FieldsAbsolute { pic_order_cnt_lsb, delta_pic_order_cnt_bottom }) => {
            assert_eq!(u32::from(picture.poc_lsb), pic_order_cnt_lsb);
            assert_eq!(picture.delta_poc_bottom, delta_pic_order_cnt_bottom);
        }
        Some(PicOrderCountLsb::FieldsDelta(delta)) => assert_eq!(picture.delta_poc, delta),
        None => {}
    }
}

fn compare_sei(unit: &[u8], sets: &ParameterSets, context: &Context) -> usize {
    let sps = context.sps().next().expect("an SPS comes first");
    let vui = sets.sequence(sps.id().id()).expect("the same").vui;
    let mut ours = Vec::new();
    let mut buffer = [0; 4096];
    read_messages(unescape(&unit[1..], &mut buffer), |message| match message {
        Message::PictureTiming(body) => ours.push(("timing", 0, Some(PictureTiming::parse(body, &vui)))),
        Message::RecoveryPoint { frame_count } => ours.push(("recovery", frame_count, None)),
        Message::AlternativeTransfer(_) => {}
    });
    let mut theirs = Vec::new();
    let mut scratch = Vec::new();
    let nal = RefNal::new(unit, &[], true);
    let mut reader = SeiReader::from_rbsp_bytes(nal.rbsp_bytes(), &mut scratch);
    while let Some(message) = reader.next().expect("a message") {
        match message.payload_type {
            HeaderType::PicTiming => {
                let timing = PicTiming::read(sps, &message).expect("picture timing");
                let picture = timing.pic_struct.as_ref();
                let clock = picture.and_then(|picture| picture.clock_timestamps.iter().flatten().find_map(timecode));
                let pic_struct = ours.get(theirs.len()).and_then(|ours| ours.2).and_then(|timing| timing.pic_struct);
                assert_eq!(pic_struct.is_some(), picture.is_some());
                theirs.push(("timing", 0, Some(PictureTiming { pic_struct, timecode: clock })));
            }
            HeaderType::RecoveryPoint => {
                let point = h264_reader::nal::sei::recovery_point::RecoveryPoint::read(&message).expect("a point");
                theirs.push(("recovery", point.recovery_frame_cnt as u16, None));
            }
            _ => {}
        }
    }
    assert_eq!(ours, theirs);
    ours.iter().filter(|message| message.0 == "timing").count()
}

fn timecode(clock: &ClockTimestamp) -> Option<Timecode> {
    let SecMinHour::SMH(seconds, minutes, hours) = clock.smh else { return None };
    Some(Timecode { hours, minutes, seconds, frames: u16::from(clock.n_frames), drop_frame: false })
}
