//! The tracks of a transport stream: demultiplexer events become frames of each track.

use std::time::Duration;

use super::assembler::{Assembler, Carriage, DecodeTime};
use super::frame::{Damage, FrameSink, Origin, SinkIndex, StreamSink, TrackDescription};
use super::timeline::{ClockWidth, Timeline};
use crate::base::{Instant, prefetch};
use crate::codec::framer::{AnyFramer, FramerHints};
use crate::container::mpegts::{self, Demux, DiscontinuityCause, Event, Limits, TrackIndex};
use crate::media::timestamp::CLOCK_RATE_90_KHZ;
use crate::media::{Codec, Payload, TrackConfiguration, TrackKind};

/// PCRs count 27 MHz, time stamps 90 kHz.
const PCR_TICKS_PER_PTS_TICK: u64 = 300;
/// Transport packets in a datagram as senders make them (7 × 188 bytes fit an Ethernet frame).
const PACKETS_PER_DATAGRAM: u32 = 7;

/// One transport stream, cut into the frames of its tracks.
pub struct TransportStream {
    demux: Demux,
    /// By the demultiplexer's track index.
    tracks: Vec<Option<Track>>,
    /// By the demultiplexer's programme index.
    programmes: Vec<Programme>,
    /// Datagrams lost since the last one that came; what a discontinuity found now is due to.
    datagrams_lost: u32,
    /// The track whose packets were last taken at one go.
    recent: TrackIndex,
}

/// One elementary stream on its way into frames.
pub struct Track {
    /// The assembler of its frames.
    pub assembler: Assembler<AnyFramer>,
    /// What it is.
    pub description: TrackDescription,
    /// Where its frames go.
    pub sink: SinkIndex,
    programme: usize,
    /// Of a data track: its descriptors, as its sink was told of them.
    descriptors: TrackConfiguration,
    /// The demultiplexer's number of the track: its index is used again, this is not.
    serial: u32,
}

struct Programme {
    /// Its program_number.
    number: u16,
    timeline: Timeline,
    /// The newest one.
    pcr_27mhz: Option<u64>,
}

impl TransportStream {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self {
            demux: Demux::new(Limits::default()),
            tracks: Vec::new(),
            programmes: Vec::new(),
            datagrams_lost: 0,
            recent: TrackIndex(0),
        }
    }

    /// Asks the processor for what the next payload is likely to need: link by link of the chain, `step` 0 first.
    #[inline]
    pub fn prefetch(&self, step: usize) {
        if step == 0 {
            prefetch(&self.demux);
            prefetch(&self.tracks);
            prefetch(&self.programmes);
            prefetch(&self.recent);
            return;
        }
        match (step, self.tracks.get(self.recent.get())) {
            (1, track) => {
                self.demux.prefetch();
                track.into_iter().for_each(prefetch);
            }
            (2, Some(Some(track))) => {
                track.assembler.prefetch();
                prefetch(&track.sink);
                self.programmes.get(track.programme).into_iter().for_each(|programme| prefetch(&programme.pcr_27mhz));
            }
            _ => {}
        }
    }

    /// Takes one payload, from the byte at `from` on, and writes what it completes.
    ///
    /// When a track is new and its ring is not there yet, it stops and gives the place to go on from, so that not a byte of
    /// the track's first frame is written to nowhere.
    pub fn receive<S: StreamSink>(
        &mut self,
        now: Instant,
        payload: &Payload,
        from: usize,
        sink: &mut S,
    ) -> Option<usize> {
        self.datagrams_lost = payload.lost_before;
        if payload.lost_before > 0 && from == 0 {
            self.demux.gap(payload.lost_before.saturating_mul(PACKETS_PER_DATAGRAM));
        }
        let mut carriage = Carriage {
            arrival: payload.arrival,
            due: payload.due,
            recovered: payload.recovered,
            path_mask: payload.path_mask,
            origin: Origin::None,
        };
        let bytes: &[u8] = &payload.packet;
        let mut taken = from;
        loop {
            if let Some(run) = self.demux.plain_run(&bytes[taken..])
                && let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, run.track)
            {
                carriage.origin = programme.pcr_27mhz.map_or(Origin::None, Origin::Pcr);
                if track.assembler.pass(run.packets, &run.payloads, &carriage, &mut sink.track(track.sink)) {
                    self.recent = run.track;
                    taken += self.demux.accept_run(&run);
                    continue;
                }
            }
            let mut rest = &bytes[taken..];
            // Matched as it is: `?` would copy what has just been written piece by piece, and wait for that.
            let event = self.demux.push(&mut rest);
            taken = bytes.len() - rest.len();
            match event {
                None => return None,
                Some(Event::PesData { track, data }) => {
                    if let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, track) {
                        carriage.origin = programme.pcr_27mhz.map_or(Origin::None, Origin::Pcr);
                        let timeline = &mut programme.timeline;
                        track.assembler.push(now, data, &carriage, timeline, &mut sink.track(track.sink));
                    }
                }
                Some(Event::PesStart { track, pts, dts, .. }) => {
                    if let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, track) {
                        if track.is_cut_by_pes() {
                            track.assembler.flush(now, &mut programme.timeline, &mut sink.track(track.sink));
                        }
                        track.assembler.mark(pts, dts);
                    }
                }
                Some(Event::PesEnd { track }) => {
                    if let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, track) {
                        if track.is_cut_by_pes() {
                            track.assembler.flush(now, &mut programme.timeline, &mut sink.track(track.sink));
                        } else {
                            track.assembler.pes_end(now, &mut programme.timeline, &mut sink.track(track.sink));
                        }
                    }
                }
                Some(Event::PesEndHint { track }) => {
                    if let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, track) {
                        track.assembler.pes_stuffing(now, &mut programme.timeline, &mut sink.track(track.sink));
                    }
                }
                Some(Event::Section { track, data }) => {
                    if let Some((track, programme)) = joined(&mut self.tracks, &mut self.programmes, track) {
                        // A section carries no time stamp: it is of the time when it comes, by its programme's clock.
                        if let Some(pcr_27mhz) = programme.pcr_27mhz {
                            track.assembler.mark(Some(pcr_27mhz / PCR_TICKS_PER_PTS_TICK), None);
                            carriage.origin = Origin::Pcr(pcr_27mhz);
                        }
                        let timeline = &mut programme.timeline;
                        track.assembler.push(now, data, &carriage, timeline, &mut sink.track(track.sink));
                        track.assembler.flush(now, timeline, &mut sink.track(track.sink));
                    }
                }
                Some(Event::Pcr { programme, pcr_27mhz, discontinuity }) => {
                    if let Some(programme) = self.programmes.get_mut(programme.get()) {
                        programme.pcr_27mhz = Some(pcr_27mhz);
                        if discontinuity {
                            programme.timeline.announce_break();
                        }
                    }
                }
                Some(Event::Discontinuity { track, cause }) => {
                    let lost = self.datagrams_lost;
                    if let Some(track) = self.tracks.get_mut(track.get()).and_then(Option::as_mut) {
                        track.assembler.discontinuity(damage(cause), lost);
                    }
                }
                Some(Event::Tables) => {
                    if self.follow_tables(now, sink) && sink.is_opening() {
                        return Some(taken);
                    }
                }
            }
        }
    }

    /// The source starts anew after its session ended.
    pub fn restart(&mut self) {
        self.demux.gap(0);
        for track in self.tracks.iter_mut().flatten() {
            track.assembler.restart();
        }
        for programme in &mut self.programmes {
            programme.timeline.restart();
            programme.pcr_27mhz = None;
        }
    }

    /// Publishes what is open; nothing more will come.
    pub fn finish<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        for track in self.tracks.iter_mut().flatten() {
            let timeline = &mut self.programmes[track.programme].timeline;
            track.assembler.conclude(now, timeline, &mut sink.track(track.sink));
        }
    }

    /// Publishes what is open and ends all tracks: the source sends something else from now on.
    pub fn end<S: StreamSink>(&mut self, now: Instant, sink: &mut S) {
        self.finish(now, sink);
        for track in self.tracks.drain(..).flatten() {
            sink.end(track.sink);
        }
    }

    /// Closes frames to which nothing was added for `timeout`.
    pub fn expire<S: StreamSink>(&mut self, now: Instant, timeout: Duration, sink: &mut S) {
        for track in self.tracks.iter_mut().flatten() {
            let timeline = &mut self.programmes[track.programme].timeline;
            track.assembler.expire(now, timeout, timeline, &mut sink.track(track.sink));
        }
    }

    /// The tracks that are in the tables now.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().flatten()
    }

    /// The programmes: number, and PID of the PCR.
    pub fn programmes(&self) -> Vec<(u16, Option<u16>)> {
        self.demux.programmes().map(|(_, programme)| (programme.number, programme.pcr_pid)).collect()
    }

    /// The timelines of the programmes that have one, with their numbers.
    pub fn timelines(&self) -> impl Iterator<Item = (u16, &Timeline)> {
        self.demux
            .programmes()
            .filter_map(|(index, programme)| Some((programme.number, &self.programmes.get(index.get())?.timeline)))
    }

    /// What the demultiplexer has counted.
    pub fn statistics(&self) -> mpegts::Statistics {
        self.demux.statistics()
    }

    /// Opens tracks that are new in the tables and ends those that are gone; `true` if any is new.
    fn follow_tables<S: StreamSink>(&mut self, now: Instant, sink: &mut S) -> bool {
        let mut is_any_new = false;
        for index in 0..self.tracks.len() {
            let listed = self.demux.track(TrackIndex(index as u16)).map(|listed| listed.serial);
            if let Some(track) = self.tracks[index].take_if(|track| listed != Some(track.serial)) {
                let mut track = track;
                let timeline = &mut self.programmes[track.programme].timeline;
                track.assembler.conclude(now, timeline, &mut sink.track(track.sink));
                sink.end(track.sink);
            }
        }
        for (index, programme) in self.demux.programmes() {
            let index = index.get();
            while self.programmes.len() <= index {
                self.programmes.push(Programme::new(programme.number, sink));
            }
            if self.programmes[index].number != programme.number {
                self.programmes[index] = Programme::new(programme.number, sink);
            }
            // Names are given in the order of the PMT, so that the first video of the first programme is video0.
            for &listed_index in &programme.tracks {
                let slot = listed_index.get();
                if self.tracks.len() <= slot {
                    self.tracks.resize_with(slot + 1, || None);
                }
                let Some(listed) = self.demux.track(listed_index) else { continue };
                if let Some(track) = &mut self.tracks[slot] {
                    track.publish_descriptors(&listed.descriptors, sink);
                    continue;
                }
                let description = TrackDescription {
                    programme: listed.key.programme,
                    id: u32::from(listed.key.pid),
                    codec: listed.key.codec,
                    clock_rate: CLOCK_RATE_90_KHZ,
                    language: listed.language,
                };
                let hints =
                    FramerHints { opus_channel_configuration: listed.opus_channel_config, ..FramerHints::default() };
                is_any_new = true;
                let framer = AnyFramer::new(listed.key.codec, hints);
                let track = self.tracks[slot].insert(Track {
                    assembler: Assembler::new(framer, DecodeTime::Presentation),
                    sink: sink.open(&description),
                    description,
                    programme: index,
                    descriptors: TrackConfiguration::default(),
                    serial: listed.serial,
                });
                track.publish_descriptors(&listed.descriptors, sink);
            }
        }
        is_any_new
    }
}

impl Default for TransportStream {
    fn default() -> Self {
        Self::new()
    }
}

impl Programme {
    fn new<S: StreamSink>(number: u16, sink: &S) -> Self {
        let timeline = Timeline::new(CLOCK_RATE_90_KHZ, ClockWidth::Pes).resumed(sink.resume(number));
        Self { number, timeline, pcr_27mhz: None }
    }
}

impl Track {
    /// Whether one PES packet is one unit, whatever its bytes are.
    fn is_cut_by_pes(&self) -> bool {
        matches!(
            self.description.codec,
            Codec::Klv | Codec::Teletext | Codec::DvbSubtitle | Codec::PrivateData(_) | Codec::Smpte302m
        )
    }

    /// The configuration of a data track is what its descriptors say, such as the pages of teletext: its own bytes tell nothing.
    fn publish_descriptors<S: StreamSink>(&mut self, descriptors: &[u8], sink: &mut S) {
        if self.description.codec.kind() == TrackKind::Data && self.descriptors.bytes != descriptors {
            self.descriptors.generation += 1;
            self.descriptors.bytes = descriptors.to_vec();
            sink.track(self.sink).configure(&self.descriptors);
        }
    }
}

/// A track and its programme, borrowed together.
#[inline]
fn joined<'a>(
    tracks: &'a mut [Option<Track>],
    programmes: &'a mut [Programme],
    index: TrackIndex,
) -> Option<(&'a mut Track, &'a mut Programme)> {
    let track = tracks.get_mut(index.get())?.as_mut()?;
    let programme = &mut programmes[track.programme];
    Some((track, programme))
}

/// What a discontinuity means for a frame that is open.
fn damage(cause: DiscontinuityCause) -> Damage {
    match cause {
        DiscontinuityCause::Continuity => Damage::LOSS,
        DiscontinuityCause::TransportError => Damage::LOSS | Damage::TRANSPORT_ERROR,
        // The multiplexer spliced here: the counter says nothing, and the open frame may or may not be whole.
        DiscontinuityCause::Signalled => Damage::UNPROVEN,
        DiscontinuityCause::Gap { unproven: true } => Damage::UNPROVEN,
        DiscontinuityCause::Gap { unproven: false } | DiscontinuityCause::Scrambled => Damage::LOSS,
        DiscontinuityCause::PesHeader => Damage::LOSS | Damage::SYNTAX,
    }
}
