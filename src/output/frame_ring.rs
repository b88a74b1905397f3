//! The rings of one stream, as the shard that owns it writes them: pieces → the open frame in the ring → publish.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use headworks_frame_ring::bell::{BellWriter, TimelineAnchor};
use headworks_frame_ring::layout::State;
use headworks_frame_ring::stream_descriptor::{Programme, StreamDescriptor, Track};
use headworks_frame_ring::writer::{Staged, Writer};

use super::description::{descriptor, ring_kind};
use super::directory::{RingDirectory, StreamOutput, TrackError};
use super::housekeeping::{Housekeeping, Job};
use super::staging::{Staging, Waiting, What};
use super::track_names::{TrackKey, TrackNames};
use super::waker::WakeFlag;
use crate::base::{Instant, prefetch, prefetch_all};
use crate::media::{Format, TrackConfiguration};
use crate::pipeline::Timeline;
use crate::pipeline::frame::{Frame, FrameSink, FrameTooLarge, SinkIndex, StreamSink, TrackDescription};
use crate::pipeline::timeline::Resume;

/// Tracks of a stream, those that have ended included: as many as its transport stream may have at once. One more takes the place of
/// the one that ended first, so that a stream whose tables change for years goes on.
pub const TRACKS_MAX: usize = 256;
/// How long after its ring was refused a track asks for it again: what was in the way may be gone.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(3);
/// The place that tracks share for which there is none.
const REFUSED: SinkIndex = SinkIndex(TRACKS_MAX);

/// What the housekeeping thread says when a track's ring is ready, or cannot be had.
pub struct TrackReady {
    /// Which track of the stream.
    pub index: SinkIndex,
    /// Its ring.
    pub ring: Result<Box<Writer>, TrackError>,
}

impl TrackReady {
    /// Ends the ring, whose stream is gone. What is left to do is housekeeping's: to unmap it would hold a shard up.
    #[must_use]
    pub fn into_end(self) -> Option<Job> {
        let mut writer = self.ring.ok()?;
        writer.set_state(State::Ended);
        Some(Box::new(move || {
            writer.wake_target().wake();
            drop(writer);
        }))
    }
}

/// How a ring that is ready finds its way back to the shard that asked for it.
pub type Reply = Arc<dyn Fn(TrackReady) + Send + Sync>;

/// The rings of one stream.
pub struct StreamRings {
    bell: BellWriter,
    wake: Arc<WakeFlag>,
    directory: Arc<RingDirectory>,
    housekeeping: Housekeeping,
    name: String,
    reply: Reply,
    /// At most [`TRACKS_MAX`], and one for all that are refused.
    tracks: Vec<TrackRing>,
    names: TrackNames,
    tracks_ended: u64,
    tracks_refused: u64,
    /// What housekeeping had no room for, in the order in which it is to be done: two jobs for each place at most, to let go of the
    /// ring of a track that has ended and to make that of the next.
    unhoused: VecDeque<Job>,
    created_utc_ns: i64,
    numa_node: Option<u32>,
    /// Replacements of the stream's description so far, and whether the newest is in place but not yet rung for.
    description_generation: u32,
    description_written: Arc<AtomicBool>,
    /// Tracks have come or gone since the stream was described.
    undescribed: bool,
    /// Added to the pipeline's segment numbers: rings that are taken up again go on counting.
    segment_base: u32,
    /// Where the newest frame of each programme stands on its timeline, in nanoseconds, those left out that are at a place now.
    newest_ns: BTreeMap<u32, i64>,
    opening: usize,
    /// The track that was last written to.
    recent: usize,
    /// Frames that are not due yet.
    staging: Staging,
    flushed_at: Instant,
    /// Frames were published since the last [`flush`](Self::flush).
    published: bool,
}

/// One track's ring and what became of what was meant for it.
pub struct TrackRing {
    /// The track's name, such as `video0`.
    pub name: String,
    /// What it is.
    pub description: TrackDescription,
    /// Its format as it was last told.
    format: Format,
    state: RingState,
    /// Housekeeping has not yet said what became of its ring, not even if it has ended since.
    is_awaited: bool,
    /// The open frame began before the ring was ready, so it is not whole.
    open_is_partial: bool,
    /// Frames dropped because there was no ring to take them.
    pub frames_without_ring: u64,
    /// Number of published frames, for people.
    pub head_seq: u64,
    /// Where the newest frame stands on its programme's timeline, published or not, in nanoseconds.
    newest_ns: i64,
    /// How long after its last packet was due each frame was published, in microseconds.
    pub delay_us: Histogram<u32>,
}

enum RingState {
    Opening(Pending),
    Ready(Box<Writer>),
    /// It is asked for again; when is settled by the next heartbeat.
    Refused {
        pending: Pending,
        error: TrackError,
        again: Option<Instant>,
    },
    /// For good.
    Failed(TrackError),
    /// As the nth of the stream.
    Ended(u64),
}

/// What a track was told while it had no ring.
#[derive(Default)]
struct Pending {
    configuration: Option<Vec<u8>>,
    frame_open: bool,
}

impl StreamRings {
    /// Takes over what the housekeeping thread has prepared for a stream.
    pub fn new(output: StreamOutput, directory: Arc<RingDirectory>, housekeeping: Housekeeping, reply: Reply) -> Self {
        Self {
            bell: output.bell,
            wake: output.wake,
            name: output.name,
            directory,
            housekeeping,
            reply,
            tracks: Vec::new(),
            names: TrackNames::new(output.described.tracks),
            tracks_ended: 0,
            tracks_refused: 0,
            unhoused: VecDeque::new(),
            created_utc_ns: output.created_utc_ns,
            numa_node: output.numa_node,
            description_generation: output.described.generation,
            description_written: Arc::default(),
            undescribed: false,
            segment_base: output.segment_base,
            newest_ns: output.newest_ns,
            opening: 0,
            recent: 0,
            staging: Staging::new(),
            flushed_at: Instant::ZERO,
            published: false,
        }
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks the processor for what the next bytes of the track that was last written to change, and for what [`flush`](Self::flush)
    /// does: link by link of both chains, `step` 0 first.
    #[inline]
    pub fn prefetch(&self, now: Instant, step: usize) {
        if step == 0 {
            prefetch(&self.tracks);
            prefetch(&self.recent);
            prefetch(&self.bell);
            prefetch_all(&self.staging);
            return;
        }
        match (step, self.tracks.get(self.recent)) {
            (1, Some(track)) => prefetch(&track.state),
            (2 | 3, Some(TrackRing { state: RingState::Ready(writer), .. })) => writer.prefetch(step - 2),
            _ => {}
        }
        match (step, self.staging.first()) {
            (1, Some(first)) => prefetch_all(first),
            (2, Some(first)) if first.due <= now => {
                self.tracks.get(first.index.0).into_iter().for_each(prefetch_all);
                self.bell.prefetch();
            }
            (3 | 4, Some(first)) if first.due <= now => {
                let writer = self.tracks.get(first.index.0).and_then(TrackRing::writer);
                writer.into_iter().for_each(|writer| writer.prefetch_publish(step - 3));
            }
            _ => {}
        }
    }

    /// The tracks, in the order they were opened until one takes the place of another.
    pub fn tracks(&self) -> &[TrackRing] {
        &self.tracks[..self.tracks.len().min(TRACKS_MAX)]
    }

    /// A track; `None` for one that was refused.
    pub fn track_ring(&self, index: SinkIndex) -> Option<&TrackRing> {
        self.tracks().get(index.0)
    }

    /// Tracks that have no place because there were [`TRACKS_MAX`] already.
    pub fn tracks_refused(&self) -> u64 {
        self.tracks_refused
    }

    /// Takes note of a track's format; `true` if it is new.
    pub fn set_format(&mut self, index: SinkIndex, format: &Format) -> bool {
        let is_new = index != REFUSED && *format != Format::Unknown && self.tracks[index.0].format != *format;
        if is_new {
            self.tracks[index.0].format = format.clone();
        }
        is_new
    }

    /// A ring has come, or does not come for now.
    pub fn ready(&mut self, ready: TrackReady) {
        let track = &mut self.tracks[ready.index.0];
        track.is_awaited = false;
        let (pending, was_refused) = match &mut track.state {
            RingState::Opening(pending) => {
                self.opening -= 1;
                (std::mem::take(pending), false)
            }
            RingState::Refused { pending, .. } => (std::mem::take(pending), true),
            RingState::Ready(_) | RingState::Failed(_) | RingState::Ended(_) => {
                // The track has left the tables before its ring was there.
                if let Ok(writer) = ready.ring {
                    self.retire(ready.index, writer);
                }
                return;
            }
        };
        match ready.ring {
            Ok(mut writer) => {
                if was_refused {
                    tracing::info!(stream = self.name, track = track.name, "the ring that was refused is there");
                }
                self.bell.advance_to(writer.stream_seq_after());
                track.open_is_partial = pending.frame_open;
                if let Some(bytes) = pending.configuration {
                    configure(&mut writer, &track.name, &bytes);
                }
                writer.set_state(State::Live);
                track.state = RingState::Ready(writer);
                self.bell.tracks_changed();
                self.undescribed = true;
            }
            Err(error) => {
                if !was_refused {
                    tracing::warn!(stream = self.name, track = track.name, "no ring, for now: {error}");
                }
                track.state = RingState::Refused { pending, error, again: None };
            }
        }
    }

    /// Publishes the frames that have become due, and tells the waker thread if anything was published since the last time; `true`
    /// if so. Once per turn.
    #[inline]
    pub fn flush(&mut self, now: Instant) -> bool {
        self.flushed_at = now;
        self.publish_until(now, now);
        if self.published {
            self.wake.raise();
        }
        std::mem::take(&mut self.published)
    }

    /// When [`flush`](Self::flush) next has a frame to publish.
    #[inline]
    pub fn next_due(&self) -> Option<Instant> {
        self.staging.next_due()
    }

    /// Publishes what waits and is due at `due`.
    #[inline]
    fn publish_until(&mut self, now: Instant, due: Instant) {
        let mut any = false;
        while let Some(Waiting { index, what, due }) = self.staging.pop_due(due) {
            any = true;
            match what {
                What::Frame(frame) => self.tracks[index.0].publish(now, due, frame, &mut self.bell),
                What::Configuration(bytes) => self.tracks[index.0].configure(bytes),
                What::End => self.end_track(index),
            }
            self.published = true;
        }
        if any {
            self.staging.judge(self.tracks.iter().filter_map(TrackRing::writer));
        }
    }

    /// Says that the writer lives. Every 100 ms.
    pub fn heartbeat(&mut self, now: Instant) {
        while let Some(job) = self.unhoused.pop_front() {
            if let Err(job) = self.housekeeping.offer(job) {
                self.unhoused.push_front(job);
                break;
            }
        }
        // Pairs with the release store in `describe`.
        if self.description_written.swap(false, Ordering::Acquire) {
            self.bell.tracks_changed();
            self.published = true;
        }
        self.bell.heartbeat(now.as_nanos());
        for index in 0..self.tracks.len() {
            let track = &mut self.tracks[index];
            let asks = match &mut track.state {
                RingState::Ready(writer) => {
                    writer.heartbeat(now.as_nanos());
                    false
                }
                RingState::Refused { again, .. } => {
                    !track.is_awaited && now >= *again.get_or_insert(now + ASK_AGAIN_AFTER)
                }
                RingState::Opening(_) | RingState::Failed(_) | RingState::Ended(_) => false,
            };
            if asks {
                self.ask_for_ring(SinkIndex(index));
            }
        }
    }

    /// Has housekeeping make a track's ring, or take it up.
    fn ask_for_ring(&mut self, index: SinkIndex) {
        let place = &mut self.tracks[index.0];
        place.is_awaited = true;
        let (stream, track, description) = (self.name.clone(), place.name.clone(), place.description.clone());
        let (directory, wake, reply) = (Arc::clone(&self.directory), Arc::clone(&self.wake), Arc::clone(&self.reply));
        let node = self.numa_node;
        self.hand_over(Box::new(move || {
            let ring = directory.open_track(&stream, &track, &description, node).map(Box::new);
            if let Ok(writer) = &ring {
                wake.add(writer.wake_target());
            }
            reply(TrackReady { index, ring });
        }));
    }

    /// Gives housekeeping a job that must be done one day, behind those that it had no room for.
    fn hand_over(&mut self, job: Job) {
        let refused = if self.unhoused.is_empty() { self.housekeeping.offer(job).err() } else { Some(job) };
        self.unhoused.extend(refused);
    }

    /// Says whether the stream's source is there.
    pub fn set_stalled(&mut self, stalled: bool) {
        let state = if stalled { State::Stalled } else { State::Live };
        self.bell.set_state(state);
        for track in &mut self.tracks {
            if let RingState::Ready(writer) = &mut track.state {
                writer.set_state(state);
            }
        }
        self.published = true;
    }

    /// Whether tracks have come or gone since [`describe`](Self::describe).
    pub fn is_undescribed(&self) -> bool {
        self.undescribed
    }

    /// Describes the stream for its readers, with its `programmes` as number and PID of the PCR.
    pub fn describe(&mut self, programmes: &[(u16, Option<u16>)]) {
        self.undescribed = false;
        self.description_generation += 1;
        let gone = self.names.recorded().iter().map(|track| Track { ended: true, ..track.clone() });
        let tracks = gone.chain(self.tracks().iter().map(TrackRing::describe)).collect();
        let descriptor = StreamDescriptor {
            name: self.name.clone(),
            generation: self.description_generation,
            created_utc_ns: self.created_utc_ns,
            programmes: programmes
                .iter()
                .map(|&(number, pcr_pid)| Programme {
                    number: u32::from(number),
                    pcr_pid: pcr_pid.unwrap_or(0),
                    name: String::new(),
                    provider: String::new(),
                })
                .collect(),
            tracks,
        };
        let (directory, written) = (Arc::clone(&self.directory), Arc::clone(&self.description_written));
        let job = Box::new(move || {
            directory.describe(&descriptor);
            // Pairs with the acquire swap in `heartbeat`.
            written.store(true, Ordering::Release);
        });
        // When housekeeping is overrun, the next change of a track describes the stream.
        self.undescribed = self.housekeeping.submit(job).is_err();
    }

    /// Records where a programme's timeline stands.
    pub fn anchor(&mut self, programme: u16, timeline: &Timeline) {
        let Some((ticks, arrival)) = timeline.newest() else { return };
        // With more programmes at once than there are places, the later ones have no anchor.
        self.bell.set_anchor(TimelineAnchor {
            programme: u32::from(programme),
            segment: timeline.segment() + self.segment_base,
            pts: ticks,
            timeline_ns: timeline.place(ticks),
            monotonic_ns: arrival.as_nanos(),
            utc_ns: 0,
            clock_rate: timeline.clock_rate(),
        });
    }

    /// A place for one track more: of its own, or that of the track that ended first and whose ring nobody is making any more.
    fn free_place(&self) -> Option<SinkIndex> {
        if self.tracks.len() < TRACKS_MAX {
            return Some(SinkIndex(self.tracks.len()));
        }
        if !self.unhoused.is_empty() {
            // What ended first may still hold its ring.
            return None;
        }
        let ended = self.tracks.iter().enumerate().filter_map(|(index, track)| match track.state {
            RingState::Ended(order) if !track.is_awaited => Some((order, SinkIndex(index))),
            _ => None,
        });
        ended.min_by_key(|&(order, _)| order).map(|(_, index)| index)
    }

    /// The place of a track that has ended and is the same.
    fn place_of_ended(&self, description: &TrackDescription) -> Option<SinkIndex> {
        let key = TrackKey::from(description);
        let is_it = |track: &TrackRing| {
            let has_ended = matches!(track.state, RingState::Ended(_));
            // Another clock needs another ring, and the place is given away only when its ring is not awaited any more.
            let fits = !track.is_awaited || track.description.clock_rate == description.clock_rate;
            has_ended && fits && TrackKey::from(&track.description) == key
        };
        self.tracks().iter().position(is_it).map(SinkIndex)
    }

    fn put(&mut self, index: SinkIndex, track: TrackRing) {
        let Some(place) = self.tracks.get_mut(index.0) else { return self.tracks.push(track) };
        let before = std::mem::replace(place, track);
        let newest_ns = self.newest_ns.entry(u32::from(before.description.programme)).or_default();
        *newest_ns = before.newest_ns.max(*newest_ns);
    }

    /// There is no place: what comes for the track is dropped.
    fn refuse(&mut self, description: &TrackDescription) -> SinkIndex {
        self.tracks_refused += 1;
        if self.tracks.len() == TRACKS_MAX {
            let error = TrackError::TooMany;
            tracing::warn!(stream = self.name, id = description.id, "no ring: {error}");
            self.put(REFUSED, TrackRing::new(String::new(), description.clone(), RingState::Failed(error)));
        }
        REFUSED
    }

    /// Ends a ring; the housekeeping thread lets go of it, and clears it away when readers had their time.
    fn retire(&mut self, index: SinkIndex, mut writer: Box<Writer>) {
        writer.abandon();
        writer.set_state(State::Ended);
        self.bell.tracks_changed();
        self.undescribed = true;
        self.published = true;
        let (directory, wake) = (Arc::clone(&self.directory), Arc::clone(&self.wake));
        let (stream, track) = (self.name.clone(), self.tracks[index.0].name.clone());
        self.hand_over(Box::new(move || {
            wake.remove(&writer.wake_target());
            drop(writer);
            directory.track_ended(&stream, &track);
        }));
    }

    /// Says that the source is gone, so that another writer may take the rings up; readers go on.
    #[must_use]
    pub fn into_idle(mut self, now: Instant) -> Self {
        self.publish_all(now);
        self.set_stalled(true);
        self.flush(now);
        self
    }

    /// Ends all rings and hands them to the housekeeping thread, which clears them away when readers had their time.
    pub fn end(mut self, now: Instant) {
        self.publish_all(now);
        for track in &mut self.tracks {
            if let RingState::Ready(writer) = &mut track.state {
                writer.abandon();
                writer.set_state(State::Ended);
            }
        }
        self.bell.set_state(State::Ended);
        self.wake.raise();
        let housekeeping = self.housekeeping.clone();
        let job = Box::new(move || {
            let directory = Arc::clone(&self.directory);
            let name = std::mem::take(&mut self.name);
            drop(self);
            directory.stream_ended(&name);
        });
        if housekeeping.submit(job).is_err() {
            // Nothing is lost but the clearing away, which the next start does.
            tracing::warn!("an ended stream could not be handed to housekeeping");
        }
    }
}

impl StreamSink for StreamRings {
    type Track<'a> = OpenTrack<'a>;

    fn open(&mut self, description: &TrackDescription) -> SinkIndex {
        let key = TrackKey::from(description);
        if self.staging.ends().any(|index| TrackKey::from(&self.tracks[index.0].description) == key) {
            // It is back before its end was told: its last frames come early, or it could not have its place.
            self.publish_all(self.flushed_at);
        }
        let returned = self.place_of_ended(description);
        let Some(index) = returned.or_else(|| self.free_place()) else { return self.refuse(description) };
        let name = match returned {
            Some(index) => self.tracks[index.0].name.clone(),
            None => self.names.give(description.into(), description.codec.kind()),
        };
        let is_awaited = self.tracks.get(index.0).is_some_and(|track| track.is_awaited);
        let state = RingState::Opening(Pending::default());
        self.put(index, TrackRing { is_awaited, ..TrackRing::new(name, description.clone(), state) });
        self.names.keep(TRACKS_MAX - self.tracks().len());
        self.opening += 1;
        // One that was back before its ring was there gets that one.
        if !is_awaited {
            self.ask_for_ring(index);
        }
        index
    }

    fn is_opening(&self) -> bool {
        self.opening > 0
    }

    #[inline]
    fn track(&mut self, index: SinkIndex) -> OpenTrack<'_> {
        self.recent = index.0;
        OpenTrack {
            ring: &mut self.tracks[index.0],
            index,
            bell: &mut self.bell,
            staging: &mut self.staging,
            segment_base: self.segment_base,
            published: &mut self.published,
        }
    }

    #[inline]
    fn takes_early(&self) -> bool {
        self.opening == 0 && self.staging.has_room()
    }

    fn publish_all(&mut self, now: Instant) {
        self.publish_until(now, Instant::FAR_FUTURE);
    }

    fn end(&mut self, index: SinkIndex) {
        if index == REFUSED {
            return;
        }
        if self.staging.holds(index) {
            return self.staging.push_behind(index, What::End);
        }
        self.end_track(index);
    }

    fn resume(&self, programme: u16) -> Option<Resume> {
        let number = u32::from(programme);
        let is_its = |track: &&TrackRing| track.description.programme == programme;
        let at_places = self.tracks.iter().filter(is_its).map(|track| track.newest_ns);
        let newest_ns = at_places.chain(self.newest_ns.get(&number).copied()).max().unwrap_or(0);
        let anchor = self.bell.anchors().find(|anchor| anchor.programme == number);
        let anchor = anchor.map(|anchor| (anchor.timeline_ns, Instant::from_nanos(anchor.monotonic_ns)));
        (anchor.is_some() || newest_ns != 0).then_some(Resume { anchor, newest_ns })
    }
}

impl StreamRings {
    /// Ends a track of which nothing waits.
    fn end_track(&mut self, index: SinkIndex) {
        self.tracks_ended += 1;
        match std::mem::replace(&mut self.tracks[index.0].state, RingState::Ended(self.tracks_ended)) {
            RingState::Ready(writer) => self.retire(index, writer),
            RingState::Opening(_) => self.opening -= 1,
            RingState::Refused { .. } | RingState::Failed(_) | RingState::Ended(_) => {}
        }
    }
}

impl TrackRing {
    fn new(name: String, description: TrackDescription, state: RingState) -> Self {
        Self {
            name,
            description,
            format: Format::Unknown,
            state,
            is_awaited: false,
            open_is_partial: false,
            frames_without_ring: 0,
            head_seq: 0,
            newest_ns: 0,
            delay_us: Histogram::new_with_max(60_000_000, 2).expect("the bounds are constant and valid"),
        }
    }

    fn writer(&self) -> Option<&Writer> {
        match &self.state {
            RingState::Ready(writer) => Some(writer),
            RingState::Opening(_) | RingState::Refused { .. } | RingState::Failed(_) | RingState::Ended(_) => None,
        }
    }

    /// Makes a frame visible.
    #[inline]
    fn publish(&mut self, now: Instant, due: Instant, mut frame: Staged, bell: &mut BellWriter) {
        let RingState::Ready(writer) = &mut self.state else {
            unreachable!("a ring stays as long as frames of it wait")
        };
        // First, so that its cold count comes while the ring is written to.
        let delay_us = now.saturating_since(due).as_micros();
        self.delay_us.saturating_record(u64::try_from(delay_us).unwrap_or(u64::MAX));
        frame.descriptor_mut().commit_ns = now.as_nanos();
        self.head_seq = writer.publish(frame, bell) + 1;
    }

    /// The frames that are published from now on have this configuration.
    fn configure(&mut self, bytes: Vec<u8>) {
        match &mut self.state {
            RingState::Ready(writer) => configure(writer, &self.name, &bytes),
            RingState::Opening(pending) | RingState::Refused { pending, .. } => pending.configuration = Some(bytes),
            RingState::Failed(_) | RingState::Ended(_) => {}
        }
    }

    fn describe(&self) -> Track {
        let codec = self.description.codec;
        let mut track = Track {
            name: self.name.clone(),
            programme: u32::from(self.description.programme),
            kind: ring_kind(codec.kind()),
            codec: codec.fourcc(),
            source_id: self.description.id,
            clock_rate: self.description.clock_rate,
            language: self
                .description
                .language
                .map_or_else(String::new, |code| String::from_utf8_lossy(&code).into_owned()),
            component_tag: None,
            width: 0,
            height: 0,
            frame_rate: (0, 0),
            sample_rate: 0,
            channels: 0,
            ended: matches!(self.state, RingState::Ended(_)),
        };
        match &self.format {
            Format::Video(video) => {
                (track.width, track.height) = (video.width, video.height);
                track.frame_rate = video.frame_rate.map_or((0, 0), |rate| (rate.numerator, rate.denominator));
            }
            Format::Audio(audio) => {
                (track.sample_rate, track.channels) = (audio.sample_rate, u16::from(audio.channels));
            }
            Format::Unknown => {}
        }
        track
    }

    /// Why it has no ring, if it was refused one.
    pub fn error(&self) -> Option<String> {
        match &self.state {
            RingState::Refused { error, .. } | RingState::Failed(error) => Some(error.to_string()),
            RingState::Opening(_) | RingState::Ready(_) | RingState::Ended(_) => None,
        }
    }
}

/// A track of [`StreamRings`] with the stream's bell at hand.
pub struct OpenTrack<'a> {
    ring: &'a mut TrackRing,
    index: SinkIndex,
    bell: &'a mut BellWriter,
    staging: &'a mut Staging,
    segment_base: u32,
    published: &'a mut bool,
}

impl FrameSink for OpenTrack<'_> {
    #[inline]
    fn append(&mut self, bytes: &[u8]) -> Result<(), FrameTooLarge> {
        self.append_all(&[bytes])
    }

    #[inline]
    fn append_all(&mut self, pieces: &[&[u8]]) -> Result<(), FrameTooLarge> {
        match &mut self.ring.state {
            RingState::Ready(writer) => writer.append_all(pieces).map_err(|_| FrameTooLarge),
            RingState::Opening(pending) | RingState::Refused { pending, .. } => {
                pending.frame_open = true;
                Ok(())
            }
            RingState::Failed(_) | RingState::Ended(_) => Ok(()),
        }
    }

    fn commit(&mut self, now: Instant, frame: &Frame) {
        match &mut self.ring.state {
            RingState::Ready(writer) if std::mem::take(&mut self.ring.open_is_partial) => {
                writer.abandon();
                self.ring.frames_without_ring += 1;
            }
            RingState::Ready(writer) => {
                let mut descriptor = descriptor(frame);
                descriptor.segment += self.segment_base;
                let staged = writer.stage(&descriptor);
                self.ring.newest_ns = frame.timeline_ns.max(self.ring.newest_ns);
                if frame.due > now || !self.staging.is_empty() {
                    return self.staging.push(now, self.index, frame.due, staged, writer);
                }
                self.ring.publish(now, frame.due, staged, self.bell);
                *self.published = true;
            }
            RingState::Opening(pending) | RingState::Refused { pending, .. } => {
                pending.frame_open = false;
                self.ring.frames_without_ring += 1;
            }
            RingState::Failed(_) | RingState::Ended(_) => self.ring.frames_without_ring += 1,
        }
    }

    fn abandon(&mut self) {
        match &mut self.ring.state {
            RingState::Ready(writer) => writer.abandon(),
            RingState::Opening(pending) | RingState::Refused { pending, .. } => pending.frame_open = false,
            RingState::Failed(_) | RingState::Ended(_) => {}
        }
        self.ring.open_is_partial = false;
    }

    fn configure(&mut self, configuration: &TrackConfiguration) {
        let bytes = configuration.bytes.clone();
        if self.staging.holds(self.index) {
            self.staging.push_behind(self.index, What::Configuration(bytes));
        } else {
            self.ring.configure(bytes);
        }
    }
}

fn configure(writer: &mut Writer, track: &str, bytes: &[u8]) {
    if let Err(error) = writer.set_configuration(bytes) {
        tracing::warn!(track, "parameter sets are not published: {error}");
    }
}

#[cfg(test)]
mod tests;
