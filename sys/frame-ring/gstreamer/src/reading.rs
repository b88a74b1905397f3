//! The thread: waits for the stream, reads it in commit order, and pushes each frame on the pad of its track.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use headworks_frame_ring::bell::BellError;
use headworks_frame_ring::broker::Broker;
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::directory::{encode_name, list_streams, list_tracks};
use headworks_frame_ring::layout::TrackKind;
use headworks_frame_ring::reader::{ReadError, Reader, Start};
use headworks_frame_ring::stream_descriptor::StreamDescriptor;
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamOpenError, StreamReader};

use crate::caps;
use crate::element::{Element, HeadworksSrc, Settings, kind_name};
use crate::gate::{Gate, Pass};
use crate::output::{Base, Output, decoding_ns};

/// The longest that the thread does not ask whether it should leave.
const POLL: Duration = Duration::from_millis(100);
/// How often a stream that is not there is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// When no track has been added for so long, those that are there are taken for all.
const SETTLE: Duration = Duration::from_secs(1);
/// When nothing has been found for so long, a warning says so.
const WARN: Duration = Duration::from_secs(2);
/// How many names a message lists.
const NAMES: usize = 10;

static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("headworkssrc", gst::DebugColorFlags::empty(), Some("Reader of Headworks' frame rings"))
});

/// Why reading is over.
enum Stop {
    /// Every frame was delivered, or somebody asked for the end.
    End,
    /// The element goes to READY.
    Leave,
    /// An error for the pipeline.
    Error(gst::ErrorMessage),
}

struct Reading<'a> {
    element: HeadworksSrc,
    settings: Settings,
    gate: &'a Gate,
    /// The number of the gate's last opening.
    pass: u64,
    directory: PathBuf,
    outputs: Vec<Output>,
    combiner: gstreamer_base::UniqueFlowCombiner,
    group: gst::GroupId,
    base: Option<Base>,
    bases: u64,
    /// The writer overtook this reader: the next frame may be far ahead of the running time.
    overtaken: bool,
    /// A warning has said that nothing is there.
    warned: bool,
    last_frame: Instant,
    last_added: Instant,
    settled: bool,
}

/// The tracks of a stream as it was opened.
struct Opened {
    reader: StreamReader,
    /// For each of the reader's tracks the index of its output.
    places: Vec<Option<usize>>,
    /// Tracks without an output yet.
    added: Vec<usize>,
    /// The generation of the tracks that the languages are of.
    described: Option<u32>,
}

/// The body of the thread.
pub fn run(element: HeadworksSrc, settings: Settings, gate: &Gate) {
    let now = Instant::now();
    let mut reading = Reading {
        directory: Path::new(&settings.root).join(encode_name(&settings.stream)),
        element,
        settings,
        gate,
        pass: 0,
        outputs: Vec::new(),
        combiner: gstreamer_base::UniqueFlowCombiner::new(),
        group: gst::GroupId::next(),
        base: None,
        bases: 0,
        overtaken: false,
        warned: false,
        last_frame: now,
        last_added: now,
        settled: false,
    };
    let error = match reading.read() {
        Stop::Leave => return,
        Stop::Error(error) => Some(error),
        // Without a pad there is nothing that the end could be told to.
        Stop::End if reading.outputs.is_empty() => {
            Some(gst::error_msg!(gst::ResourceError::NotFound, ["nothing to read has ended: {}", reading.absence()]))
        }
        Stop::End => None,
    };
    if !reading.settled && !reading.outputs.is_empty() {
        reading.element.no_more_pads();
    }
    if let Some(error) = error {
        reading.element.post_error_message(error);
    }
    reading.outputs.iter_mut().for_each(Output::end);
}

impl Reading<'_> {
    fn read(&mut self) -> Stop {
        let mut start = self.settings.start.into();
        loop {
            let followed = self.open(start).and_then(|opened| {
                self.end_absent(&opened.reader)?;
                self.follow(opened)
            });
            if let Err(stop) = followed {
                return stop;
            }
            start = match self.settings.start.into() {
                Start::Live => Start::Live,
                _ => Start::Key,
            };
            for output in &mut self.outputs {
                output.discontinuous = true;
            }
        }
    }

    /// Ends the pads of tracks that went while nobody read.
    fn end_absent(&mut self, reader: &StreamReader) -> Result<(), Stop> {
        let is_there = |name: &str| (0..).map_while(|track| reader.track(track)).any(|track| track.name() == name);
        for output in self.outputs.iter_mut().filter(|output| !is_there(&output.name)) {
            if !self.settings.track.is_empty() {
                return Err(Stop::End);
            }
            output.end();
        }
        Ok(())
    }

    /// Why there is nothing to read.
    fn absence(&self) -> String {
        let Settings { root, stream, track, broker, .. } = &self.settings;
        if !broker.is_empty() {
            let only = if track.is_empty() { String::new() } else { format!(", track {track}") };
            return format!("no frames of stream {stream}{only} by {broker}");
        }
        let listed = |names: Vec<String>| {
            let more = if names.len() > NAMES { ", …" } else { "" };
            format!("there are: {}{more}", names[..names.len().min(NAMES)].join(", "))
        };
        match (list_tracks(&self.directory), list_streams(Path::new(root))) {
            (Ok(tracks), _) if !track.is_empty() && !tracks.contains(track) => {
                format!("stream {stream} has no track {track}; {}", listed(tracks))
            }
            (Ok(_), _) => format!("stream {stream} has no frames"),
            (_, Ok(streams)) if streams.is_empty() => format!("no stream {stream} in {root}; there is none"),
            (_, Ok(streams)) => {
                let names = streams.into_iter().map(|entry| entry.name).collect();
                format!("no stream {stream} in {root}; {}", listed(names))
            }
            (_, Err(error)) => format!("no stream {stream}; {root}: {error}"),
        }
    }

    /// Waits in PAUSED; true when it was so.
    fn paused(&mut self) -> Result<bool, Stop> {
        match self.gate.pass() {
            Pass::Go(pass) if pass == self.pass => Ok(false),
            Pass::Go(pass) => {
                self.pass = pass;
                self.base = None;
                self.last_frame = Instant::now();
                Ok(true)
            }
            Pass::End => Err(Stop::End),
            Pass::Leave => Err(Stop::Leave),
        }
    }

    /// An error when nothing has come for too long; a warning when nothing is there to come.
    fn check_timeout(&mut self) -> Result<(), Stop> {
        let (timeout, silence) = (self.settings.timeout, self.last_frame.elapsed());
        if !timeout.is_zero() && silence >= timeout {
            let reason = if self.outputs.is_empty() { self.absence() } else { "no frame".to_owned() };
            let text = format!("{reason}, for {timeout:?}");
            return Err(Stop::Error(gst::error_msg!(gst::ResourceError::NotFound, ["{text}"])));
        }
        if self.outputs.is_empty() && !self.warned && silence >= WARN {
            self.warned = true;
            let text = self.absence();
            gst::element_warning!(self.element, gst::ResourceError::NotFound, ["waiting: {text}"]);
        }
        Ok(())
    }

    /// Waits for the stream.
    fn open(&mut self, start: Start) -> Result<Opened, Stop> {
        let only = Some(self.settings.track.clone()).filter(|track| !track.is_empty());
        loop {
            self.paused()?;
            let reader = match self.broker() {
                Some(broker) => StreamReader::open_through(broker, start, only.as_deref()),
                None => StreamReader::open(&self.directory, start, only.as_deref()),
            };
            let error = match reader {
                Ok(reader) => {
                    gst::info!(CATEGORY, obj = self.element, "opened {}", self.settings.stream);
                    let (places, added) = (Vec::new(), Vec::new());
                    return Ok(Opened { reader, places, added, described: None });
                }
                Err(error) => error,
            };
            let io = match &error {
                StreamOpenError::Bell(BellError::Io(error)) | StreamOpenError::Io(error) => Some(error.kind()),
                StreamOpenError::Bell(_) => None,
            };
            let place = self.place();
            if io == Some(std::io::ErrorKind::PermissionDenied) {
                let cure = match self.settings.broker.as_str() {
                    "" => "readers must be in the group of output.group",
                    _ => "output.broker.readers or the stream's readers must name this user",
                };
                let reason = gst::error_msg!(gst::ResourceError::OpenRead, ["{place}: {error}; {cure}"]);
                return Err(Stop::Error(reason));
            }
            gst::log!(CATEGORY, obj = self.element, "waiting for {place}: {error}");
            self.check_timeout()?;
            self.gate.sleep(if self.settings.broker.is_empty() { LOOK } else { POLL });
        }
    }

    /// The way to the stream, if it is not that by its files.
    fn broker(&self) -> Option<Broker> {
        let Settings { broker, stream, .. } = &self.settings;
        (!broker.is_empty()).then(|| Broker::new(Path::new(broker), stream))
    }

    /// Where the stream is looked for.
    fn place(&self) -> String {
        match self.settings.broker.as_str() {
            "" => self.directory.display().to_string(),
            broker => broker.to_owned(),
        }
    }

    /// Reads until the pipeline was paused; what came meanwhile is left out.
    fn follow(&mut self, mut opened: Opened) -> Result<(), Stop> {
        loop {
            let next = match opened.reader.next_borrowed(POLL) {
                StreamNext::Frame { track, frame } => {
                    let payload = frame.to_vec();
                    Ok((track, *frame.descriptor(), frame.is_intact().then_some(payload)))
                }
                StreamNext::Event(event) => Err(event),
            };
            if self.paused()? {
                return Ok(());
            }
            match next {
                Ok((track, frame, Some(payload))) => self.take_frame(&mut opened, track, &frame, payload)?,
                // Of this frame alone; what else is lost is told next.
                Ok((track, frame, None)) => {
                    let (lost, resume_at) = (1, frame.seq + 1);
                    self.take_event(&mut opened, StreamEvent::Lapped { track, lost, resume_at })?;
                }
                Err(event) => self.take_event(&mut opened, event)?,
            }
        }
    }

    fn take_frame(
        &mut self,
        opened: &mut Opened,
        track: usize,
        frame: &FrameDescriptor,
        payload: Vec<u8>,
    ) -> Result<(), Stop> {
        self.announce(opened);
        let place = self.place_of(opened, track, frame, &payload);
        self.describe(opened);
        if let Some(place) = place {
            self.push(place, frame, payload)?;
        }
        // As long as it was held up there was no lack of frames.
        self.last_frame = Instant::now();
        Ok(())
    }

    fn take_event(&mut self, opened: &mut Opened, event: StreamEvent) -> Result<(), Stop> {
        // Tracks come by themselves first: their pads are made together, video before audio.
        if let StreamEvent::TrackAdded { track } = event {
            let ring = opened.reader.track(track).expect("the reader named it");
            let codec = ring.ring().header().codec.to_le_bytes();
            let is_other = |place: usize| self.outputs[place].name != ring.name() || self.outputs[place].codec != codec;
            if place(opened, track).is_some_and(is_other) {
                // After a thousand others.
                opened.places[track] = None;
            }
            opened.added.push(track);
            self.last_added = Instant::now();
            return Ok(());
        }
        self.announce(opened);
        match event {
            StreamEvent::TrackAdded { .. } => {}
            StreamEvent::Lapped { track, lost, .. } => {
                self.overtaken = true;
                self.tell(opened, "lapped", Some(track), lost);
            }
            StreamEvent::Skipped { track, count } => self.tell(opened, "skipped", Some(track), count),
            StreamEvent::TrackFailed { track, error } => {
                gst::warning!(CATEGORY, obj = self.element, "{error}");
                self.tell(opened, "failed", Some(track), 1);
                // Past any other error the track goes on.
                if matches!(error, ReadError::Head { .. }) {
                    let reason = gst::error_msg!(gst::ResourceError::Read, ["{}: {error}", self.place()]);
                    return self.end_track(opened, track, Stop::Error(reason));
                }
            }
            StreamEvent::TrackEnded { track } => return self.end_track(opened, track, Stop::End),
            StreamEvent::Stalled => {
                self.tell(opened, "stalled", None, 0);
                return self.check_timeout();
            }
            StreamEvent::WriterDead => self.tell(opened, "writer-dead", None, 0),
            StreamEvent::Timeout => return self.check_timeout(),
            StreamEvent::Superseded => {
                opened.described = None;
                for output in &mut self.outputs {
                    output.discontinuous = true;
                }
            }
            StreamEvent::Ended => return Err(Stop::End),
        }
        Ok(())
    }

    /// Nothing more comes from a track; where it is all that is read, that is why to `stop`.
    fn end_track(&mut self, opened: &mut Opened, track: usize, stop: Stop) -> Result<(), Stop> {
        opened.added.retain(|&added| added != track);
        if !self.settings.track.is_empty() {
            return Err(stop);
        }
        if let Some(place) = place(opened, track) {
            self.outputs[place].end();
        }
        Ok(())
    }

    /// Says on the bus what happened to the stream or to a track, whose next frame is then a discontinuity.
    fn tell(&mut self, opened: &Opened, what: &str, track: Option<usize>, frames: u64) {
        if let Some(place) = track.and_then(|track| place(opened, track)) {
            self.outputs[place].discontinuous = true;
        }
        let name = track.and_then(|track| Some(opened.reader.track(track)?.name())).unwrap_or_default();
        gst::warning!(CATEGORY, obj = self.element, "{what}: track {name:?}, {frames} frames");
        let facts = gst::Structure::builder("headworks")
            .field("event", what)
            .field("track", name)
            .field("frames", frames)
            .build();
        let _ = self.element.post_message(gst::message::Element::builder(facts).src(&self.element).build());
    }

    /// Pads for the tracks of which enough is known; says once that these are all.
    fn announce(&mut self, opened: &mut Opened) {
        let Opened { reader, places, added, .. } = opened;
        if !added.is_empty() {
            added.sort_by_key(|&track| {
                let track = reader.track(track).expect("the reader named it");
                (track.ring().header().kind as u16, track.name().to_owned())
            });
            added.retain(|&track| {
                let ring = reader.track(track).expect("the reader named it").ring();
                let generation = ring.configuration_generation();
                // Of several configurations only a frame can say which is its own.
                if let Some(caps) = (generation <= 1).then(|| caps_of(ring, generation, None)).flatten() {
                    let place = self.output(reader, track, caps);
                    set_place(places, track, place);
                }
                place_in(places, track).is_none_or(|place| self.outputs[place].ended)
            });
        }
        if !self.settled && !self.outputs.is_empty() && added.is_empty() && self.last_added.elapsed() >= SETTLE {
            self.settled = true;
            self.element.no_more_pads();
        }
    }

    fn description(&self) -> Option<StreamDescriptor> {
        match self.broker() {
            Some(broker) => StreamDescriptor::read_from(&broker.description().ok()?).ok(),
            None => StreamDescriptor::read(&self.directory).ok(),
        }
    }

    /// Tells the pads their languages.
    fn describe(&mut self, opened: &mut Opened) {
        let generation = opened.reader.bell().tracks_generation();
        if opened.described != Some(generation)
            && let Some(description) = self.description()
        {
            opened.described = Some(generation);
            for output in &mut self.outputs {
                let track = description.tracks.iter().find(|track| track.name == output.name);
                if let Some(track) = track.filter(|track| !track.language.is_empty()) {
                    output.set_language(&track.language);
                }
            }
        }
    }

    /// The output of a track, with caps that fit the frame; `None` while too little is known for a pad.
    fn place_of(
        &mut self,
        opened: &mut Opened,
        track: usize,
        frame: &FrameDescriptor,
        payload: &[u8],
    ) -> Option<usize> {
        let ring = opened.reader.track(track)?.ring();
        let basis = caps::basis(ring.header().codec.to_le_bytes(), frame.config_generation, payload);
        let known = place(opened, track).filter(|&place| !self.outputs[place].ended);
        if let Some(place) = known.filter(|&place| self.outputs[place].basis == basis) {
            return Some(place);
        }
        let Some(caps) = caps_of(ring, frame.config_generation, Some(payload)) else {
            return known;
        };
        let place = match known {
            Some(place) => {
                self.outputs[place].set_caps(caps);
                place
            }
            None => {
                opened.added.retain(|&added| added != track);
                let place = self.output(&opened.reader, track, caps);
                set_place(&mut opened.places, track, place);
                opened.described = None;
                place
            }
        };
        self.outputs[place].basis = basis;
        Some(place)
    }

    /// Makes the pad of a track, or finds the one that a ring of the same name and codec had.
    fn output(&mut self, reader: &StreamReader, track: usize, caps: gst::Caps) -> usize {
        let track = reader.track(track).expect("the reader named it");
        let header = track.ring().header();
        let codec = header.codec.to_le_bytes();
        let known = self.outputs.iter().position(|output| output.name == track.name());
        if let Some(place) = known {
            let output = &mut self.outputs[place];
            if output.codec == codec && !output.ended {
                output.clock_rate = header.clock_rate;
                output.basis = caps::Basis::default();
                output.discontinuous = true;
                output.set_caps(caps);
                return place;
            }
        }
        if let Some(place) = known.filter(|&place| self.outputs[place].ended) {
            self.remove(place);
        }
        let pad = self.pad(header.kind, track.name());
        let output = Output::new(track.name().to_owned(), pad, header.kind, codec, header.clock_rate, caps);
        let _ = output.pad.set_active(true);
        output.begin(&self.settings.stream, self.group);
        self.combiner.add_pad(&output.pad);
        // Refused only for a name that is taken, and this one was free.
        let _ = self.element.add_pad(&output.pad);
        let place = match known {
            Some(place) => {
                // After the new pad is there: a pipeline is at its end when all that it has is.
                if !self.outputs[place].ended {
                    self.remove(place);
                }
                self.outputs[place] = output;
                place
            }
            None => {
                self.outputs.push(output);
                self.outputs.len() - 1
            }
        };
        // Who is linked to it has not yet been asked for, or told, any latency.
        let _ = self.element.post_message(gst::message::Latency::builder().src(&self.element).build());
        place
    }

    fn remove(&mut self, place: usize) {
        let output = &mut self.outputs[place];
        output.end();
        self.combiner.remove_pad(&output.pad);
        let _ = self.element.remove_pad(&output.pad);
    }

    /// `video_0` for `video0`; where that is taken, or the track has a name of its own, the first free number.
    fn pad(&self, kind: TrackKind, track: &str) -> gst::Pad {
        let prefix = kind_name(kind);
        let name = |number: u32| format!("{prefix}_{number}");
        let is_free = |&number: &u32| self.element.static_pad(&name(number)).is_none();
        let own = track.strip_prefix(prefix).and_then(|number| number.parse().ok()).filter(is_free);
        let number = own.or_else(|| (0..).find(is_free)).expect("there are more numbers than pads");
        let template = self.element.pad_template(&format!("{prefix}_%u")).expect("one for each kind");
        gst::Pad::builder_from_template(&template)
            .name(name(number))
            .flags(gst::PadFlags::FIXED_CAPS)
            .query_function(|pad, parent, query| {
                Element::catch_panic_pad_function(parent, || false, |element| element.answer(pad, query))
            })
            .build()
    }

    fn push(&mut self, place: usize, frame: &FrameDescriptor, payload: Vec<u8>) -> Result<(), Stop> {
        let base = self.base_for(place, frame);
        self.base = Some(base);
        let output = &mut self.outputs[place];
        let buffer = output.buffer(frame, payload, &base);
        let result = output.pad.push(buffer);
        let combined = self.combiner.update_pad_flow(&self.outputs[place].pad, result);
        if self.outputs[place].kind != TrackKind::Data && frame.pts.is_some() {
            self.outputs.iter_mut().for_each(|output| output.tell_gap(frame.timeline_ns, &base));
        }
        match combined {
            Ok(_) => Ok(()),
            // Somebody may yet be waiting for a track that is to come.
            Err(gst::FlowError::NotLinked) if !self.settled => Ok(()),
            // The gate knows whether the element leaves or a flush passes through.
            Err(gst::FlowError::Flushing) => Ok(()),
            Err(gst::FlowError::Eos) => Err(Stop::End),
            Err(error) => Err(Stop::Error(gst::error_msg!(
                gst::StreamError::Failed,
                ("Internal data stream error."),
                ["streaming stopped, reason {error}"]
            ))),
        }
    }

    /// Where the timeline stands for this frame: as before, or anew when its frames would come too late or wait too long.
    fn base_for(&mut self, place: usize, frame: &FrameDescriptor) -> Base {
        let output = &mut self.outputs[place];
        let now_ns = self.element.current_running_time().map_or(0, |time| signed(time.nseconds()));
        let first_ns = first_ns(frame, output.clock_rate);
        let overtaken = std::mem::take(&mut self.overtaken);
        // Overtaken because frames waited for their time (the source's clock is faster): they wait no longer.
        let Some(base) = self.base.filter(|base| !(overtaken && base.running_ns(first_ns) > now_ns)) else {
            self.bases += 1;
            return Base::new(self.bases, first_ns, now_ns);
        };
        // Both are CLOCK_MONOTONIC.
        let age_ns = glib::monotonic_time().saturating_mul(1_000).saturating_sub(signed(frame.commit_ns)).max(0);
        let latency_ns = signed(self.settings.latency.nseconds());
        let Some(delay_ns) = output.delay(frame, &base, now_ns.saturating_sub(age_ns), latency_ns) else { return base };
        gst::info!(CATEGORY, obj = self.element, "{} is late: all wait {delay_ns} ns longer", output.name);
        self.bases += 1;
        base.delayed(self.bases, delay_ns)
    }
}

/// Where the timeline stands when the first frame is decoded. A frame without time stamps is placed by its commit: the timeline
/// begins on the host's monotonic clock.
fn first_ns(frame: &FrameDescriptor, clock_rate: u32) -> i64 {
    let presented = frame.pts.map(|_| frame.timeline_ns);
    decoding_ns(frame, clock_rate).or(presented).unwrap_or(signed(frame.commit_ns))
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

fn caps_of(ring: &Reader, generation: u32, frame: Option<&[u8]>) -> Option<gst::Caps> {
    let header = ring.header();
    // One that is gone already: the newest is nearer than none.
    let configuration = ring.configuration(generation).or_else(|_| ring.configuration(ring.configuration_generation()));
    caps::of_track(header.kind, header.codec.to_le_bytes(), &configuration.unwrap_or_default(), frame)
}

fn place(opened: &Opened, track: usize) -> Option<usize> {
    place_in(&opened.places, track)
}

fn place_in(places: &[Option<usize>], track: usize) -> Option<usize> {
    places.get(track).copied().flatten()
}

fn set_place(places: &mut Vec<Option<usize>>, track: usize, place: usize) {
    if places.len() <= track {
        places.resize(track + 1, None);
    }
    places[track] = Some(place);
}
