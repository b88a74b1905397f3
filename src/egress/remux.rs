//! All tracks of a stream in one container, for programs that read pipes and files.
//!
//! Frames go in as a reader of the stream gets them, in the order of their publication; bytes come out as soon as it is known what
//! the stream consists of. No frame is decoded, reordered or held longer than that.

use crate::container::matroska::{MatroskaMux, TICK_NS, TRACKS_MAX};
use crate::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack, NULL_PID, PACKET_LEN};
use crate::media::{Codec, TrackKind};
use crate::output::reader::descriptor::{FrameDescriptor, PictureStructure, RandomAccess};

use super::carriage;
use super::output_clock::{OutputClock, ticks_of};

/// How long the first frames are held until every track has one among them, ns of their publication.
const HELD_NS_MAX: u64 = 1_000_000_000;
/// The most bytes that are held.
const HELD_BYTES_MAX: usize = 64 << 20;
/// How long sound waits for a picture that decoding can start at. Longer than the GOPs of contribution feeds.
const KEY_WAIT_NS: u64 = 10_000_000_000;
/// PID of the first track.
const FIRST_PID: u16 = 0x100;
/// How long before its decoding time a frame is written, by the clock of the transport stream: as much as sources interleave.
const LEAD_MS: u32 = 1_000;
/// Ticks of 90 kHz in a millisecond.
const TICKS_PER_MS: i64 = 90;
const NS_PER_SECOND: u32 = 1_000_000_000;
/// One turn of the 33 bits, so that no time stamp is negative.
const TURN: i64 = 1 << 33;
/// Time stamps beyond it, to both sides, are those of no clock: 400 years.
const TICKS_MAX: u64 = 1 << 50;
/// `transport_error_indicator`, in the second byte of a packet.
const TRANSPORT_ERROR: u8 = 0x80;

const TABLE_FULL: &str = "the table of the transport stream is full";
const FILE_FULL: &str = "a Matroska file has 126 tracks at most";

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// MPEG-2 transport stream (ITU-T H.222.0), one programme.
    MpegTs,
    /// Matroska (RFC 9559), live.
    Matroska,
}

/// A track of the stream, as its ring and the stream's description tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTrack {
    /// Its name, such as `video0`.
    pub name: String,
    /// Four characters.
    pub codec: [u8; 4],
    /// Ticks per second of its time stamps.
    pub clock_rate: u32,
    /// Three letters of ISO 639-2.
    pub language: Option<[u8; 3]>,
}

/// Writes a stream into a container.
#[derive(Debug)]
pub struct Remux {
    container: Container,
    tracks: Vec<Track>,
    clock: OutputClock,
    stage: Stage,
    /// When the first frame of any track was published.
    began_ns: Option<u64>,
    /// Decoding time of the newest frame that has one, and what was added to it, ticks of 90 kHz.
    newest: Option<(i64, i64)>,
    notices: Vec<String>,
}

#[derive(Debug)]
struct Track {
    source: SourceTrack,
    codec: Option<Codec>,
    configuration: Vec<u8>,
    /// Its number in the container.
    place: Place,
    /// Pictures before one that decoding can start at are not wanted.
    awaiting_key: bool,
    /// A frame of it has been taken.
    seen: bool,
    /// Frames are missing before the next one.
    after_loss: bool,
    ended: bool,
    /// Rings that the track has had before this one.
    ring: u32,
    /// When the next frame is due if it does not say so itself, ticks of 90 kHz.
    next_dts: Option<i64>,
    /// The first field of a picture, which shares a block with the second one.
    field: Option<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Undecided,
    Number(usize),
    LeftOut,
}

#[derive(Debug)]
enum Stage {
    Holding(Held),
    MpegTs { mux: Box<Mux>, tracks: Vec<MuxTrack> },
    Matroska { mux: MatroskaMux, origin: i64 },
}

/// The first frames, until it is known what the stream consists of.
#[derive(Debug, Default)]
struct Held {
    units: Vec<(usize, Unit)>,
    bytes: usize,
    /// When the first of them was published.
    since_ns: u64,
}

/// A frame on the output's clock.
#[derive(Clone, Debug)]
struct Unit {
    /// Ticks of 90 kHz; `None` for asynchronous data, whose `dts` is but its place among the others.
    pts: Option<i64>,
    dts: i64,
    /// What was added to its time stamps.
    offset: i64,
    key: bool,
    damaged: bool,
    /// Frames are missing between the one before and this one.
    after_loss: bool,
    structure: PictureStructure,
    /// Samples per channel; 0 unknown.
    samples: u32,
    payload: Vec<u8>,
}

impl Remux {
    /// Nothing is written before the first frames have come.
    pub fn new(container: Container) -> Self {
        Self {
            container,
            tracks: Vec::new(),
            clock: OutputClock::default(),
            stage: Stage::Holding(Held::default()),
            began_ns: None,
            newest: None,
            notices: Vec::new(),
        }
    }

    /// A track of the stream, and its number. One of a name and codec that were there before goes on with the old number: another
    /// ring has taken its place.
    pub fn add_track(&mut self, source: SourceTrack) -> usize {
        let is_same = |track: &Track| track.source.name == source.name && track.source.codec == source.codec;
        if let Some(number) = self.tracks.iter().position(is_same) {
            let track = &mut self.tracks[number];
            track.ended = false;
            // Segments are counted anew.
            track.ring += 1;
            return number;
        }
        let codec = Codec::from_fourcc(source.codec);
        let mut track = Track {
            source,
            codec,
            configuration: Vec::new(),
            place: Place::Undecided,
            awaiting_key: codec.is_some_and(|codec| codec.kind() == TrackKind::Video),
            seen: false,
            after_loss: false,
            ended: false,
            ring: 0,
            next_dts: None,
            field: None,
        };
        if codec.is_none() {
            self.notices.push(track.left_out("its codec is not known here"));
        }
        self.tracks.push(track);
        self.tracks.len() - 1
    }

    /// What decodes the track's next frame: the ring's configuration block.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn configure(&mut self, index: usize, configuration: Vec<u8>) {
        let track = &mut self.tracks[index];
        let is_sound = track.codec.is_some_and(|codec| codec.kind() == TrackKind::Audio);
        let is_written = matches!(track.place, Place::Number(_)) && self.container == Container::Matroska;
        if is_sound && is_written && !track.configuration.is_empty() && track.configuration != configuration {
            self.notices.push(format!(
                "{}: its parameters have changed, which Matroska cannot say: begin a new file",
                track.source.name
            ));
        }
        track.configuration = configuration;
        self.describe_anew(index);
    }

    /// No frame will come any more: nobody waits for the track.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn end_track(&mut self, track: usize) {
        self.tracks[track].ended = true;
    }

    /// Frames are missing before the track's next one. A transport stream says so; Matroska has no word for it.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn lose(&mut self, track: usize) {
        let track = &mut self.tracks[track];
        track.after_loss = track.seen;
    }

    /// Takes a frame and appends what can be written to `out`.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn frame(&mut self, index: usize, descriptor: &FrameDescriptor, payload: &[u8], out: &mut Vec<u8>) {
        let began_ns = *self.began_ns.get_or_insert(descriptor.commit_ns);
        let can_start = descriptor.key || descriptor.random_access != RandomAccess::None;
        let track = &self.tracks[index];
        if track.place == Place::LeftOut || track.awaiting_key && !can_start {
            return;
        }
        // Sound before the first picture would be played beside nothing.
        let waits = descriptor.commit_ns.saturating_sub(began_ns) < KEY_WAIT_NS && self.awaits_first_picture();
        if waits && !track.is_video() {
            return;
        }
        let Some(unit) = self.unit(index, descriptor, can_start, payload) else { return };
        self.tracks[index].awaiting_key = false;
        self.tracks[index].seen = true;
        let Stage::Holding(held) = &mut self.stage else { return self.write(index, unit, out) };
        if held.units.is_empty() {
            held.since_ns = descriptor.commit_ns;
        }
        held.bytes += unit.payload.len();
        held.units.push((index, unit));
        let is_full = held.bytes > HELD_BYTES_MAX;
        let is_late = descriptor.commit_ns.saturating_sub(held.since_ns) >= HELD_NS_MAX;
        if is_full || is_late || self.tracks.iter().filter(|track| track.is_awaited()).all(|track| track.seen) {
            self.begin(out);
        }
    }

    /// Appends what is left.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if matches!(&self.stage, Stage::Holding(held) if !held.units.is_empty()) {
            self.begin(out);
        }
        for index in 0..self.tracks.len() {
            if let Some(field) = self.tracks[index].field.take() {
                self.write_unit(index, &field, out);
            }
        }
    }

    /// What a person should know, said once.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Whether there is video and none of it has begun.
    fn awaits_first_picture(&self) -> bool {
        let mut videos = self.tracks.iter().filter(|track| track.is_awaited() && track.is_video()).peekable();
        videos.peek().is_some() && videos.all(|video| video.awaiting_key)
    }

    /// A frame's times on the output's clock; `None` when it has none and must have some.
    fn unit(&mut self, index: usize, descriptor: &FrameDescriptor, key: bool, payload: &[u8]) -> Option<Unit> {
        let (pts, dts, offset) = if descriptor.pts.is_none() && self.tracks[index].is_data() {
            // Where nothing has a time yet, the clock is that of the publication, and begins at 0.
            let since_ns = descriptor.commit_ns.saturating_sub(self.began_ns.unwrap_or(0));
            let published = || ticks_of(since_ns.cast_signed(), NS_PER_SECOND) + i64::from(LEAD_MS) * TICKS_PER_MS;
            let (dts, offset) = self.newest.unwrap_or_else(|| (published(), 0));
            (None, dts, offset)
        } else {
            let (pts, dts, offset) = self.times(index, descriptor)?;
            self.newest = Some((dts, offset));
            (Some(pts), dts, offset)
        };
        Some(Unit {
            pts,
            dts,
            offset,
            key,
            damaged: descriptor.damaged,
            after_loss: std::mem::take(&mut self.tracks[index].after_loss),
            structure: descriptor.picture_structure,
            samples: self.tracks[index].samples(descriptor.duration),
            payload: payload.to_vec(),
        })
    }

    /// Presentation and decoding time on the output's clock, told or counted on, and what was added to those told.
    fn times(&mut self, index: usize, descriptor: &FrameDescriptor) -> Option<(i64, i64, i64)> {
        let track = &mut self.tracks[index];
        let rate = track.source.clock_rate;
        let own = descriptor.pts.or(descriptor.dts).map(|ticks| {
            let ticks = ticks_of(ticks, rate);
            self.clock.offset(index, (track.ring, descriptor.segment), ticks, descriptor.timeline_ns)
        });
        let (pts, dts) = match own {
            Some(offset) => {
                let on_clock = |ticks| ticks_of(ticks, rate).saturating_add(offset);
                let dts = descriptor.dts.or(descriptor.pts).map(on_clock)?;
                (descriptor.pts.map_or(dts, on_clock).max(dts), dts)
            }
            None => (track.next_dts?, track.next_dts?),
        };
        if pts.unsigned_abs().max(dts.unsigned_abs()) > TICKS_MAX {
            return None;
        }
        track.next_dts = Some(dts + ticks_of(i64::from(descriptor.duration), rate));
        Some((pts, dts, own.unwrap_or(0)))
    }

    /// It is known what the stream consists of: writes the header and what was held.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Stage::Holding(held) = std::mem::replace(&mut self.stage, Stage::Holding(Held::default())) else {
            unreachable!("it begins once");
        };
        let mut held = held.units;
        // What came before the first time there is belongs beside it.
        if let Some(first) = held.iter().position(|(_, unit)| unit.pts.is_some()) {
            let dts = held[first].1.dts;
            held[..first].iter_mut().for_each(|(_, unit)| unit.dts = dts);
        }
        match self.container {
            Container::MpegTs => self.begin_mpegts(),
            Container::Matroska => {
                let mut entries = Vec::new();
                for index in self.order() {
                    let track = &mut self.tracks[index];
                    let Some(codec) = track.codec else { continue };
                    let first = held.iter().find(|(of, _)| *of == index).map_or(&[][..], |(_, unit)| &unit.payload);
                    match carriage::matroska_track(codec, track.source.language, &track.configuration, first) {
                        Ok(_) if entries.len() == TRACKS_MAX => self.notices.push(track.left_out(FILE_FULL)),
                        Ok(entry) => {
                            track.place = Place::Number(entries.len());
                            entries.push(entry);
                        }
                        Err(why) => self.notices.push(track.left_out(why)),
                    }
                }
                let mux = MatroskaMux::new(entries);
                mux.write_header(out);
                let written = held.iter().filter(|(index, _)| matches!(self.tracks[*index].place, Place::Number(_)));
                let origin = written.map(|(_, unit)| unit.dts).min().unwrap_or(0);
                self.stage = Stage::Matroska { mux, origin };
            }
        }
        for (index, unit) in held {
            self.write(index, unit, out);
        }
    }

    /// Joins the fields of a picture where a block must hold both.
    fn write(&mut self, index: usize, unit: Unit, out: &mut Vec<u8>) {
        if self.tracks[index].place == Place::Undecided {
            match self.container {
                Container::MpegTs => self.add_to_mpegts(index),
                Container::Matroska => {
                    let notice = self.tracks[index].left_out("it came after the file had begun");
                    self.notices.push(notice);
                }
            }
        }
        if self.container == Container::Matroska && self.tracks[index].codec == Some(Codec::H264) {
            let is_second = matches!(unit.structure, PictureStructure::TopSecond | PictureStructure::BottomSecond);
            match self.tracks[index].field.take() {
                Some(mut first) if is_second => {
                    first.payload.extend_from_slice(&unit.payload);
                    first.damaged |= unit.damaged;
                    return self.write_unit(index, &first, out);
                }
                Some(first) => self.write_unit(index, &first, out),
                None => {}
            }
            if matches!(unit.structure, PictureStructure::TopFirst | PictureStructure::BottomFirst) {
                self.tracks[index].field = Some(unit);
                return;
            }
        }
        self.write_unit(index, &unit, out);
    }

    fn write_unit(&mut self, index: usize, unit: &Unit, out: &mut Vec<u8>) {
        let track = &self.tracks[index];
        let (Place::Number(number), Some(codec)) = (track.place, track.codec) else { return };
        match &mut self.stage {
            Stage::Holding(_) => unreachable!("nothing is written before it is known what there is"),
            Stage::MpegTs { mux, tracks } => {
                let Some(data) =
                    carriage::mpegts_frame(codec, &track.configuration, unit.key, unit.samples, &unit.payload)
                else {
                    let notice = self.tracks[index].left_out("a transport stream has no words for its parameters");
                    self.notices.push(notice);
                    return;
                };
                if unit.after_loss {
                    mux.mark_loss(number);
                }
                let at = out.len();
                let dts = (unit.dts + TURN) as u64;
                match unit.pts {
                    _ if codec == Codec::Scte35 => {
                        mux.write_section(number, dts, &carriage::splice_section(&data, unit.offset), out);
                    }
                    None => mux.write_untimed(number, dts, &data, out),
                    Some(pts) => {
                        let random_access = unit.key && codec.kind() == TrackKind::Video;
                        let pts = (pts + TURN) as u64;
                        mux.write(number, &AccessUnit { pts, dts, random_access, data: &data }, out);
                    }
                }
                if unit.damaged {
                    mark_damaged(&mut out[at..], tracks[number].pid);
                }
            }
            Stage::Matroska { mux, origin } => {
                let data = carriage::matroska_frame(codec, &unit.payload);
                let time = |ticks: i64| matroska_time(ticks - *origin);
                mux.write(number, time(unit.pts.unwrap_or(unit.dts)), time(unit.dts), unit.key, &data, out);
            }
        }
    }

    /// Pictures, sound, data, each in the order of their numbers: as most programs expect them.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.tracks.len()).collect();
        order.sort_by_key(|&index| {
            let track = &self.tracks[index];
            let kind = match track.codec.map(Codec::kind) {
                Some(TrackKind::Video) => 0,
                Some(TrackKind::Audio) => 1,
                _ => 2,
            };
            (kind, track.source.name.len(), &track.source.name)
        });
        order
    }

    /// One programme of all tracks known, its clock on the first picture or sound.
    fn begin_mpegts(&mut self) {
        let mut tracks = Vec::new();
        for index in self.order() {
            let track = &mut self.tracks[index];
            if let (Some(codec), Place::Undecided) = (track.codec, track.place) {
                track.place = Place::Number(tracks.len());
                tracks.push(track.in_mpegts(codec, tracks.len()));
            }
        }
        let mux = loop {
            let kinds = [TrackKind::Video, TrackKind::Audio, TrackKind::Data];
            let clock = kinds.iter().find_map(|kind| tracks.iter().find(|track| track.codec.kind() == *kind));
            let pcr_pid = clock.map_or(NULL_PID, |track: &MuxTrack| track.pid);
            let configuration = MuxConfiguration::new(tracks.clone());
            if let Ok(mux) = Mux::new(MuxConfiguration { pcr_pid, lead_ms: LEAD_MS, ..configuration }) {
                break mux;
            }
            tracks.pop().expect("a programme without tracks fits its table");
            let without_place = Place::Number(tracks.len());
            for track in self.tracks.iter_mut().filter(|track| track.place == without_place) {
                self.notices.push(track.left_out(TABLE_FULL));
            }
        };
        self.stage = Stage::MpegTs { mux: Box::new(mux), tracks };
    }

    /// Follows a configuration that the PMT tells of. Where the table has no room for it, what it told before stands.
    fn describe_anew(&mut self, index: usize) {
        let track = &self.tracks[index];
        let (Place::Number(number), Some(codec)) = (track.place, track.codec) else { return };
        let Stage::MpegTs { mux, tracks } = &mut self.stage else { return };
        let described = std::mem::replace(&mut tracks[number], track.in_mpegts(codec, number));
        if described != tracks[number] && mux.set_tracks(tracks.clone()).is_err() {
            tracks[number] = described;
        }
    }

    /// Gives a track that came later its PID, and the PMT a new version.
    fn add_to_mpegts(&mut self, index: usize) {
        let Stage::MpegTs { mux, tracks } = &mut self.stage else { return };
        let track = &mut self.tracks[index];
        let Some(codec) = track.codec else { return };
        tracks.push(track.in_mpegts(codec, tracks.len()));
        if mux.set_tracks(tracks.clone()).is_ok() {
            track.place = Place::Number(tracks.len() - 1);
        } else {
            tracks.pop();
            self.notices.push(track.left_out(TABLE_FULL));
        }
    }
}

impl Track {
    fn is_video(&self) -> bool {
        self.codec.is_some_and(|codec| codec.kind() == TrackKind::Video)
    }

    fn is_data(&self) -> bool {
        self.codec.is_some_and(|codec| codec.kind() == TrackKind::Data)
    }

    /// Its entry in a PMT.
    fn in_mpegts(&self, codec: Codec, number: usize) -> MuxTrack {
        carriage::mpegts_track(FIRST_PID + number as u16, codec, self.source.language, &self.configuration)
    }

    /// Whether the beginning waits for it: data comes when it comes.
    fn is_awaited(&self) -> bool {
        self.place != Place::LeftOut && !self.ended && self.codec.is_some_and(|codec| codec.kind() != TrackKind::Data)
    }

    /// Samples per channel of a duration in ticks; 0 unknown. Of AAC alone, whose frames may hold several blocks.
    fn samples(&self, duration: u32) -> u32 {
        let rate = match self.codec {
            Some(Codec::AacAdts | Codec::AacLatm) => carriage::sample_rate(&self.configuration).unwrap_or(0),
            _ => 0,
        };
        let clock_rate = u64::from(self.source.clock_rate.max(1));
        ((u64::from(duration) * u64::from(rate) + clock_rate / 2) / clock_rate) as u32
    }

    /// Says that it is left out, and why.
    fn left_out(&mut self, why: &str) -> String {
        self.place = Place::LeftOut;
        let codec = self.codec.map_or_else(
            || String::from_utf8_lossy(&self.source.codec).trim_end().to_owned(),
            |codec| codec.to_string(),
        );
        format!("{} ({codec}) is left out: {why}", self.source.name)
    }
}

/// Sets `transport_error_indicator` on the packets of a PID: what H.222.0 §2.4.3.3 has for bytes that are known to be wrong. A
/// receiver may drop the frame, or conceal what is missing.
fn mark_damaged(packets: &mut [u8], pid: u16) {
    for packet in packets.chunks_exact_mut(PACKET_LEN) {
        if u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) == pid {
            packet[1] |= TRANSPORT_ERROR;
        }
    }
}

/// Ticks of 90 kHz as those of a Matroska file, rounded; not before its beginning.
fn matroska_time(ticks: i64) -> u64 {
    let ns = i128::from(ticks.max(0)) * 100_000;
    let tick_ns = i128::from(TICK_NS) * 9;
    ((ns + tick_ns / 2) / tick_ns) as u64
}

#[cfg(test)]
mod tests;
