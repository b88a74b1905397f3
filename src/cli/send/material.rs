//! What is sent: a transport stream in memory, when each datagram of it is due, and what has to change when it is sent again.
//!
//! Sent a second time the stream goes on where it ended: continuity counters count on, and PCR, PTS and DTS are moved by the
//! length of the stream, so that a receiver sees one stream without a seam. Left as they are: time stamps inside sections
//! (SCTE-35) and time codes inside video. A file that does not begin with a random access point still shows the damage
//! of its own cut at each seam.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::base::sequence::{Unwrapper, Wrapping};
use crate::container::mpegts::{NULL_PID, PACKET_LEN, SYNC_BYTE};

/// Transport packets in a datagram, as everybody has it: 1,316 bytes.
pub const PACKETS_PER_DATAGRAM: usize = 7;
/// Bytes of a full datagram.
pub const DATAGRAM_LEN: usize = PACKETS_PER_DATAGRAM * PACKET_LEN;

/// Packets that must follow each other for a file to be a transport stream.
const SYNC_PACKETS: usize = 5;
/// PCRs further apart than this belong to different time bases.
const PCR_STEP_MAX_27MHZ: i64 = 27_000_000;
const PIDS: usize = 8_192;

/// Why something cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else.
    #[error("no transport stream: {SYNC_PACKETS} sync bytes in a row, 188, 192 or 204 bytes apart, are nowhere in it")]
    NoTransportStream,
    /// It does not tell how fast it is.
    #[error("the transport stream has no two PCRs that tell its rate: give one with --rate")]
    NoClock,
}

/// How fast it is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As its PCRs say.
    Clock,
    /// At a constant rate, in bits per second.
    Rate(u64),
}

/// What has to change in the bytes at some place when they are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// PCR or OPCR, 6 bytes.
    ClockReference,
    /// PTS or DTS, 5 bytes.
    Timestamp,
}

/// A transport stream in memory.
#[derive(Debug)]
pub struct Material {
    bytes: Vec<u8>,
    /// Of each datagram: when it is due, in ns from the beginning.
    due_ns: Vec<u64>,
    /// From the beginning to the beginning of the next round.
    period_ns: u64,
    /// The same for time stamps, in ticks of 90 kHz.
    period_90khz: u64,
    changes: Vec<(usize, Change)>,
    /// By how much the continuity counters of a PID are further on in each round.
    counter_steps: Box<[u8; PIDS]>,
    /// Numbers of packets before which pictures and sound are whole, in order.
    clean_ends: Vec<usize>,
    pes_starts: PesStarts,
}

/// Numbers of the packets in which PES packets begin, in order.
#[derive(Debug, Default)]
struct PesStarts {
    video: Vec<usize>,
    audio: Vec<usize>,
}

/// PES packets that were begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PesPackets {
    /// Of video; most multiplexers put one picture into each.
    pub video: u64,
    /// Of MPEG audio and AAC.
    pub audio: u64,
}

impl Material {
    /// Reads a file.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn read(path: &Path, pace: Pace) -> Result<Self, MaterialError> {
        let file = std::fs::read(path).map_err(|error| MaterialError::File { path: path.to_owned(), error })?;
        Self::new(packets_of(&file).ok_or(MaterialError::NoTransportStream)?, pace)
    }

    /// Judges a transport stream of whole packets of 188 bytes.
    ///
    /// # Errors
    /// It has no clock and no rate is given.
    ///
    /// # Panics
    /// When there is no whole packet.
    pub fn new(bytes: Vec<u8>, pace: Pace) -> Result<Self, MaterialError> {
        assert!(!bytes.is_empty() && bytes.len().is_multiple_of(PACKET_LEN), "whole packets");
        let survey = Survey::of(&bytes);
        let datagrams = bytes.len().div_ceil(DATAGRAM_LEN);
        let ticks_of_media = survey.period_90khz().unwrap_or(0);
        let (due_ns, period_ns, period_90khz) = match pace {
            Pace::Rate(rate) => {
                let at = |bytes: usize| (bytes as u128 * 8_000_000_000 / u128::from(rate)) as u64;
                let due_ns = (0..datagrams).map(|n| at(n * DATAGRAM_LEN)).collect();
                let period_ns = at(bytes.len());
                // Time stamps go on as the media needs it; without any, as the clock does.
                let ticks = if ticks_of_media > 0 { ticks_of_media } else { period_ns * 9 / 100_000 };
                (due_ns, period_ns, ticks)
            }
            Pace::Clock => {
                let mut times = survey.packet_times().ok_or(MaterialError::NoClock)?;
                let end = times.at_27mhz(survey.packets);
                let media = ticks_of_media as i64 * 300;
                // The media says when it goes on, unless it is shorter than the clock that it came with. The packets after
                // the last PCR are then sent in what time is left.
                let period = if media > times.last_known_27mhz() { media } else { (end + 299) / 300 * 300 };
                times.points.push((survey.packets, end.min(period)));
                let due_ns = (0..datagrams).map(|n| ticks_to_ns(times.at_27mhz(n * PACKETS_PER_DATAGRAM))).collect();
                (due_ns, ticks_to_ns(period), (period / 300) as u64)
            }
        };
        Ok(Self {
            due_ns,
            period_ns,
            period_90khz,
            changes: survey.changes,
            counter_steps: survey.counter_steps,
            clean_ends: clean_ends(&bytes, &survey.tracks),
            pes_starts: survey.pes_starts,
            bytes,
        })
    }

    /// Datagrams of one round.
    pub fn datagrams(&self) -> u64 {
        self.due_ns.len() as u64
    }

    /// What one round takes, in ns.
    pub const fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Bits per second, on average.
    pub fn rate_bps(&self) -> f64 {
        self.bytes.len() as f64 * 8e9 / self.period_ns as f64
    }

    /// PES packets that begin in the first `bytes` of what is sent, over all rounds.
    pub fn pes_packets(&self, bytes: u64) -> PesPackets {
        let (round, rest) = (bytes / self.bytes.len() as u64, bytes % self.bytes.len() as u64);
        let rest = rest.div_ceil(PACKET_LEN as u64) as usize;
        let count =
            |starts: &[usize]| round * starts.len() as u64 + starts.partition_point(|&number| number < rest) as u64;
        PesPackets { video: count(&self.pes_starts.video), audio: count(&self.pes_starts.audio) }
    }

    /// Bytes of one round.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to send; never so.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A place in the material: what one feed sends next.
#[derive(Debug)]
pub struct Cursor {
    datagram: usize,
    round: u64,
    change: usize,
}

impl Cursor {
    /// At the beginning.
    pub const fn new() -> Self {
        Self { datagram: 0, round: 0, change: 0 }
    }

    /// When the next datagram is due, in ns from the beginning of the first round.
    #[inline]
    pub fn due_ns(&self, material: &Material) -> u64 {
        self.round * material.period_ns + material.due_ns[self.datagram]
    }

    /// Whether the feed can end within the next datagram so that no picture and no sound is cut: after how many bytes of it.
    pub fn clean_end(&self, material: &Material) -> Option<usize> {
        let first = self.datagram * PACKETS_PER_DATAGRAM;
        let ends = &material.clean_ends;
        let end = ends.get(ends.partition_point(|&end| end < first)).map(|end| end - first)?;
        (end <= PACKETS_PER_DATAGRAM).then_some(end * PACKET_LEN)
    }

    /// Datagrams taken so far.
    pub fn taken(&self, material: &Material) -> u64 {
        self.round * material.datagrams() + self.datagram as u64
    }

    /// Whole rounds done.
    pub const fn rounds(&self) -> u64 {
        self.round
    }

    /// Writes the next datagram to `out` and goes on; gives its length.
    #[inline]
    pub fn take(&mut self, material: &Material, out: &mut [u8; DATAGRAM_LEN]) -> usize {
        let from = self.datagram * DATAGRAM_LEN;
        let length = (material.bytes.len() - from).min(DATAGRAM_LEN);
        let out = &mut out[..length];
        out.copy_from_slice(&material.bytes[from..from + length]);
        if self.round > 0 {
            self.carry_on(material, from, out);
        }
        self.datagram += 1;
        if self.datagram == material.due_ns.len() {
            *self = Self { datagram: 0, round: self.round + 1, change: 0 };
        }
        length
    }

    /// Makes the datagram at `from` follow what was sent before.
    fn carry_on(&mut self, material: &Material, from: usize, out: &mut [u8]) {
        for packet in out.as_chunks_mut::<PACKET_LEN>().0 {
            let pid = pid(packet);
            let step = u64::from(material.counter_steps[usize::from(pid)]);
            packet[3] = packet[3] & 0xf0 | (u64::from(packet[3]) + self.round * step) as u8 & 0x0f;
        }
        let ticks = self.round.wrapping_mul(material.period_90khz);
        while let Some(&(at, change)) = material.changes.get(self.change)
            && at < from + out.len()
        {
            self.change += 1;
            let field = &mut out[at - from..];
            match change {
                Change::ClockReference => move_clock_reference(field, ticks),
                Change::Timestamp => move_timestamp(field, ticks),
            }
        }
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self::new()
    }
}

fn ticks_to_ns(ticks_27mhz: i64) -> u64 {
    (i128::from(ticks_27mhz.max(0)) * 1_000 / 27) as u64
}

#[inline]
fn pid(packet: &[u8; PACKET_LEN]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

/// The base of a PCR counts 90 kHz: the extension stays.
fn move_clock_reference(field: &mut [u8], ticks: u64) {
    let bits = u64::from_be_bytes([0, 0, field[0], field[1], field[2], field[3], field[4], field[5]]);
    let base = (bits >> 15).wrapping_add(ticks) & Wrapping::<33>::MASK;
    field[..6].copy_from_slice(&(base << 15 | bits & 0x7fff).to_be_bytes()[2..]);
}

/// H.222.0 §2.4.3.6: three pieces with marker bits between.
fn move_timestamp(field: &mut [u8], ticks: u64) {
    let time = read_timestamp(field).wrapping_add(ticks) & Wrapping::<33>::MASK;
    field[0] = field[0] & 0xf1 | (time >> 29) as u8 & 0x0e;
    field[1] = (time >> 22) as u8;
    field[2] = (time >> 14) as u8 & 0xfe | 1;
    field[3] = (time >> 7) as u8;
    field[4] = (time << 1) as u8 | 1;
}

fn read_timestamp(field: &[u8]) -> u64 {
    u64::from(field[0] & 0x0e) << 29
        | u64::from(field[1]) << 22
        | u64::from(field[2] & 0xfe) << 14
        | u64::from(field[3]) << 7
        | u64::from(field[4]) >> 1
}

/// The packets of a file, without what stands before, between and after them; `None` when it is no transport stream.
fn packets_of(file: &[u8]) -> Option<Vec<u8>> {
    let (start, stride) = (0..file.len().min(64 << 10)).find_map(|start| {
        [188, 192, 204].into_iter().find_map(|stride| {
            let place = |n: usize| start + n * stride;
            // A short file has fewer packets, and nothing else.
            let is_short = start == 0 && file.len().is_multiple_of(stride);
            let enough = (0..SYNC_PACKETS).all(|n| match file.get(place(n)) {
                Some(&byte) => byte == SYNC_BYTE,
                None => n > 0 && is_short,
            });
            enough.then_some((start, stride))
        })
    })?;
    let packets: Vec<u8> = file[start..]
        .chunks(stride)
        .filter_map(|packet| packet.get(..PACKET_LEN))
        .filter(|packet| packet[0] == SYNC_BYTE)
        .flatten()
        .copied()
        .collect();
    (!packets.is_empty()).then_some(packets)
}

/// Before which packets every PES packet of pictures and sound is whole, and shows it: stuffing stands at its end.
fn clean_ends(bytes: &[u8], tracks: &[TrackTimes]) -> Vec<usize> {
    let packets = bytes.as_chunks::<PACKET_LEN>().0;
    let starts_unit = |packet: &[u8; PACKET_LEN]| packet[1] & 0x40 != 0;
    let mut is_media = vec![false; PIDS];
    for track in tracks.iter().filter(|track| track.is_media) {
        is_media[usize::from(track.pid)] = true;
    }
    let carries_media = |packet: &[u8; PACKET_LEN]| packet[3] & 0x10 != 0 && is_media[usize::from(pid(packet))];
    let mut is_last = vec![false; packets.len()];
    let mut unit_follows = vec![true; PIDS];
    for (packet, is_last) in packets.iter().zip(&mut is_last).rev().filter(|(packet, _)| carries_media(packet)) {
        *is_last = std::mem::replace(&mut unit_follows[usize::from(pid(packet))], starts_unit(packet));
    }
    let mut is_open = vec![false; PIDS];
    let mut open = 0_usize;
    let mut ends = vec![0];
    for (number, (packet, is_last)) in
        packets.iter().zip(is_last).enumerate().filter(|(_, (packet, _))| carries_media(packet))
    {
        let was_open = std::mem::replace(&mut is_open[usize::from(pid(packet))], !is_last || packet[3] & 0x20 == 0);
        open = open + usize::from(is_open[usize::from(pid(packet))]) - usize::from(was_open);
        if open == 0 {
            ends.push(number + 1);
        }
    }
    ends
}

/// What one look over all packets finds.
struct Survey {
    packets: usize,
    changes: Vec<(usize, Change)>,
    counter_steps: Box<[u8; PIDS]>,
    /// Packet number and PCR, of the first PID that has any.
    clock: Vec<(usize, u64)>,
    clock_pid: Option<u16>,
    tracks: Vec<TrackTimes>,
    pes_starts: PesStarts,
}

/// The decoding times of one PID.
struct TrackTimes {
    pid: u16,
    /// Pictures or sound by its `stream_id`; other tracks may be sparse.
    is_media: bool,
    clock: Unwrapper<33>,
    earliest: i64,
    latest: i64,
    count: u64,
}

/// Continuity of one PID.
#[derive(Clone, Copy, Default)]
struct Counters {
    first: Option<(u8, bool)>,
    last: u8,
}

impl Survey {
    fn of(bytes: &[u8]) -> Self {
        let mut survey = Self {
            packets: bytes.len() / PACKET_LEN,
            changes: Vec::new(),
            counter_steps: Box::new([0; PIDS]),
            clock: Vec::new(),
            clock_pid: None,
            tracks: Vec::new(),
            pes_starts: PesStarts::default(),
        };
        let mut counters = vec![Counters::default(); PIDS];
        for (number, packet) in bytes.as_chunks::<PACKET_LEN>().0.iter().enumerate() {
            let pid = pid(packet);
            if pid == NULL_PID {
                continue;
            }
            let has_payload = packet[3] & 0x10 != 0;
            let counter = &mut counters[usize::from(pid)];
            counter.first.get_or_insert((packet[3] & 0x0f, has_payload));
            counter.last = packet[3] & 0x0f;
            survey.adaptation_field(number, pid, packet);
            if has_payload && packet[1] & 0x40 != 0 && packet[3] & 0xc0 == 0 {
                survey.unit_start(number, pid, packet);
            }
        }
        for (step, counter) in survey.counter_steps.iter_mut().zip(&counters) {
            if let Some((first, has_payload)) = counter.first {
                // A packet without payload repeats the counter of the last one with.
                *step = counter.last.wrapping_add(u8::from(has_payload)).wrapping_sub(first) & 0x0f;
            }
        }
        survey
    }

    fn adaptation_field(&mut self, number: usize, pid: u16, packet: &[u8; PACKET_LEN]) {
        let length = usize::from(packet[4]);
        if packet[3] & 0x20 == 0 || length == 0 || length > PACKET_LEN - 5 {
            return;
        }
        let flags = packet[5];
        let mut at = 6;
        for flag in [0x10, 0x08] {
            if flags & flag == 0 {
                continue;
            }
            if at + 6 > 5 + length {
                return;
            }
            self.changes.push((number * PACKET_LEN + at, Change::ClockReference));
            if flag == 0x10 && *self.clock_pid.get_or_insert(pid) == pid {
                let field = &packet[at..at + 6];
                let bits = u64::from_be_bytes([0, 0, field[0], field[1], field[2], field[3], field[4], field[5]]);
                self.clock.push((number, (bits >> 15) * 300 + (bits & 0x1ff)));
            }
            at += 6;
        }
    }

    /// PTS and DTS of a PES header, as far as it stands in its first packet, which all multiplexers see to.
    fn unit_start(&mut self, number: usize, pid: u16, packet: &[u8; PACKET_LEN]) {
        let start = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        let Some(&[0, 0, 1, stream_id, _, _, marker, flags, length, ref rest @ ..]) = packet.get(start..) else {
            return;
        };
        match stream_id {
            0xe0..=0xef => self.pes_starts.video.push(number),
            0xc0..=0xdf => self.pes_starts.audio.push(number),
            _ => {}
        }
        let without_header = matches!(stream_id, 0xbc | 0xbe | 0xbf | 0xf0 | 0xf1 | 0xf2 | 0xf8 | 0xff);
        if stream_id < 0xbc || without_header || marker >> 6 != 2 {
            return;
        }
        let count = match flags >> 6 {
            2 => 1,
            3 => 2,
            _ => return,
        };
        if usize::from(length) < 5 * count || rest.len() < 5 * count {
            return;
        }
        for n in 0..count {
            self.changes.push((number * PACKET_LEN + start + 9 + 5 * n, Change::Timestamp));
        }
        let time = read_timestamp(&rest[5 * (count - 1)..]);
        let place = self.tracks.iter().position(|track| track.pid == pid).unwrap_or_else(|| {
            let is_media = matches!(stream_id, 0xc0..=0xef);
            let (earliest, latest) = (i64::MAX, i64::MIN);
            self.tracks.push(TrackTimes { pid, is_media, clock: Unwrapper::new(), earliest, latest, count: 0 });
            self.tracks.len() - 1
        });
        let track = &mut self.tracks[place];
        let time = track.clock.unwrap(time);
        track.earliest = track.earliest.min(time);
        track.latest = track.latest.max(time);
        track.count += 1;
    }

    /// How long the media lasts: from the first to the last unit of the longest track of pictures or sound, and one unit more.
    /// So no track goes back at a seam; the shorter ones pause.
    fn period_90khz(&self) -> Option<u64> {
        let has_media = self.tracks.iter().any(|track| track.is_media);
        let tracks = self.tracks.iter().filter(|track| track.count > 1 && (track.is_media || !has_media));
        tracks
            .map(|track| {
                let span = (track.latest - track.earliest) as u64;
                span + (span as f64 / (track.count - 1) as f64).round() as u64
            })
            .max()
    }

    /// The time line of packets by their PCRs.
    fn packet_times(&self) -> Option<PacketTimes> {
        let mut points: Vec<(usize, i64)> = Vec::with_capacity(self.clock.len());
        let mut last_pcr = None;
        for &(number, pcr) in &self.clock {
            match (points.last(), last_pcr.replace(pcr)) {
                (Some(&(before, time)), Some(last)) => {
                    let wrap = (1_i64 << 33) * 300;
                    let step = (pcr as i64 - last as i64).rem_euclid(wrap);
                    if step == 0 || number == before {
                        continue;
                    }
                    if step <= PCR_STEP_MAX_27MHZ {
                        points.push((number, time + step));
                    } else if let Some(&(_, previous)) = points.len().checked_sub(2).and_then(|n| points.get(n)) {
                        // Another time base: the packets between are as fast as those before.
                        points.push((number, time + (time - previous).max(1)));
                    }
                }
                _ => points.push((number, 0)),
            }
        }
        (points.len() > 1).then(|| PacketTimes::new(points))
    }
}

/// When packets are due, by interpolation between points.
struct PacketTimes {
    points: Vec<(usize, i64)>,
}

impl PacketTimes {
    /// Moves the points so that the first packet is due at 0.
    fn new(mut points: Vec<(usize, i64)>) -> Self {
        let (n0, t0) = points[0];
        let (n1, t1) = points[1];
        let before = n0 as i64 * (t1 - t0) / (n1 - n0) as i64;
        for point in &mut points {
            point.1 += before;
        }
        if n0 > 0 {
            points.insert(0, (0, 0));
        }
        Self { points }
    }

    fn at_27mhz(&self, packet: usize) -> i64 {
        let after = self.points.partition_point(|&(number, _)| number <= packet).clamp(1, self.points.len() - 1);
        let ((n0, t0), (n1, t1)) = (self.points[after - 1], self.points[after]);
        let passed = i128::from(t1 - t0) * (packet as i128 - n0 as i128) / (n1 - n0) as i128;
        t0 + passed as i64
    }

    fn last_known_27mhz(&self) -> i64 {
        self.points[self.points.len() - 1].1
    }
}

#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
