//! The multiplexer: access units in, a transport stream of one programme out. For readers of rings, synthetic feeds and tests.
//!
//! Its clock is the time stamps' own: a unit is written [`MuxConfiguration::lead_ms`] before its DTS. Nothing is
//! reordered; units come in the order of their DTS.

use super::Carriage;
use super::packet::{FIRST_FREE_PID, NULL_PID, PACKET_LEN, PAT_PID, SYNC_BYTE};
use super::section::{CRC_LEN, STUFFING, crc32};
use super::tables::{Descriptors, OPUS_TAG_EXTENSION, carriage, tag};
use crate::media::{Codec, TrackKind};

/// Ticks of 27 MHz in a millisecond.
const MS: i64 = 27_000;
/// Time between two PATs and PMTs; ETSI TR 101 290 wants at most 500 ms.
const TABLES_EVERY: i64 = 100 * MS;
/// Time between two PCRs; ETSI TR 101 290 wants at most 40 ms.
const PCR_EVERY: i64 = 40 * MS;
/// A unit that lies further away than this starts a new time base.
const LARGEST_STEP: i64 = 10_000 * MS;
/// Bits of a packet × ticks of a second: what a packet lasts, times the rate.
const PACKET_BIT_TICKS: i128 = PACKET_LEN as i128 * 8 * 27_000_000;
/// `discontinuity_indicator`, among the flags of an adaptation field.
const DISCONTINUITY: u8 = 0x80;
/// Where PCRs start again.
const PCR_WRAP: i64 = (1 << 33) * 300;

/// What a [`Mux`] writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuxConfiguration {
    /// `transport_stream_id`.
    pub transport_stream_id: u16,
    /// `program_number`, not 0.
    pub programme: u16,
    /// PID of the PMT.
    pub pmt_pid: u16,
    /// PID of the PCRs: a track's, or one of its own.
    pub pcr_pid: u16,
    /// The tracks, in the order of the PMT.
    pub tracks: Vec<MuxTrack>,
    /// How long before its DTS a unit is written, in milliseconds.
    pub lead_ms: u32,
    /// Bits per second of the whole stream, kept by null packets; `None` for as many as the units need.
    pub rate_bps: Option<u64>,
}

impl MuxConfiguration {
    /// Programme 1 as many encoders number it: PMT on PID 0x1000, PCRs on the first track, written 700 ms ahead.
    pub fn new(tracks: Vec<MuxTrack>) -> Self {
        Self {
            transport_stream_id: 1,
            programme: 1,
            pmt_pid: 0x1000,
            pcr_pid: tracks.first().map_or(NULL_PID, |track| track.pid),
            tracks,
            lead_ms: 700,
            rate_bps: None,
        }
    }
}

/// A track to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuxTrack {
    /// Its PID.
    pub pid: u16,
    /// What it is coded with; decides `stream_type`, `stream_id` and the descriptors that tell it.
    pub codec: Codec,
    /// Three letters of ISO 639-2.
    pub language: Option<[u8; 3]>,
    /// `PES_packet_length` is written (where it fits 16 bits), not 0.
    pub pes_length: bool,
    /// `channel_config_code` of Opus.
    pub opus_channel_configuration: u8,
    /// Further descriptors, as written.
    pub descriptors: Vec<u8>,
}

impl MuxTrack {
    /// As multiplexers usually write it: video without PES length, all else with.
    pub fn new(pid: u16, codec: Codec) -> Self {
        let pes_length = codec.kind() != TrackKind::Video;
        Self { pid, codec, language: None, pes_length, opus_channel_configuration: 2, descriptors: Vec::new() }
    }
}

/// What goes into one PES packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// Presentation time in ticks of 90 kHz, unwrapped; its low 33 bits are written.
    pub pts: u64,
    /// Decoding time, written when it is not the PTS.
    pub dts: u64,
    /// Sets `random_access_indicator`.
    pub random_access: bool,
    /// The bytes, as the codec's carriage in transport streams has them.
    pub data: &'a [u8],
}

/// Why a transport stream cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// Below 0x10, or the one of null packets, or above.
    #[error("PID {0:#06x} is reserved")]
    ReservedPid(u16),
    /// Two tracks, or a track and a table.
    #[error("PID {0:#06x} is used twice")]
    PidUsedTwice(u16),
    /// 0 stands for the network.
    #[error("programme number 0 is reserved")]
    ProgrammeNumber,
    /// The PMT has one section.
    #[error("the tracks do not fit a PMT of 1,024 bytes")]
    TooManyTracks,
    /// Not a rate.
    #[error("a rate of 0 bit/s carries nothing")]
    Rate,
}

/// Writes a transport stream.
#[derive(Debug)]
pub struct Mux {
    configuration: MuxConfiguration,
    version: u8,
    pat: Vec<u8>,
    pmt: Vec<u8>,
    /// Continuity counter that the next packet with payload gets, of every PID.
    counters: Box<[u8; 8192]>,
    /// 27 MHz; `None` before the first unit.
    clock: Option<i64>,
    /// Packets since the clock was set, and what it was then: a constant rate is kept without rounding.
    origin: i64,
    packets: u64,
    tables_due: i64,
    pcr_due: i64,
    discontinuity: bool,
    /// PIDs on which bytes are missing before the next ones.
    lossy: Vec<u16>,
    late_units: u64,
}

impl Mux {
    /// Judges the configuration.
    ///
    /// # Errors
    /// When PIDs collide, or the tables cannot hold what is asked.
    pub fn new(configuration: MuxConfiguration) -> Result<Self, MuxError> {
        let mut mux = Self {
            pat: Vec::new(),
            pmt: Vec::new(),
            version: 0,
            counters: Box::new([0; 8192]),
            clock: None,
            origin: 0,
            packets: 0,
            tables_due: 0,
            pcr_due: 0,
            discontinuity: false,
            lossy: Vec::new(),
            late_units: 0,
            configuration,
        };
        mux.write_tables()?;
        Ok(mux)
    }

    /// Other tracks from now on: the PMT gets a new version and is written before the next unit.
    ///
    /// # Errors
    /// As [`Mux::new`]; the tracks are then what they were.
    pub fn set_tracks(&mut self, tracks: Vec<MuxTrack>) -> Result<(), MuxError> {
        let before = std::mem::replace(&mut self.configuration.tracks, tracks);
        self.version = (self.version + 1) & 0x1f;
        if let Err(error) = self.write_tables() {
            self.configuration.tracks = before;
            self.version = self.version.wrapping_sub(1) & 0x1f;
            self.write_tables().expect("these tables were written before");
            return Err(error);
        }
        self.tables_due = i64::MIN;
        Ok(())
    }

    /// Units of a track are missing before the next one. Its first packet says so, as H.222.0 §2.4.3.5 has it: with
    /// `discontinuity_indicator`, and a value of the continuity counter is passed over. On the PID of the PCRs that is a new time base
    /// too, whose first PCR is in that packet.
    ///
    /// # Panics
    /// When there is no track of this number.
    pub fn mark_loss(&mut self, track: usize) {
        let pid = self.configuration.tracks[track].pid;
        if !self.lossy.contains(&pid) {
            self.lossy.push(pid);
        }
    }

    /// The stream's time, 27 MHz, not wrapped: when the next packet is due. `None` before the first unit.
    pub fn clock_27mhz(&self) -> Option<i64> {
        self.clock
    }

    /// Units whose last packet came after their DTS, because the constant rate is too low.
    pub fn late_units(&self) -> u64 {
        self.late_units
    }

    /// Appends a unit as one PES packet to `out`, and before it whatever is due.
    ///
    /// # Panics
    /// When there is no track of this number, or it is carried in sections.
    pub fn write(&mut self, track: usize, unit: &AccessUnit<'_>, out: &mut Vec<u8>) {
        self.advance_to(unit.dts, out);
        let dts = Some(unit.dts).filter(|dts| *dts != unit.pts);
        self.put_pes(track, (Some(unit.pts), dts), unit.random_access, unit.data, out);
        self.late_units += u64::from(self.clock.is_some_and(|clock| clock > unit.dts as i64 * 300));
    }

    /// Appends a PES packet without time stamps to `out`, as asynchronous data has it (`PTS_DTS_flags` 00, H.222.0 §2.4.3.7). `time`
    /// is when it is due, in ticks of 90 kHz.
    ///
    /// # Panics
    /// As [`Mux::write`].
    pub fn write_untimed(&mut self, track: usize, time: u64, data: &[u8], out: &mut Vec<u8>) {
        self.advance_to(time, out);
        self.put_pes(track, (None, None), false, data, out);
    }

    /// `time_stamps`: PTS, and DTS where it is another.
    fn put_pes(
        &mut self,
        track: usize,
        time_stamps: (Option<u64>, Option<u64>),
        random_access: bool,
        data: &[u8],
        out: &mut Vec<u8>,
    ) {
        let MuxTrack { pid, codec, pes_length, .. } = self.configuration.tracks[track];
        assert!(carriage(stream_type(codec), codec) == Carriage::Pes, "{codec} is carried in sections");
        let (header, header_len) = pes_header(codec, time_stamps, data.len(), pes_length);
        let mut header = &header[..header_len];
        let mut data = data;
        let mut start = true;
        while start || !header.is_empty() || !data.is_empty() {
            self.put_tables_when_due(out);
            if !(start && pid == self.configuration.pcr_pid) {
                self.put_pcr_when_due(out);
            }
            let mut field = Field::default();
            if start && random_access {
                field.flags |= 0x40;
            }
            if start && pid == self.configuration.pcr_pid {
                self.put_pcr(&mut field);
            }
            self.put(pid, start, field, &mut [&mut header, &mut data], out);
            start = false;
        }
    }

    /// Appends a private section to `out`, in packets of its own. `time` is when it is due, in ticks of 90 kHz.
    ///
    /// # Panics
    /// When there is no track of this number, or it is carried in PES packets.
    pub fn write_section(&mut self, track: usize, time: u64, section: &[u8], out: &mut Vec<u8>) {
        let MuxTrack { pid, codec, .. } = self.configuration.tracks[track];
        assert!(carriage(stream_type(codec), codec) == Carriage::Sections, "{codec} is carried in PES packets");
        self.advance_to(time, out);
        self.put_tables_when_due(out);
        self.put_section(pid, section, out);
    }

    /// Appends what is due until a unit of this DTS (90 kHz): null packets at a constant rate, tables and PCRs.
    pub fn advance_to(&mut self, dts: u64, out: &mut Vec<u8>) {
        let target = dts as i64 * 300 - i64::from(self.configuration.lead_ms) * MS;
        let near = self.clock.filter(|clock| (clock - target).abs() <= LARGEST_STEP);
        if near.is_none() {
            self.discontinuity = self.clock.is_some();
            self.clock = Some(target);
            self.origin = target;
            self.packets = 0;
            self.tables_due = target;
            self.pcr_due = if self.configuration.pcr_pid == NULL_PID { i64::MAX } else { target };
        }
        while let Some(clock) = self.clock
            && clock < target
        {
            self.put_tables_when_due(out);
            self.put_pcr_when_due(out);
            if self.configuration.rate_bps.is_some() {
                self.put_null(out);
            } else {
                self.clock = Some(target.min(self.tables_due).min(self.pcr_due));
            }
        }
    }

    fn put_tables_when_due(&mut self, out: &mut Vec<u8>) {
        let clock = self.now();
        if self.tables_due <= clock {
            self.tables_due = clock + TABLES_EVERY;
            let (pat, pmt) = (std::mem::take(&mut self.pat), std::mem::take(&mut self.pmt));
            self.put_section(PAT_PID, &pat, out);
            self.put_section(self.configuration.pmt_pid, &pmt, out);
            (self.pat, self.pmt) = (pat, pmt);
        }
    }

    fn put_pcr_when_due(&mut self, out: &mut Vec<u8>) {
        if self.pcr_due <= self.now() {
            let mut field = Field::default();
            self.put_pcr(&mut field);
            self.put(self.configuration.pcr_pid, false, field, &mut [], out);
        }
    }

    fn now(&self) -> i64 {
        self.clock.expect("the clock is set before anything is written")
    }

    fn put_pcr(&mut self, field: &mut Field) {
        let clock = self.now();
        let pcr = clock.rem_euclid(PCR_WRAP) as u64;
        let bits = (pcr / 300) << 15 | 0x3f << 9 | (pcr % 300);
        field.flags |= 0x10 | if self.discontinuity { DISCONTINUITY } else { 0 };
        field.pcr.copy_from_slice(&bits.to_be_bytes()[2..]);
        self.discontinuity = false;
        self.pcr_due = clock + PCR_EVERY;
    }

    fn put_section(&mut self, pid: u16, section: &[u8], out: &mut Vec<u8>) {
        const FILL: [u8; PACKET_LEN] = [STUFFING; PACKET_LEN];
        let mut pointer: &[u8] = &[0];
        let mut section = section;
        let mut start = true;
        while !section.is_empty() {
            let mut fill: &[u8] = &FILL;
            self.put(pid, start, Field::default(), &mut [&mut pointer, &mut section, &mut fill], out);
            start = false;
        }
    }

    fn put_null(&mut self, out: &mut Vec<u8>) {
        out.extend([SYNC_BYTE, 0x1f, 0xff, 0x10]);
        out.resize(out.len() + PACKET_LEN - 4, 0xff);
        self.tick();
    }

    /// Appends one packet with as much of `parts` as it holds, and takes that off their fronts. Without parts it has an
    /// adaptation field only.
    fn put(&mut self, pid: u16, start: bool, field: Field, parts: &mut [&mut &[u8]], out: &mut Vec<u8>) {
        let at = out.len();
        let available: usize = parts.iter().map(|part| part.len()).sum();
        let mut field = field;
        if available > 0
            && let Some(lossy) = self.lossy.iter().position(|lossy| *lossy == pid)
        {
            self.lossy.swap_remove(lossy);
            field.flags |= DISCONTINUITY;
            let next = &mut self.counters[usize::from(pid)];
            *next = (*next + 1) & 0x0f;
        }
        let room = PACKET_LEN - 4 - field.len();
        let stuffing = room.saturating_sub(available);
        let with_field = field.len() + stuffing > 0;
        let control = u8::from(with_field) << 5 | u8::from(available > 0) << 4;
        let next = &mut self.counters[usize::from(pid)];
        // A packet without payload repeats the counter of the last one with (H.222.0 §2.4.3.3).
        let counter = if available > 0 { *next } else { next.wrapping_sub(1) & 0x0f };
        if available > 0 {
            *next = (*next + 1) & 0x0f;
        }
        out.extend([SYNC_BYTE, u8::from(start) << 6 | (pid >> 8) as u8, pid as u8, control | counter]);
        if with_field {
            let length = field.len() + stuffing - 1;
            out.push(length as u8);
            if length > 0 {
                out.push(field.flags);
                out.extend(field.clock());
                out.resize(at + 5 + length, 0xff);
            }
        }
        for part in parts {
            let take = part.len().min(at + PACKET_LEN - out.len());
            let (taken, rest) = part.split_at(take);
            out.extend_from_slice(taken);
            **part = rest;
        }
        debug_assert_eq!(out.len(), at + PACKET_LEN);
        self.tick();
    }

    /// A packet was written.
    fn tick(&mut self) {
        self.packets += 1;
        if let Some(rate) = self.configuration.rate_bps {
            let passed = i128::from(self.packets) * PACKET_BIT_TICKS / i128::from(rate);
            self.clock = Some(self.origin + passed as i64);
        }
    }

    fn write_tables(&mut self) -> Result<(), MuxError> {
        let configuration = &self.configuration;
        if configuration.programme == 0 {
            return Err(MuxError::ProgrammeNumber);
        }
        if configuration.rate_bps == Some(0) {
            return Err(MuxError::Rate);
        }
        let pids = || configuration.tracks.iter().map(|track| track.pid).chain([configuration.pmt_pid]);
        for pid in pids().chain((configuration.pcr_pid != NULL_PID).then_some(configuration.pcr_pid)) {
            if !(FIRST_FREE_PID..NULL_PID).contains(&pid) {
                return Err(MuxError::ReservedPid(pid));
            }
        }
        if let Some(twice) = pids().find(|pid| pids().filter(|other| other == pid).count() > 1) {
            return Err(MuxError::PidUsedTwice(twice));
        }

        let mut pat = table_header(0x00, configuration.transport_stream_id, 0);
        pat.extend(configuration.programme.to_be_bytes());
        pat.extend((0xe000 | configuration.pmt_pid).to_be_bytes());
        let mut pmt = table_header(0x02, configuration.programme, self.version);
        pmt.extend((0xe000 | configuration.pcr_pid).to_be_bytes());
        let spliced = configuration.tracks.iter().any(|track| track.codec == Codec::Scte35);
        let about_programme: &[u8] = if spliced { b"\x05\x04CUEI" } else { b"" };
        pmt.extend((0xf000 | about_programme.len() as u16).to_be_bytes());
        pmt.extend(about_programme);
        for track in &configuration.tracks {
            let descriptors = descriptors(track);
            if descriptors.len() > 0x03ff {
                return Err(MuxError::TooManyTracks);
            }
            pmt.push(stream_type(track.codec));
            pmt.extend((0xe000 | track.pid).to_be_bytes());
            pmt.extend((0xf000 | descriptors.len() as u16).to_be_bytes());
            pmt.extend(descriptors);
        }
        if pmt.len() + CRC_LEN > 1024 {
            return Err(MuxError::TooManyTracks);
        }
        self.pat = seal(pat);
        self.pmt = seal(pmt);
        Ok(())
    }
}

/// An adaptation field to be written, before stuffing.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    flags: u8,
    pcr: [u8; 6],
}

impl Field {
    fn clock(&self) -> &[u8] {
        if self.flags & 0x10 != 0 { &self.pcr } else { &[] }
    }

    /// With its length byte; 0 when it is not needed.
    fn len(&self) -> usize {
        if self.flags == 0 { 0 } else { 2 + self.clock().len() }
    }
}

fn table_header(table_id: u8, extension: u16, version: u8) -> Vec<u8> {
    let [high, low] = extension.to_be_bytes();
    vec![table_id, 0, 0, high, low, 0xc1 | version << 1, 0, 0]
}

/// Writes length and CRC.
fn seal(mut section: Vec<u8>) -> Vec<u8> {
    let length = (section.len() + CRC_LEN - 3) as u16;
    section[1..3].copy_from_slice(&(0xb000 | length).to_be_bytes());
    let crc = crc32(&section);
    section.extend(crc.to_be_bytes());
    section
}

const fn stream_type(codec: Codec) -> u8 {
    match codec {
        Codec::Mpeg2Video => 0x02,
        Codec::Mp2 => 0x03,
        Codec::AacAdts => 0x0f,
        Codec::AacLatm => 0x11,
        Codec::H264 => 0x1b,
        Codec::Hevc => 0x24,
        Codec::Ac3 => 0x81,
        Codec::Scte35 => 0x86,
        Codec::Eac3 => 0x87,
        Codec::Opus | Codec::Smpte302m | Codec::Klv | Codec::Teletext | Codec::DvbSubtitle => 0x06,
        Codec::PrivateData(stream_type) => stream_type,
    }
}

/// What the codec needs to be known by, the language, and the track's own; these go before others of their kind.
fn descriptors(track: &MuxTrack) -> Vec<u8> {
    let own = Descriptors(&track.descriptors);
    let registration: &[u8] = match track.codec {
        Codec::Ac3 => b"AC-3",
        Codec::Eac3 => b"EAC3",
        Codec::Opus => b"Opus",
        Codec::Smpte302m => b"BSSD",
        Codec::Klv => b"KLVA",
        Codec::Hevc => b"HEVC",
        _ => b"",
    };
    let mut descriptors = Vec::new();
    if !registration.is_empty() && own.registration().as_ref().map(|own| &own[..]) != Some(registration) {
        descriptors.extend([tag::REGISTRATION, 4]);
        descriptors.extend(registration);
    }
    let language = track.language.unwrap_or(*b"und");
    match track.codec {
        Codec::Opus => descriptors.extend([tag::EXTENSION, 2, OPUS_TAG_EXTENSION, track.opus_channel_configuration]),
        Codec::Teletext if !own.has(tag::TELETEXT) => {
            descriptors.extend([tag::TELETEXT, 5]);
            descriptors.extend(language);
            descriptors.extend([1 << 3 | 1, 0]);
        }
        Codec::DvbSubtitle if !own.has(tag::SUBTITLING) => {
            descriptors.extend([tag::SUBTITLING, 8]);
            descriptors.extend(language);
            descriptors.extend([0x10, 0, 1, 0, 1]);
        }
        _ => {}
    }
    if let Some(language) = track.language.filter(|_| !own.has(tag::ISO_639_LANGUAGE)) {
        descriptors.extend([tag::ISO_639_LANGUAGE, 4]);
        descriptors.extend(language);
        descriptors.push(0);
    }
    descriptors.extend(&track.descriptors);
    descriptors
}

/// The header of a PES packet and its length.
fn pes_header(
    codec: Codec,
    (pts, dts): (Option<u64>, Option<u64>),
    data_len: usize,
    with_length: bool,
) -> ([u8; 19], usize) {
    let stream_id = match codec {
        Codec::H264 | Codec::Hevc | Codec::Mpeg2Video => 0xe0,
        Codec::AacAdts | Codec::AacLatm | Codec::Mp2 => 0xc0,
        _ => 0xbd,
    };
    let (flags, len) = match (pts, dts) {
        (None, _) => (0x00, 9),
        (Some(_), None) => (0x80, 14),
        (Some(_), Some(_)) => (0xc0, 19),
    };
    let length = u16::try_from(len - 6 + data_len).ok().filter(|_| with_length).unwrap_or(0);
    let mut header = [0; 19];
    header[..4].copy_from_slice(&[0, 0, 1, stream_id]);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..9].copy_from_slice(&[0x84, flags, len as u8 - 9]);
    if let Some(pts) = pts {
        header[9..14].copy_from_slice(&time_stamp(if dts.is_some() { 0x30 } else { 0x20 }, pts));
        header[14..].copy_from_slice(&dts.map_or([0; 5], |dts| time_stamp(0x10, dts)));
    }
    (header, len)
}

fn time_stamp(prefix: u8, value: u64) -> [u8; 5] {
    [
        prefix | (value >> 29) as u8 & 0x0e | 1,
        (value >> 22) as u8,
        (value >> 14) as u8 | 1,
        (value >> 7) as u8,
        (value << 1) as u8 | 1,
    ]
}
