//! Framing of codecs whose frames start with a header that announces their length: ADTS, LOAS, MPEG audio, AC-3, Opus in TS.
//!
//! Without synchronisation a header is believed when the next one stands where it should; until then at most one frame is
//! held. With synchronisation bytes pass straight through, and the next header confirms each frame before its end is told.

use crate::media::{AccessUnitInfo, AudioFormat, Format, RandomAccess, TrackConfiguration};

use super::{Framer, Step};

/// What a codec knows of its own headers.
pub(super) trait Syntax {
    /// What [`Syntax::finish`] and [`Syntax::configure`] want to know of a header.
    type Details: Copy;

    /// The first byte of every header.
    const FIRST_BYTE: u8;

    /// The longest frame, header included, that a header is believed to announce.
    const FRAME_LEN_MAX: usize;

    /// Judges the front of `bytes`; asks for [`Verdict::More`] only while fewer than 600 bytes are given.
    fn header(&self, bytes: &[u8]) -> Verdict<Self::Details>;

    /// Whether the frame of `next` continues the access unit that `open` is the latest frame of.
    fn joins(_open: &Header<Self::Details>, _next: &Header<Self::Details>) -> bool {
        false
    }

    /// Whether an access unit can start with this frame; otherwise it is garbage where none is open.
    fn starts(_header: &Header<Self::Details>) -> bool {
        true
    }

    /// Whether this frame is the first of its access unit wherever it stands.
    fn certainly_starts(_header: &Header<Self::Details>) -> bool {
        true
    }

    /// An access unit starts with this header.
    fn configure(&mut self, header: &Header<Self::Details>, configuration: &mut TrackConfiguration);

    /// Sees every byte of a frame in order, header included; `offset` counts from the frame's first byte.
    fn see(&mut self, _offset: usize, _bytes: &[u8]) {}

    /// All bytes of a frame have been seen: whether its checksum holds.
    fn finish(&mut self, _header: &Header<Self::Details>, _configuration: &mut TrackConfiguration) -> bool {
        true
    }
}

/// Whether bytes are a header.
pub(super) enum Verdict<D> {
    /// They may be one; at least one byte more is needed.
    More,
    /// They are not.
    No,
    /// They are.
    Yes(Header<D>),
}

/// What a header says.
#[derive(Clone, Copy)]
pub(super) struct Header<D> {
    /// Length of the frame, this header included; never zero.
    pub(super) len: usize,
    /// Ranges of the frame that are not published, in order.
    pub(super) stripped: Stripped,
    /// Samples per channel in the frame.
    pub(super) samples: u32,
    /// What does not change from frame to frame unless the sender changes its settings.
    pub(super) identity: u32,
    /// What only the codec understands.
    pub(super) details: D,
}

/// Up to five ranges of a frame: header, and checksums between raw data blocks.
#[derive(Clone, Copy, Default)]
pub(super) struct Stripped {
    ranges: [(u16, u16); 5],
    count: u8,
}

impl Stripped {
    /// The first `len` bytes.
    pub(super) fn front(len: usize) -> Self {
        let mut stripped = Self::default();
        stripped.add(0, len);
        stripped
    }

    /// One more range, behind those given before.
    pub(super) fn add(&mut self, from: usize, to: usize) {
        self.ranges[usize::from(self.count)] = (from as u16, to as u16);
        self.count += 1;
    }

    /// Whether the byte at `offset` is published, and where the run of bytes with that answer ends (at most `len`).
    #[inline]
    fn run(&self, offset: usize, len: usize) -> (bool, usize) {
        for &(from, to) in &self.ranges[..usize::from(self.count)] {
            if offset < usize::from(from) {
                return (true, len.min(usize::from(from)));
            }
            if offset < usize::from(to) {
                return (false, len.min(usize::from(to)));
            }
        }
        (true, len)
    }
}

#[derive(Clone, Copy)]
enum State<D> {
    /// No synchronisation: held bytes start with what may be a header, or there are none.
    Searching,
    /// The header at the front of the held bytes starts an access unit.
    Beginning(Header<D>),
    /// `done` bytes of a frame have been passed on or stripped.
    Inside { header: Header<D>, done: usize },
    /// A header should come next. With an access unit open it also says whether that one is sound.
    Between { last: Header<D>, open: bool },
    /// Bytes are missing after these of the open access unit.
    Ending { last: Header<D> },
}

/// The framer of a codec with a [`Syntax`].
pub(super) struct AnnouncedLengthFramer<S: Syntax> {
    syntax: S,
    state: State<S::Details>,
    position: u64,
    /// Bytes taken from the input and not yet judged are `carry[start..]`. Never grows beyond what `new` reserved.
    carry: Vec<u8>,
    start: usize,
    skipped: u32,
    /// Frames of the open or latest access unit, and of the one before it.
    frames: u32,
    frames_before: u32,
    info: AccessUnitInfo,
    configuration: TrackConfiguration,
}

/// Room for the next header behind a frame that waits for confirmation.
const HEADER_ROOM: usize = 600;

impl<S: Syntax> AnnouncedLengthFramer<S> {
    pub(super) fn new(syntax: S) -> Self {
        Self {
            syntax,
            state: State::Searching,
            position: 0,
            carry: Vec::with_capacity(2 * (S::FRAME_LEN_MAX + HEADER_ROOM)),
            start: 0,
            skipped: 0,
            frames: 1,
            frames_before: 1,
            info: AccessUnitInfo::default(),
            configuration: TrackConfiguration::default(),
        }
    }

    #[inline]
    fn held(&self) -> &[u8] {
        &self.carry[self.start..]
    }

    /// Moves up to `count` bytes from the input to the held ones; false when there are none.
    fn pull(&mut self, count: usize, input: &mut &[u8]) -> bool {
        let count = count.min(input.len());
        if self.start == self.carry.len() {
            self.carry.clear();
            self.start = 0;
        } else if self.carry.len() + count > self.carry.capacity() {
            // At least half of the carry is free at its front then, so this costs a constant time per byte.
            self.carry.drain(..self.start);
            self.start = 0;
        }
        assert!(self.carry.len() + count <= self.carry.capacity(), "no more than a frame and a header is held");
        let (taken, rest) = input.split_at(count);
        self.carry.extend_from_slice(taken);
        self.position += count as u64;
        *input = rest;
        count > 0
    }

    /// The held bytes do not start with a header: passes over them up to what may be the next one.
    fn pass_over(&mut self) {
        let held = self.held();
        if !held.is_empty() {
            let count = memchr::memchr(S::FIRST_BYTE, &held[1..]).map_or(held.len(), |at| at + 1);
            self.drop_held(count);
        }
    }

    fn drop_held(&mut self, count: usize) {
        self.start += count;
        self.skipped = self.skipped.saturating_add(count as u32);
    }

    /// Looks for a header that the next one confirms. On the `last` bytes the end confirms as well.
    fn search(&mut self, input: &mut &[u8], last: bool) -> Option<Header<S::Details>> {
        loop {
            if self.held().is_empty() {
                let garbage = memchr::memchr(S::FIRST_BYTE, input).unwrap_or(input.len());
                *input = &input[garbage..];
                self.position += garbage as u64;
                self.skipped = self.skipped.saturating_add(garbage as u32);
                if input.is_empty() {
                    return None;
                }
            }
            let wanted = match self.syntax.header(self.held()) {
                Verdict::No => {
                    self.pass_over();
                    continue;
                }
                Verdict::More => 1,
                Verdict::Yes(header) if !S::starts(&header) => {
                    self.pass_over();
                    continue;
                }
                Verdict::Yes(header) if self.held().len() <= header.len => {
                    if last && self.held().len() == header.len {
                        return Some(header);
                    }
                    header.len + 1 - self.held().len()
                }
                Verdict::Yes(header) => match self.syntax.header(&self.held()[header.len..]) {
                    Verdict::Yes(next) if next.identity == header.identity => return Some(header),
                    Verdict::More if last => return Some(header),
                    Verdict::More => 1,
                    Verdict::Yes(_) | Verdict::No => {
                        self.pass_over();
                        continue;
                    }
                },
            };
            if !self.pull(wanted, input) {
                if !last {
                    return None;
                }
                self.pass_over();
            }
        }
    }

    fn take_skipped<'a>(&mut self) -> Option<Step<'a>> {
        let len = std::mem::take(&mut self.skipped);
        (len > 0).then_some(Step::Skipped { len })
    }

    fn end<'a>(&mut self, damaged: bool) -> Option<Step<'a>> {
        self.info.damaged |= damaged;
        Some(Step::End(self.info))
    }

    fn step<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], last: bool) -> Option<Step<'a>> {
        loop {
            match self.state {
                State::Searching => match self.search(input, last) {
                    None => return self.take_skipped(),
                    Some(header) => self.state = State::Beginning(header),
                },
                State::Beginning(header) => {
                    if let Some(step) = self.take_skipped() {
                        return Some(step);
                    }
                    self.syntax.configure(&header, &mut self.configuration);
                    self.frames_before = self.frames;
                    self.frames = 1;
                    self.info = AccessUnitInfo {
                        samples: header.samples,
                        random_access: RandomAccess::Intra,
                        ..AccessUnitInfo::default()
                    };
                    self.state = State::Inside { header, done: 0 };
                    return Some(Step::Begin { position: self.position - self.held().len() as u64 });
                }
                State::Inside { header, done } => {
                    if done == header.len {
                        self.info.damaged |= !self.syntax.finish(&header, &mut self.configuration);
                        self.state = State::Between { last: header, open: true };
                        continue;
                    }
                    let (published, until) = header.stripped.run(done, header.len);
                    let from_carry = !self.held().is_empty();
                    let available = if from_carry { self.held().len() } else { input.len() };
                    if available == 0 {
                        if !last {
                            return None;
                        }
                        self.state = State::Between { last: header, open: false };
                        return self.end(true);
                    }
                    let count = available.min(until - done);
                    self.state = State::Inside { header, done: done + count };
                    if from_carry {
                        let range = self.start..self.start + count;
                        self.start += count;
                        self.syntax.see(done, &self.carry[range.clone()]);
                        if published {
                            return Some(Step::Append(&self.carry[range]));
                        }
                    } else {
                        let (taken, rest) = input.split_at(count);
                        *input = rest;
                        self.position += count as u64;
                        self.syntax.see(done, taken);
                        if published {
                            return Some(Step::Append(taken));
                        }
                    }
                }
                State::Between { last: previous, open } => match self.syntax.header(self.held()) {
                    Verdict::More if self.pull(1, input) => {}
                    Verdict::More if !last => return self.take_skipped(),
                    Verdict::More if open => {
                        self.state = State::Between { last: previous, open: false };
                        return self.end(false);
                    }
                    Verdict::More => {
                        self.drop_held(self.held().len());
                        return self.take_skipped();
                    }
                    Verdict::Yes(next) if next.identity == previous.identity => {
                        if open && S::joins(&previous, &next) {
                            self.frames += 1;
                            self.state = State::Inside { header: next, done: 0 };
                        } else if !open && !S::starts(&next) {
                            self.state = State::Searching;
                        } else {
                            self.state = State::Beginning(next);
                            if open {
                                return self.end(false);
                            }
                        }
                    }
                    Verdict::Yes(_) => {
                        self.state = State::Searching;
                        if open {
                            return self.end(false);
                        }
                    }
                    Verdict::No => {
                        self.state = State::Searching;
                        if open {
                            return self.end(true);
                        }
                    }
                },
                State::Ending { last } => {
                    self.state = State::Between { last, open: false };
                    return self.end(false);
                }
            }
        }
    }
}

impl<S: Syntax> Framer for AnnouncedLengthFramer<S> {
    #[inline]
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        self.step(input, false)
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        self.step(&mut &[][..], true)
    }

    fn discontinuity(&mut self) {
        self.state = match self.state {
            State::Searching => State::Searching,
            // Only a caller that left steps behind can bring this about: the access unit was never begun.
            State::Beginning(last) => State::Between { last, open: false },
            State::Inside { header, done } => {
                self.info.damaged |= done < header.len;
                State::Ending { last: header }
            }
            State::Between { last, open: true } => State::Ending { last },
            State::Between { last, open: false } => State::Between { last, open: false },
            State::Ending { last } => State::Ending { last },
        };
        self.drop_held(self.held().len());
    }

    #[inline]
    fn position(&self) -> u64 {
        self.position
    }

    fn configuration(&self) -> &TrackConfiguration {
        &self.configuration
    }

    #[inline]
    fn is_complete(&self) -> bool {
        // A frame more may be due when the access unit before had one.
        let all_frames = self.frames >= self.frames_before;
        matches!(self.state, State::Between { open: true, .. }) && self.held().is_empty() && all_frames
    }

    fn start_is_certain(&self) -> bool {
        matches!(&self.state, State::Inside { header, .. } if S::certainly_starts(header))
    }
}

/// Writes down what is known of an audio track; the generation rises only when that is news.
pub(super) fn set_configuration(configuration: &mut TrackConfiguration, bytes: &[u8], format: AudioFormat) {
    let format = Format::Audio(format);
    if configuration.generation == 0 || configuration.bytes != bytes || configuration.format != format {
        configuration.generation = configuration.generation.wrapping_add(1).max(1);
        configuration.bytes.clear();
        configuration.bytes.extend_from_slice(bytes);
        configuration.format = format;
    }
}
