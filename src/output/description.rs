//! Frames and kinds of tracks in the ring's words.

use headworks_frame_ring::descriptor::{
    ClockOrigin, Discontinuity, FrameDescriptor, PictureStructure as RingStructure, PictureType as RingPicture,
    RandomAccess as RingAccess, Timecode as RingTimecode, damage,
};

use crate::media::{PictureStructure, PictureType, RandomAccess, TrackKind};
use crate::pipeline::frame::{Damage, DiscontinuityCause, Frame, Origin};

/// What is said of a frame, but for the moment when it is committed.
pub(super) fn descriptor(frame: &Frame) -> FrameDescriptor {
    let (random_access, recovery_count) = match frame.info.random_access {
        RandomAccess::None => (RingAccess::None, 0),
        RandomAccess::Idr => (RingAccess::Idr, 0),
        RandomAccess::Cra => (RingAccess::Cra, 0),
        RandomAccess::Bla => (RingAccess::Bla, 0),
        RandomAccess::RecoveryPoint { frame_count } => (RingAccess::RecoveryPoint, frame_count),
        RandomAccess::Intra if frame.info.picture_type == PictureType::Unknown => (RingAccess::Independent, 0),
        RandomAccess::Intra => (RingAccess::Intra, 0),
    };
    let (origin_kind, origin) = match frame.origin {
        Origin::None => (ClockOrigin::None, 0),
        Origin::Pcr(pcr_27mhz) => (ClockOrigin::Pcr, pcr_27mhz),
        Origin::Rtp(timestamp) => (ClockOrigin::Rtp, timestamp as u64),
    };
    FrameDescriptor {
        pts: frame.pts,
        dts: frame.dts,
        duration: frame.duration,
        timeline_ns: frame.timeline_ns,
        origin,
        origin_kind,
        first_arrival_ns: frame.first_arrival.as_nanos(),
        last_arrival_ns: frame.last_arrival.as_nanos(),
        due_ns: frame.due.as_nanos(),
        segment: frame.segment,
        packets_lost: frame.packets_lost,
        packets_recovered: frame.packets_recovered,
        path_mask: u32::from(frame.path_mask),
        damaged: frame.damage.any(),
        damage_reasons: damage_reasons(frame.damage),
        discontinuity: match frame.discontinuity {
            DiscontinuityCause::None => Discontinuity::None,
            DiscontinuityCause::Start => Discontinuity::Start,
            DiscontinuityCause::Restart => Discontinuity::SourceChange,
            DiscontinuityCause::Loss => Discontinuity::Loss,
            DiscontinuityCause::TimeBase => Discontinuity::TimeBaseJump,
            DiscontinuityCause::Dropped => Discontinuity::Loss,
        },
        picture_type: match frame.info.picture_type {
            PictureType::Unknown => RingPicture::Unknown,
            PictureType::I => RingPicture::I,
            PictureType::P => RingPicture::P,
            PictureType::B => RingPicture::B,
        },
        picture_structure: match frame.info.picture_structure {
            PictureStructure::Frame => RingStructure::Frame,
            PictureStructure::TopField => RingStructure::TopFirst,
            PictureStructure::BottomField => RingStructure::BottomFirst,
            PictureStructure::SecondTopField => RingStructure::TopSecond,
            PictureStructure::SecondBottomField => RingStructure::BottomSecond,
        },
        random_access,
        recovery_count,
        temporal_id: frame.info.temporal_id,
        timecode: frame.info.timecode.map(|timecode| RingTimecode {
            hours: timecode.hours,
            minutes: timecode.minutes,
            seconds: timecode.seconds,
            frames: u8::try_from(timecode.frames).unwrap_or(u8::MAX),
            drop_frame: timecode.drop_frame,
        }),
        key: frame.info.is_key(),
        ..FrameDescriptor::default()
    }
}

fn damage_reasons(set: Damage) -> u32 {
    [
        (Damage::LOSS, damage::LOST_PACKETS),
        (Damage::UNPROVEN, damage::CONTINUITY),
        (Damage::START_MISSING, damage::LOST_PACKETS),
        (Damage::SYNTAX, damage::SYNTAX),
        (Damage::TIMED_OUT, damage::TIME_OUT),
        (Damage::TRANSPORT_ERROR, damage::TRANSPORT_ERROR),
    ]
    .iter()
    .filter(|(reason, _)| set.contains(*reason))
    .fold(0, |bits, (_, bit)| bits | bit)
}

/// What a track of this kind is called in the ring's header.
pub(super) fn ring_kind(kind: TrackKind) -> headworks_frame_ring::layout::TrackKind {
    use headworks_frame_ring::layout::TrackKind as RingKind;
    match kind {
        TrackKind::Video => RingKind::Video,
        TrackKind::Audio => RingKind::Audio,
        TrackKind::Data => RingKind::Data,
        TrackKind::Transport => RingKind::Transport,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_names_the_clock_that_a_frame_had_its_time_from() {
        let clock = |origin| {
            let described = descriptor(&Frame { origin, ..Frame::default() });
            (described.origin_kind, described.origin)
        };
        assert_eq!(clock(Origin::None), (ClockOrigin::None, 0));
        assert_eq!(clock(Origin::Pcr(0)), (ClockOrigin::Pcr, 0));
        assert_eq!(clock(Origin::Rtp(0)), (ClockOrigin::Rtp, 0));
        assert_eq!(clock(Origin::Rtp(1 << 32)), (ClockOrigin::Rtp, 1 << 32));
    }
}
