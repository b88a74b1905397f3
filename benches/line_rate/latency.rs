//! How late frames are: by the appliance's own count, and where readers of some streams know of them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use headworks_frame_ring::directory::list_streams;
use headworks_frame_ring::reader::Start;
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::support::load::{Load, SETTLE};
use crate::support::samples;
use crate::support::spread::Spread;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// Between two looks for the streams.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So that a reader sees that it is to end.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Readers of some of the streams, each a thread that sleeps until there is a frame.
pub struct Readers {
    /// Pairs with the loads in `read`.
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Delays>>,
}

impl Readers {
    /// Reads `readers` of the streams on a core as soon as all are there, and counts what comes in the time that is measured.
    pub fn start(root: &'static str, readers: u32, core: usize, load: &Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let from_ns = now_ns() + SETTLE.as_nanos() as u64;
        let (window_ns, feeds) = (from_ns..from_ns + load.seconds * 1_000_000_000, load.feeds);
        let readers = readers.min(feeds);
        let threads = (0..readers)
            .map(|reader| {
                let (stop, window_ns) = (Arc::clone(&stop), window_ns.clone());
                thread::spawn(move || {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                    let place = (reader * feeds / readers) as usize;
                    wait_for_stream(root.as_ref(), place, feeds as usize, &stop)
                        .map_or_else(Delays::new, |stream| read(&stream, &window_ns, &stop))
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// What they saw, all together.
    pub fn end(self) -> Delays {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Delays::new();
        for thread in self.threads {
            all.add(&thread.join().expect("a reader does not panic"));
        }
        all
    }
}

/// Delays of frames in ns, of pictures and of the rest apart: the end of a picture often shows only when the next one begins.
pub struct Delays {
    /// From when the last packet was due (SRT), or came, to the reader that knows of the frame.
    video: Histogram<u64>,
    other: Histogram<u64>,
    /// From the frame in the ring to the reader that knows of it.
    awake: Histogram<u64>,
}

impl Delays {
    fn new() -> Self {
        let [video, other, awake] =
            [(); 3].map(|()| Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"));
        Self { video, other, awake }
    }

    fn add(&mut self, other: &Self) {
        for (all, one) in
            [(&mut self.video, &other.video), (&mut self.other, &other.other), (&mut self.awake, &other.awake)]
        {
            all.add(one).expect("the same bounds");
        }
    }

    /// From when the last packet was due, or came, to the reader that knows of the frame: 99 % of the frames whose end shows with their
    /// last packet, or how many these are where they are too few.
    pub fn other_p99_ns(&self) -> Result<f64, u64> {
        let frames = self.other.len();
        if shows(&self.other, 0.99) { Ok(self.other.value_at_quantile(0.99) as f64) } else { Err(frames) }
    }

    /// One line each, unless nothing was read.
    pub fn lines(&self) -> Vec<String> {
        let rows = [
            ("reader awake after due, video", &self.video),
            ("reader awake after due, other", &self.other),
            ("reader awake after commit", &self.awake),
        ];
        rows.into_iter()
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(what, histogram)| line(what, histogram))
            .collect()
    }

    pub fn json(&self) -> Value {
        let of = |histogram: &Histogram<u64>| {
            let mut figures: serde_json::Map<String, Value> = QUANTILES
                .iter()
                .map(|(name, quantile)| ((*name).to_owned(), json!(histogram.value_at_quantile(*quantile))))
                .collect();
            figures.insert("count".to_owned(), json!(histogram.len()));
            // So that histograms of several runs can be added up: upper ends and counts.
            let bars: Vec<_> = histogram
                .iter_log(1_000, 2.0)
                .map(|bar| (bar.value_iterated_to(), bar.count_since_last_iteration()))
                .collect();
            figures.insert("bars".to_owned(), json!(bars));
            Value::Object(figures)
        };
        json!({ "awake_after_due_video_ns": of(&self.video), "awake_after_due_other_ns": of(&self.other),
            "awake_after_commit_ns": of(&self.awake) })
    }
}

/// Whether five frames lie beyond a quantile: fewer say nothing of it. (Of 500 a hundredth is a little less in binary fractions.)
fn shows(histogram: &Histogram<u64>, quantile: f64) -> bool {
    histogram.len() as f64 * (1.0 - quantile) > 4.999
}

/// Quantiles in µs, as far as frames show them.
fn line(what: &str, histogram: &Histogram<u64>) -> String {
    let quantiles: Vec<String> = QUANTILES
        .iter()
        .filter(|(_, quantile)| *quantile == 1.0 || shows(histogram, *quantile))
        .map(|(name, quantile)| format!("{name} {:.0} µs", histogram.value_at_quantile(*quantile) as f64 / 1e3))
        .collect();
    format!("{what}: {} ({} frames)", quantiles.join(", "), histogram.len())
}

fn wait_for_stream(root: &Path, place: usize, feeds: usize, stop: &AtomicBool) -> Option<PathBuf> {
    while !stop.load(Ordering::Relaxed) {
        let streams = list_streams(root).unwrap_or_default();
        if streams.len() >= feeds {
            return streams.into_iter().nth(place).map(|stream| stream.path);
        }
        thread::sleep(LOOK_EVERY);
    }
    None
}

fn read(stream: &Path, window_ns: &Range<u64>, stop: &AtomicBool) -> Delays {
    let mut delays = Delays::new();
    let Ok(mut reader) = StreamReader::open(stream, Start::Live, None) else { return delays };
    let mut is_video = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match reader.next_borrowed(WAIT_MAX) {
            StreamNext::Frame { track, frame } => {
                let (awake_ns, descriptor) = (now_ns(), frame.descriptor());
                if window_ns.contains(&descriptor.commit_ns) {
                    let is_video = is_video.get(track).copied().unwrap_or(false);
                    let due_ns = descriptor.due_ns.max(descriptor.last_arrival_ns);
                    let kind = if is_video { &mut delays.video } else { &mut delays.other };
                    kind.saturating_record(awake_ns.saturating_sub(due_ns).max(1));
                    delays.awake.saturating_record(awake_ns.saturating_sub(descriptor.commit_ns).max(1));
                }
            }
            StreamNext::Event(StreamEvent::Ended | StreamEvent::WriterDead) => break,
            StreamNext::Event(_) => {}
        }
        // Tracks come while it runs.
        while let Some(track) = reader.track(is_video.len()) {
            is_video.push(track.name().starts_with("video"));
        }
    }
    delays
}

/// What a page of metrics says of delays from due to published, over all tracks of video and over all others.
pub fn published_lines(page: &str) -> Vec<String> {
    let quantile = |kind: &'static str, quantile: &'static str| {
        let quantile = format!("quantile=\"{quantile}\"");
        let of_kind = samples(page).filter(move |(name, _)| {
            name.starts_with("headworks_track_assembly_delay_seconds{")
                && name.contains(&quantile)
                && name.contains("track=\"video") == (kind == "video")
        });
        Spread::new(of_kind.map(|(_, seconds)| seconds * 1e6))
    };
    let mut lines = Vec::new();
    for kind in ["video", "other"] {
        let Some(((p50, p99), max)) = quantile(kind, "0.5").zip(quantile(kind, "0.99")).zip(quantile(kind, "1")) else {
            continue;
        };
        lines.push(format!(
            "published after due, {kind}: p50 {:.0} µs (median of all tracks), p99 {:.0} µs (median; {:.0} µs the worst), max {:.0} µs",
            p50.median(),
            p99.median(),
            p99.most(),
            max.most()
        ));
    }
    lines
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
