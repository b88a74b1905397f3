//! Byte streams whose units are told apart by start codes: H.264 and H.265 Annex B, H.262 §5.2.3.
//!
//! [`StartCodeFramer`] finds the units, and does everything that the three standards share: which bytes wait, which go out,
//! and in which access unit. What a unit means is judged by the codec's [`Syntax`].

#[doc(hidden)]
pub mod fuzzing;

use std::sync::LazyLock;

use arrayvec::ArrayVec;
use memchr::memmem;

use super::{Framer, Step};
use crate::base::prefetch;
use crate::media::{AccessUnitInfo, TrackConfiguration};

/// The most bytes of one unit that a [`Syntax`] may ask for before it judges.
pub const JUDGED_BYTES_MAX: usize = 64;
/// Two units wait at most, each with its start code and the zeros behind it.
const HELD_BYTES_MAX: usize = 2 * (JUDGED_BYTES_MAX + 8);
/// The most bytes of one parameter set or SEI unit that are kept for reading.
pub const CAPTURED_BYTES_MAX: usize = 4096;

const START_CODE_PREFIX: &[u8] = &[0, 0, 1];
/// One for all tracks, so that it stays in the processor's cache.
static START_CODE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(START_CODE_PREFIX));

/// What one standard says of the units between start codes.
pub trait Syntax: Default {
    /// A unit's header, once judged.
    type Unit: Copy;

    /// A zero byte right before a start code prefix belongs to the unit that follows (`zero_byte`, H.264 §B.1.2) and not
    /// to the one before (H.262 §5.2.3).
    const ZERO_BYTE: bool;

    /// How many bytes [`judge`](Self::judge) must see of a unit that starts with `first`; at least 1, at most
    /// [`JUDGED_BYTES_MAX`].
    fn wanted(&self, first: u8) -> usize;

    /// To which access unit does the unit belong that starts with these bytes (start code and zeros at the end taken off)?
    /// `complete`: there are no more of them, or as many as were wanted; [`Judgement::Undecided`] is then no answer.
    fn judge(&self, unit: &[u8], complete: bool) -> Judgement<Self::Unit>;

    /// The unit now belongs to the open access unit. Gives how many of its bytes [`leave`](Self::leave) wants to read.
    fn enter(&mut self, unit: Self::Unit) -> usize;

    /// The last unit for which [`enter`](Self::enter) asked for bytes has ended; these are its first ones. `truncated`: it
    /// had more than zeros behind them.
    fn leave(&mut self, unit: &[u8], truncated: bool);

    /// Bytes of the open access unit are missing.
    fn damage(&mut self);

    /// The open access unit is complete.
    fn finish(&mut self) -> AccessUnitInfo;

    /// See [`Framer::configuration`].
    fn configuration(&self) -> &TrackConfiguration;
}

/// What a [`Syntax`] says of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement<U> {
    /// More bytes must be seen.
    Undecided,
    /// It belongs to the open access unit, or starts one when none is open.
    Continues(U),
    /// It starts an access unit.
    Starts(U),
    /// It belongs to the same access unit as the unit after it, or to the open one if none follows right away. Only a unit
    /// whose [`wanted`](Syntax::wanted) is the largest may be deferred: its end is then seen however the stream is cut.
    Deferred(U),
    /// It is the last of the open access unit; without one, it belongs to none.
    Ends(U),
}

/// Cuts a byte stream with start codes into access units.
pub struct StartCodeFramer<S: Syntax> {
    state: State<S::Unit>,
    /// Bytes taken in that have not been given out: up to three zeros in [`State::Pass`], else units being judged.
    held: ArrayVec<u8, HELD_BYTES_MAX>,
    /// How many of them, from the first, the last step has given out.
    given: usize,
    /// Bytes taken in so far.
    position: u64,
    /// An access unit is open.
    open: bool,
    /// How many bytes of the unit that passes are still wanted; none after it was truncated.
    capture_left: usize,
    capturing: bool,
    truncated: bool,
    captured: Vec<u8>,
    /// A judged unit that shares the fate of the next one.
    deferred: Option<S::Unit>,
    syntax: S,
}

#[derive(Clone, Copy)]
enum State<U> {
    /// Bytes of a judged unit, or of none, pass through.
    Pass,
    /// `held[start..]` starts with the start code of a unit to be judged.
    Judge { start: usize },
    /// The access unit before has ended, and one starts with what is held.
    Begin(Judged<U>),
    /// The unit's held bytes go out.
    Give(Judged<U>),
    /// The access unit ends with the bytes given last.
    Close { judge_next: bool },
    /// All that is held goes out unread.
    Release,
}

#[derive(Clone, Copy)]
struct Judged<U> {
    unit: U,
    /// Where in `held` the unit's bytes start, after its start code.
    body: usize,
    /// How many held bytes go out with it.
    len: usize,
    /// The rest of what is held starts with the next start code.
    judge_next: bool,
    closes: bool,
}

impl<S: Syntax> StartCodeFramer<S> {
    /// The most zeros at the end of a piece that may belong to a start code.
    const ZEROS_MAX: usize = if S::ZERO_BYTE { 3 } else { 2 };

    /// A framer at position 0 that knows nothing yet.
    pub fn new() -> Self {
        Self::with(S::default())
    }

    /// A framer at position 0 of a codec whose syntax has been told something beforehand.
    pub fn with(syntax: S) -> Self {
        Self {
            state: State::Pass,
            held: ArrayVec::new(),
            given: 0,
            position: 0,
            open: false,
            capture_left: 0,
            capturing: false,
            truncated: false,
            captured: Vec::with_capacity(CAPTURED_BYTES_MAX),
            deferred: None,
            syntax,
        }
    }

    /// [`Framer::push`] with the lifetimes told apart, so that a loop may hold on to `input`.
    #[inline]
    pub fn step<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        self.drop_given();
        loop {
            match self.state {
                State::Pass if self.held.is_empty() => {
                    let bytes = *input;
                    if bytes.is_empty() {
                        return None;
                    }
                    let found = START_CODE.find(bytes);
                    let len = match found {
                        Some(at) => at - usize::from(S::ZERO_BYTE && at > 0 && bytes[at - 1] == 0),
                        None => bytes.len() - trailing_zeros(bytes, Self::ZEROS_MAX),
                    };
                    if len > 0 {
                        self.advance(input, len);
                        self.capture(&bytes[..len]);
                        return Some(passed(self.open, &bytes[..len]));
                    }
                    match found {
                        Some(at) => {
                            self.hold(input, at + START_CODE_PREFIX.len());
                            self.enter_judge();
                        }
                        None => self.hold(input, bytes.len()),
                    }
                }
                State::Pass => {
                    let given = self.join(input)?;
                    if given > 0 {
                        return Some(self.give(given));
                    }
                }
                State::Judge { start } => {
                    let body = start + start_code_len(&self.held[start..]);
                    self.top_up(body, input);
                    if !self.judge(body, false) {
                        return None;
                    }
                    if let State::Begin(_) = self.state
                        && self.open
                    {
                        return Some(self.close());
                    }
                }
                _ => return Some(self.settle()),
            }
        }
    }

    /// [`Framer::flush`].
    pub fn finish<'a>(&'a mut self) -> Option<Step<'a>> {
        self.drop_given();
        loop {
            match self.state {
                State::Pass if !self.open => return None,
                State::Pass if self.held.is_empty() => {
                    self.leave();
                    return Some(self.close());
                }
                State::Pass => return Some(self.give(self.held.len())),
                State::Judge { start } => {
                    let body = start + start_code_len(&self.held[start..]);
                    if body == self.held.len() {
                        // A start code with nothing behind it: no unit, only bytes.
                        self.state = State::Release;
                    } else if self.judge(body, true)
                        && let State::Begin(_) = self.state
                        && self.open
                    {
                        return Some(self.close());
                    }
                }
                _ => return Some(self.settle()),
            }
        }
    }

    /// The steps that follow from a judgement.
    fn settle(&mut self) -> Step<'_> {
        match self.state {
            State::Begin(judged) => {
                self.open = true;
                self.state = State::Give(judged);
                Step::Begin { position: self.position - self.held.len() as u64 }
            }
            State::Give(judged) => {
                if let Some(deferred) = self.deferred.take() {
                    self.syntax.enter(deferred);
                }
                self.captured.clear();
                let wanted = if self.open { self.syntax.enter(judged.unit) } else { 0 };
                self.capture_left = wanted.min(CAPTURED_BYTES_MAX);
                self.capturing = self.capture_left > 0;
                self.truncated = false;
                capture(
                    &mut self.captured,
                    &mut self.capture_left,
                    &mut self.truncated,
                    self.capturing,
                    &self.held[judged.body..judged.len],
                );
                match (judged.closes, judged.judge_next) {
                    (true, judge_next) => self.state = State::Close { judge_next },
                    (false, true) => self.enter_judge(),
                    (false, false) => self.state = State::Pass,
                }
                self.given = judged.len;
                passed(self.open, &self.held[..judged.len])
            }
            State::Close { judge_next } => {
                self.leave();
                self.state = if judge_next { State::Judge { start: 0 } } else { State::Pass };
                self.close()
            }
            State::Release => {
                self.state = State::Pass;
                self.deferred = None;
                self.give(self.held.len())
            }
            State::Pass | State::Judge { .. } => unreachable!("nothing follows before a judgement"),
        }
    }

    /// Judges the unit whose bytes start at `held[body]`; `false` when more of them must come first.
    fn judge(&mut self, body: usize, at_end: bool) -> bool {
        let have = self.held.len() - body;
        if have == 0 {
            return false;
        }
        let found = START_CODE.find(&self.held[body..]).map(|at| body + at);
        let unit_end = found.unwrap_or(self.held.len());
        let complete = at_end || found.is_some() || have >= self.syntax.wanted(self.held[body]);
        // Zeros at the end may be the start of a start code, so no judgement rests on them: the first byte excepted,
        // which names the unit.
        let unit = &self.held[body..unit_end.max(body + 1)];
        let unit = &unit[..unit.len() - trailing_zeros(&unit[1..], usize::MAX)];
        let (unit, starts, closes) = match self.syntax.judge(unit, complete) {
            Judgement::Undecided => {
                assert!(!complete, "a complete unit is always judged");
                return false;
            }
            Judgement::Deferred(_) if !complete => return false,
            Judgement::Deferred(unit) if found.is_some() && self.deferred.is_none() => {
                self.deferred = Some(unit);
                self.state = State::Judge { start: self.start_code_at(body, unit_end) };
                return true;
            }
            Judgement::Continues(unit) | Judgement::Deferred(unit) => (unit, !self.open, false),
            Judgement::Starts(unit) => (unit, true, false),
            Judgement::Ends(unit) => (unit, false, self.open),
        };
        let len = match found {
            Some(at) => self.start_code_at(body, at),
            None if at_end => self.held.len(),
            None => self.held.len() - trailing_zeros(&self.held[body..], Self::ZEROS_MAX),
        };
        let judged = Judged { unit, body, len, judge_next: found.is_some(), closes };
        self.state = if starts { State::Begin(judged) } else { State::Give(judged) };
        true
    }

    /// Where in `held` the start code begins whose prefix is at `at`.
    fn start_code_at(&self, body: usize, at: usize) -> usize {
        at - usize::from(S::ZERO_BYTE && at > body && self.held[at - 1] == 0)
    }

    /// Zeros are held: do the bytes that follow make them a start code? Gives how many held bytes turn out to be
    /// ordinary; `None` when nothing follows.
    fn join(&mut self, input: &mut &[u8]) -> Option<usize> {
        let bytes = *input;
        if bytes.is_empty() {
            return None;
        }
        let held = self.held.len();
        let zeros = bytes.iter().take(3).take_while(|&&byte| byte == 0).count();
        if zeros == 3 {
            return Some(held);
        }
        if zeros == bytes.len() {
            self.hold(input, zeros);
            return Some(self.held.len().saturating_sub(Self::ZEROS_MAX));
        }
        if bytes[zeros] != 1 || held + zeros < 2 {
            return Some(held);
        }
        self.hold(input, zeros + 1);
        let start_code = if S::ZERO_BYTE { 4 } else { 3 };
        let surplus = self.held.len().saturating_sub(start_code);
        self.capture_held(surplus);
        self.enter_judge();
        Some(surplus)
    }

    /// Takes as many bytes of the unit at `held[body]` as its judgement wants.
    fn top_up(&mut self, body: usize, input: &mut &[u8]) {
        if self.held.len() == body {
            self.hold(input, input.len().min(1));
        }
        if let Some(&first) = self.held.get(body) {
            let wanted = self.syntax.wanted(first).min(JUDGED_BYTES_MAX);
            let missing = (body + wanted).saturating_sub(self.held.len());
            self.hold(input, input.len().min(missing));
        }
    }

    fn hold(&mut self, input: &mut &[u8], len: usize) {
        self.held.try_extend_from_slice(&input[..len]).expect("no more bytes wait than two units' heads");
        self.advance(input, len);
    }

    #[inline]
    fn advance(&mut self, input: &mut &[u8], len: usize) {
        *input = &input[len..];
        self.position += len as u64;
    }

    fn enter_judge(&mut self) {
        self.leave();
        self.state = State::Judge { start: 0 };
    }

    /// The unit that passed has ended.
    fn leave(&mut self) {
        if self.capturing {
            self.capturing = false;
            // Zeros behind a NAL unit are no part of it (trailing_zero_8bits); headers of MPEG-2 may end with zeros.
            let zeros = if S::ZERO_BYTE { trailing_zeros(&self.captured, usize::MAX) } else { 0 };
            let len = self.captured.len() - zeros;
            self.syntax.leave(&self.captured[..len], self.truncated);
        }
    }

    fn close(&mut self) -> Step<'static> {
        self.open = false;
        Step::End(self.syntax.finish())
    }

    /// Gives out the first `len` of the held bytes.
    fn give(&mut self, len: usize) -> Step<'_> {
        self.given = len;
        self.capture_held(len);
        passed(self.open, &self.held[..len])
    }

    fn capture_held(&mut self, len: usize) {
        capture(&mut self.captured, &mut self.capture_left, &mut self.truncated, self.capturing, &self.held[..len]);
    }

    #[inline]
    fn capture(&mut self, bytes: &[u8]) {
        capture(&mut self.captured, &mut self.capture_left, &mut self.truncated, self.capturing, bytes);
    }

    #[inline]
    fn drop_given(&mut self) {
        if self.given > 0 {
            self.held.drain(..self.given);
            self.given = 0;
        }
    }
}

#[inline]
fn capture(captured: &mut Vec<u8>, left: &mut usize, truncated: &mut bool, capturing: bool, bytes: &[u8]) {
    if capturing {
        let len = bytes.len().min(*left);
        captured.extend_from_slice(&bytes[..len]);
        *left -= len;
        *truncated |= bytes[len..].iter().any(|&byte| byte != 0);
    }
}

#[inline]
fn passed(open: bool, bytes: &[u8]) -> Step<'_> {
    if open { Step::Append(bytes) } else { Step::Skipped { len: bytes.len() as u32 } }
}

/// Number of zeros at the end of `bytes`, counted up to `max`.
#[inline]
fn trailing_zeros(bytes: &[u8], max: usize) -> usize {
    bytes.iter().rev().take(max).take_while(|&&byte| byte == 0).count()
}

/// Length of the start code at the front of `bytes`, with its zero byte.
fn start_code_len(bytes: &[u8]) -> usize {
    if bytes[2] == 1 { 3 } else { 4 }
}

impl<S: Syntax> Default for StartCodeFramer<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Syntax> Framer for StartCodeFramer<S> {
    #[inline]
    fn push<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Option<Step<'a>> {
        self.step(input)
    }

    #[inline]
    fn pass(&mut self, covering: &[u8], pieces: &[&[u8]]) -> bool {
        self.drop_given();
        let is_amid = matches!(self.state, State::Pass) && self.held.is_empty() && self.open && !self.capturing;
        // Zeros at the end of a piece may be the start of a start code.
        let is_whole = || pieces.iter().all(|piece| piece.last().is_some_and(|&last| last != 0));
        if !is_amid || !is_whole() || START_CODE.find(covering).is_some() {
            return false;
        }
        self.position += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        true
    }

    fn prefetch(&self) {
        prefetch(&self.state);
        prefetch(&self.position);
        prefetch(&self.open);
    }

    fn flush(&mut self) -> Option<Step<'_>> {
        self.finish()
    }

    fn discontinuity(&mut self) {
        self.drop_given();
        self.capturing = false;
        if self.open {
            self.syntax.damage();
        }
        if !self.held.is_empty() {
            self.state = State::Release;
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn configuration(&self) -> &TrackConfiguration {
        self.syntax.configuration()
    }
}

#[cfg(test)]
pub(in crate::codec) mod tests;
