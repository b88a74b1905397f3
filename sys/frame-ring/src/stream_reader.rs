//! A reader of a whole stream: the frames of all its tracks in the order they were committed.
//!
//! stream_head is looked at first, then the tracks' generation, then the rings: every frame below stream_head is visible in its
//! ring, and its ring in the directory. What lies below is merged by `stream_seq`; what lies above waits for the next look.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bell::{BellError, BellReader};
use crate::broker::Broker;
use crate::builder::open_directory;
use crate::directory::list_tracks;
use crate::layout::{State, TrackKind};
use crate::notifier::{Notifier, Source, lock};
use crate::reader::{Frame, Life, Look, OpenError, ReadError, Reader, Start};
use crate::wake;

/// While nothing comes the directory is looked through this often, in case a generation was missed.
const RESCAN: Duration = Duration::from_secs(1);
/// Rings of one stream that a reader holds, with those that are over and keep their index.
const TRACKS_MAX: usize = 1_024;

/// What a look at the stream gave.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamNext<'a> {
    /// A frame.
    Frame {
        /// Whose: an index for [`StreamReader::track`].
        track: usize,
        /// The frame.
        frame: Frame<'a>,
    },
    /// No frame, for this reason.
    Event(StreamEvent),
}

/// What happened instead of a frame. `track` is an index for [`StreamReader::track`]. It stays valid until more than a thousand rings
/// have come; then one that was replaced or cleared away gives its index to the next that is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The writer overtook this reader on one track.
    Lapped {
        /// Which.
        track: usize,
        /// See `reader::Next::Lapped`.
        lost: u64,
        /// See `reader::Next::Lapped`.
        resume_at: u64,
    },
    /// Frames passed over on the way to a random access point.
    Skipped {
        /// Of which track.
        track: usize,
        /// How many.
        count: u64,
    },
    /// A ring appeared, replaced one of the same name, or is written again after it had ended.
    TrackAdded {
        /// Its index.
        track: usize,
    },
    /// All frames of a ring have been delivered and none will come.
    TrackEnded {
        /// Its index.
        track: usize,
    },
    /// A ring contradicts itself.
    TrackFailed {
        /// Its index.
        track: usize,
        /// How.
        error: ReadError,
    },
    /// Nothing came within the time given.
    Timeout,
    /// The source is silent; said once per change of state.
    Stalled,
    /// The writer's heartbeat stopped; said once.
    WriterDead,
    /// All frames have been delivered and none will come.
    Ended,
    /// Another directory, or another bell in this one, has this stream's name now, and is read from here on: its tracks are added next,
    /// and `stream_seq` counts anew.
    Superseded,
}

/// Why a stream cannot be opened.
#[derive(Debug, Error)]
pub enum StreamOpenError {
    /// No bell, or not one of this version.
    #[error(transparent)]
    Bell(#[from] BellError),
    /// The directory cannot be listed.
    #[error("stream: {0}")]
    Io(#[from] io::Error),
}

/// A ring of the stream.
#[derive(Debug)]
pub struct TrackReader {
    name: String,
    ring: Reader,
    standing: Standing,
}

/// Whether a ring is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its frames are wanted.
    Read,
    /// It ended, and all its frames have been delivered. A source that returns within the retention has it taken up again.
    Ended,
    /// It failed, or another ring has its name.
    Done,
    /// It is in a directory that another one has taken the place of, and perhaps in that one too.
    Left,
    /// It was cleared away.
    Gone,
}

impl TrackReader {
    /// Name of the ring's directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its name stands for this ring.
    fn is_known(&self) -> bool {
        !matches!(self.standing, Standing::Left | Standing::Gone)
    }

    /// The reader of the ring, for its header and configuration blocks.
    #[must_use]
    pub fn ring(&self) -> &Reader {
        &self.ring
    }
}

/// A reader of all tracks of a stream, or of some.
#[derive(Debug)]
pub struct StreamReader {
    origin: Origin,
    files: Files,
    bell: BellReader,
    notified: Source,
    only: Option<String>,
    tracks: Vec<TrackReader>,
    generation: u32,
    scanned: Instant,
    /// A ring was found to be superseded: look for the one that took its place.
    rescan: bool,
    events: VecDeque<StreamEvent>,
    verify: bool,
    stalled_told: bool,
    life: Life,
}

/// How the stream was named: what has this name is read.
#[derive(Debug)]
enum Origin {
    Directory(PathBuf),
    /// Another process, which may read it.
    Broker(Broker),
}

/// The files of the bell being read: when others take their name, these rings still belong to it.
#[derive(Debug)]
enum Files {
    /// By the descriptor of their directory.
    Directory { path: PathBuf, _handle: OwnedFd },
    /// By the number of their bell.
    Broker { broker: Broker, stream_uuid: [u8; 16] },
}

impl Origin {
    fn open(&self) -> Result<(Files, BellReader), BellError> {
        match self {
            Self::Directory(name) => {
                let handle = open_directory(name)?;
                let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
                let bell = BellReader::open(&path)?;
                Ok((Files::Directory { path, _handle: handle }, bell))
            }
            Self::Broker(broker) => {
                let bell = BellReader::from_file(&broker.bell()?)?;
                Ok((Files::Broker { broker: broker.clone(), stream_uuid: bell.stream_uuid() }, bell))
            }
        }
    }
}

impl Files {
    fn tracks(&self) -> io::Result<Vec<String>> {
        match self {
            Self::Directory { path, .. } => list_tracks(path),
            Self::Broker { broker, stream_uuid } => broker.tracks(*stream_uuid),
        }
    }

    fn ring(&self, track: &str, start: Start) -> Result<Reader, OpenError> {
        match self {
            Self::Directory { path, .. } => Reader::open(&path.join(track), start),
            Self::Broker { broker, stream_uuid } => {
                let (ctl, data) = broker.ring(track, *stream_uuid)?;
                Reader::from_files(&ctl, &data, start)
            }
        }
    }
}

impl StreamReader {
    /// Opens the stream in `directory`: all its tracks, or only the one named. With [`Start::Key`] and [`Start::OldestKey`] the video
    /// tracks begin at a random access point and the others with what was committed after the first of these.
    ///
    /// # Errors
    /// [`StreamOpenError`]. A ring that cannot be opened is left out, and tried again when the tracks change.
    pub fn open(directory: &Path, start: Start, only: Option<&str>) -> Result<Self, StreamOpenError> {
        Self::of(Origin::Directory(std::path::absolute(directory)?), start, only)
    }

    /// As [`StreamReader::open`], through a broker that may read what this user may not. When tracks have come or another stream has
    /// this one's name it is asked again, and [`StreamReader::next`] may take 2 s longer if it does not answer.
    ///
    /// # Errors
    /// [`StreamOpenError`], of the kinds that [`Broker::bell`] tells.
    pub fn open_through(broker: Broker, start: Start, only: Option<&str>) -> Result<Self, StreamOpenError> {
        Self::of(Origin::Broker(broker), start, only)
    }

    fn of(origin: Origin, start: Start, only: Option<&str>) -> Result<Self, StreamOpenError> {
        let (files, bell) = origin.open()?;
        let mut reader = Self {
            origin,
            files,
            generation: bell.tracks_generation(),
            notified: Arc::new(Mutex::new(bell.wake_target())),
            bell,
            only: only.map(str::to_owned),
            tracks: Vec::new(),
            scanned: Instant::now(),
            rescan: false,
            events: VecDeque::new(),
            verify: false,
            stalled_told: false,
            life: Life::new(),
        };
        reader.scan(start)?;
        if matches!(start, Start::Key | Start::OldestKey) {
            reader.align();
        }
        Ok(reader)
    }

    /// Tells of changes in the stream, for event loops and tasks. Each is a thread of its own.
    ///
    /// # Errors
    /// If there is no descriptor or thread left.
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::start(Arc::clone(&self.notified))
    }

    /// Check payloads against their checksums, where the rings have them.
    pub fn verify_checksums(&mut self, verify: bool) {
        self.verify = verify;
        self.tracks.iter_mut().for_each(|track| track.ring.verify_checksums(verify));
    }

    /// A track by its index.
    #[must_use]
    pub fn track(&self, index: usize) -> Option<&TrackReader> {
        self.tracks.get(index)
    }

    /// The bell of the stream, for its timeline anchors and state.
    #[must_use]
    pub fn bell(&self) -> &BellReader {
        &self.bell
    }

    /// Lets the tracks that are not video begin where the first video does.
    fn align(&mut self) {
        let is_video = |track: &TrackReader| track.ring.header().kind == TrackKind::Video;
        let first = |track: &mut TrackReader| match track.ring.look() {
            Ok(Look::Ready { stream_seq }) => Some(stream_seq),
            _ => None,
        };
        let begin = self.tracks.iter_mut().filter(|t| is_video(t)).filter_map(first).min();
        for track in self.tracks.iter_mut().filter(|t| !is_video(t)) {
            match begin {
                Some(begin) => track.ring.seek_stream_seq(begin),
                // An empty ring: the newest of its first frames is not better than those before it.
                None => track.ring.accept_any(),
            }
        }
    }

    /// Opens the rings not yet known, and those that took the place of a superseded one.
    fn scan(&mut self, start: Start) -> io::Result<()> {
        self.scanned = Instant::now();
        let names = self.files.tracks()?;
        for name in &names {
            if self.only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let known = self.tracks.iter().rposition(|track| track.name == *name && track.is_known());
            if let Some(index) = known {
                let track = &mut self.tracks[index];
                let (state, is_drained) = (track.ring.state(), drained(&track.ring));
                match (state, track.standing) {
                    // Its source returned; it may have been replaced since, but what it wrote comes first.
                    (_, Standing::Ended) if !is_drained || matches!(state, State::Live | State::Stalled) => {
                        track.standing = Standing::Read;
                        self.events.push_back(StreamEvent::TrackAdded { track: index });
                        continue;
                    }
                    (State::Superseded, _) if is_drained => {
                        track.standing = Standing::Done;
                        if let Some(count) = track.ring.take_skipped() {
                            self.events.push_back(StreamEvent::Skipped { track: index, count });
                        }
                    }
                    // It may have been cleared away since, and another one have its name.
                    (State::Ended, Standing::Ended) => {}
                    _ => continue,
                }
            }
            let mut ring = match self.files.ring(name, start) {
                Ok(ring) => ring,
                Err(OpenError::Io(_) | OpenError::Layout(_)) => continue,
            };
            ring.verify_checksums(self.verify);
            let uuid = ring.header().ring_uuid;
            if let Some(old) = self.tracks.iter_mut().find(|t| t.ring.header().ring_uuid == uuid)
                && old.standing == Standing::Left
            {
                // Another bell, the same ring.
                old.standing = Standing::Read;
                continue;
            }
            let is_known = |index: usize| self.tracks[index].ring.header().ring_uuid == uuid;
            if ring.state() == State::Superseded || known.is_some_and(is_known) {
                continue;
            }
            if let Some(index) = known {
                self.tracks[index].standing = Standing::Done;
            }
            let added = TrackReader { name: name.clone(), ring, standing: Standing::Read };
            let track = if self.tracks.len() < TRACKS_MAX {
                self.tracks.push(added);
                self.tracks.len() - 1
            } else if let Some(index) = self.tracks.iter().position(|track| track.ring.is_let_go()) {
                self.tracks[index] = added;
                index
            } else {
                continue;
            };
            self.events.push_back(StreamEvent::TrackAdded { track });
        }
        for track in &mut self.tracks {
            if track.standing == Standing::Left || track.standing == Standing::Ended && !names.contains(&track.name) {
                track.standing = Standing::Gone;
            }
            if matches!(track.standing, Standing::Done | Standing::Gone) {
                track.ring.let_go();
            }
        }
        Ok(())
    }

    /// Goes on in the directory that has the stream's name now; false if that is the one being read, or none.
    fn open_again(&mut self) -> bool {
        let Ok((files, bell)) = self.origin.open() else {
            return false;
        };
        if bell.stream_uuid() == self.bell.stream_uuid() {
            return false;
        }
        *lock(&self.notified) = bell.wake_target();
        (self.generation, self.life, self.stalled_told) = (bell.tracks_generation(), Life::new(), false);
        (self.files, self.bell) = (files, bell);
        for track in &mut self.tracks {
            // The memory of those that are not read was given back: if one of them is there too, it is opened anew.
            let is_let_go = matches!(track.standing, Standing::Done | Standing::Gone);
            track.standing = if is_let_go { Standing::Gone } else { Standing::Left };
        }
        self.events.push_back(StreamEvent::Superseded);
        let _ = self.scan(Start::Oldest);
        true
    }

    /// The next frame of the stream, copied into a buffer that this reader keeps, or what happened instead; waits at most `timeout`.
    pub fn next(&mut self, timeout: Duration) -> StreamNext<'_> {
        match self.advance(timeout) {
            Ok((track, copied)) => StreamNext::Frame { track, frame: self.tracks[track].ring.frame(&copied) },
            Err(event) => StreamNext::Event(event),
        }
    }

    fn advance(&mut self, timeout: Duration) -> Result<(usize, crate::reader::PendingFrame), StreamEvent> {
        let mut deadline = None;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Err(event);
            }
            // Before anything else: pairs with `BellWriter::bump`, which comes after the stores looked at below.
            let seen = self.bell.futex();
            // Without a writer all is there that there will be, even if he left between a ring's head and the bell's.
            let is_left = self.bell.state() == State::Superseded;
            let stream_head = if is_left { u64::MAX } else { self.bell.stream_head() };
            let generation = self.bell.tracks_generation();
            if generation != self.generation || std::mem::take(&mut self.rescan) {
                self.generation = generation;
                // A ring that is new to us holds nothing that we have passed over: all of it is wanted.
                let _ = self.scan(Start::Oldest);
                continue;
            }
            if let Some(track) = self.oldest_below(stream_head)? {
                let copied = self.tracks[track].ring.copy_pending();
                return match copied {
                    Ok(Ok(copied)) => Ok((track, copied)),
                    Ok(Err(look)) => Err(event_of(track, &look)),
                    Err(error) => Err(self.failed(track, error)),
                };
            }
            if !self.rescan {
                self.idle(seen, &mut deadline, timeout)?;
            }
        }
    }

    /// The track whose next frame comes first in the stream.
    fn oldest_below(&mut self, stream_head: u64) -> Result<Option<usize>, StreamEvent> {
        let mut oldest: Option<(u64, usize)> = None;
        for i in 0..self.tracks.len() {
            if self.tracks[i].standing != Standing::Read {
                continue;
            }
            match self.tracks[i].ring.look() {
                Ok(Look::Ready { stream_seq }) => {
                    if stream_seq < stream_head && oldest.is_none_or(|(first, _)| stream_seq < first) {
                        oldest = Some((stream_seq, i));
                    }
                }
                Ok(Look::Empty) => {
                    let track = &mut self.tracks[i];
                    let state = track.ring.state();
                    if !matches!(state, State::Ended | State::Superseded) || !drained(&track.ring) {
                        continue;
                    }
                    if let Some(count) = track.ring.take_skipped() {
                        return Err(StreamEvent::Skipped { track: i, count });
                    }
                    if state == State::Ended {
                        track.standing = Standing::Ended;
                        return Err(StreamEvent::TrackEnded { track: i });
                    }
                    track.standing = Standing::Done;
                    self.rescan = true;
                }
                Ok(look) => return Err(event_of(i, &look)),
                Err(error) => return Err(self.failed(i, error)),
            }
        }
        // The new ring first: its frames may come before those just found.
        Ok(oldest.map(|(_, track)| track).filter(|_| !self.rescan))
    }

    fn failed(&mut self, track: usize, error: ReadError) -> StreamEvent {
        if matches!(error, ReadError::Head { .. }) {
            self.tracks[track].standing = Standing::Done;
        }
        StreamEvent::TrackFailed { track, error }
    }

    /// Nothing to read: says why, or sleeps.
    fn idle(
        &mut self,
        seen: u32,
        deadline: &mut Option<Option<Instant>>,
        timeout: Duration,
    ) -> Result<(), StreamEvent> {
        match self.bell.state() {
            // The last frame or ring may have come between the looks.
            State::Ended | State::Superseded if self.bell.futex() != seen => return Ok(()),
            State::Ended => return Err(StreamEvent::Ended),
            State::Superseded if self.open_again() => return Ok(()),
            // What took its place is not there any more, or not yet.
            State::Superseded => {}
            State::Stalled if !self.stalled_told => {
                self.stalled_told = true;
                return Err(StreamEvent::Stalled);
            }
            State::Stalled => {}
            State::Live => self.stalled_told = false,
        }
        let now = Instant::now();
        if self.life.has_died(self.bell.heartbeat_count().wrapping_add(self.bell.stream_head())) {
            return Err(StreamEvent::WriterDead);
        }
        if now.duration_since(self.scanned) >= RESCAN {
            // A writer that could not take the old bell up makes a new one, and nobody is left to say so.
            if !self.open_again() {
                let _ = self.scan(Start::Oldest);
            }
            if !self.events.is_empty() {
                return Ok(());
            }
        }
        let end = *deadline.get_or_insert_with(|| now.checked_add(timeout));
        let left = end.map_or(wake::WAIT_MAX, |end| end.saturating_duration_since(now));
        if left.is_zero() {
            return Err(StreamEvent::Timeout);
        }
        self.bell.wait(seen, left);
        Ok(())
    }
}

/// Looked at after a final state was seen: nothing is left in the ring.
fn drained(ring: &Reader) -> bool {
    ring.head_seq() == ring.position()
}

fn event_of(track: usize, look: &Look) -> StreamEvent {
    match *look {
        Look::Lapped { lost, resume_at } => StreamEvent::Lapped { track, lost, resume_at },
        Look::Skipped { count } => StreamEvent::Skipped { track, count },
        Look::Ready { .. } | Look::Empty => unreachable!("neither is an event"),
    }
}
