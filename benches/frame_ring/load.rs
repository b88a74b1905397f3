//! One load for every exchange: the same loop writes, paces, stamps and counts, whatever carries the frames. The rival programs
//! include this file, so that a figure of theirs and one of ours differ by the exchange alone.
//!
//! Every byte of a payload is copied from a source larger than the caches by the writer, and summed by the reader, which knows
//! what the sum must be. The stamp (CLOCK_MONOTONIC) is taken when the payload is in place and travels beside it; the reader
//! compares it with the clock when it knows of the frame, before it reads a byte of it.

use std::error::Error;
use std::io::{Read, Write};
use std::{fs, io, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The writer has the first core, its readers the second.
pub const WRITER_CORE: usize = 0;
pub const READER_CORE: usize = 1;
/// Bytes that the writer copies from, in turn.
const SOURCE_SIZE: usize = 32 << 20;
/// Frames at the beginning that are not counted, beside the first of every ring.
const WARM_UP: u64 = 50;
/// A reader that has heard nothing for so long goes home.
const SILENCE_NS: u64 = 2_000_000_000;
/// For the first frame it waits longer: all the others have to come.
const PATIENCE_NS: u64 = 25_000_000_000;
/// In a frame's number: none follows it.
const LAST: u64 = 1 << 63;

/// What a role is asked to do, as `key=value` arguments.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the exchange keeps its files, or what it calls itself.
    pub place: String,
    /// Where the figures go.
    pub result: String,
    /// Bytes of a frame, a multiple of 8.
    pub size: usize,
    /// For so long.
    pub duration_ns: u64,
    /// From one frame to the next; 0 as fast as the readers follow.
    pub interval_ns: u64,
    /// The readers look without end instead of sleeping.
    pub spinning: bool,
    /// Each with a reader of its own.
    pub rings: usize,
    /// Processes that read every ring.
    pub readers: usize,
    /// Frames that may be on their way; 0 any number.
    pub window: u64,
    /// The frame ring's writer wakes its readers itself; for others it always does.
    #[allow(dead_code, reason = "the rival programs do not ask")]
    pub direct: bool,
}

impl Load {
    pub fn parse(arguments: &[String]) -> Result<Self, Box<dyn Error>> {
        let value = |key: &str| -> Result<&str, Box<dyn Error>> {
            let found = arguments.iter().find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='));
            found.ok_or_else(|| format!("{key}= is missing").into())
        };
        Ok(Self {
            place: value("place")?.to_owned(),
            result: value("result")?.to_owned(),
            size: value("size")?.parse()?,
            duration_ns: value("duration_ns")?.parse()?,
            interval_ns: value("interval_ns")?.parse()?,
            spinning: value("spinning")? == "1",
            rings: value("rings")?.parse()?,
            readers: value("readers")?.parse()?,
            window: value("window")?.parse()?,
            direct: value("direct")? == "1",
        })
    }
}

impl Load {
    fn warm_up(&self) -> u64 {
        WARM_UP + self.rings as u64
    }
}

/// The writer's end of an exchange with one or more rings.
pub trait Output {
    /// Copies the payload to where readers will find it.
    fn put(&mut self, ring: usize, payload: &[u8]);
    /// Makes it visible and, if readers sleep, has them woken.
    fn commit(&mut self, ring: usize, number: u64, stamp_ns: u64);
}

/// A frame that was read.
pub struct Heard {
    /// As the writer numbered it.
    pub number: u64,
    /// Of its payload.
    pub sum: u64,
}

/// A reader's end of one ring.
pub trait Input {
    /// Looks once, or sleeps for at most 100 ms. `awake` gets the frame's stamp before its payload is read.
    /// A frame that was overtaken while it was read is none.
    fn next(&mut self, spinning: bool, awake: impl FnOnce(u64)) -> Option<Heard>;
}

pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn sleep_until(due_ns: u64) {
    let due = Timespec { tv_sec: (due_ns / 1_000_000_000) as i64, tv_nsec: (due_ns % 1_000_000_000) as _ };
    while clock_nanosleep_absolute(ClockId::Monotonic, &due).is_err() {}
}

/// The sum of a payload's words.
pub fn sum(payload: &[u8]) -> u64 {
    payload.chunks_exact(8).fold(0, |sum, word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        sum.wrapping_add(u64::from_le_bytes(bytes))
    })
}

const FRAME_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
const WORD_FACTOR: u64 = 0xD1B5_4A32_D192_ED03;

/// How many different frames of `size` bytes there are.
fn source_frames(size: usize) -> u64 {
    (SOURCE_SIZE / size).max(1) as u64
}

/// Word i of frame f is (f + 1) × a + i × b.
fn expected_sum(number: u64, size: usize) -> u64 {
    let words = (size / 8) as u64;
    let first = (number % source_frames(size) + 1).wrapping_mul(FRAME_FACTOR);
    words.wrapping_mul(first).wrapping_add((words * (words - 1) / 2).wrapping_mul(WORD_FACTOR))
}

fn source(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(source_frames(size) as usize * size);
    for frame in 0..source_frames(size) {
        let mut word = (frame + 1).wrapping_mul(FRAME_FACTOR);
        for _ in 0..size / 8 {
            bytes.extend_from_slice(&word.to_le_bytes());
            word = word.wrapping_add(WORD_FACTOR);
        }
    }
    bytes
}

/// Pins the calling thread, and lets the process open what hundreds of rings take.
pub fn settle(core: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}

/// Writes the load. `output` is made before, so that readers find it: a file beside the result says so. Each of them says by a byte
/// on our standard input that it is there, and with a window by one more byte for every frame.
pub fn write(load: &Load, mut output: impl Output) -> Result<(), Box<dyn Error>> {
    let source = source(load.size);
    fs::write(format!("{}.ready", load.result), "")?;
    let mut input = io::stdin().lock();
    let mut byte = [0];
    for _ in 0..load.readers * load.rings {
        input.read_exact(&mut byte)?;
    }
    let room = load.duration_ns.checked_div(load.interval_ns).unwrap_or(100_000) as usize + 1;
    let mut commits = Vec::with_capacity(room);
    let mut puts = Vec::with_capacity(room);
    let (mut late, mut returned) = (0u64, 0);
    let begin = now_ns() + 50_000_000;
    sleep_until(begin);
    let mut ending = 0;
    for number in 0.. {
        if load.interval_ns > 0 {
            let due = begin + number * load.interval_ns;
            late += u64::from(now_ns() > due + load.interval_ns);
            sleep_until(due);
        }
        while load.window > 0 && number - returned >= load.window {
            let mut bytes = [0; 64];
            let count = input.read(&mut bytes)?;
            if count == 0 {
                return Err("the reader is gone".into());
            }
            returned += count as u64;
        }
        // Once the time is over every ring gets a last frame.
        let is_last = now_ns() >= begin + load.duration_ns && number > load.warm_up();
        let ring = (number % load.rings as u64) as usize;
        let at = (number % source_frames(load.size)) as usize * load.size;
        let start = now_ns();
        output.put(ring, &source[at..at + load.size]);
        let stamp = now_ns();
        output.commit(ring, if is_last { number | LAST } else { number }, stamp);
        let end = now_ns();
        if number >= load.warm_up() && commits.len() < room {
            puts.push(stamp - start);
            commits.push(end - stamp);
        }
        if is_last {
            ending += 1;
            if ending == load.rings {
                break;
            }
        }
    }
    let mut text = format!("late {late}\nframes {}\n", commits.len());
    lines(&mut text, "p", &puts);
    lines(&mut text, "c", &commits);
    fs::write(&load.result, text)?;
    // The exchange stays until the readers have gone.
    let _ = input.read_to_end(&mut Vec::new());
    Ok(())
}

#[derive(Default)]
struct Tally {
    latencies: Vec<u64>,
    frames: u64,
    lost: u64,
    wrong: u64,
    elapsed_ns: u64,
    /// The last frame did not come.
    silent: bool,
}

/// Reads every ring of the load, each in a thread of its own; `open` is called in that thread.
pub fn read<I: Input>(load: &Load, open: impl Fn(usize) -> I + Sync) -> Result<(), Box<dyn Error>> {
    let mut all = Tally::default();
    if load.rings == 1 {
        all = read_one(load, open(0));
    } else {
        thread::scope(|scope| {
            let open = &open;
            let threads: Vec<_> = (0..load.rings)
                .map(|ring| {
                    scope.spawn(move || {
                        settle(READER_CORE);
                        read_one(load, open(ring))
                    })
                })
                .collect();
            for thread in threads {
                let heard = thread.join().expect("a reader does not panic");
                all.latencies.extend(heard.latencies);
                all.frames += heard.frames;
                all.lost += heard.lost;
                all.wrong += heard.wrong;
                all.silent |= heard.silent;
                all.elapsed_ns = all.elapsed_ns.max(heard.elapsed_ns);
            }
        });
    }
    let mut text = format!(
        "read {}\nlost {}\nwrong {}\nelapsed_ns {}\nsilent {}\n",
        all.frames,
        all.lost,
        all.wrong,
        all.elapsed_ns,
        u8::from(all.silent)
    );
    lines(&mut text, "l", &all.latencies);
    fs::write(&load.result, text)?;
    Ok(())
}

fn read_one(load: &Load, mut input: impl Input) -> Tally {
    let mut tally = Tally { latencies: Vec::with_capacity(1 << 16), ..Tally::default() };
    let mut output = io::stdout();
    let mut say = || {
        let _ = output.write_all(b".").and_then(|()| output.flush());
    };
    say();
    let (mut first_ns, mut heard_ns, mut looks) = (0, now_ns(), 0u32);
    let mut expected = None;
    loop {
        let mut latency = None;
        let found = input.next(load.spinning, |stamp| latency = Some(now_ns().saturating_sub(stamp)));
        let Some(Heard { number, sum }) = found else {
            looks = looks.wrapping_add(1);
            let limit_ns = if expected.is_none() { PATIENCE_NS } else { SILENCE_NS };
            if (!load.spinning || looks.is_multiple_of(1 << 12)) && now_ns() - heard_ns > limit_ns {
                tally.silent = true;
                return tally;
            }
            continue;
        };
        heard_ns = now_ns();
        if load.window > 0 {
            say();
        }
        let (is_last, number) = (number & LAST != 0, number & !LAST);
        let gap = expected.map_or(0, |expected: u64| number.saturating_sub(expected));
        tally.lost += gap / load.rings as u64;
        expected = Some(number + load.rings as u64);
        tally.wrong += u64::from(sum != expected_sum(number, load.size));
        if number >= load.warm_up() {
            // The first one only starts the clock.
            if tally.frames == 0 {
                first_ns = heard_ns;
            }
            tally.elapsed_ns = heard_ns - first_ns;
            tally.frames += 1;
            tally.latencies.extend(latency);
        }
        if is_last {
            return tally;
        }
    }
}

fn lines(text: &mut String, key: &str, values: &[u64]) {
    for value in values {
        text.push_str(&format!("{key} {value}\n"));
    }
}
