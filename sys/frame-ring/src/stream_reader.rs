//! A reader of a whole stream: the frames of all its tracks in the order they were committed.
//!
//! stream_head is looked at first, then the tracks' generation, then the rings: every frame below stream_head is visible in its
//! ring, and its ring in the directory. What lies below is merged by `stream_seq`; what lies above waits for the next look.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bell::{BellError, BellReader};
use crate::broker::Broker;
use crate::builder::{JudgeError, judge_files, open_directory, open_shared};
use crate::directory::list_tracks;
use crate::layout::{State, TrackKind};
use crate::notifier::{Notifier, Source, lock};
use crate::reader::{Borrowed, Frame, Life, Look, OpenError, ReadError, Reader, Start};
use crate::wake;

/// While nothing comes the directory is looked through this often, in case a generation was missed.
const RESCAN: Duration = Duration::from_secs(1);
/// Rings of one stream that a reader holds, with those that are over and keep their index.
const TRACKS_MAX: usize = 1_024;

/// What a look at the stream gave.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamNext<F> {
    /// A frame.
    Frame {
        /// Whose: an index for [`StreamReader::track`].
        track: usize,
        /// The frame.
        frame: F,
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
    /// All frames of a ring have been delivered and none will come: it ended, or it was cleared away while the stream is still there.
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
    /// All frames have been delivered and none will come, unless the source returns, which is waited for when more is asked for; said once.
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
    /// It is beside a bell that another one has taken the place of, and perhaps beside that one too.
    left: bool,
    /// What its state would be if its writer had known of it: cleared away, or another ring has its name.
    over: Option<State>,
}

/// Whether a ring is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its frames are wanted.
    Read,
    /// It ended, and all its frames have been delivered. A source that returns within the retention has it taken up again.
    Ended,
    /// All its frames have been delivered, and another ring has its name, or will have.
    Replaced,
    /// It contradicts itself.
    Failed,
    /// It was cleared away, or another ring is read in its place.
    Gone,
}

impl TrackReader {
    /// Name of the ring's directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_read(&self) -> bool {
        self.standing == Standing::Read && !self.left
    }

    fn state(&self) -> State {
        self.over.unwrap_or_else(|| self.ring.state())
    }

    /// Whether more may come, as far as its writer has said.
    fn is_written(&self) -> bool {
        matches!(self.ring.state(), State::Live | State::Stalled)
    }

    /// Nothing is left in the ring; looked at after a final state was seen.
    fn is_drained(&self) -> bool {
        self.ring.head_seq() == self.ring.position()
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
    /// Pictures that come later begin at a random access point too.
    from_key: bool,
    stalled_told: bool,
    ended_told: bool,
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

    /// Whether the stream is still where it was.
    fn are_there(&self) -> bool {
        match self {
            Self::Directory { path, .. } => path.join("bell").exists(),
            // Or it would not have named tracks.
            Self::Broker { .. } => true,
        }
    }

    /// `ctl` and `data` of a ring.
    fn of_ring(&self, track: &str) -> io::Result<(File, File)> {
        match self {
            Self::Directory { path, .. } => {
                let handle = open_directory(&path.join(track))?;
                Ok((open_shared(&handle, "ctl", false)?, open_shared(&handle, "data", false)?))
            }
            Self::Broker { broker, stream_uuid } => broker.ring(track, *stream_uuid),
        }
    }

    fn ring(&self, track: &str, start: Start) -> Result<Reader, OpenError> {
        let (ctl, data) = self.of_ring(track)?;
        Reader::from_files(&ctl, &data, start)
    }

    /// Which ring a name leads to; `None` if to none, an error if that cannot be told.
    fn ring_uuid(&self, track: &str) -> Result<Option<[u8; 16]>, JudgeError> {
        match self.of_ring(track) {
            Ok((ctl, data)) => Ok(Some(judge_files(&ctl, &data)?.ring_uuid)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl StreamReader {
    /// Opens the stream in `directory`: all its tracks, or only the one named. With [`Start::Key`] and [`Start::OldestKey`] the video
    /// tracks begin at a random access point and the others with what was committed after the first of these.
    ///
    /// A track that comes later is read from its oldest frame on, but with these two a video track begins at its first random access
    /// point, and [`StreamEvent::Skipped`] says how many frames lie before that. A ring that takes the place of another is read from its
    /// oldest frame on, unless a random access point was still awaited of that one.
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
            from_key: false,
            stalled_told: false,
            ended_told: false,
            life: Life::new(),
        };
        reader.scan(start, false)?;
        if matches!(start, Start::Key | Start::OldestKey) {
            reader.align();
            reader.from_key = true;
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

    /// Opens the rings not yet known, and those that took the place of others. `changed`: the writer has said that tracks have come,
    /// gone or been replaced.
    fn scan(&mut self, start: Start, changed: bool) -> io::Result<()> {
        self.scanned = Instant::now();
        let names = self.files.tracks()?;
        for name in &names {
            if self.only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            let known = self.tracks.iter().rposition(|track| track.name == *name && track.standing != Standing::Gone);
            if known.is_some_and(|index| !self.is_given_up(index, changed)) {
                continue;
            }
            let Ok(mut ring) = self.files.ring(name, start) else { continue };
            ring.verify_checksums(self.verify);
            if self.begins_at_key(name, &ring) {
                ring.seek_first_key();
            }
            let uuid = ring.header().ring_uuid;
            let is_known = |index: usize| self.tracks[index].ring.header().ring_uuid == uuid;
            if ring.state() == State::Superseded || known.is_some_and(is_known) {
                continue;
            }
            if let Some(index) = known {
                self.tracks[index].standing = Standing::Gone;
            }
            self.add(name, ring);
        }
        for index in 0..self.tracks.len() {
            if !names.contains(&self.tracks[index].name) {
                self.look_after_absent(index);
            }
            let track = &mut self.tracks[index];
            if !matches!(track.standing, Standing::Read | Standing::Ended) {
                track.ring.let_go();
            }
        }
        Ok(())
    }

    /// Whether a decoder of this track has had nothing yet that it could have started at.
    fn begins_at_key(&self, name: &str, ring: &Reader) -> bool {
        let last = self.tracks.iter().rfind(|track| track.name == name);
        self.from_key && ring.header().kind == TrackKind::Video && last.is_none_or(|track| track.ring.is_awaiting_key())
    }

    fn add(&mut self, name: &str, ring: Reader) {
        let added = TrackReader { name: name.to_owned(), ring, standing: Standing::Read, left: false, over: None };
        let track = if self.tracks.len() < TRACKS_MAX {
            self.tracks.push(added);
            self.tracks.len() - 1
        } else if let Some(index) = self.tracks.iter().position(|track| track.ring.is_let_go()) {
            self.tracks[index] = added;
            index
        } else {
            return;
        };
        self.events.push_back(StreamEvent::TrackAdded { track });
    }

    /// What is to be done with the ring that a name led to so far; true if another one that has the name is to be opened.
    fn is_given_up(&mut self, index: usize, changed: bool) -> bool {
        let track = &self.tracks[index];
        if track.left || track.over.is_some() || changed && track.standing == Standing::Read && track.is_written() {
            self.judge(index);
        }
        let track = &mut self.tracks[index];
        let (state, is_drained) = (track.state(), track.is_drained());
        match track.standing {
            // It cannot be told yet whether it is beside the new bell too.
            _ if track.left => return false,
            // Its source returned; it may have been replaced since, but what it wrote comes first.
            Standing::Ended if track.over.is_none() && (!is_drained || track.is_written()) => {
                track.standing = Standing::Read;
                self.events.push_back(StreamEvent::TrackAdded { track: index });
                return false;
            }
            Standing::Read if state != State::Superseded || !is_drained => return false,
            Standing::Read => self.give_up(index, Standing::Replaced),
            // It may have been cleared away since.
            Standing::Ended | Standing::Replaced | Standing::Failed | Standing::Gone => {}
        }
        true
    }

    /// Looks where the name of a ring leads that is not over as far as its writer has said.
    fn judge(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        let Ok(there) = self.files.ring_uuid(&track.name) else { return };
        let is_same = there == Some(track.ring.header().ring_uuid);
        track.over = match there {
            Some(_) if is_same => None,
            Some(_) => Some(State::Superseded),
            None => Some(State::Ended),
        };
        if std::mem::take(&mut track.left) && !is_same {
            // What it still holds has its number in another stream.
            self.give_up(index, if there.is_some() { Standing::Replaced } else { Standing::Gone });
        }
    }

    /// A ring is read no more, and this is said of it, once.
    fn give_up(&mut self, index: usize, standing: Standing) {
        let track = &mut self.tracks[index];
        if !matches!(track.standing, Standing::Read | Standing::Replaced) {
            return;
        }
        track.standing = standing;
        if let Some(count) = track.ring.take_skipped() {
            self.events.push_back(StreamEvent::Skipped { track: index, count });
        }
        if standing == Standing::Gone {
            self.events.push_back(StreamEvent::TrackEnded { track: index });
        }
    }

    /// What is to be done with a ring whose name was not seen, though it may be there: a listing can miss a name that is just being
    /// given to another ring.
    fn look_after_absent(&mut self, index: usize) {
        let track = &mut self.tracks[index];
        match track.standing {
            Standing::Ended => track.standing = Standing::Gone,
            // The stream that takes the place of this one may have such a track. If the bell is gone too nobody has said that the stream
            // ended, and another writer may make it anew.
            _ if self.bell.state() == State::Superseded || !self.files.are_there() => {}
            // What it holds comes first.
            Standing::Read if track.left || track.is_written() => self.judge(index),
            Standing::Replaced => {
                self.judge(index);
                if self.tracks[index].over == Some(State::Ended) {
                    self.give_up(index, Standing::Gone);
                }
            }
            Standing::Read | Standing::Failed | Standing::Gone => {}
        }
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
        (self.generation, self.life) = (bell.tracks_generation(), Life::new());
        (self.stalled_told, self.ended_told) = (false, false);
        (self.files, self.bell) = (files, bell);
        for track in &mut self.tracks {
            match track.standing {
                Standing::Read | Standing::Ended | Standing::Replaced => track.left = true,
                // Its memory was given back: if it is there too, it is opened anew.
                Standing::Failed | Standing::Gone => track.standing = Standing::Gone,
            }
        }
        self.events.push_back(StreamEvent::Superseded);
        let _ = self.scan(Start::Oldest, false);
        true
    }

    /// The next frame of the stream, copied into a buffer that this reader keeps, or what happened instead; waits at most `timeout`.
    pub fn next(&mut self, timeout: Duration) -> StreamNext<Frame<'_>> {
        let track = match self.advance(timeout) {
            Ok(track) => track,
            Err(event) => return StreamNext::Event(event),
        };
        match self.tracks[track].ring.copy_pending() {
            Ok(Ok(copied)) => StreamNext::Frame { track, frame: self.tracks[track].ring.frame(&copied) },
            Ok(Err(look)) => StreamNext::Event(event_of(track, &look)),
            Err(error) => StreamNext::Event(self.failed(track, error)),
        }
    }

    /// The next frame of the stream, not copied, or what happened instead; waits at most `timeout`. The reader is past the frame when this
    /// returns: if it turns out not to be intact, that is one frame lost.
    pub fn next_borrowed(&mut self, timeout: Duration) -> StreamNext<Borrowed<'_>> {
        match self.advance(timeout) {
            Ok(track) => StreamNext::Frame { track, frame: self.tracks[track].ring.borrow_pending() },
            Err(event) => StreamNext::Event(event),
        }
    }

    /// Waits for a track with a frame pending.
    fn advance(&mut self, timeout: Duration) -> Result<usize, StreamEvent> {
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
            let changed = generation != self.generation;
            if std::mem::take(&mut self.rescan) || changed {
                self.generation = generation;
                // A ring that is new to us holds nothing that we have passed over.
                let _ = self.scan(Start::Oldest, changed);
                continue;
            }
            if let Some(track) = self.oldest_below(stream_head)? {
                self.ended_told = false;
                return Ok(track);
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
            if !self.tracks[i].is_read() {
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
                    let state = track.state();
                    if !matches!(state, State::Ended | State::Superseded) || !track.is_drained() {
                        continue;
                    }
                    if let Some(count) = track.ring.take_skipped() {
                        return Err(StreamEvent::Skipped { track: i, count });
                    }
                    if state == State::Ended {
                        track.standing = Standing::Ended;
                        // One that was cleared away is held no longer.
                        self.rescan |= track.over.is_some();
                        return Err(StreamEvent::TrackEnded { track: i });
                    }
                    track.standing = Standing::Replaced;
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
            self.tracks[track].standing = Standing::Failed;
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
        let state = self.bell.state();
        self.ended_told &= state == State::Ended;
        match state {
            // The last frame or ring may have come between the looks.
            State::Ended | State::Superseded if self.bell.futex() != seen => return Ok(()),
            State::Ended if !self.ended_told => {
                self.ended_told = true;
                return Err(StreamEvent::Ended);
            }
            // A source that returns late has another bell.
            State::Ended => {}
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
        let has_died = self.life.has_died(self.bell.heartbeat_count().wrapping_add(self.bell.stream_head()));
        if has_died && state != State::Ended {
            return Err(StreamEvent::WriterDead);
        }
        if now.duration_since(self.scanned) >= RESCAN {
            // A writer that could not take the old bell up makes a new one, and nobody is left to say so.
            if !self.open_again() {
                let _ = self.scan(Start::Oldest, false);
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

fn event_of(track: usize, look: &Look) -> StreamEvent {
    match *look {
        Look::Lapped { lost, resume_at } => StreamEvent::Lapped { track, lost, resume_at },
        Look::Skipped { count } => StreamEvent::Skipped { track, count },
        Look::Ready { .. } | Look::Empty => unreachable!("neither is an event"),
    }
}
